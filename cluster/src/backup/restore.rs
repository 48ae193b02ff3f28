//! A snapshot becomes the first state of a new cluster.

use std::path::Path;

use peat_gateway_state::apply::restore::Facts;
use peat_gateway_state::command::Actor;
use peat_gateway_state::ids::NodeId;

use super::{Inspection, Made, NewCluster, Progress, SnapshotError, inspect, unix_ms};
use crate::store::StoreError;
use crate::store::restore::{
    AddRow, Built, Directory, Plan, Retire, Site, SnapshotReader, Verb, build, check_empty,
    complete_switch, new_node_id,
};

/// Who restores or recovers; stands in the audit log.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Name of the user on this machine.
    pub user: String,
    /// Name of this machine.
    pub host: String,
}

impl Operator {
    pub(super) fn actor(&self) -> Actor {
        Actor {
            principal: format!("operator:{}", self.user),
            source: self.host.clone(),
            request_id: String::new(),
        }
    }
}

/// Makes a data directory without data the first node of a new cluster with a snapshot's state.
///
/// The file is read twice: once to check every byte before anything is written, once to load it.
///
/// # Errors
/// `Refused` where the file is damaged, cut, foreign or newer, and where the directory holds data or
/// is in use: nothing was changed. After `Failed` the directory can't be used for anything but the
/// same command again.
pub fn restore(
    file: &Path,
    data_dir: &Path,
    operator: &Operator,
    progress: &mut dyn FnMut(Progress),
) -> Result<Made, SnapshotError> {
    let refused = |error| SnapshotError::of_directory(&error);
    let inspection = inspect(file, progress)?;
    let directory = Directory::create(data_dir).map_err(refused)?;
    let _lock = directory.lock().map_err(refused)?;
    if complete_switch(&directory).map_err(refused)? {
        return Ok(Made::Completed);
    }
    check_empty(&directory).map_err(refused)?;
    from_file(file, &inspection, &directory, Verb::Restore, None, operator, progress).map(Made::New)
}

/// Builds the new directory from a checked snapshot and puts it in its place.
pub(super) fn from_file(
    file: &Path,
    inspection: &Inspection,
    directory: &Directory,
    verb: Verb,
    old_node: Option<u64>,
    operator: &Operator,
    progress: &mut dyn FnMut(Progress),
) -> Result<NewCluster, SnapshotError> {
    let Some(from_cluster) = inspection.cluster_id.filter(|_| inspection.applied_index > 0) else {
        return Err(SnapshotError::Refused(
            "the snapshot is of a node that belonged to no cluster".to_owned(),
        ));
    };
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    let facts = Facts {
        cluster_id: mint()?,
        from_cluster,
        from_index: inspection.applied_index,
        from_state_hash: inspection.state_hash,
        source: format!("snapshot {name}"),
        actor: operator.actor(),
        time_ms: unix_ms(),
        term: inspection.applied_term + 1,
    };
    let mut seen = Progress { rows: 0, rows_total: inspection.rows };
    make(directory, verb, facts, old_node, |add| {
        let reader = SnapshotReader::open(file)?;
        reader.each_row(|family, _, key, value| {
            seen.rows += 1;
            if seen.rows.is_multiple_of(4_096) || seen.rows == seen.rows_total {
                progress(seen);
            }
            add(family, key, value)
        })
    })
}

/// Builds the new directory and puts it in its place; `old_node` is whose data goes aside.
pub(super) fn make(
    directory: &Directory,
    verb: Verb,
    facts: Facts,
    old_node: Option<u64>,
    fill: impl FnOnce(&mut AddRow<'_>) -> Result<(), StoreError>,
) -> Result<NewCluster, SnapshotError> {
    let refused = |error| SnapshotError::of_directory(&error);
    let node_id = new_node_id(directory).map_err(refused)?;
    let (cluster_id, from_cluster) = (facts.cluster_id, facts.from_cluster);
    let from_index = facts.from_index;
    let site = Site::begin(directory, verb).map_err(refused)?;
    let built = build(&site.new_directory(), Plan { facts, node_id }, fill);
    let Built { index, state_hash, rows } = match built {
        Ok(built) => built,
        Err(error) => {
            site.abandon();
            return Err(SnapshotError::of_build(error));
        }
    };
    let retire = old_node.map(|old| Retire {
        folder: free_name(directory.root(), &format!("retired-{old:016x}")),
        text: format!(
            "this is what node {old:016x} of cluster {} left: it was recovered into cluster {} and \
             must never run again\n",
            hex::encode(from_cluster),
            hex::encode(cluster_id)
        ),
    });
    let retired = retire.as_ref().map(|retire| directory.root().join(&retire.folder));
    site.switch(retire).map_err(|error| SnapshotError::Failed(error.to_string()))?;
    let node_id = NodeId(node_id);
    Ok(NewCluster {
        cluster_id,
        node_id,
        index,
        state_hash,
        from_cluster,
        from_index,
        rows,
        retired,
    })
}

/// A name that nothing in a folder has yet.
fn free_name(folder: &Path, wanted: &str) -> String {
    let taken = |name: &String| folder.join(name).exists();
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
    names.find(|name| !taken(name)).unwrap_or_else(|| wanted.to_owned())
}

/// Mints a cluster id.
pub(super) fn mint() -> Result<[u8; 16], SnapshotError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| SnapshotError::Failed(error.to_string()))?;
    Ok(id)
}
