//! Deterministic simulation: whole nodes on one thread, in simulated time, on a simulated network and
//! disk. The same seed gives the same run, event by event.
//!
//! ```text
//!  seed ─┬─► turmoil: hosts, clocks, links that delay, hold and drop
//!        ├─► entropy: getrandom(2) and the clocks of this thread
//!        ├─► disk: slow syncs; a crash keeps what was synced
//!        └─► clients, faults, membership changes
//!                 │ after every step
//!                 ▼
//!            invariants ──► violation: seed, trace, command that repeats it
//! ```
//!
//! Everything above the sockets, the flusher's thread and the entropy is the product's own code, on a
//! real RocksDB.

mod bugs;
mod clients;
pub(crate) mod disk;
mod entropy;
mod faults;
pub(crate) mod flusher;
mod history;
mod host;
mod invariants;
mod leader_work;
pub(crate) mod net;
mod observe;
mod panics;
mod plan;
mod random;
mod run;
mod tests;
mod trace;

pub(crate) use bugs::{Bug, planted, unfenced};

/// Whether this thread runs a simulation.
pub(crate) fn active() -> bool {
    entropy::active()
}
