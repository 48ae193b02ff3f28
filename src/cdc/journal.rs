//! The seam to the cluster: what delivery reads, and the few commands that it proposes.
//!
//! Reads see what this node has applied. That is enough: the worker's position is its own, and a
//! command that was decided on an old view is refused by the fence or dropped by `apply`.

use std::future::Future;

use peat_gateway_cluster::{Changes, ProposeError};
use peat_gateway_state::command::{CommitCursors, CursorAdvance, TrimJournal};
use peat_gateway_state::ids::{Epoch, OrgId, SinkId};
use peat_gateway_state::query::{self, JournalledEvent};
use peat_gateway_state::record::{Cursor, Sink};
use peat_gateway_state::{Command, Outcome, ReadError, Reader, RefusalKind};
use thiserror::Error;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::keys::{Binding, SecretKind};
use crate::leader::LeaderWork;

/// Most events that one read of the journal returns; the next read goes on behind them.
pub(crate) const READ_EVENTS_MAX: usize = 1000;
/// Most bytes of events that one read of the journal returns; one event always comes.
pub(crate) const READ_BYTES_MAX: usize = 4 << 20;
/// Percent of an organisation's journal quota up to which delivered rows are kept for the retention. Beyond,
/// they are trimmed: otherwise the quota, which counts them, would hold back the mesh for their sake.
pub(crate) const RETENTION_PERCENT_MAX: u64 = 80;
/// Most organisations that one read of [`Journal::extents`] takes from the state at a time.
const ORGANIZATIONS_PAGE: usize = 256;

/// How much of an organisation's journal exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalExtent {
    /// The organisation.
    pub(crate) org_id: OrgId,
    /// The newest sequence.
    pub(crate) last: u64,
    /// The newest sequence that was trimmed.
    pub(crate) trimmed: u64,
    /// Whether its rows take so much of the organisation's quota that the retention must give way.
    pub(crate) nearly_full: bool,
}

/// A command of delivery was not done.
#[derive(Debug, Error)]
pub(crate) enum WorkError {
    /// This node leads no more: nothing that it still proposes counts.
    #[error("this leader's epoch is over")]
    Over,
    /// It may work later; repeating it is harmless.
    #[error("could not commit: {0}")]
    Later(String),
    /// The state refuses it; repeating it is pointless.
    #[error("the state refused it: {0}")]
    Refused(String),
}

/// What delivery needs of the cluster. The tests have one in memory.
pub(crate) trait Journal: Send + Sync + 'static {
    /// The epoch that this delivery runs under.
    fn epoch(&self) -> Epoch;

    /// Counters that move when something was applied.
    fn changes(&self) -> watch::Receiver<Changes>;

    /// All enabled sinks of all organisations.
    fn enabled_sinks(&self) -> Result<Vec<Sink>, ReadError>;

    /// The committed cursor of a sink; the default where it has none.
    fn cursor(&self, org: &OrgId, sink: &SinkId) -> Result<Cursor, ReadError>;

    /// Events above sequence `after`, in order, within the read limits; empty at the end.
    fn events(&self, org: &OrgId, after: u64) -> Result<Vec<JournalledEvent>, ReadError>;

    /// How much of one organisation's journal exists. A read of one row.
    fn extent(&self, org: &OrgId) -> Result<JournalExtent, ReadError>;

    /// The journals of all organisations that hold rows.
    fn extents(&self) -> Result<Vec<JournalExtent>, ReadError>;

    /// How long delivered rows are kept, in ms.
    fn retention_ms(&self) -> Result<u64, ReadError>;

    /// Moves cursors forward.
    fn commit(
        &self,
        advances: Vec<CursorAdvance>,
    ) -> impl Future<Output = Result<(), WorkError>> + Send;

    /// Drops rows up to `through`.
    fn trim(&self, org: OrgId, through: u64) -> impl Future<Output = Result<(), WorkError>> + Send;

    /// Opens a sink's credentials (JSON); `None` where it has none. The error is for people.
    fn credentials(
        &self,
        sink: &Sink,
    ) -> impl Future<Output = Result<Option<Zeroizing<Vec<u8>>>, String>> + Send;
}

/// The journal as the cluster replicates it.
pub(crate) struct ReplicatedJournal {
    work: LeaderWork,
}

impl ReplicatedJournal {
    /// Wraps leader work; every command carries its fence.
    pub(crate) fn new(work: LeaderWork) -> Self {
        Self { work }
    }

    async fn propose(&self, command: Command) -> Result<(), WorkError> {
        match self.work.propose(command).await {
            Ok(committed) => match committed.outcome {
                Outcome::Refused(refusal) if refusal.kind == RefusalKind::Fenced => {
                    Err(WorkError::Over)
                }
                Outcome::Refused(refusal) => Err(WorkError::Refused(refusal.detail)),
                _ => Ok(()),
            },
            Err(ProposeError::NotLeader) => Err(WorkError::Over),
            Err(error) => Err(WorkError::Later(error.to_string())),
        }
    }
}

impl Journal for ReplicatedJournal {
    fn epoch(&self) -> Epoch {
        self.work.fence.epoch.unwrap_or_default()
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        self.work.handle.changes()
    }

    fn enabled_sinks(&self) -> Result<Vec<Sink>, ReadError> {
        let sinks = query::all_sinks(&self.work.handle.local_view())?;
        Ok(sinks.into_iter().filter(|sink| sink.enabled).collect())
    }

    fn cursor(&self, org: &OrgId, sink: &SinkId) -> Result<Cursor, ReadError> {
        let view = self.work.handle.local_view();
        Ok(query::cursor(&view, org, sink)?.unwrap_or_default())
    }

    fn events(&self, org: &OrgId, after: u64) -> Result<Vec<JournalledEvent>, ReadError> {
        let view = self.work.handle.local_view();
        query::journal_events(&view, org, after, READ_EVENTS_MAX, READ_BYTES_MAX)
    }

    fn extent(&self, org: &OrgId) -> Result<JournalExtent, ReadError> {
        extent(&self.work.handle.local_view(), org)
    }

    fn extents(&self) -> Result<Vec<JournalExtent>, ReadError> {
        let view = self.work.handle.local_view();
        let mut extents = Vec::new();
        let mut after: Option<OrgId> = None;
        loop {
            let page = query::organizations(&view, after.as_ref(), ORGANIZATIONS_PAGE)?;
            let Some(newest) = page.last() else {
                return Ok(extents);
            };
            after = Some(newest.org_id.clone());
            for organization in page {
                let extent = extent(&view, &organization.org_id)?;
                if extent.last > extent.trimmed {
                    extents.push(extent);
                }
            }
        }
    }

    fn retention_ms(&self) -> Result<u64, ReadError> {
        // Before the cluster is initialised there is nothing to trim: keep everything.
        let settings = query::settings(&self.work.handle.local_view())?;
        Ok(settings.map_or(u64::MAX, |settings| settings.journal_retention_ms))
    }

    async fn commit(&self, advances: Vec<CursorAdvance>) -> Result<(), WorkError> {
        let fence = self.work.fence;
        self.propose(Command::CommitCursors(CommitCursors { fence, advances })).await
    }

    async fn trim(&self, org_id: OrgId, through: u64) -> Result<(), WorkError> {
        let fence = self.work.fence;
        self.propose(Command::TrimJournal(TrimJournal { fence, org_id, through })).await
    }

    async fn credentials(&self, sink: &Sink) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let (sealed, settings) = {
            let view = self.work.handle.local_view();
            let sealed = query::sink_credentials(&view, &sink.org_id, &sink.sink_id)
                .map_err(|error| error.to_string())?;
            (sealed, query::settings(&view).map_err(|error| error.to_string())?)
        };
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let settings = settings.ok_or("the cluster is not initialised")?;
        let binding = Binding {
            seal_domain: settings.seal_domain,
            org: sink.org_id.as_str(),
            kind: SecretKind::SinkCredentials,
            record: sink.sink_id.as_str(),
            version: sealed.record_version,
        };
        let opened = self.work.keyring.open(&binding, &sealed.envelope).await;
        opened.map(Some).map_err(|error| error.to_string())
    }
}

fn extent(reader: &dyn Reader, org: &OrgId) -> Result<JournalExtent, ReadError> {
    let bounds = query::journal_bounds(reader, org)?;
    let quota = query::organization(reader, org)?.map(|found| found.quotas.max_journal_bytes);
    Ok(JournalExtent {
        org_id: org.clone(),
        last: bounds.last,
        trimmed: bounds.trimmed,
        nearly_full: quota.is_some_and(|quota| is_nearly_full(bounds.bytes, quota)),
    })
}

/// Whether a journal has reached so much of its quota that what only the retention keeps must go.
pub(crate) fn is_nearly_full(bytes: u64, quota: u64) -> bool {
    bytes >= quota / 100 * RETENTION_PERCENT_MAX
}
