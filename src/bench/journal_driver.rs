//! Journal appends from inside a leading node, as the observer of meshes makes them.
//!
//! The observer runs in the leader's process, so what drives the journal does too: a node of the row
//! `journal` is `serve` with this as a further part of its leader's work. Each producer is an organisation
//! with one command in flight, as the observer's pipeline has it; a command holds what the producer
//! has in flight, in sync messages of 50 changes of one document.
//!
//! ```text
//!   bench ── order.json ──► directory ──► the node that leads ── AppendChanges ──► Raft
//!         ◄─ result.json ──
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use peat_gateway_cluster::ProposeError;
use peat_gateway_state::command::{
    AppendChanges, DocumentBatch, EventBody, NewEvent, SequencedEvent,
};
use peat_gateway_state::ids::{AppId, DocumentKey, Hash32, OrgId};
use peat_gateway_state::{Command, Outcome};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::sample::Measured;
use crate::leader::LeaderWork;

/// The formation of each producer's organisation.
pub(super) const FORMATION: &str = "field";
/// Bytes of every change.
pub(super) const CHANGE_BYTES: usize = 512;
/// Changes of one sync message, all of one document.
const MESSAGE_CHANGES: usize = 50;
/// Documents of each producer.
const DOCUMENTS: usize = 100;
/// Producing before the clock starts.
const WARM_UP: Duration = Duration::from_millis(500);
/// Pause between two looks for an order.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What the leader is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Orders are carried out once.
    pub(super) number: u64,
    /// Organisations `producer-0` and so on.
    pub(super) producers: usize,
    /// Changes that each has in flight.
    pub(super) in_flight: usize,
    /// How long, ms.
    pub(super) duration_ms: u64,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    /// Of the order.
    pub(super) number: u64,
    /// Latency of each change, µs, in the order in which they were journalled.
    pub(super) latencies_us: Vec<u32>,
    /// How long the clock ran.
    pub(super) seconds: f64,
    /// Why it ended early.
    pub(super) failure: Option<String>,
}

/// Name of a producer's organisation.
pub(super) fn producer(number: usize) -> OrgId {
    OrgId::from_trusted(format!("producer-{number}"))
}

/// Where orders are found.
pub(super) fn order_file(directory: &Path) -> PathBuf {
    directory.join("order.json")
}

/// Where a result is put.
pub(super) fn result_file(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("result-{number}.json"))
}

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// It can't be written.
pub(super) fn put(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec(value)?)?;
    std::fs::rename(beside, path)
}

/// Carries out orders while this node leads.
pub(crate) async fn drive(work: LeaderWork, directory: PathBuf) {
    while !work.shutdown.is_cancelled() {
        let order = std::fs::read(order_file(&directory)).ok();
        let order: Option<Order> = order.and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(order) = order
            && !result_file(&directory, order.number).exists()
        {
            match carry_out(&work, &order).await {
                Ok(done) => {
                    if let Err(error) = put(&result_file(&directory, order.number), &done) {
                        tracing::error!(%error, "could not write the result of a load");
                    }
                }
                // Whoever leads next begins anew, as the observer does.
                Err(reason) => tracing::warn!(%reason, "a load is begun anew"),
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Runs the producers.
///
/// # Errors
/// It isn't known what became of a batch, or this node leads no more.
async fn carry_out(work: &LeaderWork, order: &Order) -> Result<Done, ProposeError> {
    let start = Instant::now() + WARM_UP;
    let end = start + Duration::from_millis(order.duration_ms);
    let producers: Vec<_> = (0..order.producers)
        .map(|number| {
            let producer = Producer::new(work.clone(), number, order);
            tokio::spawn(producer.run(start, end))
        })
        .collect();
    let mut measured = Measured::default();
    let (mut failure, mut broken) = (None, None);
    for producer in producers {
        match producer.await {
            Ok(Ok(part)) => measured.join(part),
            Ok(Err(Broken::Unknown(error))) => broken = Some(error),
            Ok(Err(Broken::Refused(reason))) => failure = Some(reason),
            Err(error) => failure = Some(error.to_string()),
        }
    }
    if let Some(error) = broken {
        return Err(error);
    }
    let latencies_us = measured
        .latencies
        .iter()
        .map(|latency| u32::try_from(latency.as_micros()).unwrap_or(u32::MAX))
        .collect();
    let seconds = end.duration_since(start).as_secs_f64();
    Ok(Done { number: order.number, latencies_us, seconds, failure })
}

/// Why a producer ended early.
enum Broken {
    /// The leader can't go on with it.
    Unknown(ProposeError),
    /// The state didn't take a batch, which is a mistake in this file.
    Refused(String),
}

/// One organisation's changes.
struct Producer {
    work: LeaderWork,
    org: OrgId,
    order: Order,
    /// The newest change of each document.
    heads: Vec<Option<Hash32>>,
    made: u64,
    /// What a change is filled with; nothing in it compresses.
    noise: Vec<u8>,
}

impl Producer {
    fn new(work: LeaderWork, number: usize, order: &Order) -> Self {
        let mut noise = vec![0; CHANGE_BYTES];
        // Without randomness the changes of two runs would be the same, and known.
        getrandom::fill(&mut noise).expect("the kernel has randomness once it runs programs");
        let heads = vec![None; DOCUMENTS];
        Self { work, org: producer(number), order: order.clone(), heads, made: 0, noise }
    }

    async fn run(mut self, start: Instant, end: Instant) -> Result<Measured, Broken> {
        let mut measured = Measured::default();
        loop {
            let command = self.command();
            let began = Instant::now();
            if began >= end {
                return Ok(measured);
            }
            self.journal(command).await?;
            let latency = began.elapsed();
            if began >= start {
                let changes = std::iter::repeat_n(latency, self.order.in_flight);
                measured.latencies.extend(changes);
            }
        }
    }

    /// Proposes until the cluster decides, as the observer does: where nothing happened, again.
    async fn journal(&self, command: Command) -> Result<(), Broken> {
        loop {
            match self.work.propose(command.clone()).await {
                Ok(committed) => match committed.outcome {
                    Outcome::Appended { known: 0, .. } => return Ok(()),
                    other => {
                        let reason = format!("the state answered a batch with {other:?}");
                        return Err(Broken::Refused(reason));
                    }
                },
                Err(ProposeError::Unavailable(_) | ProposeError::Overloaded) => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                Err(error) => return Err(Broken::Unknown(error)),
            }
        }
    }

    /// The next command: all that is in flight, in sync messages of one document each.
    fn command(&mut self) -> Command {
        let mut left = self.order.in_flight;
        let mut batches = Vec::new();
        while left > 0 {
            let document = (self.made as usize / MESSAGE_CHANGES) % DOCUMENTS;
            let count = left.min(MESSAGE_CHANGES);
            let events = (0..count).map(|_| SequencedEvent::Inline(self.event(document))).collect();
            batches.push(DocumentBatch {
                app_id: AppId::from_trusted(FORMATION),
                document: DocumentKey::parse(&format!("messages:{}-{document}", self.order.number))
                    .expect("a short key"),
                events,
            });
            left -= count;
        }
        Command::AppendChanges(AppendChanges {
            fence: self.work.fence,
            org_id: self.org.clone(),
            batches,
        })
    }

    /// The next change of a document; builds on the one before.
    fn event(&mut self, document: usize) -> NewEvent {
        self.made += 1;
        self.noise[..8].copy_from_slice(&self.made.to_be_bytes());
        let bytes = self.noise.clone();
        let change_hash = Hash32(Sha256::digest(&bytes).into());
        let deps = self.heads[document].replace(change_hash).into_iter().collect();
        NewEvent {
            change_hash,
            actor: "00112233445566778899aabbccddeeff".to_owned(),
            patches: format!(r#"[{{"op":"put","path":["step"],"value":{}}}]"#, self.made)
                .into_bytes(),
            body: EventBody::Change { deps, bytes },
        }
    }
}
