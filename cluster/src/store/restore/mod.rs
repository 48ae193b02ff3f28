//! Making the first data directory of a new cluster out of an old cluster's state.
//!
//! * `place`: the directory is built aside and put in its place at the end.
//! * `build`: rows, raised and completed, become a data directory of a node that is alone.
//! * `survivor`: what a stopped node has, read without changing anything.

mod build;
mod place;
mod survivor;

pub(crate) use build::{BuildError, Built, Plan, build, check_empty, new_node_id};
pub(crate) use place::{Retire, Site, Verb, complete_switch};
pub(crate) use survivor::{Keep, Survivor};

pub(crate) use super::directory::Directory;
pub(crate) use super::snapshot::{AddRow, SnapshotReader};
