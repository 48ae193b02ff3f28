//! Reading a whole snapshot: what it is, and that every byte of it is as it was written.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use peat_gateway_proto::stored as proto;
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::record::{ClusterClock, ClusterKey, ClusterOrigin, ClusterSettings};
use peat_gateway_state::{Space, codec};

use super::{Inspection, Progress, SnapshotError, SnapshotMember, SpaceUse};
use crate::raft::StoredMembership;
use crate::store::StoreError;
use crate::store::restore::SnapshotReader;
use crate::wire::stored::stored_membership_from_stored;

/// Rows between two reports of progress.
const REPORT_ROWS: u64 = 4_096;
/// Buffer of reads.
const BUFFER_BYTES: usize = 256 << 10;

/// Reads a snapshot file and checks all of it.
///
/// # Errors
/// `Refused` where it is no snapshot, damaged, cut, or of a newer format.
pub fn inspect(
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Inspection, SnapshotError> {
    let file = File::open(path).map_err(StoreError::file("open", path));
    let file = file.map_err(|error| SnapshotError::of(&error))?;
    inspect_stream(BufReader::with_capacity(BUFFER_BYTES, file), progress)
}

/// Reads a snapshot from a stream and checks all of it, up to the stream's end.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_stream(
    from: impl Read,
    progress: &mut dyn FnMut(Progress),
) -> Result<Inspection, SnapshotError> {
    read(from, progress).map_err(|error| SnapshotError::of(&error))
}

fn read(from: impl Read, progress: &mut dyn FnMut(Progress)) -> Result<Inspection, StoreError> {
    let mut counted = Counted { from, bytes: 0 };
    let reader = SnapshotReader::read(&mut counted)?;
    let header = reader.header().clone();
    let mut found = about(&header)?;
    let mut spaces = vec![(0u64, 0u64); Space::ALL.len()];
    let mut seen = Progress { rows: 0, rows_total: header.rows };
    progress(seen);
    reader.each_row(|_, space, key, value| {
        let place = Space::ALL.iter().position(|other| *other == space).unwrap_or_default();
        spaces[place].0 += 1;
        spaces[place].1 += (key.len() + value.len()) as u64;
        if space == Space::Cluster {
            note(&mut found, &key[1..], value)?;
        }
        seen.rows += 1;
        if seen.rows.is_multiple_of(REPORT_ROWS) {
            progress(seen);
        }
        Ok(())
    })?;
    progress(seen);
    found.spaces = Space::ALL
        .iter()
        .zip(spaces)
        .filter(|(_, (rows, _))| *rows > 0)
        .map(|(space, (rows, bytes))| SpaceUse { space: space.name(), rows, bytes })
        .collect();
    found.bytes = counted.bytes;
    Ok(found)
}

/// What the header says.
fn about(header: &proto::SnapshotHeader) -> Result<Inspection, StoreError> {
    let damaged = |what: &str| StoreError::Snapshot(format!("it is damaged: {what}"));
    let membership = stored_membership_from_stored(header.membership.clone().unwrap_or_default())
        .map_err(|error| damaged(&error.to_string()))?;
    let hash: StateHash = codec::decode(&header.state_hash).map_err(|error| damaged(&error))?;
    let cluster_id = match header.cluster_id.len() {
        0 => None,
        16 => header.cluster_id[..].try_into().ok(),
        _ => return Err(damaged("its cluster id has not 16 bytes")),
    };
    Ok(Inspection {
        format: header.format,
        cluster_id,
        applied_index: header.last_applied.as_ref().map_or(0, |id| id.index),
        applied_term: header.last_applied.as_ref().map_or(0, |id| id.term),
        members: members(&membership),
        state_hash: hash.digest(),
        command_version: None,
        seal_domain: None,
        origin: None,
        clock_ms: 0,
        rows: header.rows,
        spaces: Vec::new(),
        bytes: 0,
    })
}

/// Notes what a row of the cluster's own says.
fn note(found: &mut Inspection, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let wrong = |reason: String| StoreError::Snapshot(format!("it is damaged: {reason}"));
    if key == [ClusterKey::Settings as u8] {
        let settings: ClusterSettings = codec::decode(value).map_err(wrong)?;
        found.command_version = Some(settings.version);
        found.seal_domain = Some(settings.seal_domain);
        if settings.version > peat_gateway_state::VERSION {
            return Err(StoreError::Snapshot(format!(
                "its cluster uses commands of version {}, this version of peat-gateway understands \
                 up to {}; use the version that wrote it",
                settings.version,
                peat_gateway_state::VERSION
            )));
        }
    } else if key == [ClusterKey::Origin as u8] {
        let origin: ClusterOrigin = codec::decode(value).map_err(wrong)?;
        found.origin = Some(origin);
    } else if key == [ClusterKey::Clock as u8] {
        let clock: ClusterClock = codec::decode(value).map_err(wrong)?;
        found.clock_ms = clock.now;
    }
    Ok(())
}

/// The members, voters first as they come.
pub(super) fn members(membership: &StoredMembership) -> Vec<SnapshotMember> {
    let voters: Vec<u64> = membership.membership().voter_ids().collect();
    let members = membership.membership().nodes().map(|(node_id, member)| SnapshotMember {
        node_id: NodeId(*node_id),
        name: member.name.clone(),
        peer_address: member.peer_address.clone(),
        voter: voters.contains(node_id),
    });
    members.collect()
}

/// Counts what is read.
struct Counted<R> {
    from: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(into)?;
        self.bytes += count as u64;
        Ok(count)
    }
}
