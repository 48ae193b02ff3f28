//! Reads of the audit log.

use super::{record, scan_records};
use crate::audit::entry_hash;
use crate::ids::{Hash32, OrgId};
use crate::keys;
use crate::record::{AuditEntry, AuditHead};
use crate::space::{ReadError, Reader, Space};

/// What walking a chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditVerdict {
    /// Every entry is there and untouched, up to this head.
    Intact(AuditHead),
    /// The chain is broken.
    Broken {
        /// Number of the first entry that isn't as it must be.
        number: u64,
        /// What is wrong with it.
        fault: AuditFault,
    },
}

/// How a chain is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFault {
    /// The entry isn't there.
    Missing,
    /// The entry doesn't name the hash of the one before.
    Unlinked,
    /// The entry's hash isn't that of its content.
    Altered,
    /// The chain's head names another end.
    WrongHead,
}

/// Returns the end of a chain; `None` names the cluster's chain.
pub fn audit_head(reader: &dyn Reader, chain: Option<&OrgId>) -> Result<AuditHead, ReadError> {
    Ok(record(reader, Space::AuditHead, &keys::audit_head(chain))?.unwrap_or_default())
}

/// Returns at most `limit` entries of a chain, the newest first, with numbers below `before`.
///
/// An organisation's chain outlives it.
pub fn audit_entries(
    reader: &dyn Reader,
    chain: Option<&OrgId>,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<AuditEntry>, ReadError> {
    let mut range = keys::audit_range(chain);
    if let Some(before) = before {
        range.1 = keys::audit(chain, before);
    }
    let mut found = Vec::new();
    if limit > 0 {
        scan_records(reader, Space::Audit, &range, true, &mut |_, entry| {
            found.push(entry);
            found.len() < limit
        })?;
    }
    Ok(found)
}

/// Walks a chain from its first entry to its head. Reads all of it, one entry at a time.
pub fn verify_audit(reader: &dyn Reader, chain: Option<&OrgId>) -> Result<AuditVerdict, ReadError> {
    let mut end = AuditHead { number: 0, hash: Hash32::default() };
    let mut broken = None;
    let range = keys::audit_range(chain);
    scan_records(reader, Space::Audit, &range, false, &mut |_, entry: AuditEntry| {
        let number = end.number + 1;
        let fault = if entry.number != number {
            Some(AuditFault::Missing)
        } else if entry.previous != end.hash {
            Some(AuditFault::Unlinked)
        } else if entry.hash != entry_hash(&entry) {
            Some(AuditFault::Altered)
        } else {
            None
        };
        broken = fault.map(|fault| AuditVerdict::Broken { number, fault });
        end = AuditHead { number, hash: entry.hash };
        broken.is_none()
    })?;
    let head = audit_head(reader, chain)?;
    Ok(match broken {
        Some(broken) => broken,
        None if head == end => AuditVerdict::Intact(head),
        None if head.number > end.number => {
            AuditVerdict::Broken { number: end.number + 1, fault: AuditFault::Missing }
        }
        None => AuditVerdict::Broken { number: end.number, fault: AuditFault::WrongHead },
    })
}
