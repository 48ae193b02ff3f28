//! Refused requests, counted per source and minute, so that nobody can flood the audit log.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use peat_gateway_state::Actor;
use peat_gateway_state::command::{REFUSALS_PER_COMMAND_MAX, RefusalRecord};
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::service::{Kind, Principal};

/// How long refusals are collected before they are written.
const WINDOW: Duration = Duration::from_secs(60);
/// How long the last refusals may take to be written when the node drains.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// The source of what found no place of its own.
const OTHER: &str = "other";

/// Counts that wait to be written. Holds at most [`REFUSALS_PER_COMMAND_MAX`]; what comes from
/// further sources is counted together.
#[derive(Default)]
pub(super) struct Refusals(Mutex<BTreeMap<Refused, u32>>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Refused {
    source: String,
    principal: &'static str,
    target: String,
    code: String,
}

impl Refusals {
    /// Counts one refusal. `target` and `code` are from small fixed sets.
    pub(super) fn count(&self, source: &str, principal: Principal, target: String, code: String) {
        let mut counts = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut refused =
            Refused { source: source.to_owned(), principal: principal.name(), target, code };
        if !counts.contains_key(&refused) && counts.len() >= REFUSALS_PER_COMMAND_MAX - 1 {
            refused = Refused {
                source: OTHER.to_owned(),
                principal: Principal::Anonymous.name(),
                target: OTHER.to_owned(),
                code: OTHER.to_owned(),
            };
        }
        let count = counts.entry(refused).or_default();
        *count = count.saturating_add(1);
    }

    /// Takes all that was counted.
    fn take(&self) -> Vec<RefusalRecord> {
        let mut counts = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::take(&mut *counts)
            .into_iter()
            .map(|(refused, count)| RefusalRecord {
                // The cluster's chain: who was refused must not be able to fill an organisation's.
                org_id: None,
                actor: Actor {
                    principal: refused.principal.to_owned(),
                    source: refused.source,
                    request_id: String::new(),
                },
                target: refused.target,
                code: refused.code,
                count,
            })
            .collect()
    }
}

/// A batch that is to be written. Its name makes a repeated write the same write.
struct Batch {
    name: String,
    refusals: Vec<RefusalRecord>,
}

/// Writes refusals into the audit log once a minute, and a last time when the node drains.
pub(super) async fn record(api: Api, shutdown: CancellationToken) {
    let mut batch = None;
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(WINDOW) => write(&api, &mut batch).await,
            () = shutdown.cancelled() => {}
        }
    }
    if tokio::time::timeout(LAST_WRITE_TIMEOUT, write(&api, &mut batch)).await.is_err() {
        tracing::warn!("the last refusals were not written into the audit log in time");
    }
}

/// Writes the batch that is left, else what was counted since. Where it can't be written now the
/// batch is left for the next time, while the counts go on.
async fn write(api: &Api, batch: &mut Option<Batch>) {
    if batch.is_none() {
        let refusals = api.shared.refusals.take();
        if refusals.is_empty() {
            return;
        }
        *batch = Some(Batch { name: ulid::Ulid::generate().to_string(), refusals });
    }
    let Some(Batch { name, refusals }) = batch else { return };
    match api.service.record_refusals(name, refusals.clone()).await {
        Ok(()) => *batch = None,
        Err(error)
            if matches!(error.kind, Kind::Unavailable | Kind::UnknownOutcome | Kind::TooMany) =>
        {
            tracing::warn!(%error, "refusals wait to be written into the audit log");
        }
        Err(error) => {
            tracing::error!(%error, "refusals could not be written into the audit log");
            *batch = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(refusals: &Refusals, source: &str) {
        let target = "GET /orgs".to_owned();
        refusals.count(source, Principal::Anonymous, target, "unauthenticated".to_owned());
    }

    #[test]
    fn refusals_are_counted_per_source() {
        let refusals = Refusals::default();
        for source in ["10.0.0.1", "10.0.0.2", "10.0.0.1"] {
            count(&refusals, source);
        }
        let taken = refusals.take();
        let counts: Vec<_> =
            taken.iter().map(|refusal| (refusal.actor.source.as_str(), refusal.count)).collect();
        assert_eq!(counts, [("10.0.0.1", 2), ("10.0.0.2", 1)]);
        assert!(refusals.take().is_empty());
    }

    #[test]
    fn a_flood_from_many_sources_stays_within_one_command() {
        let refusals = Refusals::default();
        for source in 0..1000 {
            count(&refusals, &source.to_string());
        }
        let taken = refusals.take();
        assert_eq!(taken.len(), REFUSALS_PER_COMMAND_MAX);
        assert_eq!(taken.iter().map(|refusal| refusal.count).sum::<u32>(), 1000);
        assert!(taken.iter().any(|refusal| refusal.actor.source == OTHER));
    }
}
