//! The audit log: read, verified, and told of refusals.

use peat_gateway_state::command::{RecordRefusals, RefusalRecord};
use peat_gateway_state::ids::{Hash32, OrgId};
use peat_gateway_state::query::{self, AuditFault, AuditVerdict};
use peat_gateway_state::record::AuditEntry;
use peat_gateway_state::{Actor, Command, Envelope};
use sha2::{Digest, Sha256};

use super::access::{Operation, authorize};
use super::{Call, Error, Reply, Service, Snapshot, app_id, org_id};
use peat_gateway_state::command::Idempotency;

/// Entries that one request looks through for those of one formation; the answer says where to go on.
const SCANNED_ENTRIES_MAX: usize = 10_000;
/// Entries that are read at once while looking.
const SCANNED_BATCH: usize = 500;

/// Entries of a chain, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// What to ask for as `before` to go on; `None` at the chain's beginning.
    pub next_before: Option<u64>,
}

/// What walking a chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Number of the newest entry that is as it must be.
    pub entries: u64,
    /// Hash of the newest entry, hexadecimal; empty where the chain is broken.
    pub head: String,
    /// Number of the first entry that isn't as it must be, and what is wrong with it.
    pub broken: Option<(u64, &'static str)>,
}

impl Service {
    /// Returns entries of an organisation's chain with numbers below `before`, the newest first; with
    /// `app`, only those about that formation. The chain of a deleted organisation can still be read.
    ///
    /// # Errors
    /// `not_found` where there never was such an organisation.
    pub async fn audit(
        &self,
        call: &Call,
        org: &str,
        app: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Reply<AuditPage>, Error> {
        authorize(call.principal, Operation::ReadAudit)?;
        let org = org_id(org)?;
        let target = match app {
            Some(app) => Some(format!("formation/{org}/{}", app_id(app)?)),
            None => None,
        };
        let snapshot = self.read(call).await?;
        existing_chain(&snapshot, &org)?;
        let value = page(&snapshot, Some(&org), target.as_deref(), before, limit)?;
        Ok(Reply { value, index: snapshot.index() })
    }

    /// Returns entries of the cluster's chain with numbers below `before`, the newest first.
    ///
    /// # Errors
    /// As every read.
    pub async fn cluster_audit(
        &self,
        call: &Call,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Reply<AuditPage>, Error> {
        authorize(call.principal, Operation::ReadClusterAudit)?;
        let snapshot = self.read(call).await?;
        let value = page(&snapshot, None, None, before, limit)?;
        Ok(Reply { value, index: snapshot.index() })
    }

    /// Walks an organisation's chain from its first entry to its head.
    ///
    /// # Errors
    /// `not_found` where there never was such an organisation.
    pub async fn verify_audit(&self, call: &Call, org: &str) -> Result<Reply<AuditReport>, Error> {
        authorize(call.principal, Operation::ReadAudit)?;
        let org = org_id(org)?;
        let snapshot = self.read(call).await?;
        existing_chain(&snapshot, &org)?;
        // It reads the whole chain, however long.
        let walked = tokio::task::spawn_blocking(move || {
            let verdict = query::verify_audit(snapshot.reader(), Some(&org))?;
            Ok(Reply { value: report(verdict), index: snapshot.index() })
        });
        walked.await.map_err(Error::internal)?
    }

    /// Writes refusals into the audit log, at most 256. The node's own work: no principal asks for it.
    ///
    /// Called again with the same `batch`, it writes nothing again.
    ///
    /// # Errors
    /// As every write.
    pub async fn record_refusals(
        &self,
        batch: &str,
        refusals: Vec<RefusalRecord>,
    ) -> Result<(), Error> {
        let actor = Actor {
            principal: format!("node:{}", self.cluster.node_id()),
            source: String::new(),
            request_id: String::new(),
        };
        let idempotency = Idempotency {
            key: batch.to_owned(),
            request_digest: Hash32(Sha256::digest(batch.as_bytes()).into()),
        };
        let command = Command::RecordRefusals(RecordRefusals { refusals });
        let envelope = Envelope::new(actor, command).with_idempotency(Some(idempotency));
        self.propose_envelope(&envelope).await.map(drop)
    }
}

fn existing_chain(snapshot: &Snapshot, org: &OrgId) -> Result<(), Error> {
    match query::audit_head(snapshot.reader(), Some(org))?.number {
        0 => Err(Error::not_found("organization", org.as_str())),
        _ => Ok(()),
    }
}

fn page(
    snapshot: &Snapshot,
    chain: Option<&OrgId>,
    target: Option<&str>,
    mut before: Option<u64>,
    limit: usize,
) -> Result<AuditPage, Error> {
    let mut entries = Vec::new();
    let mut scanned = 0;
    loop {
        let batch = if target.is_some() { SCANNED_BATCH } else { limit };
        let found = query::audit_entries(snapshot.reader(), chain, before, batch)?;
        let end = found.len() < batch;
        scanned += found.len();
        for entry in found {
            before = Some(entry.number);
            if target.is_none_or(|target| entry.target == target) {
                entries.push(entry);
            }
            if entries.len() == limit {
                break;
            }
        }
        let next_before = before.filter(|number| *number > 1);
        if end && entries.len() < limit {
            return Ok(AuditPage { entries, next_before: None });
        }
        if entries.len() == limit || scanned >= SCANNED_ENTRIES_MAX {
            return Ok(AuditPage { entries, next_before });
        }
    }
}

fn report(verdict: AuditVerdict) -> AuditReport {
    match verdict {
        AuditVerdict::Intact(head) => {
            AuditReport { entries: head.number, head: head.hash.to_string(), broken: None }
        }
        AuditVerdict::Broken { number, fault } => {
            let fault = match fault {
                AuditFault::Missing => "missing",
                AuditFault::Unlinked => "unlinked",
                AuditFault::Altered => "altered",
                AuditFault::WrongHead => "wrong_head",
            };
            let entries = number.saturating_sub(1);
            AuditReport { entries, head: String::new(), broken: Some((number, fault)) }
        }
    }
}
