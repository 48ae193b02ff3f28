//! The ordered way of one organisation's events into the journal.
//!
//! ```text
//!  formation ─┐
//!  formation ─┼─► bounded queue ──► group ──► stage what is large ──► AppendChanges ──► notices
//!  formation ─┘                       ▲             one proposal in flight      │
//!                                     └────────── meanwhile others queue ◄──────┘
//! ```
//!
//! One proposal at a time keeps the order without any sequence numbers: what an event builds on is
//! committed before it, or stands before it in the same command. What queues while a proposal is in
//! flight goes into the next one, so batches grow with the load and nothing waits for a timer.

use peat_gateway_state::command::{AppendChanges, DocumentBatch, NewEvent, SequencedEvent};
use peat_gateway_state::ids::{AppId, DocumentKey};
use peat_gateway_state::{Command, Outcome, Refusal, codec};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::event;
use super::journal::Journal;
use super::proposer::{Broken, Proposer};

/// Most events of one item, and of one command.
pub(super) const ITEM_EVENTS_MAX: usize = 500;
/// Most bytes of one item with more than one event, and of one command; half of what an envelope may have.
pub(super) const ITEM_BYTES_MAX: usize = 512 << 10;
/// Items that wait for the pipeline; then formations wait, and with them their nodes.
pub(super) const QUEUE_ITEMS_MAX: usize = 64;
/// Notices that wait for a formation; then the pipeline waits for it.
pub(super) const NOTICES_MAX: usize = 64;
/// Events of one document, in its order.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The formation.
    pub app: AppId,
    /// The document.
    pub document: DocumentKey,
    /// Its place among the formation's items.
    pub ticket: u64,
    /// At least one.
    pub events: Vec<NewEvent>,
    /// About what they take in a command.
    pub bytes: usize,
}

/// An item and where to report what became of it.
pub(super) struct Job {
    /// What to journal.
    pub item: Item,
    /// The formation that waits.
    pub notices: mpsc::Sender<Notice>,
}

/// What became of items.
#[derive(Clone, Debug)]
pub(super) enum Notice {
    /// All of this formation's items up to the ticket are settled: journalled, or their documents reported.
    Settled(u64),
    /// The document can't be journalled; why.
    Failed(DocumentKey, String),
    /// The document's events build on something that isn't committed.
    Diverged(DocumentKey),
    /// Something of the document was journalled: it may be due for compaction.
    Journalled {
        /// The document.
        document: DocumentKey,
        /// How many events.
        events: usize,
        /// About how many bytes.
        bytes: usize,
    },
}

/// Settles jobs in order until the queue is closed or `shutdown` is cancelled.
///
/// # Errors
/// See [`Broken`].
pub(super) async fn run<J: Journal>(
    proposer: Proposer<J>,
    mut queue: mpsc::Receiver<Job>,
    shutdown: CancellationToken,
) -> Result<(), Broken> {
    let pipeline = Pipeline { proposer };
    loop {
        let first = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            job = queue.recv() => match job { Some(job) => job, None => return Ok(()) },
        };
        let group = group(first, &mut queue);
        tokio::select! {
            // A batch may be in flight; whoever cancels rebuilds from the committed state.
            () = shutdown.cancelled() => return Ok(()),
            settled = pipeline.settle(group) => settled?,
        }
    }
}

/// Adds what is queued to the first job, within one command's bounds.
fn group(first: Job, queue: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.item.bytes;
    let mut events = first.item.events.len();
    let mut group = vec![first];
    // An item that would go over the bounds can't be put back, so the group ends a whole item below them:
    // at most half of an envelope and an item that is itself within the other half, or is staged.
    while bytes < ITEM_BYTES_MAX / 2 && events < ITEM_EVENTS_MAX {
        let Ok(job) = queue.try_recv() else { break };
        bytes += job.item.bytes.min(ITEM_BYTES_MAX);
        events += job.item.events.len();
        group.push(job);
    }
    group
}

struct Pipeline<J> {
    proposer: Proposer<J>,
}

impl<J: Journal> Pipeline<J> {
    /// Journals a group, and tells its formations.
    async fn settle(&self, jobs: Vec<Job>) -> Result<(), Broken> {
        let items: Vec<&Item> = jobs.iter().map(|job| &job.item).collect();
        let together = self.append(&items).await?;
        for (at, job) in jobs.iter().enumerate() {
            let verdict = match &together {
                // One document is in the way, and the refusal names none: each goes alone.
                Err(_) if jobs.len() > 1 => self.append(&[&job.item]).await?,
                verdict => verdict.clone(),
            };
            let document = job.item.document.clone();
            let notice = match verdict {
                Ok(()) => Notice::Journalled {
                    document,
                    events: job.item.events.len(),
                    bytes: job.item.bytes,
                },
                Err(refusal) if refusal.code == "missing_ancestor" => Notice::Diverged(document),
                Err(Refusal { code, detail, .. }) => {
                    Notice::Failed(document, format!("{code}: {detail}"))
                }
            };
            notify(job, notice).await;
            // One notice for all that a formation has in the command is enough: its newest ticket.
            let later = jobs[at + 1..].iter().any(|later| later.item.app == job.item.app);
            if together.is_err() || !later {
                notify(job, Notice::Settled(job.item.ticket)).await;
            }
        }
        Ok(())
    }

    /// Proposes items as one command, waiting while the cluster can't take it.
    async fn append(&self, items: &[&Item]) -> Result<Result<(), Refusal>, Broken> {
        let mut batches: Vec<DocumentBatch> = Vec::new();
        for item in items {
            let mut events = Vec::with_capacity(item.events.len());
            for event in &item.events {
                match self.sequenced(item, event).await? {
                    Ok(event) => events.push(event),
                    Err(refusal) => return Ok(Err(refusal)),
                }
            }
            match batches.last_mut() {
                Some(last) if last.app_id == item.app && last.document == item.document => {
                    last.events.extend(events);
                }
                _ => batches.push(DocumentBatch {
                    app_id: item.app.clone(),
                    document: item.document.clone(),
                    events,
                }),
            }
        }
        let count: usize = batches.iter().map(|batch| batch.events.len()).sum();
        let command = Command::AppendChanges(AppendChanges {
            fence: self.proposer.journal.fence(),
            org_id: self.proposer.org.clone(),
            batches,
        });
        match self.proposer.propose(&command).await? {
            Outcome::Refused(refusal) => Ok(Err(refusal)),
            Outcome::Appended { known, .. } => {
                let known = u64::from(known);
                let metrics = &self.proposer.metrics;
                metrics.changes_known.inc_by(known);
                metrics.changes_journalled.inc_by((count as u64).saturating_sub(known));
                Ok(Ok(()))
            }
            other => Err(Broken(format!("the state answered a batch with {other:?}"))),
        }
    }

    /// Returns the event as the command carries it; a large one is staged first.
    async fn sequenced(
        &self,
        item: &Item,
        event: &NewEvent,
    ) -> Result<Result<SequencedEvent, Refusal>, Broken> {
        if event::encoded_bytes(event) <= ITEM_BYTES_MAX {
            return Ok(Ok(SequencedEvent::Inline(event.clone())));
        }
        let bytes = codec::encode(event);
        let staged = self.proposer.stage(&item.app, &item.document, &bytes).await?;
        Ok(staged.map(|(id, parts)| SequencedEvent::Staged { id, parts }))
    }
}

async fn notify(job: &Job, notice: Notice) {
    // A formation that was closed has nobody to tell.
    if job.notices.send(notice).await.is_err() {
        tracing::debug!(app = %job.item.app, "a closed formation missed a notice");
    }
}
