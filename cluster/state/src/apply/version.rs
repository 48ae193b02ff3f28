//! The cluster's version: commands that need more are refused, and raising it.

use super::audit;
use super::overlay::Overlay;
use super::settings;
use super::work::{Decided, Work};
use crate::command::{Actor, Command, FIRST_VERSION, RaiseVersion};
use crate::outcome::{Outcome, Refusal, RefusalKind, code};
use crate::query;
use crate::record::{AuditAction, ClusterSettings};
use crate::space::ReadError;

/// Returns why a command is refused for the version that it needs, `None` where it isn't.
///
/// The proposer has checked the same; this is for the one that checked before it knew.
pub(super) fn check(
    overlay: &Overlay<'_>,
    command: &Command,
) -> Result<Option<Refusal>, ReadError> {
    let needed = command.minimum_version();
    if needed <= FIRST_VERSION || command.sets_version() {
        return Ok(None);
    }
    let version = query::settings(overlay)?.map_or(FIRST_VERSION, |settings| settings.version);
    Ok((needed > version).then(|| {
        let detail = format!("this needs cluster version {needed}, the cluster has {version}");
        Refusal::new(RefusalKind::Unavailable, code::VERSION_NOT_ENABLED, detail)
    }))
}

/// Raises the version; never lowers it.
pub(super) fn raise(work: &mut Work<'_>, actor: &Actor, command: &RaiseVersion) -> Decided {
    let Some(settings) = query::settings(&work.rows)? else {
        return Ok(settings::not_initialized().into());
    };
    if command.version <= settings.version {
        return Ok(Outcome::Done);
    }
    settings::write(work, &ClusterSettings { version: command.version, ..settings })?;
    let target = format!("version/{}", command.version);
    audit::record_done(&mut work.rows, &work.entry, actor, AuditAction::RaiseVersion, &target)?;
    Ok(Outcome::Done)
}
