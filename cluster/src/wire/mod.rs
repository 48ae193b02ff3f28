//! Our own encodings of consensus data, on disk and between nodes. Conversions are fallible and never panic.
//!
//! * [`entry`]: a log entry, the same bytes in the log and in `AppendEntries`.
//! * [`rpc`]: Raft's calls.
//! * [`stored`]: votes, positions and memberships as protobuf.

pub(crate) mod entry;
pub(crate) mod rpc;
pub(crate) mod stored;
