//! Replacing a document's many changes by one saved form, in the background, one document at a time.

use std::collections::HashMap;

use peat_gateway_state::command::{CompactDocument, SavedForm};
use peat_gateway_state::ids::{AppId, DocumentKey};
use peat_gateway_state::{Command, Outcome};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::pipeline::ITEM_BYTES_MAX;
use super::proposer::Proposer;
use super::replica::materialize;

/// A document with more changes after its base is compacted.
const CHANGES_MAX: usize = 256;
/// A document with more bytes of changes after its base is compacted.
const CHANGE_BYTES_MAX: usize = 1 << 20;
/// Documents that wait to be compacted. At the limit one is left out until it has grown again.
pub(super) const QUEUE_MAX: usize = 64;
/// Documents whose growth is counted per formation. At the limit counting begins again.
const COUNTED_MAX: usize = 10_000;

/// Counts how documents grow, to look closely only at those that may be due.
#[derive(Default)]
pub(super) struct Growth {
    counts: HashMap<DocumentKey, (usize, usize)>,
}

impl Growth {
    /// Notes journalled events; returns whether the document should be looked at.
    pub(super) fn note(&mut self, document: &DocumentKey, events: usize, bytes: usize) -> bool {
        if self.counts.len() >= COUNTED_MAX {
            self.counts.clear();
        }
        let count = self.counts.entry(document.clone()).or_default();
        count.0 += events;
        count.1 += bytes;
        let due = count.0 > CHANGES_MAX || count.1 > CHANGE_BYTES_MAX;
        if due {
            self.counts.remove(document);
        }
        due
    }
}

/// Compacts the documents that arrive, where they are due, until the queue closes or `shutdown`.
pub(super) async fn run<J: Journal>(
    proposer: Proposer<J>,
    mut queue: mpsc::Receiver<(AppId, DocumentKey)>,
    shutdown: CancellationToken,
) {
    while let Some(Some((app, document))) = shutdown.run_until_cancelled(queue.recv()).await {
        let compacted = shutdown.run_until_cancelled(compact(&proposer, &app, &document)).await;
        if let Some(Err(reason)) = compacted {
            // Nothing is lost: the document stays as it is, and is due again when it has grown.
            tracing::warn!(org = %proposer.org, %app, %document, reason, "could not compact a document");
        }
    }
}

/// Compacts one document if it is due.
async fn compact<J: Journal>(
    proposer: &Proposer<J>,
    app: &AppId,
    document: &DocumentKey,
) -> Result<(), String> {
    let (journal, org) = (proposer.journal.clone(), proposer.org.clone());
    let (app_id, key) = (app.clone(), document.clone());
    let saved = tokio::task::spawn_blocking(move || -> Result<_, String> {
        let stored = journal
            .stored_document(&org, &app_id, &key)
            .map_err(|error| error.to_string())?
            .filter(|stored| {
                let bytes: usize = stored.changes.iter().map(Vec::len).sum();
                stored.changes.len() > CHANGES_MAX || bytes > CHANGE_BYTES_MAX
            });
        let Some(stored) = stored else { return Ok(None) };
        let saved = materialize(&stored).map_err(|error| error.to_string())?.save();
        Ok(Some((stored.document_sequence, saved)))
    })
    .await
    .map_err(|error| error.to_string())??;
    let Some((through, saved)) = saved else { return Ok(()) };
    let saved = if saved.len() <= ITEM_BYTES_MAX {
        SavedForm::Inline(saved)
    } else {
        let staged =
            proposer.stage(app, document, &saved).await.map_err(|error| error.to_string())?;
        let (id, parts) = staged.map_err(|refusal| refusal.detail)?;
        SavedForm::Staged { id, parts }
    };
    let command = Command::CompactDocument(CompactDocument {
        fence: proposer.journal.fence(),
        org_id: proposer.org.clone(),
        app_id: app.clone(),
        document: document.clone(),
        through,
        saved,
    });
    match proposer.propose(&command).await.map_err(|error| error.to_string())? {
        Outcome::Refused(refusal) => Err(refusal.detail),
        _ => Ok(()),
    }
}
