//! The cluster's settings.

use super::audit;
use super::work::{Decided, Work, refuse};
use crate::command::{Actor, IDEMPOTENCY_RETENTION_MS, InitializeCluster, UpdateSettings};
use crate::keys;
use crate::outcome::{Outcome, Refusal, RefusalKind, code};
use crate::query;
use crate::record::{AuditAction, ClusterKey, ClusterSettings};
use crate::space::Space;

/// Writes the first settings; done again it changes nothing.
pub(super) fn initialize(
    work: &mut Work<'_>,
    actor: &Actor,
    command: &InitializeCluster,
) -> Decided {
    if query::settings(&work.rows)?.is_some() {
        return Ok(Outcome::Done);
    }
    write(work, &command.settings)?;
    let action = AuditAction::InitializeCluster;
    audit::record_done(&mut work.rows, &work.entry, actor, action, "cluster")?;
    Ok(Outcome::Done)
}

/// Changes settings.
pub(super) fn update(work: &mut Work<'_>, command: &UpdateSettings) -> Decided {
    let Some(mut settings) = query::settings(&work.rows)? else {
        return Ok(not_initialized().into());
    };
    if let Some(retention_ms) = command.idempotency_retention_ms {
        if !IDEMPOTENCY_RETENTION_MS.contains(&retention_ms) {
            return refuse(
                RefusalKind::Invalid,
                code::INVALID_SETTINGS,
                format!(
                    "idempotency_retention_ms must be {} to {}, not {retention_ms}",
                    IDEMPOTENCY_RETENTION_MS.start(),
                    IDEMPOTENCY_RETENTION_MS.end()
                ),
            );
        }
        settings.idempotency_retention_ms = retention_ms;
    }
    if let Some(retention_ms) = command.journal_retention_ms {
        settings.journal_retention_ms = retention_ms;
    }
    if command.upgrade.is_some() {
        settings.upgrade = command.upgrade;
    }
    write(work, &settings)?;
    Ok(Outcome::Done)
}

/// Writes the settings; workers that wait for them look again.
pub(super) fn write(work: &mut Work<'_>, settings: &ClusterSettings) -> Decided<()> {
    work.effects.configuration = true;
    Ok(work.rows.put_record(Space::Cluster, keys::cluster(ClusterKey::Settings), settings)?)
}

/// The answer to every request before the cluster is initialised.
pub(super) fn not_initialized() -> Refusal {
    Refusal::new(
        RefusalKind::Unavailable,
        code::NOT_INITIALIZED,
        "the cluster is not initialized yet; try again",
    )
}
