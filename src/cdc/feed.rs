//! The feed: reads the journal ahead of a worker, filters it and encodes what is left.
//!
//! It holds one batch ready and reads one more; then it waits for the worker. At the end of the
//! journal it waits for the next applied row.

use std::sync::Arc;
use std::time::Duration;

use peat_gateway_state::ids::OrgId;
use peat_gateway_state::query::JournalledEvent;
use peat_gateway_state::record::SinkFilter;
use tokio::sync::mpsc;

use super::encoder;
use super::journal::Journal;
use super::sinks::Delivery;

/// Batches that are read ahead of the worker; then reading waits.
pub(crate) const BATCHES_AHEAD: usize = 1;
/// The journal is read again after this long without a notice, or after a failed read.
const RECHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A stretch of the journal, as one sink sees it.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The matching events, in sequence.
    pub(crate) deliveries: Vec<Delivery>,
    /// Where the stretch ends; everything in it that is not in `deliveries` isn't for this sink.
    pub(crate) through: u64,
}

/// Whose events are read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The organisation.
    pub(crate) org_id: OrgId,
    /// Which of its events.
    pub(crate) filter: SinkFilter,
}

/// Reads from behind sequence `after` until the receiver is dropped.
pub(crate) async fn run<J: Journal>(
    journal: Arc<J>,
    source: Source,
    mut after: u64,
    batches: mpsc::Sender<Batch>,
) {
    let source = Arc::new(source);
    let mut changes = journal.changes();
    loop {
        // Room first: what is read is then handed over at once.
        let Ok(slot) = batches.reserve().await else { return };
        // Seen before the read: a row that comes during the read ends the wait below.
        let seen = changes.borrow_and_update().journal;
        match read(&journal, &source, after).await {
            Ok(Some(batch)) => {
                after = batch.through;
                slot.send(batch);
                continue;
            }
            Ok(None) => {}
            Err(reason) => {
                tracing::error!(org = %source.org_id, after, %reason, "could not read the journal");
            }
        }
        drop(slot);
        tokio::select! {
            () = batches.closed() => return,
            _ = tokio::time::timeout(
                RECHECK_INTERVAL,
                changes.wait_for(|newest| newest.journal != seen),
            ) => {}
        }
    }
}

/// Reads one batch off the runtime's threads: the store may wait for the disk.
async fn read<J: Journal>(
    journal: &Arc<J>,
    source: &Arc<Source>,
    after: u64,
) -> Result<Option<Batch>, String> {
    let (journal, source) = (Arc::clone(journal), Arc::clone(source));
    let reading = tokio::task::spawn_blocking(move || {
        let events = journal.events(&source.org_id, after)?;
        Ok::<_, peat_gateway_state::ReadError>(batch(&source, after, &events))
    });
    match reading.await {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Filters and encodes; `None` where nothing was read.
pub(crate) fn batch(source: &Source, after: u64, events: &[JournalledEvent]) -> Option<Batch> {
    let (first, last) = (events.first()?.sequence, events.last()?.sequence);
    if first > after + 1 && after > 0 {
        tracing::warn!(
            org = %source.org_id,
            from = after + 1,
            to = first - 1,
            "these sequences are not in the journal: they were trimmed while the sink was disabled, \
             or a restore raised the sequence"
        );
    }
    let deliveries = events
        .iter()
        .filter(|journalled| {
            source.filter.matches(&journalled.event.app_id, &journalled.event.document)
        })
        .map(|journalled| Delivery {
            sequence: journalled.sequence,
            event_id: journalled.event.event_id,
            app: journalled.event.app_id.clone(),
            document: journalled.event.document.clone(),
            observed_at: journalled.event.observed_at,
            body: encoder::encode(&source.org_id, journalled),
        })
        .collect();
    Some(Batch { deliveries, through: last })
}
