//! Generated steps: small numbers that become commands against the present state.

use peat_gateway_state::command::*;
use peat_gateway_state::ids::NodeId;
use peat_gateway_state::record::*;
use peat_gateway_state::{Command, Envelope, VERSION, query};
use proptest::prelude::*;

use crate::support::Cluster;
use crate::support::make::{self, app, doc, org, sink_id};

/// Organisations, formations, sinks and documents have few names, so that steps meet.
pub(crate) const ORGS: [&str; 2] = ["acme", "acmf"];
pub(crate) const APPS: [&str; 2] = ["alpha", "alphb"];
const SINKS: [&str; 2] = ["S1", "S2"];
const DOCUMENTS: [&str; 3] = ["a", "ab", "b:1"];

/// A step and what is around it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    org: usize,
    app: usize,
    sink: usize,
    /// Chooses among what the action leaves open.
    number: u64,
    /// Ms by which the leader's clock moves first; it may go back.
    clock: i64,
    /// An idempotency key and a body, each one of few.
    retry: Option<(u8, u8)>,
    /// Whether leader work carries an old epoch.
    stale: bool,
    action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    CreateOrganization,
    UpdateOrganization,
    DeleteOrganization,
    CreateFormation,
    UpdateFormation,
    DeleteFormation,
    CreateSink,
    UpdateSink,
    DeleteSink,
    Settings,
    RaiseVersion,
    Refusals,
    Initialize,
    Claim,
    Append(Vec<(usize, Vec<u8>)>),
    Stage,
    AppendStaged,
    Compact,
    Commit(Vec<(u64, u64)>),
    Trim,
    Peers,
    Members,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..70)
}

fn document() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0usize), 1 => 0..DOCUMENTS.len()]
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly a run of events from the first, else few would have their ancestors.
    let start = prop_oneof![3 => Just(0u8), 2 => 0u8..12];
    let events =
        (start, 1u8..6).prop_map(|(start, count)| (start..12.min(start + count)).collect());
    let batches = proptest::collection::vec((document(), events), 1..3);
    let ranges = proptest::collection::vec((0u64..12, 0u64..12), 0..3);
    let action = prop_oneof![
        2 => Just(Action::CreateOrganization),
        1 => Just(Action::UpdateOrganization),
        1 => Just(Action::DeleteOrganization),
        4 => Just(Action::CreateFormation),
        1 => Just(Action::UpdateFormation),
        1 => Just(Action::DeleteFormation),
        3 => Just(Action::CreateSink),
        2 => Just(Action::UpdateSink),
        1 => Just(Action::DeleteSink),
        1 => Just(Action::Settings),
        1 => Just(Action::RaiseVersion),
        1 => Just(Action::Refusals),
        1 => Just(Action::Initialize),
        1 => Just(Action::Claim),
        12 => batches.prop_map(Action::Append),
        1 => Just(Action::Stage),
        1 => Just(Action::AppendStaged),
        3 => Just(Action::Compact),
        5 => ranges.prop_map(Action::Commit),
        3 => Just(Action::Trim),
        1 => Just(Action::Peers),
        1 => Just(Action::Members),
    ];
    let retry = prop_oneof![2 => Just(None), 1 => (0u8..3, 0u8..2).prop_map(Some)];
    let clock = prop_oneof![8 => -2i64..50, 1 => Just(70_000i64)];
    // The first of each name is chosen often, so that much happens in one place.
    let first = || prop_oneof![3 => Just(0usize), 1 => Just(1usize)];
    let around = (first(), first(), 0..SINKS.len(), 0u64..16, clock, retry);
    let stale = prop_oneof![12 => Just(false), 1 => Just(true)];
    (around, stale, action).prop_map(|((org, app, sink, number, clock, retry), stale, action)| {
        Step { org, app, sink, number, clock, retry, stale, action }
    })
}

impl Step {
    /// The version with which a cluster begins whose first step this is.
    pub(crate) fn first_version(&self) -> u16 {
        if self.number.is_multiple_of(4) { 1 } else { VERSION }
    }

    /// Moves the clock and returns what the step proposes in this state.
    pub(crate) fn envelope(&self, cluster: &mut Cluster) -> Envelope {
        cluster.now = cluster.now.saturating_add_signed(self.clock);
        let idempotency = self.retry.map(|(key, body)| Idempotency {
            key: format!("k{key}"),
            request_digest: make::hash(&format!("body {body}")),
        });
        Envelope::new(make::actor("admin"), self.command(cluster)).with_idempotency(idempotency)
    }

    fn command(&self, cluster: &mut Cluster) -> Command {
        let Step { number, .. } = *self;
        let (org_id, app_id, sink) = (ORGS[self.org], APPS[self.app], SINKS[self.sink]);
        let mut fence = cluster.fence();
        if self.stale {
            fence.epoch = None;
        }
        match &self.action {
            Action::CreateOrganization => {
                let quotas = OrganizationQuotas {
                    max_formations: 1 + (number % 2) as u32,
                    max_cdc_sinks: 1 + (number / 2 % 2) as u32,
                    max_documents_per_formation: 2 + (number / 4 % 2) as u32,
                    max_journal_bytes: if number < 4 { 1500 } else { 1 << 20 },
                    ..OrganizationQuotas::default()
                };
                make::create_organization_with(org_id, quotas)
            }
            Action::UpdateOrganization => make::set_quotas(
                org_id,
                QuotaChanges {
                    max_formations: Some((number % 3) as u32),
                    max_documents_per_formation: Some((number % 4) as u32),
                    max_journal_bytes: Some(number * 400),
                    ..QuotaChanges::default()
                },
            ),
            Action::DeleteOrganization => make::delete_organization(org_id),
            Action::CreateFormation => {
                make::create_formation(org_id, app_id, &format!("0000000{}", number % 4))
            }
            Action::UpdateFormation => {
                let status = match number % 4 {
                    0 => FormationStatus::Suspended,
                    _ => FormationStatus::Active,
                };
                make::update_formation(org_id, app_id, Some(status))
            }
            Action::DeleteFormation => make::delete_formation(org_id, app_id),
            Action::CreateSink => {
                let start = if number % 2 == 0 { SinkStart::Now } else { SinkStart::Earliest };
                let credentials = (number % 3 == 0).then(|| make::sealed(1));
                let new = make::new_sink(org_id, sink);
                Command::CreateSink(CreateSink { start, credentials, ..new })
            }
            Action::UpdateSink => make::enable_sink(org_id, sink, number % 2 == 0),
            Action::DeleteSink => make::delete_sink(org_id, sink),
            Action::Settings => Command::UpdateSettings(UpdateSettings {
                idempotency_retention_ms: Some(59_990 + number * 2),
                journal_retention_ms: Some(number),
                upgrade: (number % 2 == 0).then_some(Upgrade::Manual),
            }),
            Action::RaiseVersion => {
                Command::RaiseVersion(RaiseVersion { fence, version: 1 + (number % 2) as u16 })
            }
            Action::Refusals => make::refusals(&[Some(org_id), None]),
            Action::Initialize => Command::InitializeCluster(InitializeCluster {
                term: cluster.term,
                settings: make::settings(),
            }),
            Action::Claim => {
                // A new leader has a new term, unless it claims again or comes too late.
                cluster.term += number % 2;
                let term = cluster.term + u64::from(self.stale);
                Command::ClaimEpoch(ClaimEpoch { term, node: NodeId(number) })
            }
            Action::Append(batches) => {
                let named = |(document, events): &(usize, Vec<u8>)| {
                    make::batch(app_id, DOCUMENTS[*document], events.iter().map(event).collect())
                };
                make::append(fence, org_id, batches.iter().map(named).collect())
            }
            Action::Stage => {
                let bytes = peat_gateway_state::codec::encode(&event(&3));
                Command::StagePart(StagePart {
                    fence,
                    org_id: org(org_id),
                    app_id: app(app_id),
                    document: doc(DOCUMENTS[0]),
                    id: make::sha256(&bytes),
                    part: 0,
                    bytes,
                })
            }
            Action::AppendStaged => {
                let id = make::sha256(&peat_gateway_state::codec::encode(&event(&3)));
                let events = vec![SequencedEvent::Staged { id, parts: 1 }];
                let document = doc(DOCUMENTS[0]);
                let batch = DocumentBatch { app_id: app(app_id), document, events };
                make::append(fence, org_id, vec![batch])
            }
            Action::Compact => Command::CompactDocument(CompactDocument {
                fence,
                org_id: org(org_id),
                app_id: app(app_id),
                document: doc(DOCUMENTS[(number % 2) as usize]),
                through: number % 5,
                saved: SavedForm::Inline(vec![number as u8; 9]),
            }),
            Action::Commit(ranges) => {
                let acknowledged = self.position(cluster).saturating_add(number % 5);
                let mut ahead = Vec::new();
                let mut above = acknowledged + 1;
                for (gap, length) in ranges {
                    // A gap of 0 makes an advance that must be dropped.
                    ahead.push((above + gap % 3, above + gap % 3 + length % 3));
                    above += gap % 3 + length % 3 + 1;
                }
                // Backwards at times.
                let acknowledged = acknowledged.saturating_sub(number / 12);
                make::commit(fence, vec![make::advance(org_id, sink, acknowledged, &ahead)])
            }
            Action::Trim => {
                make::trim(fence, org_id, self.position(cluster) + u64::from(number > 12))
            }
            Action::Peers => {
                let peer = make::peer(number as u32, cluster.now);
                make::remember(fence, org_id, app_id, vec![peer])
            }
            Action::Members => {
                let change = match number % 3 {
                    0 => make::removal(number),
                    1 => MembershipChange::Add(make::member_record(number / 2)),
                    _ => MembershipChange::Finish,
                };
                Command::RecordMembership(make::record_membership(fence, change))
            }
        }
    }

    /// Where the step's sink stands.
    fn position(&self, cluster: &Cluster) -> u64 {
        query::cursor(&cluster.rows, &org(ORGS[self.org]), &sink_id(SINKS[self.sink]))
            .expect("rows in memory are read")
            .map_or(0, |cursor| cursor.acknowledged)
    }
}

/// Changes 0 to 7 are a chain with a branch; then two snapshots and two tombstones.
fn event(number: &u8) -> NewEvent {
    match number {
        0 => make::change("c0", &[]),
        4 => make::change("c4", &["c2"]),
        5 => make::change("c5", &["c3", "c4"]),
        1..=7 => make::change(&format!("c{number}"), &[&format!("c{}", number - 1)]),
        8 | 9 => make::snapshot(&format!("s{number}"), &[*number; 20]),
        _ => make::tombstone(&format!("t{number}")),
    }
}
