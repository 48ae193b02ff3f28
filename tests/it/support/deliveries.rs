//! What sinks got, compared with the journal and with what was written (INV-3, INV-4).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::api::Api;
use super::webhook::Receiver;

/// Creates a file sink and a webhook that the receiver trusts, of organisation acme; returns their ids by name.
pub async fn create_file_and_webhook(
    any: &Api,
    receiver: &Receiver,
) -> BTreeMap<&'static str, String> {
    let secret = format!("whsec_{}", STANDARD.encode([7u8; 32]));
    receiver.trust(&secret);
    let id = |sink: Value| text(&sink, "sink_id");
    let path = "/orgs/acme/sinks";
    let file = json!({ "sink_type": { "File": { "name": "events" } } });
    let webhook = json!({
        "sink_type": { "Webhook": { "url": receiver.url } },
        "credentials": { "signing_secret": secret },
    });
    BTreeMap::from([
        ("file", id(any.create(path, &file).await)),
        ("webhook", id(any.create(path, &webhook).await)),
    ])
}

/// Every change exactly once, sequences without gaps, per document in the order of its writer.
pub fn check_journal(journal: &[Value], truth: &BTreeMap<String, Vec<String>>) {
    let mut by_document: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for (place, event) in journal.iter().enumerate() {
        assert_eq!(event["sequence"], place as u64 + 1, "the sequence has a gap");
        assert!(ids.insert(text(event, "event_id")), "an event is journalled twice: {event}");
        let document = by_document.entry(text(event, "document_id")).or_default();
        document.push(text(event, "change_hash"));
        assert_eq!(event["document_sequence"], document.len() as u64, "{event}");
    }
    assert_eq!(by_document.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>());
    for (document, written) in truth {
        assert_eq!(&by_document[document], written, "{document}");
    }
}

/// Everything at least once, first deliveries per document in order, redeliveries byte for byte.
pub fn check_sink(
    name: &str,
    deliveries: &[Vec<u8>],
    expected: &BTreeMap<String, String>,
    bodies: &mut BTreeMap<String, Vec<u8>>,
) {
    let mut seen = BTreeSet::new();
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for body in deliveries {
        let event: Value = serde_json::from_slice(body).expect("every delivery is JSON");
        let id = text(&event, "event_id");
        let document = text(&event, "document_id");
        assert_eq!(expected.get(&id), Some(&document), "{name}: an event nobody wrote: {event}");
        let first = bodies.entry(id.clone()).or_insert_with(|| body.clone());
        assert!(first == body, "{name}: {id} was delivered with other bytes");
        let sequence = event["document_sequence"].as_u64().expect("a number");
        if seen.insert(id) {
            let newest = newest.entry(document.clone()).or_default();
            assert_eq!(sequence, *newest + 1, "{name}: {document} is out of order");
            *newest = sequence;
        }
    }
    assert_eq!(seen.len(), expected.len(), "{name}: events are missing");
}

/// The files of the file sink, in the order of the epochs that wrote them.
pub fn sink_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).expect("a directory").flatten() {
            match entry.path() {
                path if path.is_dir() => open.push(path),
                path => files.push(path),
            }
        }
    }
    files.sort();
    files
}

/// The whole lines in a part of a file. A leader that was killed while it wrote leaves a torn last
/// line; nobody acknowledged it.
pub fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n").map(<[u8]>::to_vec))
        .collect()
}

/// The lines of all files of the file sink, in the order of the epochs that wrote them.
pub fn file_lines(root: &Path) -> Vec<Vec<u8>> {
    let files = sink_files(root);
    files.iter().flat_map(|file| lines(&std::fs::read(file).expect("a readable file"))).collect()
}

/// A text field that must be there.
pub fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

/// Fewer looks than this tell nothing.
const LOOKS_MIN: u64 = 10;

/// Looks at all cursors all the time: none may ever go back.
pub struct CursorWatch {
    running: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
}

impl CursorWatch {
    /// Starts to look at the cursors of these sinks of `acme`.
    pub fn start(any: Api, sinks: Vec<String>) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let go_on = running.clone();
        let task = tokio::spawn(async move {
            let mut newest: BTreeMap<String, u64> = BTreeMap::new();
            let mut looks = 0;
            while go_on.load(Ordering::SeqCst) {
                for sink in &sinks {
                    let path = format!("/orgs/acme/sinks/{sink}/cursor");
                    let Ok(cursor) = any.get_json(&path).await else { continue };
                    let now = cursor["acknowledged"].as_u64().expect("a number");
                    let before = newest.entry(sink.clone()).or_default();
                    assert!(now >= *before, "the cursor of {sink} went from {before} to {now}");
                    *before = now;
                    looks += 1;
                }
                tokio::time::sleep(super::POLL_INTERVAL).await;
            }
            looks
        });
        Self { running, task }
    }

    /// Ends it; fails where a cursor went back, or too few looks tell nothing.
    pub async fn finish(self) {
        self.running.store(false, Ordering::SeqCst);
        let looks = self.task.await.expect("no cursor went back");
        assert!(looks > LOOKS_MIN, "cursors were looked at only {looks} times");
    }
}
