//! What a seed decides before the run begins.

use super::faults::Fault;
use super::random::Random;

/// What a seed decides before the run begins.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) hosts: usize,
    pub(super) snapshot_entries: u64,
    pub(super) entries_kept: u64,
    pub(super) latency_ms_max: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) fault_pause_ms_max: u64,
    pub(super) client_pause_ms_max: u64,
    pub(super) trouble_ms: u64,
    /// Trouble begins with the first start, not with a cluster that is set up.
    pub(super) trouble_at_once: bool,
}

impl Plan {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            hosts: if random.chance(70) { 3 } else { 5 },
            snapshot_entries: random.of(20..150),
            entries_kept: random.of(0..60),
            latency_ms_max: random.of(2..40),
            faults: Fault::some(random),
            fault_pause_ms_max: random.of(100..1_500),
            client_pause_ms_max: random.of(5..40),
            trouble_ms: random.of(4_000..12_000),
            trouble_at_once: random.chance(20),
        }
    }
}
