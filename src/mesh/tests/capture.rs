//! Recorded traffic of real nodes, replayed: our answers against those that a stock observer gave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use automerge::Automerge;
use automerge::sync::{Message, State, SyncDoc};
use bytes::Bytes;
use peat_gateway_mesh::frame::{Frame, FrameKind};
use peat_gateway_mesh::json;
use peat_gateway_mesh::tombstone::Tombstone;
use peat_gateway_state::command::{AppendChanges, DocumentBatch, SequencedEvent};
use peat_gateway_state::ids::{AppId, DocumentKey, OrgId};
use prometheus::Registry;
use serde::Deserialize;

use super::fake_journal::FakeJournal;
use crate::mesh::journal::Journal;
use crate::mesh::metrics::Metrics;
use crate::mesh::observation::Observation;
use crate::mesh::replica::materialize;
use crate::mesh::sighting::{Sighting, sightings};

const LINK: u64 = 1;
const CAPTURES: &[(&str, &str)] = &[
    ("v060", include_str!("../../../mesh/tests/vectors/live_capture_v060.json")),
    ("v081", include_str!("../../../mesh/tests/vectors/live_capture_v081.json")),
    ("rc25", include_str!("../../../mesh/tests/vectors/live_capture_rc25.json")),
    (
        "observer accepts",
        include_str!("../../../mesh/tests/vectors/live_capture_observer_accepts.json"),
    ),
];

#[derive(Deserialize)]
struct Capture {
    frames: Vec<Recorded>,
}

#[derive(Deserialize)]
struct Recorded {
    dir: String,
    doc_key: String,
    payload: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Recorded {
    fn frame(&self) -> Frame {
        let byte = u8::from_str_radix(self.kind.trim_start_matches("0x"), 16).unwrap();
        Frame {
            key: self.doc_key.clone(),
            kind: FrameKind::from_byte(byte).unwrap(),
            payload: Bytes::from(hex::decode(&self.payload).unwrap()),
        }
    }
}

/// What the recorded observer ended with: stock replicas of everything that the node sent.
#[derive(Default)]
struct Stock {
    documents: BTreeMap<String, (Automerge, State)>,
    deleted: BTreeSet<String>,
}

impl Stock {
    fn take(&mut self, sighting: &Sighting) {
        match sighting {
            Sighting::Sync { key, payload } if !self.deleted.contains(key) => {
                let (document, state) = self.documents.entry(key.clone()).or_default();
                let message = Message::decode(payload).unwrap();
                document.receive_sync_message(state, message).unwrap();
            }
            Sighting::Snapshot { key, payload } if !self.deleted.contains(key) => {
                let (document, _) = self.documents.entry(key.clone()).or_default();
                document.merge(&mut Automerge::load(payload).unwrap()).unwrap();
            }
            Sighting::Tombstone { key, payload, .. } => {
                assert_eq!(Tombstone::decode(payload).unwrap().document_key(), *key);
                self.documents.remove(key);
                self.deleted.insert(key.clone());
            }
            Sighting::Malformed(reason) => panic!("a recorded frame made no sense: {reason}"),
            _ => {}
        }
    }
}

fn commit(observation: &mut Observation<FakeJournal>, journal: &FakeJournal, org: &OrgId) {
    while let Some(item) = observation.next_item() {
        let append = AppendChanges {
            fence: journal.fence(),
            org_id: org.clone(),
            batches: vec![DocumentBatch {
                app_id: item.app,
                document: item.document,
                events: item.events.into_iter().map(SequencedEvent::Inline).collect(),
            }],
        };
        let outcome = journal.append(&append);
        assert!(matches!(outcome, peat_gateway_state::Outcome::Appended { .. }), "{outcome:?}");
        observation.committed(item.ticket);
    }
}

#[test]
fn answers_to_recorded_nodes_name_the_recorded_heads_and_the_documents_become_the_recorded_ones() {
    for (name, text) in CAPTURES {
        println!("capture {name}");
        let capture: Capture = serde_json::from_str(text).unwrap();
        let (org, app) = (OrgId::from_trusted("acme"), AppId::from_trusted("acme.alpha"));
        let journal = FakeJournal::new();
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let mut observation =
            Observation::new(org.clone(), app.clone(), journal.clone(), metrics.clone());
        observation.connect(LINK);
        let mut stock = Stock::default();
        let mut ours: BTreeMap<String, Vec<Message>> = BTreeMap::new();
        let mut theirs: BTreeMap<String, Vec<Message>> = BTreeMap::new();
        for recorded in &capture.frames {
            let frame = recorded.frame();
            if recorded.dir == "observer->node" {
                if frame.kind == FrameKind::DeltaSync {
                    let answer = Message::decode(&frame.payload).unwrap();
                    theirs.entry(frame.key).or_default().push(answer);
                }
                continue;
            }
            for sighting in sightings(frame, &metrics) {
                stock.take(&sighting);
                observation.take(LINK, sighting, Instant::now()).unwrap();
                commit(&mut observation, &journal, &org);
                for (_, frame) in observation.take_answers() {
                    assert_eq!(frame.kind, FrameKind::DeltaSync);
                    let answer = Message::decode(&frame.payload).unwrap();
                    assert!(answer.changes.is_empty());
                    ours.entry(frame.key).or_default().push(answer);
                }
            }
        }
        assert!(observation.take_closing().is_empty());
        assert!(!theirs.is_empty(), "the capture holds answers");
        for (key, theirs) in &theirs {
            let ours = &ours[key];
            // Captures end where they were cut: the last answer may be missing there, not here.
            assert!(ours.len() >= theirs.len(), "{key}: an answer is missing");
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_eq!((&ours.heads, &ours.need), (&theirs.heads, &theirs.need), "{key}");
                let last_sync =
                    |message: &Message| message.have.first().map(|have| have.last_sync.clone());
                assert_eq!(last_sync(ours), last_sync(theirs), "{key}");
            }
        }
        for (key, (document, _)) in &stock.documents {
            let stored = journal.stored_document(&org, &app, &DocumentKey::from_trusted(key));
            let stored = stored.unwrap().unwrap_or_else(|| panic!("{key} is not stored"));
            assert_eq!(json::document(&materialize(&stored).unwrap()), json::document(document));
        }
        for key in &stock.deleted {
            let stored = journal.stored_document(&org, &app, &DocumentKey::from_trusted(key));
            assert!(stored.unwrap().unwrap().deleted, "{key} is deleted");
        }
    }
}
