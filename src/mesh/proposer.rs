//! Proposing of leader work for one organisation: waits while nothing happened, gives up when that isn't known.

use std::time::Duration;

use peat_gateway_cluster::ProposeError;
use peat_gateway_state::command::{PART_BYTES_MAX, StagePart};
use peat_gateway_state::ids::{AppId, DocumentKey, Hash32, OrgId};
use peat_gateway_state::{Command, Outcome, Refusal, RefusalKind};
use sha2::{Digest, Sha256};

use super::journal::Journal;
use super::metrics::Metrics;

/// First wait after nothing happened because the journal was full or no leader was there; doubles.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(20);
/// Longest such wait.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

/// It isn't known what became of a proposal, or this node leads no more.
///
/// Everything of the organisation must be closed and begun again from the committed state.
#[derive(Clone, Debug, thiserror::Error)]
#[error("could not journal a batch: {0}")]
pub(super) struct Broken(pub String);

/// Proposes for one organisation.
#[derive(Clone)]
pub(super) struct Proposer<J> {
    /// The organisation.
    pub org: OrgId,
    /// The cluster.
    pub journal: J,
    /// What is counted.
    pub metrics: Metrics,
}

impl<J: Journal> Proposer<J> {
    /// Stages what is too large for one command; returns its id and how many parts it has.
    ///
    /// # Errors
    /// As [`Proposer::propose`]; a refusal is the inner error.
    pub(super) async fn stage(
        &self,
        app: &AppId,
        document: &DocumentKey,
        bytes: &[u8],
    ) -> Result<Result<(Hash32, u32), Refusal>, Broken> {
        let id = Hash32(Sha256::digest(bytes).into());
        let mut parts = 0;
        for chunk in bytes.chunks(PART_BYTES_MAX) {
            let command = Command::StagePart(StagePart {
                fence: self.journal.fence(),
                org_id: self.org.clone(),
                app_id: app.clone(),
                document: document.clone(),
                id,
                part: parts,
                bytes: chunk.to_vec(),
            });
            if let Outcome::Refused(refusal) = self.propose(&command).await? {
                return Ok(Err(refusal));
            }
            parts += 1;
        }
        Ok(Ok((id, parts)))
    }

    /// Proposes until the cluster decides; while the journal is full, that may be long.
    ///
    /// # Errors
    /// See [`Broken`].
    pub(super) async fn propose(&self, command: &Command) -> Result<Outcome, Broken> {
        let mut delay = RETRY_DELAY_MIN;
        loop {
            match self.journal.propose(command.clone()).await {
                Ok(Outcome::Refused(refusal)) if refusal.kind == RefusalKind::Fenced => {
                    return Err(Broken(refusal.detail));
                }
                Ok(Outcome::Refused(refusal)) if refusal.kind == RefusalKind::Unavailable => {}
                Ok(outcome) => return Ok(outcome),
                Err(
                    ProposeError::Unavailable(_)
                    | ProposeError::Overloaded
                    | ProposeError::NoSpace(_),
                ) => {}
                Err(error) => return Err(Broken(error.to_string())),
            }
            self.metrics.journal_waits.inc();
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }
}
