//! The RocksDB layout, group commit, recovery and snapshots.

mod view;

pub use view::View;
