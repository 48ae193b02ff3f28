//! A cluster that has lost its quorum for good goes on as a new one, from what one node has.
//!
//! Memberships in an existing log are never edited: that would commit whatever the log happens to
//! hold, and the lost majority could come back and contradict it.

use std::path::{Path, PathBuf};

use peat_gateway_state::apply::restore::Facts;
use peat_gateway_state::ids::NodeId;

use super::inspect::members;
use super::restore::{Operator, from_file, make, mint};
use super::{Made, PendingEntry, Progress, SnapshotError, Survey, inspect, unix_ms};
use crate::store::restore::{Directory, Keep, Survivor, Verb, complete_switch};

/// Fewest hexadecimal digits of the state hash that must be typed.
const TYPED_DIGITS_MIN: usize = 8;
/// Rows between two reports of progress.
const REPORT_ROWS: u64 = 4_096;

/// How to recover.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// Also keeps the entries of which the node doesn't know whether a quorum has them.
    pub keep_unconfirmed: bool,
    /// Takes the state from this snapshot instead of the directory.
    pub from_snapshot: Option<PathBuf>,
    /// The first digits of the hash of the state that is kept, as typed by who accepts the loss.
    pub accepted: String,
}

/// Looks at a stopped node's directory, and changes nothing.
///
/// # Errors
/// `Refused` where a process uses it, it is no data directory, or it can't be read or is damaged.
pub fn survey(data_dir: &Path, keep_unconfirmed: bool) -> Result<Survey, SnapshotError> {
    let (directory, survivor) = open(data_dir)?;
    survey_of(&directory, &survivor, keep(keep_unconfirmed))
}

/// Makes a stopped node's directory the first node of a new cluster, and puts its old data aside.
///
/// # Errors
/// `Refused` where what was typed isn't the state's hash, and for all that [`survey`] refuses: nothing
/// was changed. After `Failed` run it again.
pub fn recover(
    data_dir: &Path,
    options: &RecoverOptions,
    operator: &Operator,
    progress: &mut dyn FnMut(Progress),
) -> Result<Made, SnapshotError> {
    let refused = |error| SnapshotError::of_directory(&error);
    let directory = existing(data_dir)?;
    let lock = directory.lock().map_err(refused)?;
    if complete_switch(&directory).map_err(refused)? {
        return Ok(Made::Completed);
    }
    if let Some(file) = &options.from_snapshot {
        let inspection = inspect(file, progress)?;
        check_typed(&options.accepted, &inspection.state_hash.to_string())?;
        // Whatever the old data is, it goes aside under a name of its own.
        let old = Some(Survivor::open(&directory, lock).map_or(0, |old| old.identity.node_id));
        let _lock = directory.lock().map_err(refused)?;
        return from_file(file, &inspection, &directory, Verb::Recover, old, operator, progress)
            .map(Made::New);
    }
    directory.check_ours().map_err(refused)?;
    let survivor = Survivor::open(&directory, lock).map_err(refused)?;
    let keep = keep(options.keep_unconfirmed);
    let survey = survey_of(&directory, &survivor, keep)?;
    check_typed(&options.accepted, &survey.kept_hash.to_string())?;
    let terms = [
        survivor.applied.leader_id.term,
        survivor.last.leader_id.term,
        survivor.vote.as_ref().map_or(0, |vote| vote.leader_id.term),
    ];
    let facts = Facts {
        cluster_id: mint()?,
        from_cluster: survey.cluster_id,
        from_index: survey.kept_index,
        from_state_hash: survey.kept_hash,
        source: match keep {
            Keep::Committed => format!("the disk of node {}", survey.node_id),
            Keep::All => {
                format!("the disk of node {}, unconfirmed entries included", survey.node_id)
            }
        },
        actor: operator.actor(),
        time_ms: unix_ms(),
        term: terms.into_iter().max().unwrap_or_default() + 1,
    };
    let mut seen = Progress::default();
    // The survivor holds the directory's lock until all is in place.
    let old = Some(survivor.identity.node_id);
    make(&directory, Verb::Recover, facts, old, |add| {
        survivor.rows(keep, &mut |family, key, value| {
            seen.rows += 1;
            if seen.rows % REPORT_ROWS == 0 {
                progress(seen);
            }
            add(family, key, value)
        })
    })
    .map(Made::New)
}

fn keep(keep_unconfirmed: bool) -> Keep {
    if keep_unconfirmed { Keep::All } else { Keep::Committed }
}

/// A directory that is there: a recovery never makes one.
fn existing(data_dir: &Path) -> Result<Directory, SnapshotError> {
    if !data_dir.is_dir() {
        return Err(SnapshotError::Refused(format!(
            "there is no data directory {}; name the one of the stopped node",
            data_dir.display()
        )));
    }
    let refused = |error| SnapshotError::of_directory(&error);
    let directory = Directory::create(data_dir).map_err(refused)?;
    directory.check_not_retired().map_err(refused)?;
    Ok(directory)
}

fn open(data_dir: &Path) -> Result<(Directory, Survivor), SnapshotError> {
    let refused = |error| SnapshotError::of_directory(&error);
    let directory = existing(data_dir)?;
    let lock = directory.lock().map_err(refused)?;
    directory.check_ours().map_err(refused)?;
    let survivor = Survivor::open(&directory, lock).map_err(refused)?;
    Ok((directory, survivor))
}

fn survey_of(
    directory: &Directory,
    survivor: &Survivor,
    keep: Keep,
) -> Result<Survey, SnapshotError> {
    let damaged = |error| {
        let reason = format!(
            "{}; recover from a snapshot instead: --from-snapshot FILE",
            super::chain(&error)
        );
        SnapshotError::of_directory(&directory.refuse(reason))
    };
    let applied_hash = survivor.verify().map_err(damaged)?;
    let kept_index = survivor.kept(keep);
    let pending = survivor.pending().map_err(damaged)?;
    let kept_hash = survivor.kept_hash(keep).map_err(damaged)?;
    let pending = pending.into_iter().map(|entry| PendingEntry {
        index: entry.id.index,
        term: entry.id.leader_id.term,
        committed: entry.committed,
        kept: entry.id.index <= kept_index,
        what: entry.what,
    });
    Ok(Survey {
        cluster_id: survivor.identity.cluster_id.unwrap_or_default(),
        node_id: NodeId(survivor.identity.node_id),
        members: members(&survivor.membership),
        applied_index: survivor.applied.index,
        applied_hash,
        committed_index: survivor.committed.index,
        last_log_index: survivor.last.index,
        lost_entries: survivor
            .promised
            .map_or(0, |promised| promised.saturating_sub(survivor.last.index)),
        pending: pending.collect(),
        kept_index,
        kept_hash,
    })
}

fn check_typed(typed: &str, hash: &str) -> Result<(), SnapshotError> {
    let typed = typed.trim().to_ascii_lowercase();
    if typed.len() >= TYPED_DIGITS_MIN && hash.starts_with(&typed) {
        return Ok(());
    }
    Err(SnapshotError::Refused(format!(
        "what was typed is not the beginning of the state's hash, at least {TYPED_DIGITS_MIN} digits \
         of {hash}"
    )))
}
