//! Answers kept for clients that retry: one effect per key, whatever was lost on the way.

use super::overlay::Overlay;
use super::work::Entry;
use crate::codec::{self, Key};
use crate::command::{Actor, IDEMPOTENCY_KEY_BYTES_MAX, Idempotency};
use crate::keys;
use crate::outcome::{Outcome, Refusal, RefusalKind, code};
use crate::query;
use crate::record::IdempotencyRecord;
use crate::space::{ReadError, Reader, Space};

/// Most expired answers that one entry forgets. An entry keeps at most one, so a backlog shrinks.
const FORGOTTEN_PER_ENTRY_MAX: usize = 16;

/// What is known of a request before it is decided.
pub(super) enum Known {
    /// Nothing: decide it.
    New,
    /// It was decided before.
    Answered {
        /// How.
        outcome: Outcome,
        /// Log index of the entry that did it.
        index: u64,
    },
    /// Its key can't be used for it.
    Refused(Refusal),
}

/// Looks for the answer to a request that may be a retry.
pub(super) fn look_up(
    overlay: &Overlay<'_>,
    entry: &Entry,
    actor: &Actor,
    idempotency: Option<&Idempotency>,
) -> Result<Known, ReadError> {
    let Some(Idempotency { key, request_digest }) = idempotency else {
        return Ok(Known::New);
    };
    if !key_is_valid(key) {
        return Ok(Known::Refused(Refusal::new(
            RefusalKind::Invalid,
            code::INVALID_IDEMPOTENCY_KEY,
            format!("an idempotency key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
        )));
    }
    match query::idempotency_record(overlay, &actor.principal, key)? {
        Some(record) if record.expires_at < entry.now => Ok(Known::New),
        Some(record) if record.request_digest == *request_digest => {
            let outcome = codec::decode(&record.outcome)
                .map_err(|reason| ReadError::Decode { space: Space::Idempotency.name(), reason })?;
            Ok(Known::Answered { outcome, index: record.index })
        }
        Some(_) => Ok(Known::Refused(Refusal::new(
            RefusalKind::Conflict,
            code::IDEMPOTENCY_KEY_REUSED,
            "the idempotency key was used for another request; use a new one",
        ))),
        None => Ok(Known::New),
    }
}

/// Keeps the answer to a request, unless a retry may be answered otherwise.
pub(super) fn keep(
    overlay: &mut Overlay<'_>,
    entry: &Entry,
    actor: &Actor,
    idempotency: Option<&Idempotency>,
    outcome: &Outcome,
) -> Result<(), ReadError> {
    let Some(Idempotency { key, request_digest }) = idempotency else {
        return Ok(());
    };
    if !is_kept(outcome) || !key_is_valid(key) {
        return Ok(());
    }
    let Some(settings) = query::settings(overlay)? else {
        return Ok(());
    };
    if let Some(expired) = query::idempotency_record(overlay, &actor.principal, key)? {
        let at = expired.expires_at;
        overlay.delete(
            Space::IdempotencyExpiry,
            keys::idempotency_expiry(at, &actor.principal, key),
        )?;
    }
    let expires_at = entry.now.saturating_add(settings.idempotency_retention_ms);
    let record = IdempotencyRecord {
        request_digest: *request_digest,
        outcome: codec::encode(outcome),
        index: entry.index,
        expires_at,
    };
    overlay.put_record(Space::Idempotency, keys::idempotency(&actor.principal, key), &record)?;
    overlay.put(
        Space::IdempotencyExpiry,
        keys::idempotency_expiry(expires_at, &actor.principal, key),
        Vec::new(),
    )
}

/// Forgets answers that expired from `from` to before `now`; returns up to which time all are forgotten.
pub(super) fn forget_expired(
    overlay: &mut Overlay<'_>,
    from: u64,
    now: u64,
) -> Result<u64, ReadError> {
    let start = Key::new().number(from).into_bytes();
    let end = Key::new().number(now).into_bytes();
    let mut expired: Vec<Vec<u8>> = Vec::new();
    overlay.scan(Space::IdempotencyExpiry, &start, &end, false, &mut |key, _| {
        expired.push(key.to_vec());
        expired.len() < FORGOTTEN_PER_ENTRY_MAX
    })?;
    let mut forgotten_before = now;
    let more_may_follow = expired.len() == FORGOTTEN_PER_ENTRY_MAX;
    for expiry in expired {
        if let Some((time, answer)) = keys::idempotency_of_expiry(&expiry) {
            overlay.delete(Space::Idempotency, answer.to_vec())?;
            if more_may_follow {
                forgotten_before = time;
            }
        }
        overlay.delete(Space::IdempotencyExpiry, expiry)?;
    }
    Ok(forgotten_before)
}

fn key_is_valid(key: &str) -> bool {
    (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
}

/// A retry of what couldn't be decided now may be decided later, and a key that belongs to another
/// request keeps that one's answer.
fn is_kept(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Refused(refusal) => {
            !matches!(refusal.kind, RefusalKind::Unavailable | RefusalKind::Fenced)
                && refusal.code != code::IDEMPOTENCY_KEY_REUSED
        }
        _ => true,
    }
}
