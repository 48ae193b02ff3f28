//! peat-gateway: the office of peer-to-peer Peat meshes.
//!
//! ```text
//!   api ──► service ──► cluster::Handle ──► Raft ──► state
//!                            │ (leader only)
//!                            ├── mesh: observes formations, journals what changed
//!                            └── cdc:  delivers the journal to sinks, commits cursors
//! ```
//!
//! * [`config`]: one typed configuration from flags, environment and a file.
//! * [`cli`]: the commands of the binary.
//! * [`serve`]: one gateway node: starts everything, drains everything.
//! * [`leader`]: what runs only on the leader, under its epoch.
//! * [`service`]: use cases: authorise, check, propose or read.
//! * [`api`]: HTTP: translates, decides nothing.
//! * [`keys`]: sealed secrets.
//! * [`mesh`]: the observer of formations.
//! * [`cdc`]: delivery to sinks.
//! * [`backup`]: snapshots that a node saves by itself.
//! * [`dev`]: three nodes, a mesh node and a sink in one terminal.
//! * [`mod@bench`]: the load generator.

pub mod api;
pub mod backup;
pub mod bench;
pub mod cdc;
pub mod cli;
pub mod config;
pub mod dev;
pub mod keys;
pub mod leader;
pub mod mesh;
pub mod serve;
pub mod service;
pub mod telemetry;
