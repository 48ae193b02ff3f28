//! How entries of the audit log are chained.
//!
//! ```text
//!   entry n-1 ──hash──► entry n: previous = that hash
//!                                hash     = SHA-256(previous ‖ CBOR of the entry's other fields)
//! ```
//!
//! Nobody can change, remove or insert an entry without changing all hashes after it;
//! [`crate::query::verify_audit`] walks a chain, and an exported head proves all before it.

use minicbor::Encode;
use sha2::{Digest, Sha256};

use crate::codec;
use crate::command::Actor;
use crate::ids::Hash32;
use crate::record::{AuditAction, AuditEntry};

/// What an entry's hash covers, apart from the previous hash: the same fields under the same numbers.
#[derive(Encode)]
struct Covered<'e> {
    #[n(0)]
    number: u64,
    #[n(1)]
    time: u64,
    #[n(2)]
    index: u64,
    #[n(3)]
    actor: &'e Actor,
    #[n(4)]
    action: AuditAction,
    #[n(5)]
    target: &'e str,
    #[n(6)]
    result: &'e str,
    #[n(7)]
    count: u32,
}

/// Returns the hash that an entry must carry; its own `hash` field isn't looked at.
pub fn entry_hash(entry: &AuditEntry) -> Hash32 {
    let covered = codec::encode(&Covered {
        number: entry.number,
        time: entry.time,
        index: entry.index,
        actor: &entry.actor,
        action: entry.action,
        target: &entry.target,
        result: &entry.result,
        count: entry.count,
    });
    let mut hasher = Sha256::new();
    hasher.update(entry.previous.0);
    hasher.update(covered);
    Hash32(hasher.finalize().into())
}
