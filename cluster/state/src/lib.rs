//! The replicated state of a gateway cluster, and the only code that may change it.
//!
//! ```text
//!   Envelope (CBOR bytes) ──decode──► Command ──apply──► Outcome      to the caller
//!                                        │
//!   Reader (rows at the last index) ─────┤
//!                                        ▼
//!                                     Overlay ──► row changes + state hash   to the store
//! ```
//!
//! Everything here is pure: no clock, no randomness, no environment, no hash-ordered collection, no
//! thread and no runtime. Time comes in the entry, stamped by the leader; ids, nonces and sealed
//! secrets come in the command. Two nodes that apply the same entries hold the same bytes.
//!
//! * [`ids`]: a type per identifier, with the rules for what users may choose.
//! * [`space`]: the one table of key spaces, and the [`space::Reader`] that the store implements.
//! * [`keys`]: how a row's key is built; the only place that does.
//! * [`record`]: what is stored under those keys.
//! * [`command`]: what may be asked of the state: a closed set.
//! * [`outcome`]: what the state answers: done with a result, or refused with a reason.
//! * [`mod@apply`]: the one function that decides.
//! * [`audit`]: how entries of the audit log are chained.
//! * [`query`]: typed reads, used by `apply` and by everyone who reads a view.
#![forbid(unsafe_code)]

pub mod apply;
pub mod audit;
pub mod codec;
pub mod command;
pub mod hash;
pub mod ids;
pub mod keys;
pub mod outcome;
pub mod query;
pub mod record;
pub mod space;

pub use apply::{Applied, EntryPosition, apply};
pub use command::{Actor, Command, Envelope};
pub use outcome::{Outcome, Refusal, RefusalKind};
pub use space::{Family, ReadError, Reader, Space};

/// The newest version of commands and records that this build understands; it understands all before.
///
/// A command newer than the cluster's version is never proposed, and that is never above the lowest
/// member's; a data directory of a newer cluster is refused at start. [`command::version`] says more.
pub const VERSION: u16 = 2;
