//! Fencing: a deposed leader's late work is refused.

use super::overlay::Overlay;
use super::work::Entry;
use crate::command::{Command, Fence};
use crate::outcome::{Refusal, RefusalKind, code};
use crate::query;
use crate::space::ReadError;

/// Returns why leader work is refused, `None` where its proposer is the leader that it believed to be.
///
/// The term catches work that was proposed in an earlier term and reached a later leader's log; the
/// epoch catches work that an older leadership began.
pub(super) fn check(
    overlay: &Overlay<'_>,
    entry: &Entry,
    fence: Fence,
    command: &Command,
) -> Result<Option<Refusal>, ReadError> {
    let refused = |code, detail| Ok(Some(Refusal::new(RefusalKind::Fenced, code, detail)));
    if fence.term != entry.term {
        let detail = format!("proposed in term {}, logged in term {}", fence.term, entry.term);
        return refused(code::STALE_TERM, detail);
    }
    // They come before there is an epoch of theirs.
    if matches!(command, Command::ClaimEpoch(_) | Command::InitializeCluster(_)) {
        return Ok(None);
    }
    let newest = query::epoch(overlay)?.map(|newest| newest.epoch);
    if fence.epoch != newest {
        let number = |epoch: Option<crate::ids::Epoch>| epoch.map_or(0, |epoch| epoch.0);
        let detail =
            format!("proposed in epoch {}, the newest is {}", number(fence.epoch), number(newest));
        return refused(code::STALE_EPOCH, detail);
    }
    Ok(None)
}
