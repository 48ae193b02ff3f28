//! What every destination promises, checked through the real worker. Each kind of sink passes it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use peat_gateway_state::ids::Epoch;
use peat_gateway_state::record::{Cursor, SinkKind};

use super::memory::sink_id;
use super::{Flaky, MemoryJournal, Random, Run, eventually};
use crate::cdc::journal::Journal;
use crate::cdc::sinks::Destination;

/// An event as a receiver saw it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) event_id: String,
    pub(crate) document: String,
    pub(crate) sequence: u64,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn parse(body: &[u8]) -> Self {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap();
        Self {
            event_id: json["event_id"].as_str().unwrap().to_owned(),
            document: json["document_id"].as_str().unwrap().to_owned(),
            sequence: json["sequence"].as_u64().unwrap(),
            body: body.to_vec(),
        }
    }
}

/// A kind of sink with its receiver.
pub(crate) trait Target: Send + Sync {
    /// A destination as a leader of this epoch builds it.
    fn destination(&self, epoch: Epoch) -> Arc<dyn Destination>;

    /// Everything that was received so far, in order of arrival, repetitions included.
    fn received(&self) -> BoxFuture<'_, Vec<Received>>;
}

const DOCUMENTS: u64 = 12;

/// Checks all promises on fresh targets.
pub(crate) async fn check_contract<T: Target>(name: &str, mut fresh: impl AsyncFnMut() -> T) {
    everything_arrives_in_order_despite_failures_and_crashes(name, &fresh().await).await;
    acknowledged_ranges_are_not_repeated(&fresh().await).await;
}

fn random_documents(random: &mut Random, count: u64) -> Vec<String> {
    (0..count).map(|_| format!("units:{}", random.below(DOCUMENTS))).collect()
}

/// Sequences in order of first arrival, and each event's only body.
fn first_arrivals(received: &[Received]) -> Vec<Received> {
    let mut bodies: BTreeMap<&str, &[u8]> = BTreeMap::new();
    let mut first = Vec::new();
    for one in received {
        match bodies.insert(&one.event_id, &one.body) {
            Some(body) => assert_eq!(body, one.body, "a redelivery of {} differs", one.sequence),
            None => first.push(one.clone()),
        }
    }
    first
}

fn assert_document_order(arrivals: &[Received]) {
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for one in arrivals {
        let before = newest.insert(&one.document, one.sequence).unwrap_or_default();
        assert!(before < one.sequence, "{} came after {before} in {}", one.sequence, one.document);
    }
}

async fn everything_arrives_in_order_despite_failures_and_crashes<T: Target>(
    name: &str,
    target: &T,
) {
    const EVENTS: u64 = 400;
    let mut random = Random::new(name);
    let mut journal = MemoryJournal::new();
    journal.state.lock().unwrap().acknowledged = Some(std::collections::BTreeSet::new());
    let sink = journal.put_sink(SinkKind::File { name: "unused".into() }, true, 1);
    journal.append(&random_documents(&mut random, EVENTS / 2));
    // Three leaders crash, the fourth ends the work; half of the events come while they run.
    for leader in 0..4 {
        journal.state.lock().unwrap().commit_failures = random.below(3) as u32;
        let shared = Arc::new(journal);
        let destination = Arc::new(Flaky {
            inner: target.destination(shared.epoch()),
            journal: Arc::clone(&shared),
            random: Mutex::new(Random(random.next())),
            per_cent: 10,
        });
        let run = Run::start(&shared, &sink, destination);
        if leader < 3 {
            shared.append(&random_documents(&mut random, EVENTS / 6));
            let goal = random.below(EVENTS / 3);
            eventually("the leader gets somewhere before it crashes", async || {
                let count = first_arrivals(&target.received().await).len() as u64;
                if count >= goal { Ok(()) } else { Err(format!("{count} of {goal}")) }
            })
            .await;
            run.crash().await;
        } else {
            let last = shared.state.lock().unwrap().last;
            eventually("the cursor reaches the end", async || {
                let cursor = shared.committed();
                if cursor.acknowledged == last { Ok(()) } else { Err(format!("{cursor:?}")) }
            })
            .await;
            run.stop().await;
        }
        shared.assert_promises_held();
        let mut owned = Err(shared);
        // The feed's last read may still hold the journal.
        for _ in 0..1000 {
            owned = match owned {
                Err(shared) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Arc::try_unwrap(shared)
                }
                Ok(journal) => Ok(journal),
            };
            if owned.is_ok() {
                break;
            }
        }
        journal = owned.ok().expect("the crashed leader lets go of the journal").next_epoch();
    }
    let arrivals = first_arrivals(&target.received().await);
    assert_document_order(&arrivals);
    let mut sequences: Vec<u64> = arrivals.iter().map(|one| one.sequence).collect();
    sequences.sort_unstable();
    let last = journal.state.lock().unwrap().last;
    assert_eq!(sequences, (1..=last).collect::<Vec<_>>(), "each event arrives");
}

async fn acknowledged_ranges_are_not_repeated<T: Target>(target: &T) {
    let journal = MemoryJournal::new();
    let sink = journal.put_sink(SinkKind::File { name: "unused".into() }, true, 1);
    let documents: Vec<String> = (0..30).map(|n| format!("units:{}", n % 5)).collect();
    journal.append(&documents);
    let ahead = vec![(13, 15), (20, 20)];
    let cursor = Cursor { acknowledged: 10, ahead, ..Cursor::default() };
    journal.state.lock().unwrap().cursors.insert(sink_id(), cursor);
    let journal = Arc::new(journal);
    let run = Run::start(&journal, &sink, target.destination(journal.epoch()));
    eventually("the cursor reaches the end", async || {
        let cursor = journal.committed();
        if cursor.acknowledged == 30 { Ok(()) } else { Err(format!("{cursor:?}")) }
    })
    .await;
    run.stop().await;
    let mut sequences: Vec<u64> =
        target.received().await.iter().map(|received| received.sequence).collect();
    sequences.sort_unstable();
    let expected: Vec<u64> = [11, 12].into_iter().chain(16..=19).chain(21..=30).collect();
    assert_eq!(sequences, expected);
}
