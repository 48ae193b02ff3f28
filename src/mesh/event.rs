//! What was observed, as the journal takes it.

use automerge::{Automerge, Change, ChangeHash, Patch};
use peat_gateway_mesh::{json, patches};
use peat_gateway_state::command::{EventBody, NewEvent};
use peat_gateway_state::ids::Hash32;
use sha2::{Digest, Sha256};

/// What an event weighs in a command besides its bytes and patches: hashes, actor, framing.
const EVENT_BYTES_FIXED: usize = 160;

/// One Automerge change.
pub(super) fn of_change(change: &Change, patches: &[Patch]) -> NewEvent {
    NewEvent {
        change_hash: Hash32(change.hash().0),
        actor: change.actor_id().to_hex_string(),
        patches: patches::to_json(patches).to_string().into_bytes(),
        body: EventBody::Change {
            deps: change.deps().iter().map(|dep| Hash32(dep.0)).collect(),
            bytes: change.raw_bytes().to_vec(),
        },
    }
}

/// The whole document as it is after `received_heads` came; `hashes` are its changes.
pub(super) fn of_snapshot(
    document: &Automerge,
    received_heads: &[ChangeHash],
    hashes: Vec<ChangeHash>,
    saved: Vec<u8>,
) -> NewEvent {
    NewEvent {
        change_hash: snapshot_hash(received_heads),
        actor: String::new(),
        patches: json::document(document).to_string().into_bytes(),
        body: EventBody::Snapshot {
            heads: document.get_heads().iter().map(|head| Hash32(head.0)).collect(),
            hashes: hashes.iter().map(|hash| Hash32(hash.0)).collect(),
            saved,
        },
    }
}

/// A deletion; `payload` is the tombstone as it came.
pub(super) fn of_tombstone(payload: &[u8], deleted_by: String) -> NewEvent {
    NewEvent {
        change_hash: tombstone_hash(payload),
        actor: deleted_by,
        patches: b"[]".to_vec(),
        body: EventBody::Tombstone,
    }
}

/// What takes the place of the change hash in a snapshot's event: SHA-256 of its sorted heads.
pub(super) fn snapshot_hash(heads: &[ChangeHash]) -> Hash32 {
    let mut sorted = heads.to_vec();
    sorted.sort_unstable();
    let mut hasher = Sha256::new();
    for head in sorted {
        hasher.update(head.0);
    }
    Hash32(hasher.finalize().into())
}

/// What takes the place of the change hash in a tombstone's event: SHA-256 of its payload.
pub(super) fn tombstone_hash(payload: &[u8]) -> Hash32 {
    Hash32(Sha256::digest(payload).into())
}

/// Returns about how many bytes an event takes in a command; never less than it does.
pub(super) fn encoded_bytes(event: &NewEvent) -> usize {
    let body = match &event.body {
        EventBody::Change { deps, bytes } => deps.len() * 40 + bytes.len(),
        EventBody::Snapshot { heads, hashes, saved } => {
            (heads.len() + hashes.len()) * 40 + saved.len()
        }
        EventBody::Tombstone => 0,
    };
    EVENT_BYTES_FIXED + event.actor.len() + event.patches.len() + body
}
