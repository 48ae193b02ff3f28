//! What is wrong with a node, in one place: who finds something raises an alarm, and clears it by itself.
//!
//! ```text
//!  watchdog ──disk_stalled──┐
//!  space ─────no_space──────┤           ┌─► ready: 503 with the reason
//!  quorum ────quorum_no_space├─► Health ─┼─► proposals, reads, leadership
//!  comparison, scrub ─damaged┘           └─► status: `GET /cluster`, metrics, other nodes
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

/// What may be wrong. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmCode {
    /// A sync of the data directory doesn't end: this node neither leads nor campaigns.
    DiskStalled,
    /// This node's disk is nearly full.
    NoSpace,
    /// So many voters' disks are nearly full that a quorum could fill up: the leader takes no writes.
    QuorumNoSpace,
    /// Nodes have different states, and no majority says which one is right.
    StateDiffers,
    /// This node's data is damaged or differs from the majority's: it is out of service for good.
    Damaged,
}

impl AlarmCode {
    /// All codes.
    pub const ALL: [AlarmCode; 5] = [
        AlarmCode::DiskStalled,
        AlarmCode::NoSpace,
        AlarmCode::QuorumNoSpace,
        AlarmCode::StateDiffers,
        AlarmCode::Damaged,
    ];

    /// The stable name: what scripts, metrics and other nodes see.
    pub const fn name(self) -> &'static str {
        match self {
            AlarmCode::DiskStalled => "disk_stalled",
            AlarmCode::NoSpace => "no_space",
            AlarmCode::QuorumNoSpace => "quorum_no_space",
            AlarmCode::StateDiffers => "state_differs",
            AlarmCode::Damaged => "damaged",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// An alarm as others see it. The code is text, because another version may know more of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// See [`AlarmCode::name`].
    pub code: String,
    /// What is wrong and what to do, for people.
    pub detail: String,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

/// A node's alarms.
pub(crate) struct Health {
    /// One bit per raised code: what every request asks.
    raised: AtomicU32,
    details: watch::Sender<BTreeMap<AlarmCode, String>>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { raised: AtomicU32::new(0), details: watch::Sender::new(BTreeMap::new()) }
    }

    /// Raises an alarm, or changes its detail.
    pub(crate) fn raise(&self, code: AlarmCode, detail: impl Into<String>) {
        let detail = detail.into();
        self.details.send_if_modified(|alarms| {
            self.raised.fetch_or(code.bit(), Ordering::Release);
            let before = alarms.insert(code, detail.clone());
            if before.is_none() {
                tracing::error!(code = code.name(), detail, "an alarm is raised");
            }
            before.as_deref() != Some(detail.as_str())
        });
    }

    /// Clears an alarm; one that isn't raised is no error. `Damaged` stays: nothing makes it untrue.
    pub(crate) fn clear(&self, code: AlarmCode) {
        if code == AlarmCode::Damaged || !self.has(code) {
            return;
        }
        self.details.send_if_modified(|alarms| {
            self.raised.fetch_and(!code.bit(), Ordering::Release);
            let cleared = alarms.remove(&code).is_some();
            if cleared {
                tracing::info!(code = code.name(), "an alarm is cleared");
            }
            cleared
        });
    }

    /// Whether an alarm is raised.
    pub(crate) fn has(&self, code: AlarmCode) -> bool {
        self.raised.load(Ordering::Acquire) & code.bit() != 0
    }

    /// The detail of an alarm that is raised.
    pub(crate) fn detail(&self, code: AlarmCode) -> Option<String> {
        self.has(code).then(|| self.details.borrow().get(&code).cloned()).flatten()
    }

    /// Why this node may neither lead nor serve, if it may not.
    pub(crate) fn unfit(&self) -> Option<String> {
        [AlarmCode::Damaged, AlarmCode::DiskStalled].into_iter().find_map(|code| self.detail(code))
    }

    /// Why no client's write is taken here, if none is.
    pub(crate) fn no_space(&self) -> Option<String> {
        [AlarmCode::NoSpace, AlarmCode::QuorumNoSpace]
            .into_iter()
            .find_map(|code| self.detail(code))
    }

    /// All alarms, in the order of their codes.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        let alarms = self.details.borrow();
        let alarm = |(code, detail): (&AlarmCode, &String)| Alarm {
            code: code.name().to_owned(),
            detail: detail.clone(),
        };
        alarms.iter().map(alarm).collect()
    }

    /// Watches the alarms.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<AlarmCode, String>> {
        self.details.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_seen_until_it_is_cleared_and_damage_stays() {
        let health = Health::new();
        assert_eq!(health.unfit(), None);
        health.raise(AlarmCode::DiskStalled, "stuck");
        health.raise(AlarmCode::NoSpace, "full");
        assert_eq!(health.unfit().as_deref(), Some("stuck"));
        assert_eq!(health.no_space().as_deref(), Some("full"));
        health.clear(AlarmCode::DiskStalled);
        assert_eq!(health.unfit(), None);
        health.raise(AlarmCode::Damaged, "flipped");
        health.clear(AlarmCode::Damaged);
        assert_eq!(health.unfit().as_deref(), Some("flipped"));
        let codes: Vec<_> = health.alarms().into_iter().map(|alarm| alarm.code).collect();
        assert_eq!(codes, ["no_space", "damaged"]);
    }

    #[test]
    fn every_code_has_a_name_and_a_bit_of_its_own() {
        let names: std::collections::BTreeSet<_> = AlarmCode::ALL.map(AlarmCode::name).into();
        let bits: u32 = AlarmCode::ALL.iter().map(|code| code.bit()).sum();
        assert_eq!((names.len(), bits.count_ones()), (AlarmCode::ALL.len(), 5));
    }
}
