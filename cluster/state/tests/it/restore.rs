//! Restoring: another cluster, the same data, and no number that could be taken for an old one.

use peat_gateway_state::apply::Overlay;
use peat_gateway_state::apply::restore::{Facts, RAISE, Restoration, each_row, raise};
use peat_gateway_state::command::{ClaimEpoch, Fence, Idempotency};
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::query::{self, AuditVerdict};
use peat_gateway_state::record::*;
use peat_gateway_state::space::{ReadError, Space};
use peat_gateway_state::{Applied, Command, EntryPosition, Envelope, Outcome, apply, codec, keys};

use crate::support::make::{self, app, doc, hash, org, sink_id};
use crate::support::{Cluster, Rows};

const NEW_CLUSTER: [u8; 16] = [9; 16];

fn facts(from_index: u64) -> Facts {
    Facts {
        cluster_id: NEW_CLUSTER,
        from_cluster: [1; 16],
        from_index,
        from_state_hash: hash("state"),
        source: "snapshot acme.snapshot".into(),
        actor: make::actor("operator"),
        time_ms: 5,
        term: 4,
    }
}

/// A state after a restore, ready for entries of its own.
struct Restored {
    rows: Rows,
    hash: StateHash,
    index: u64,
    steps: usize,
}

fn restore(rows: &Rows, facts: Facts) -> Restored {
    let mut restored = Rows::default();
    each_row::<ReadError>(rows, &mut |space, key, value| {
        restored.0.insert((space, key.to_vec()), raise(space, value)?.into_owned());
        Ok(())
    })
    .expect("rows are read");
    assert_eq!(restored.0.len(), rows.0.len());
    let mut hash = restored.hash();
    let mut restoration = Restoration::new(facts);
    let index = restoration.index();
    let mut steps = 0;
    loop {
        steps += 1;
        let mut overlay = Overlay::new(&restored);
        let more = restoration.step(&mut overlay).expect("rows are read");
        let changes = overlay.finish(&mut hash);
        restored.write(changes);
        if !more {
            assert_eq!(hash, restored.hash());
            return Restored { rows: restored, hash, index, steps };
        }
    }
}

impl Restored {
    fn send(&mut self, envelope: &Envelope) -> Applied {
        self.index += 1;
        let position = EntryPosition { index: self.index, term: 5, time_ms: 2_000_000 };
        let mut overlay = Overlay::new(&self.rows);
        let applied =
            apply(&mut overlay, &position, &codec::encode(envelope)).expect("the entry applies");
        let changes = overlay.finish(&mut self.hash);
        self.rows.write(changes);
        applied
    }

    fn done(&mut self, command: Command) -> Applied {
        let applied = self.send(&Envelope::new(make::actor("admin"), command));
        assert!(!matches!(applied.outcome, Outcome::Refused(_)), "{applied:?}");
        applied
    }

    fn claim(&mut self) -> Fence {
        let claim = ClaimEpoch { term: 5, node: NodeId(8) };
        match self.done(Command::ClaimEpoch(claim)).outcome {
            Outcome::EpochClaimed(epoch) => Fence { term: 5, epoch: Some(epoch) },
            other => panic!("{other:?}"),
        }
    }
}

/// `acme` with three events; `S1` has all of them, `S2` the first.
fn with_events() -> Cluster {
    let mut cluster = Cluster::with_acme();
    cluster.done(make::create_sink("acme", "S2"));
    let events = vec![
        make::batch("alpha", "a", vec![make::change("a1", &[]), make::change("a2", &["a1"])]),
        make::batch("alpha", "b", vec![make::change("b1", &[])]),
    ];
    cluster.done(make::append(cluster.fence(), "acme", events));
    let advances = vec![make::advance("acme", "S1", 3, &[]), make::advance("acme", "S2", 1, &[])];
    cluster.done(make::commit(cluster.fence(), advances));
    cluster
}

#[test]
fn after_a_restore_every_new_number_is_above_all_that_the_old_cluster_could_have_given() {
    let old = with_events();
    let last_index = old.log.len() as u64;
    let mut new = restore(&old.rows, facts(last_index));
    assert_eq!(new.index, last_index + RAISE);

    let fence = new.claim();
    assert!(fence.epoch.unwrap().0 > RAISE + old.epoch.unwrap().0);
    let events = vec![make::batch("alpha", "a", vec![make::change("a3", &["a2"])])];
    let appended = new.done(make::append(fence, "acme", events)).outcome;
    assert_eq!(appended, Outcome::Appended { first: RAISE + 4, last: RAISE + 4, known: 0 });
    let journalled = query::journal_events(&new.rows, &org("acme"), 0, 100, 1 << 20).unwrap();
    let places: Vec<_> =
        journalled.iter().map(|e| (e.sequence, e.event.document_sequence)).collect();
    // What may have been delivered keeps its numbers.
    assert_eq!(places, [(1, 1), (2, 2), (3, 1), (RAISE + 4, RAISE + 3)]);
    let renamed = new.done(make::rename_organization("acme", "New"));
    let Outcome::Organization(organization) = renamed.outcome else { panic!("{renamed:?}") };
    assert!(organization.revision > RAISE);
}

#[test]
fn cursors_go_on_where_they_were_and_one_that_had_everything_lags_by_nothing() {
    let old = with_events();
    let mut new = restore(&old.rows, facts(old.log.len() as u64));
    let cursor = |new: &Restored, sink: &str| {
        query::cursor(&new.rows, &org("acme"), &sink_id(sink)).unwrap().unwrap()
    };
    let bounds = query::journal_bounds(&new.rows, &org("acme")).unwrap();
    assert_eq!((bounds.trimmed, bounds.last), (0, RAISE + 3));
    assert_eq!(cursor(&new, "S1").acknowledged, bounds.last);
    assert_eq!(cursor(&new, "S2").acknowledged, 1);
    // The one that was behind gets what it lacks and then passes the gap.
    let fence = new.claim();
    for acknowledged in [3, RAISE + 3] {
        new.done(make::commit(fence, vec![make::advance("acme", "S2", acknowledged, &[])]));
        assert_eq!(cursor(&new, "S2").acknowledged, acknowledged);
    }
    new.done(make::trim(fence, "acme", RAISE + 3));
    assert!(new.rows.of(Space::Journal).is_empty());
}

#[test]
fn an_empty_journal_stays_empty_and_a_trimmed_one_stays_trimmed() {
    let mut old = with_events();
    old.done(make::create_organization("quiet"));
    let catch_up = vec![make::advance("acme", "S2", 3, &[])];
    old.done(make::commit(old.fence(), catch_up));
    old.done(make::trim(old.fence(), "acme", 3));
    let new = restore(&old.rows, facts(old.log.len() as u64));
    for (id, last) in [("acme", RAISE + 3), ("quiet", RAISE)] {
        let bounds = query::journal_bounds(&new.rows, &org(id)).unwrap();
        assert_eq!((bounds.trimmed, bounds.last, bounds.bytes), (last, last, 0), "{id}");
    }
}

#[test]
fn the_new_cluster_says_what_it_comes_from_and_keeps_the_seal_domain() {
    let old = with_events();
    let before = query::settings(&old.rows).unwrap().unwrap();
    let new = restore(&old.rows, facts(12));
    let after = query::settings(&new.rows).unwrap().unwrap();
    assert_eq!(after, ClusterSettings { cluster_id: NEW_CLUSTER, ..before });
    let origin = query::origin(&new.rows).unwrap().unwrap();
    assert_eq!((origin.cluster_id, origin.index, origin.generation), ([1; 16], 12, 1));
    assert_eq!(query::origin(&old.rows).unwrap(), None);

    let entry = &query::audit_entries(&new.rows, None, None, 1).unwrap()[0];
    assert_eq!((entry.action, entry.index), (AuditAction::RestoreCluster, RAISE + 12));
    assert_eq!(entry.actor.principal, "operator");
    assert!(entry.target.contains(&"01".repeat(16)), "{}", entry.target);
    assert!(entry.target.ends_with("at index 12 by snapshot acme.snapshot"), "{}", entry.target);
    let verdict = query::verify_audit(&new.rows, None).unwrap();
    assert!(matches!(verdict, AuditVerdict::Intact(head) if head.number == entry.number));
    // The time of the audit log never goes back, whatever the clock of who restores says.
    assert_eq!(entry.time, query::clock(&old.rows).unwrap().now);

    let again = restore(&new.rows, Facts { from_cluster: NEW_CLUSTER, ..facts(new.index) });
    assert_eq!(query::origin(&again.rows).unwrap().unwrap().generation, 2);
    assert_eq!(again.index, 2 * RAISE + 12);
}

#[test]
fn all_other_rows_are_the_same_and_two_restores_of_the_same_give_the_same_bytes() {
    let old = with_events();
    let new = restore(&old.rows, facts(12));
    let changed = [
        Space::Cluster,
        Space::OrganizationCounters,
        Space::Cursor,
        Space::Document,
        Space::Audit,
        Space::AuditHead,
    ];
    assert_eq!(new.rows.without(&changed), old.rows.without(&changed));
    let again = restore(&old.rows, facts(12));
    assert_eq!((&again.rows, &again.hash), (&new.rows, &new.hash));
    let document = query::document(&new.rows, &org("acme"), &app("alpha"), &doc("a"));
    let document = document.unwrap().unwrap();
    assert_eq!((document.document_sequence, document.changes), (RAISE + 2, 2));
}

#[test]
fn a_retry_of_what_is_contained_gets_its_answer_from_before() {
    let mut old = Cluster::with_acme();
    let idempotency = Some(Idempotency { key: "k1".into(), request_digest: hash("body") });
    let envelope = Envelope::new(make::actor("admin"), make::create_organization("beta"))
        .with_idempotency(idempotency);
    let first = old.send_envelope(&envelope);
    let mut new = restore(&old.rows, facts(old.log.len() as u64));
    // Within the time for which answers are kept.
    let position = EntryPosition { index: new.index + 1, term: 5, time_ms: old.now + 1 };
    let mut overlay = Overlay::new(&new.rows);
    let retried = apply(&mut overlay, &position, &codec::encode(&envelope)).unwrap();
    assert_eq!((&retried.outcome, retried.index), (&first.outcome, first.index));
    new.claim();
}

#[test]
fn many_cursors_are_raised_in_steps() {
    let mut rows = Cluster::with_acme().rows;
    for number in 0..2_500u32 {
        let org = org(&format!("org-{number}"));
        let journal_last = u64::from(number);
        let counters = OrganizationCounters { journal_last, ..OrganizationCounters::default() };
        let key = keys::organization(&org);
        rows.0.insert((Space::OrganizationCounters, key), codec::encode(&counters));
        let cursor = Cursor { acknowledged: journal_last, ..Cursor::default() };
        rows.0.insert((Space::Cursor, keys::sink(&org, &sink_id("S"))), codec::encode(&cursor));
    }
    let new = restore(&rows, facts(12));
    assert!(new.steps >= 3, "{} steps", new.steps);
    for number in 0..2_500u32 {
        let org = org(&format!("org-{number}"));
        let cursor = query::cursor(&new.rows, &org, &sink_id("S")).unwrap().unwrap();
        assert_eq!(cursor.acknowledged, RAISE + u64::from(number));
    }
}

#[test]
fn a_row_that_cannot_be_read_or_raised_ends_the_restore() {
    assert!(raise(Space::Document, b"no record").is_err());
    let full = OrganizationCounters { journal_last: u64::MAX, ..OrganizationCounters::default() };
    assert!(raise(Space::OrganizationCounters, &codec::encode(&full)).is_err());
}
