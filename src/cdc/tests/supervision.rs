//! Tests of the whole of delivery, from the supervisor down to files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peat_gateway_state::record::SinkKind;
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{MemoryJournal, eventually, quick_retries};
use crate::cdc::Settings;
use crate::cdc::metrics::Registered;
use crate::cdc::retry::Backoff;
use crate::cdc::sinks::file::tests::read_lines;
use crate::cdc::supervisor::{self, Timing};

struct Delivery {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    registry: Registry,
    _metrics: Registered,
}

fn start(journal: &Arc<MemoryJournal>, root: &Path) -> Delivery {
    let registry = Registry::new();
    let metrics = Registered::new(registry.clone());
    let settings = Settings {
        file_sink_root: root.to_owned(),
        nats_url: None,
        nats_stream_replicas: 1,
        webhook_allow_private: true,
        registry: registry.clone(),
    };
    let retries = quick_retries();
    let start = Backoff { most: Duration::from_millis(50), ..retries.transient };
    let timing = Timing { retries, start, trim_interval: Duration::from_millis(20) };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(Box::pin(supervisor::run(
        Arc::clone(journal),
        settings,
        metrics.metrics(),
        timing,
        shutdown.clone(),
    )));
    Delivery { shutdown, task, registry, _metrics: metrics }
}

fn file(name: &str) -> SinkKind {
    SinkKind::File { name: name.into() }
}

async fn cursor_reaches(journal: &MemoryJournal, sequence: u64) {
    eventually("the cursor moves", async || {
        let cursor = journal.committed();
        if cursor.acknowledged == sequence { Ok(()) } else { Err(format!("{cursor:?}")) }
    })
    .await;
}

#[tokio::test]
async fn sinks_follow_their_configuration_and_the_journal_is_trimmed() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Arc::new(MemoryJournal::new());
    let delivery = start(&journal, directory.path());
    journal.append(&["a:1".into(), "a:2".into()]);
    journal.put_sink(file("first"), true, 1);
    cursor_reaches(&journal, 2).await;
    // Another directory: the worker is replaced and goes on where the old one stopped.
    journal.put_sink(file("second"), true, 2);
    eventually("the worker is replaced", async || {
        let last = journal.append(&["a:1".into()]);
        cursor_reaches(&journal, last).await;
        let lines = read_lines(&directory.path().join("acme/second")).len();
        if lines > 0 { Ok(()) } else { Err("nothing in the second directory".into()) }
    })
    .await;
    let last = journal.state.lock().unwrap().last;
    eventually("the journal is trimmed", async || {
        let trimmed = journal.state.lock().unwrap().trimmed;
        if trimmed == last { Ok(()) } else { Err(format!("{trimmed} of {last}")) }
    })
    .await;
    let sequences = |name: &str| -> Vec<u64> {
        let lines = read_lines(&directory.path().join("acme").join(name));
        lines.iter().map(|one| one.sequence).collect()
    };
    let all: Vec<u64> = sequences("first").into_iter().chain(sequences("second")).collect();
    assert_eq!(all, (1..=last).collect::<Vec<_>>(), "each once, without a gap");
    let names: Vec<String> =
        delivery.registry.gather().iter().map(|family| family.name().to_owned()).collect();
    assert!(names.contains(&"peat_cdc_delivered_total".to_owned()), "{names:?}");
    journal.put_sink(file("second"), false, 3);
    eventually("the worker of a disabled sink ends", async || {
        let families = delivery.registry.gather();
        let shown = families.iter().find(|family| family.name() == "peat_cdc_cursor");
        if shown.is_none() { Ok(()) } else { Err("its metrics are still shown".into()) }
    })
    .await;
    delivery.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), delivery.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn delivery_ends_by_itself_when_another_leader_took_over() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Arc::new(MemoryJournal::new());
    let delivery = start(&journal, directory.path());
    journal.put_sink(file("first"), true, 1);
    journal.state.lock().unwrap().is_fenced = true;
    journal.append(&["a:1".into()]);
    tokio::time::timeout(Duration::from_secs(20), delivery.task).await.unwrap().unwrap();
    assert_eq!(journal.committed().acknowledged, 0);
}

#[tokio::test]
async fn progress_made_right_before_shutdown_is_committed() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Arc::new(MemoryJournal::new());
    journal.put_sink(file("first"), true, 1);
    let delivery = start(&journal, directory.path());
    journal.append(&["a:1".into()]);
    cursor_reaches(&journal, 1).await;
    let last = journal.append(&vec!["a:1".into(); 500]);
    eventually("the file has everything", async || {
        let lines = read_lines(&directory.path().join("acme/first")).len() as u64;
        if lines == last { Ok(()) } else { Err(format!("{lines} of {last}")) }
    })
    .await;
    delivery.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), delivery.task).await.unwrap().unwrap();
    assert_eq!(journal.committed().acknowledged, last);
}

#[tokio::test]
async fn sink_that_cannot_start_begins_when_its_cause_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Arc::new(MemoryJournal::new());
    journal.append(&["a:1".into()]);
    let delivery = start(&journal, directory.path());
    journal.put_sink(file("../escape"), true, 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is written");
    journal.put_sink(file("fine"), true, 2);
    cursor_reaches(&journal, 1).await;
    delivery.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), delivery.task).await.unwrap().unwrap();
}
