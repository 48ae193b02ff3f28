//! Generated command sequences hold the promises that are the state machine's (INV-3 to 5, 9 to 11).

mod checks;
mod steps;

use std::collections::BTreeSet;

use peat_gateway_state::outcome::RefusalKind;
use peat_gateway_state::space::Space;
use peat_gateway_state::{Outcome, VERSION};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use self::checks::Checks;
use self::steps::{Step, steps};
use crate::support::{Cluster, Rows, replay};

/// Rows that a refused or repeated command may change: the clock, forgotten answers, its own answer
/// and its audit entry.
const TRACE: [Space; 5] =
    [Space::Cluster, Space::Audit, Space::AuditHead, Space::Idempotency, Space::IdempotencyExpiry];

/// Applies steps; `check` sees the rows before, what came out, and the cluster after.
fn run(
    steps: &[Step],
    mut check: impl FnMut(&Rows, &peat_gateway_state::Envelope, &peat_gateway_state::Applied, &Cluster),
) -> Cluster {
    let mut cluster = Cluster::with_acme_at(match steps {
        [first, ..] => first.first_version(),
        [] => VERSION,
    });
    for step in steps {
        let envelope = step.envelope(&mut cluster);
        let before = cluster.rows.clone();
        let applied = cluster.send_envelope(&envelope);
        if let Outcome::EpochClaimed(epoch) = applied.outcome {
            cluster.epoch = Some(epoch);
        }
        check(&before, &envelope, &applied, &cluster);
    }
    cluster
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn generated_commands_hold_every_invariant(steps in steps()) {
        let mut checks = Checks::default();
        run(&steps, |before, envelope, applied, cluster| {
            checks.after(before, envelope, applied, cluster);
            if let Outcome::Refused(refusal) = &applied.outcome {
                assert_eq!(before.without(&TRACE), cluster.rows.without(&TRACE));
                if refusal.kind == RefusalKind::Fenced {
                    let audit = |rows: &Rows| rows.of(Space::Audit).len();
                    assert_eq!(audit(before), audit(&cluster.rows));
                }
            }
            if applied.index < cluster.next_index() - 1 {
                assert_eq!(before.without(&TRACE), cluster.rows.without(&TRACE));
            }
        });
    }

    #[test]
    fn same_log_twice_gives_the_same_bytes(
        steps in steps(),
        sizes in proptest::collection::vec(1usize..9, 1..4),
    ) {
        let cluster = run(&steps, |_, _, _, _| ());
        for sizes in [sizes, vec![usize::MAX]] {
            let (rows, hash) = replay(&cluster.log, &sizes);
            prop_assert_eq!(&rows, &cluster.rows);
            prop_assert_eq!(hash.digest(), cluster.hash.digest());
        }
    }
}

/// Without this the other tests could hold because nothing ever happens.
#[test]
fn generated_steps_get_every_kind_of_command_done() {
    let mut runner = TestRunner::deterministic();
    let mut done = BTreeSet::new();
    for _ in 0..200 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        run(&steps, |before, envelope, applied, cluster| {
            let is_claim = matches!(applied.outcome, Outcome::EpochClaimed(_));
            if is_claim || before.without(&TRACE) != cluster.rows.without(&TRACE) {
                let name = format!("{:?}", envelope.command);
                done.extend(name.split('(').next().map(str::to_owned));
            }
        });
    }
    // The cluster is initialised from the beginning, and some leave only what every one may.
    let invisible = ["InitializeCluster", "UpdateSettings", "RecordRefusals", "RaiseVersion"];
    let all: BTreeSet<String> = crate::samples::commands(Cluster::new().fence())
        .into_iter()
        .map(|(label, _)| label.split('-').next().unwrap_or(label).to_owned())
        .filter(|name| !invisible.contains(&name.as_str()))
        .collect();
    assert_eq!(done, all);
}
