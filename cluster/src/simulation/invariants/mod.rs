//! What must be true after every step, one file per invariant.

mod acknowledged;
mod committed_immutable;
mod committed_on_quorum;
mod cursors;
mod election_safety;
mod exactly_once;
mod leader_completeness;
mod linearizable;
mod log_matching;
mod monotonic;
mod one_epoch;
mod state_machine_safety;
mod state_ordering;
mod synced_survives;

use super::history::History;
use super::observe::Seen;

/// Something that must be true, with what it remembers of earlier steps.
pub(super) trait Invariant {
    /// What reports call it.
    fn name(&self) -> &'static str;

    /// Looks at one step.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&mut self, seen: &Seen, history: &History) -> Result<(), String>;
}

/// An invariant that doesn't hold.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) invariant: &'static str,
    pub(super) what: String,
}

/// All invariants of safety.
pub(super) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<election_safety::ElectionSafety>::default(),
        Box::<log_matching::LogMatching>::default(),
        Box::<leader_completeness::LeaderCompleteness>::default(),
        Box::<committed_on_quorum::CommittedOnQuorum>::default(),
        Box::new(committed_immutable::CommittedImmutable),
        Box::<state_machine_safety::StateMachineSafety>::default(),
        Box::new(state_ordering::StateOrdering),
        Box::<monotonic::Monotonic>::default(),
        Box::<synced_survives::SyncedSurvives>::default(),
        Box::<acknowledged::Acknowledged>::default(),
        Box::<linearizable::Linearizable>::default(),
        Box::<exactly_once::ExactlyOnce>::default(),
        Box::<cursors::Cursors>::default(),
        Box::<one_epoch::OneEpoch>::default(),
    ]
}

/// Looks at one step.
///
/// # Errors
/// The first invariant that doesn't hold.
pub(super) fn check(
    invariants: &mut [Box<dyn Invariant>],
    seen: &Seen,
    history: &History,
) -> Result<(), Violation> {
    for invariant in invariants {
        invariant
            .check(seen, history)
            .map_err(|what| Violation { invariant: invariant.name(), what })?;
    }
    Ok(())
}
