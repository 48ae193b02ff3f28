//! The one place where an event becomes JSON. Every sink sends these bytes.
//!
//! ```json
//! {"org_id":"acme","app_id":"alpha","document_id":"units:7","change_hash":"<64 hex>",
//!  "actor_id":"…","timestamp_ms":1763912345678,"patches":[…],
//!  "event_id":"<64 hex>","kind":"change","sequence":12,"document_sequence":3}
//! ```
//!
//! The bytes depend on the journalled event alone: a redelivery, by whichever leader, gives the same.
//! The epoch is therefore never in here. The text has no line break, so it is one line of NDJSON.

use bytes::Bytes;
use peat_gateway_state::ids::OrgId;
use peat_gateway_state::query::JournalledEvent;
use serde::Serialize;
use serde::de::IgnoredAny;

/// What stands before the patches.
#[derive(Serialize)]
struct Head<'a> {
    org_id: &'a str,
    app_id: &'a str,
    document_id: &'a str,
    change_hash: String,
    actor_id: &'a str,
    timestamp_ms: u64,
}

/// What stands behind the patches.
#[derive(Serialize)]
struct Tail<'a> {
    event_id: String,
    kind: &'a str,
    sequence: u64,
    document_sequence: u64,
}

/// Returns an event's JSON object.
///
/// The patches are the journalled JSON text without line breaks; text that isn't JSON is sent as one
/// JSON string, no text as `null`, so that one damaged field can't hold a sink up.
pub(crate) fn encode(org: &OrgId, journalled: &JournalledEvent) -> Bytes {
    let JournalledEvent { sequence, event } = journalled;
    let head = json(&Head {
        org_id: org.as_str(),
        app_id: event.app_id.as_str(),
        document_id: event.document.as_str(),
        change_hash: event.change_hash.to_string(),
        actor_id: &event.actor,
        timestamp_ms: event.observed_at,
    });
    let tail = json(&Tail {
        event_id: event.event_id.to_string(),
        kind: event.kind.word(),
        sequence: *sequence,
        document_sequence: event.document_sequence,
    });
    let patches = one_line(&event.patches);
    let mut body = Vec::with_capacity(head.len() + tail.len() + patches.len() + 16);
    // Two objects become one: the first without its end, the second without its beginning.
    body.extend_from_slice(&head[..head.len() - 1]);
    body.extend_from_slice(b",\"patches\":");
    body.extend_from_slice(&patches);
    body.push(b',');
    body.extend_from_slice(&tail[1..]);
    body.into()
}

/// Returns a JSON text as one line. In valid JSON these bytes occur between tokens only.
fn one_line(patches: &[u8]) -> Vec<u8> {
    if patches.is_empty() {
        return b"null".to_vec();
    }
    if serde_json::from_slice::<IgnoredAny>(patches).is_err() {
        return json(&String::from_utf8_lossy(patches));
    }
    patches.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r' | b'\t')).collect()
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("text and numbers always serialise")
}
