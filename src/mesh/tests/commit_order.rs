//! Answers and commits, through the real pipeline: never before, never instead.

use std::time::{Duration, Instant};

use automerge::Automerge;
use automerge::sync::{Message, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ActorId, ROOT};
use peat_gateway_state::ids::{AppId, DocumentKey, OrgId};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::fake_journal::{FakeJournal, Mode};
use crate::mesh::compaction;
use crate::mesh::journal::Journal;
use crate::mesh::metrics::Metrics;
use crate::mesh::observation::Observation;
use crate::mesh::pipeline::{self, Job, Notice};
use crate::mesh::proposer::{Broken, Proposer};
use crate::mesh::replica::materialize;
use crate::mesh::sighting::Sighting;

const LINK: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    journal: FakeJournal,
    observation: Observation<FakeJournal>,
    jobs: mpsc::Sender<Job>,
    notices: mpsc::Sender<Notice>,
    notices_in: mpsc::Receiver<Notice>,
    pipeline: JoinHandle<Result<(), Broken>>,
    proposer: Proposer<FakeJournal>,
}

fn app() -> AppId {
    AppId::from_trusted("alpha")
}

fn key(text: &str) -> DocumentKey {
    DocumentKey::from_trusted(text)
}

impl Bench {
    fn new() -> Self {
        let journal = FakeJournal::new();
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let org = OrgId::from_trusted("acme");
        let mut observation =
            Observation::new(org.clone(), app(), journal.clone(), metrics.clone());
        observation.connect(LINK);
        let proposer = Proposer { org, journal: journal.clone(), metrics };
        let (jobs, queue) = mpsc::channel(64);
        let (notices, notices_in) = mpsc::channel(64);
        let pipeline =
            tokio::spawn(pipeline::run(proposer.clone(), queue, CancellationToken::new()));
        Self { journal, observation, jobs, notices, notices_in, pipeline, proposer }
    }

    /// Brings everything that `document` has, in one message.
    fn push(&mut self, key: &str, document: &Automerge) {
        let mut state = State::new();
        let mut message = document.generate_sync_message(&mut state).unwrap();
        let changes: Vec<Vec<u8>> =
            document.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect();
        message.changes = changes.into();
        self.say(key, message);
    }

    fn say(&mut self, key: &str, message: Message) {
        let sighting = Sighting::Sync { key: key.into(), payload: message.encode().into() };
        self.observation.take(LINK, sighting, Instant::now()).unwrap();
    }

    async fn submit(&mut self) {
        while let Some(item) = self.observation.next_item() {
            self.jobs.send(Job { item, notices: self.notices.clone() }).await.unwrap();
        }
    }

    /// Takes notices until an item is settled; returns those before it.
    async fn settled(&mut self) -> Vec<Notice> {
        let mut seen = Vec::new();
        loop {
            let notice = timeout(PATIENCE, self.notices_in.recv())
                .await
                .unwrap_or_else(|_| panic!("nothing is settled; seen {seen:?}"))
                .unwrap();
            match &notice {
                Notice::Settled(ticket) => {
                    self.observation.committed(*ticket);
                    return seen;
                }
                Notice::Failed(document, reason) => {
                    self.observation.failed(document, reason, Instant::now());
                }
                Notice::Diverged(document) => self.observation.diverged(document),
                Notice::Journalled { .. } => {}
            }
            seen.push(notice);
        }
    }

    fn answered(&mut self) -> Vec<String> {
        self.observation.take_answers().into_iter().map(|(_, frame)| frame.key).collect()
    }
}

fn written(edits: usize) -> Automerge {
    let mut document = Automerge::new();
    document.set_actor(ActorId::random());
    for edit in 0..edits {
        document
            .transact::<_, _, automerge::AutomergeError>(|tx| tx.put(ROOT, "n", edit as i64))
            .unwrap();
    }
    document
}

#[tokio::test]
async fn no_answer_is_given_while_the_commit_is_pending() {
    let mut bench = Bench::new();
    bench.journal.set_mode(Mode::Blocks);
    bench.push("docs:a", &written(3));
    bench.submit().await;
    tokio::task::yield_now().await;
    assert!(bench.answered().is_empty() && bench.observation.waits());
    assert!(bench.notices_in.try_recv().is_err(), "nothing is settled");
    bench.journal.set_mode(Mode::Decides);
    bench.settled().await;
    assert_eq!(bench.answered(), ["docs:a"]);
}

#[tokio::test]
async fn an_answer_waits_for_what_other_links_brought() {
    let mut bench = Bench::new();
    let mut document = written(2);
    bench.observation.connect(2);
    bench.push("docs:a", &document);
    bench.journal.set_mode(Mode::Blocks);
    bench.submit().await;
    // The other link announces the same heads, which aren't committed yet.
    document.set_actor(ActorId::random());
    let announcement = document.generate_sync_message(&mut State::new()).unwrap();
    let payload = announcement.encode().into();
    let sighting = Sighting::Sync { key: "docs:a".into(), payload };
    bench.observation.take(2, sighting, Instant::now()).unwrap();
    assert!(bench.answered().is_empty());
    bench.journal.set_mode(Mode::Decides);
    bench.settled().await;
    assert_eq!(bench.observation.take_answers().len(), 2);
}

#[tokio::test]
async fn an_unknown_outcome_ends_the_pipeline_without_an_answer() {
    let mut bench = Bench::new();
    bench.journal.set_mode(Mode::Unknown);
    bench.push("docs:a", &written(1));
    bench.submit().await;
    let ended = timeout(PATIENCE, &mut bench.pipeline).await.unwrap().unwrap();
    assert!(ended.is_err());
    assert!(bench.notices_in.try_recv().is_err() && bench.answered().is_empty());
}

#[tokio::test]
async fn a_full_journal_delays_answers_and_loses_nothing() {
    let mut bench = Bench::new();
    bench.journal.set_mode(Mode::Full);
    bench.push("docs:a", &written(4));
    bench.submit().await;
    let waited = timeout(PATIENCE, async {
        while bench.proposer.metrics.journal_waits.get() < 2 {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("the pipeline tries again");
    assert!(bench.answered().is_empty());
    bench.journal.set_mode(Mode::Decides);
    bench.settled().await;
    assert_eq!(bench.answered(), ["docs:a"]);
    assert_eq!(bench.journal.hashes(&app(), &key("docs:a")).len(), 4);
}

#[tokio::test]
async fn a_document_over_its_quota_is_left_unanswered_and_others_go_on() {
    let mut bench = Bench::new();
    bench.journal.set_mode(Mode::OverQuota(key("docs:b")));
    for name in ["docs:a", "docs:b", "docs:c"] {
        bench.push(name, &written(2));
    }
    bench.submit().await;
    let mut failures = 0;
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let seen = bench.settled().await;
        failures += seen.iter().filter(|notice| matches!(notice, Notice::Failed(..))).count();
        answers.extend(bench.answered());
    }
    assert_eq!(answers, ["docs:a", "docs:c"]);
    assert_eq!(failures, 1);
    assert_eq!(bench.proposer.metrics.documents_unanswered.get(), 1);
    bench.push("docs:b", &written(1));
    assert_eq!(bench.observation.items_left(), 0, "it is left alone for a while");
}

#[tokio::test]
async fn a_change_over_one_mebibyte_travels_in_parts() {
    let mut bench = Bench::new();
    let mut document = Automerge::new();
    document
        .transact::<_, _, automerge::AutomergeError>(|tx| tx.put(ROOT, "big", "x".repeat(3 << 20)))
        .unwrap();
    bench.push("docs:big", &document);
    bench.submit().await;
    bench.settled().await;
    assert_eq!(bench.answered(), ["docs:big"]);
    assert!(bench.journal.stored.lock().unwrap().parts.len() > 3);
    assert_eq!(bench.journal.hashes(&app(), &key("docs:big")).len(), 1);
}

#[tokio::test]
async fn a_change_over_the_limit_leaves_its_document_unanswered() {
    let mut bench = Bench::new();
    let mut document = Automerge::new();
    document
        .transact::<_, _, automerge::AutomergeError>(|tx| tx.put(ROOT, "big", "x".repeat(17 << 20)))
        .unwrap();
    bench.push("docs:big", &document);
    bench.push("docs:a", &written(1));
    bench.submit().await;
    bench.settled().await;
    assert_eq!(bench.answered(), ["docs:a"]);
    assert_eq!(bench.proposer.metrics.documents_unanswered.get(), 1);
}

#[tokio::test]
async fn a_replica_that_diverged_is_rebuilt_and_its_links_close() {
    let mut bench = Bench::new();
    bench.push("docs:a", &written(2));
    bench.observation.diverged(&key("docs:a"));
    assert_eq!(bench.observation.take_closing(), [LINK]);
    assert!(bench.answered().is_empty() && !bench.observation.waits());
}

#[tokio::test]
async fn frames_without_sense_are_counted_and_close_the_link_in_the_end() {
    let mut bench = Bench::new();
    for _ in 0..100 {
        let sighting = Sighting::Sync { key: "docs:a".into(), payload: vec![1, 2, 3].into() };
        bench.observation.take(LINK, sighting, Instant::now()).unwrap();
    }
    assert!(bench.observation.take_closing().is_empty());
    let sighting = Sighting::Snapshot { key: "docs:a".into(), payload: vec![4].into() };
    bench.observation.take(LINK, sighting, Instant::now()).unwrap();
    assert_eq!(bench.observation.take_closing(), [LINK]);
    assert_eq!(bench.proposer.metrics.frames_malformed.get(), 101);
}

#[tokio::test]
async fn a_deleted_document_takes_no_more_changes_and_its_tombstone_is_journalled_once() {
    let mut bench = Bench::new();
    let tombstone = || Sighting::Tombstone {
        key: "docs:a".into(),
        deleted_by: "node-a".into(),
        payload: b"tombstone".as_slice().into(),
    };
    bench.push("docs:a", &written(2));
    bench.observation.take(LINK, tombstone(), Instant::now()).unwrap();
    bench.observation.take(LINK, tombstone(), Instant::now()).unwrap();
    bench.push("docs:a", &written(5));
    bench.submit().await;
    bench.settled().await;
    let stored = bench.journal.stored.lock().unwrap();
    assert_eq!(stored.events.len(), 3, "two changes and one tombstone");
    drop(stored);
    bench.observation.take(LINK, tombstone(), Instant::now()).unwrap();
    assert_eq!(bench.observation.items_left(), 0);
}

#[tokio::test]
async fn a_long_history_is_compacted_to_the_same_document() {
    let mut bench = Bench::new();
    let document = written(600);
    bench.push("docs:a", &document);
    bench.submit().await;
    while !bench.observation.take_answers().iter().any(|(_, frame)| frame.key == "docs:a") {
        bench.settled().await;
    }
    let (due, queue) = mpsc::channel(4);
    due.send((app(), key("docs:a"))).await.unwrap();
    due.send((app(), key("docs:a"))).await.unwrap();
    drop(due);
    compaction::run(bench.proposer.clone(), queue, CancellationToken::new()).await;
    assert_eq!(bench.journal.stored.lock().unwrap().compactions, 1, "the second time it isn't due");
    let org = OrgId::from_trusted("acme");
    let stored = bench.journal.stored_document(&org, &app(), &key("docs:a")).unwrap().unwrap();
    assert!(stored.changes.is_empty());
    assert_eq!(materialize(&stored).unwrap().get_heads(), document.get_heads());
}
