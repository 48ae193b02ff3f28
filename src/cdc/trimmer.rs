//! The trimmer: drops journal rows that every enabled sink has and that are old enough, or of any age once
//! the organisation's quota is nearly used up.
//!
//! Only committed cursors count. `apply` checks again and refuses what a sink still needs, so a sink
//! that is enabled at the same moment loses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peat_gateway_state::ReadError;
use peat_gateway_state::ids::OrgId;
use tokio_util::sync::CancellationToken;

use super::journal::{Journal, JournalExtent, WorkError};

/// Most commands per organisation and round; a long journal takes several rounds.
const COMMANDS_PER_ROUND_MAX: usize = 64;

/// Trims every `interval` until cancelled. Cancels `over` where the epoch has ended.
pub(crate) async fn run<J: Journal>(
    journal: Arc<J>,
    interval: Duration,
    stop: CancellationToken,
    over: CancellationToken,
) {
    let mut reached = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        match stop.run_until_cancelled(round(&journal, &mut reached)).await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(WorkError::Over)) => {
                over.cancel();
                return;
            }
            Some(Err(error)) => tracing::warn!(%error, "could not trim the journal"),
        }
    }
}

/// Trims every organisation once. `reached` remembers how far each was trimmed already.
pub(crate) async fn round<J: Journal>(
    journal: &Arc<J>,
    reached: &mut BTreeMap<OrgId, u64>,
) -> Result<(), WorkError> {
    for Planned { org, through, for_room } in plan_off_runtime(journal, unix_ms()).await? {
        if reached.get(&org).is_some_and(|before| *before >= through) {
            continue;
        }
        let mut before = None;
        for _ in 0..COMMANDS_PER_ROUND_MAX {
            match journal.trim(org.clone(), through).await {
                Ok(()) => {}
                Err(WorkError::Refused(reason)) => {
                    tracing::debug!(%org, through, reason, "the journal is still in use");
                    break;
                }
                Err(error) => return Err(error),
            }
            let extent = journal.extent(&org).map_err(read_failed)?;
            let trimmed = extent.trimmed;
            if for_room && !extent.nearly_full {
                break;
            }
            // One command deletes a limited number of rows: go on while it gets somewhere.
            if trimmed >= through || before == Some(trimmed) {
                reached.insert(org, through);
                break;
            }
            before = Some(trimmed);
        }
    }
    Ok(())
}

/// Computes how far each organisation's journal may go; reads the store, so off the runtime's threads.
async fn plan_off_runtime<J: Journal>(
    journal: &Arc<J>,
    now_ms: u64,
) -> Result<Vec<Planned>, WorkError> {
    let journal = Arc::clone(journal);
    match tokio::task::spawn_blocking(move || plan(journal.as_ref(), now_ms)).await {
        Ok(planned) => planned.map_err(read_failed),
        Err(error) => Err(WorkError::Later(error.to_string())),
    }
}

/// How far one organisation's journal may go.
struct Planned {
    org: OrgId,
    through: u64,
    /// The retention would keep it, but room is needed: only until there is some.
    for_room: bool,
}

fn plan<J: Journal>(journal: &J, now_ms: u64) -> Result<Vec<Planned>, ReadError> {
    let extents = journal.extents()?;
    if extents.is_empty() {
        return Ok(Vec::new());
    }
    let retention_ms = journal.retention_ms()?;
    let mut slowest: BTreeMap<OrgId, u64> = BTreeMap::new();
    for sink in journal.enabled_sinks()? {
        let acknowledged = journal.cursor(&sink.org_id, &sink.sink_id)?.acknowledged;
        let lowest = slowest.entry(sink.org_id).or_insert(acknowledged);
        *lowest = (*lowest).min(acknowledged);
    }
    let mut planned = Vec::new();
    for extent in extents {
        let limit = slowest.get(&extent.org_id).map_or(extent.last, |low| extent.last.min(*low));
        let through = expired_through(journal, &extent, limit, now_ms, retention_ms)?;
        let for_room = extent.nearly_full && limit > through;
        let through = if for_room { limit } else { through };
        if through > extent.trimmed {
            planned.push(Planned { org: extent.org_id, through, for_room });
        }
    }
    Ok(planned)
}

/// Returns the newest sequence up to `limit` of which it and all before are older than the retention.
fn expired_through<J: Journal>(
    journal: &J,
    extent: &JournalExtent,
    limit: u64,
    now_ms: u64,
    retention_ms: u64,
) -> Result<u64, ReadError> {
    if retention_ms == 0 {
        return Ok(limit);
    }
    let expired_before = now_ms.saturating_sub(retention_ms);
    let mut through = extent.trimmed;
    // Each read is bounded and so are the rounds: the oldest rows are all that is looked at.
    for _ in 0..COMMANDS_PER_ROUND_MAX {
        let events = journal.events(&extent.org_id, through)?;
        if events.is_empty() {
            break;
        }
        for journalled in events {
            if journalled.sequence > limit || journalled.event.observed_at >= expired_before {
                return Ok(through);
            }
            through = journalled.sequence;
        }
    }
    Ok(through)
}

fn read_failed(error: ReadError) -> WorkError {
    WorkError::Later(error.to_string())
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
