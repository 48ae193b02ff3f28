//! What must hold after every entry, recomputed from the rows alone.

use std::collections::{BTreeMap, BTreeSet};

use peat_gateway_state::ids::{AppId, Hash32, OrgId};
use peat_gateway_state::query::{self, AuditVerdict};
use peat_gateway_state::record::*;
use peat_gateway_state::space::Space;
use peat_gateway_state::{Applied, Command, Envelope, Outcome, codec, keys};

use super::steps::{APPS, ORGS};
use crate::support::make::{app, org};
use crate::support::{Cluster, Rows};

/// What is remembered from entry to entry.
#[derive(Default)]
pub(crate) struct Checks {
    /// Events journalled since their formation was created; one created again may see them again.
    journalled: BTreeMap<(OrgId, AppId), BTreeSet<Hash32>>,
}

impl Checks {
    /// Checks all that must hold after an entry.
    pub(crate) fn after(
        &mut self,
        before: &Rows,
        envelope: &Envelope,
        applied: &Applied,
        cluster: &Cluster,
    ) {
        let rows = &cluster.rows;
        assert_eq!(cluster.hash.digest(), rows.hash().digest(), "the state hash");
        audit_has_its_entries(before, envelope, applied, cluster);
        clock_moves_forward(before, cluster);
        nothing_is_newer_than_the_cluster(before, envelope, applied, rows);
        kept_answers_and_expiries_match(rows);
        mesh_ids_match_formations(rows);
        for id in ORGS.map(org) {
            counters_equal_a_recount(rows, &id);
            journal_is_gapless(before, rows, &id);
            quotas_hold_where_something_grew(before, rows, &id);
            cursors_do_not_go_back(before, rows, &id);
            for app_id in APPS.map(app) {
                documents_match_their_rows(rows, &id, &app_id);
            }
        }
        self.every_event_is_journalled_once(before, envelope, rows);
    }

    fn every_event_is_journalled_once(&mut self, before: &Rows, envelope: &Envelope, rows: &Rows) {
        match &envelope.command {
            Command::DeleteOrganization(c) if organization(rows, &c.org_id).is_none() => {
                self.journalled.retain(|(id, _), _| *id != c.org_id);
            }
            Command::DeleteFormation(c) if formation(rows, &c.org_id, &c.app_id).is_none() => {
                self.journalled.remove(&(c.org_id.clone(), c.app_id.clone()));
            }
            _ => {}
        }
        for id in ORGS.map(org) {
            let known = counters(before, &id).journal_last;
            for event in journal(rows, &id) {
                if event.sequence > known {
                    let life = (id.clone(), event.event.app_id.clone());
                    let fresh = self.journalled.entry(life).or_default();
                    assert!(fresh.insert(event.event.event_id), "{event:?} is there twice");
                }
            }
        }
    }
}

/// The version never goes down, and what needs a newer one is refused, but for what sets it.
fn nothing_is_newer_than_the_cluster(
    before: &Rows,
    envelope: &Envelope,
    applied: &Applied,
    rows: &Rows,
) {
    let settings =
        |rows| query::settings(rows).expect("rows in memory are read").expect("are there");
    let (old, new) = (settings(before), settings(rows));
    assert!(new.version >= old.version, "the version went down");
    assert!(new.version > 1 || new.upgrade.is_none(), "version 1 doesn't know the setting");
    let too_new = envelope.version > old.version && !envelope.command.sets_version();
    // The answer to a retry may be of a time when the version was lower, never the other way round.
    if too_new {
        assert!(matches!(applied.outcome, Outcome::Refused(_)), "{envelope:?}: {applied:?}");
    }
}

fn organization(rows: &Rows, id: &OrgId) -> Option<Organization> {
    query::organization(rows, id).expect("rows in memory are read")
}

fn formation(rows: &Rows, id: &OrgId, app_id: &AppId) -> Option<Formation> {
    query::formation(rows, id, app_id).expect("rows in memory are read")
}

fn counters(rows: &Rows, id: &OrgId) -> OrganizationCounters {
    query::counters(rows, id).expect("rows in memory are read")
}

fn journal(rows: &Rows, id: &OrgId) -> Vec<query::JournalledEvent> {
    query::journal_events(rows, id, 0, usize::MAX, usize::MAX).expect("rows in memory are read")
}

fn formations(rows: &Rows, id: &OrgId) -> Vec<Formation> {
    query::formations(rows, id, None, usize::MAX).expect("rows in memory are read")
}

fn sinks(rows: &Rows, id: &OrgId) -> Vec<Sink> {
    query::sinks(rows, id, None, usize::MAX).expect("rows in memory are read")
}

fn cursor(rows: &Rows, id: &OrgId, sink: &Sink) -> Option<Cursor> {
    query::cursor(rows, id, &sink.sink_id).expect("rows in memory are read")
}

/// The rows of a space within an organisation.
fn of_org<'r>(rows: &'r Rows, space: Space, id: &OrgId) -> Vec<(&'r [u8], &'r [u8])> {
    let (start, end) = keys::organization_range(id);
    let within = |key: &[u8]| start.as_slice() <= key && key < end.as_slice();
    rows.of(space).into_iter().filter(|(key, _)| within(key)).collect()
}

fn audit_has_its_entries(before: &Rows, envelope: &Envelope, applied: &Applied, cluster: &Cluster) {
    let repeated = applied.index + 1 < cluster.next_index();
    let refused = matches!(applied.outcome, Outcome::Refused(_));
    let expected = match &envelope.command {
        _ if repeated => 0,
        Command::RecordRefusals(c) if !refused => c.refusals.len(),
        Command::ClaimEpoch(_) | Command::RecordMembership(_) => usize::from(!refused),
        Command::RaiseVersion(c) => {
            let settings = query::settings(before).expect("rows in memory are read");
            usize::from(!refused && settings.is_some_and(|before| c.version > before.version))
        }
        command => usize::from(!command.is_leader_work()),
    };
    let written = cluster.rows.of(Space::Audit).len() - before.of(Space::Audit).len();
    assert_eq!(written, expected, "audit entries of {envelope:?}");
    let orgs = ORGS.map(org);
    for chain in orgs.iter().map(Some).chain([None]) {
        let verdict = query::verify_audit(&cluster.rows, chain).expect("rows are read");
        assert!(matches!(verdict, AuditVerdict::Intact(_)), "{chain:?}: {verdict:?}");
    }
}

fn clock_moves_forward(before: &Rows, cluster: &Cluster) {
    let old = query::clock(before).expect("rows in memory are read");
    let new = query::clock(&cluster.rows).expect("rows in memory are read");
    assert_eq!(new.now, old.now.max(cluster.now));
    assert!(old.forgotten_before <= new.forgotten_before && new.forgotten_before <= new.now);
}

fn kept_answers_and_expiries_match(rows: &Rows) {
    let answers = rows.of(Space::Idempotency).into_iter().map(|(key, value)| {
        let record: IdempotencyRecord = codec::decode(value).expect("an answer is a record");
        (record.expires_at, key)
    });
    let expiries = rows
        .of(Space::IdempotencyExpiry)
        .into_iter()
        .map(|(key, _)| keys::idempotency_of_expiry(key).expect("an expiry names an answer"));
    assert_eq!(answers.collect::<BTreeSet<_>>(), expiries.collect::<BTreeSet<_>>());
    let forgotten = query::clock(rows).expect("rows in memory are read").forgotten_before;
    assert!(rows.of(Space::IdempotencyExpiry).first().is_none_or(|(key, _)| {
        keys::idempotency_of_expiry(key).is_some_and(|(time, _)| time >= forgotten)
    }));
}

fn mesh_ids_match_formations(rows: &Rows) {
    let mut owners = BTreeMap::new();
    for id in ORGS.map(org) {
        for formation in formations(rows, &id) {
            let owner = MeshIdOwner { org_id: id.clone(), app_id: formation.app_id };
            owners.insert(formation.mesh_id.into_bytes(), codec::encode(&owner));
        }
    }
    let stored: BTreeMap<_, _> = rows
        .of(Space::MeshId)
        .into_iter()
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    assert_eq!(stored, owners);
}

fn counters_equal_a_recount(rows: &Rows, id: &OrgId) {
    let counted = counters(rows, id);
    let journal_rows = of_org(rows, Space::Journal, id);
    let bytes: usize = journal_rows.iter().map(|(_, value)| value.len()).sum();
    assert_eq!(counted.journal_bytes, bytes as u64);
    assert_eq!(counted.formations as usize, formations(rows, id).len());
    assert_eq!(counted.sinks as usize, sinks(rows, id).len());
    assert_eq!(of_org(rows, Space::Cursor, id).len(), sinks(rows, id).len());
    assert_eq!(of_org(rows, Space::Genesis, id).len(), formations(rows, id).len());
    if organization(rows, id).is_none() {
        for space in Space::ALL {
            let kept = [Space::OrganizationCounters, Space::Audit, Space::AuditHead];
            if !kept.contains(space) && *space != Space::MeshId {
                assert!(of_org(rows, *space, id).is_empty(), "{space:?} of a deleted organisation");
            }
        }
    }
}

fn journal_is_gapless(before: &Rows, rows: &Rows, id: &OrgId) {
    let (old, new) = (counters(before, id), counters(rows, id));
    assert!(old.journal_last <= new.journal_last && old.journal_trimmed <= new.journal_trimmed);
    let sequences: Vec<u64> = journal(rows, id).iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (new.journal_trimmed + 1..=new.journal_last).collect::<Vec<_>>());
    for sink in sinks(rows, id).iter().filter(|sink| sink.enabled) {
        let cursor = cursor(rows, id, sink).expect("every sink has a cursor");
        assert!(cursor.acknowledged >= new.journal_trimmed, "{sink:?} lost events: {cursor:?}");
        assert!(cursor.acknowledged <= new.journal_last);
    }
}

fn quotas_hold_where_something_grew(before: &Rows, rows: &Rows, id: &OrgId) {
    let Some(Organization { quotas, .. }) = organization(rows, id) else {
        return;
    };
    let (old, new) = (counters(before, id), counters(rows, id));
    assert!(new.formations <= old.formations || new.formations <= quotas.max_formations);
    assert!(new.sinks <= old.sinks || new.sinks <= quotas.max_cdc_sinks);
    assert!(
        new.journal_bytes <= old.journal_bytes || new.journal_bytes <= quotas.max_journal_bytes
    );
    for now in formations(rows, id) {
        let documents = formation(before, id, &now.app_id).map_or(0, |old| old.documents);
        assert!(now.documents <= documents || now.documents <= quotas.max_documents_per_formation);
    }
}

/// INV-4, for cursors of sinks that were there before.
fn cursors_do_not_go_back(before: &Rows, rows: &Rows, id: &OrgId) {
    for sink in sinks(before, id) {
        let Some(new) = cursor(rows, id, &sink) else {
            continue;
        };
        let old = cursor(before, id, &sink).expect("every sink has a cursor");
        assert!(old.acknowledged <= new.acknowledged, "{old:?} became {new:?}");
        assert!(old.epoch <= new.epoch);
        let covered = |cursor: &Cursor, sequence: u64| {
            sequence <= cursor.acknowledged
                || cursor.ahead.iter().any(|(first, last)| (*first..=*last).contains(&sequence))
        };
        if old.acknowledged == new.acknowledged {
            let last = counters(rows, id).journal_last;
            assert!((1..=last).all(|sequence| !covered(&old, sequence) || covered(&new, sequence)));
        }
        assert!(!covered(&new, new.acknowledged + 1), "{new:?} isn't in its simplest form");
    }
}

fn documents_match_their_rows(rows: &Rows, id: &OrgId, app_id: &AppId) {
    let Some(formation) = formation(rows, id, app_id) else {
        return;
    };
    let listed = query::documents(rows, id, app_id, None, usize::MAX).expect("rows are read");
    assert_eq!(formation.documents as usize, listed.len());
    for summary in listed {
        let content = query::document_content(rows, id, app_id, &summary.doc_id);
        let content = content.expect("rows in memory are read").expect("it is listed");
        let document = &content.document;
        assert_eq!(document.changes as usize, content.changes.len());
        let changes: usize = content.changes.iter().map(|change| change.bytes.len()).sum();
        assert_eq!(document.bytes as usize, content.base.len() + changes);
        assert_eq!(document.base_parts == 0, content.base.is_empty());
        assert!(document.base_sequence <= document.document_sequence);
        assert!(!document.deleted || (changes == 0 && content.base.is_empty()));
        let hashes =
            query::change_hashes(rows, id, app_id, &summary.doc_id).expect("rows are read");
        let indexed = |hash: &Hash32| hashes.binary_search(hash).is_ok();
        assert!(document.heads.iter().all(indexed));
        assert!(content.changes.iter().all(|change| indexed(&change.hash)));
        assert!(document.heads.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
