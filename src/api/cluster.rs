//! The cluster: nodes, settings and its audit chain.

use axum::extract::State;
use peat_gateway_cluster::{Alarm, NodeStatus, Role};
use peat_gateway_state::command::UpdateSettings;
use peat_gateway_state::record::{ClusterSettings, RemovedNode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::audit::{AuditEntryView, ChainQuery, next_page};
use super::request::{Ask, Body, Order};
use super::response::{Answer, Shown};
use super::upgrade::{UpgradeView, Who};
use crate::service::status::ClusterStatus;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(get_cluster))
        .routes(routes!(get_settings, update_settings))
        .routes(routes!(get_cluster_audit))
}

/// The cluster as this node sees it.
#[derive(Serialize, ToSchema)]
struct ClusterView {
    /// 32 hexadecimal digits; null until this node belongs to a cluster.
    cluster_id: Option<String>,
    /// Id of the node that leads; null where none is known.
    leader: Option<String>,
    /// Commands up to this version are used.
    version: u16,
    /// An upgrade that isn't finished; null where no member's build is newer than the cluster.
    upgrade: Option<UpgradeView>,
    /// All members.
    nodes: Vec<NodeView>,
    /// The membership as this node knows it: the header `ETag`, which an order's `If-Match` may name.
    membership: u64,
    /// Whether a change of members is under way: two sets of voters must agree.
    joint: bool,
    /// Nodes that were removed and never come back under their ids.
    removed: Vec<RemovedView>,
}

/// A node that was removed.
#[derive(Serialize, ToSchema)]
struct RemovedView {
    /// 16 hexadecimal digits.
    node_id: String,
    /// What the operator called it.
    name: String,
    /// `host:port` of its peer listener.
    peer_address: String,
    /// Unix time in ms.
    removed_at: u64,
}

impl From<RemovedNode> for RemovedView {
    fn from(node: RemovedNode) -> Self {
        Self {
            node_id: node.node.to_string(),
            name: node.name,
            peer_address: node.peer_address,
            removed_at: node.removed_at,
        }
    }
}

/// A node.
#[derive(Serialize, ToSchema)]
struct NodeView {
    /// 16 hexadecimal digits.
    node_id: String,
    /// What the operator calls it.
    name: String,
    /// URL of its HTTP API.
    address: String,
    /// `host:port` of its peer listener.
    peer_address: String,
    /// `leader`, `follower`, `candidate`, `learner` or `down`.
    role: &'static str,
    /// Whether it has a vote; one without is a learner.
    voter: bool,
    /// Whether it answered this node in time.
    reachable: bool,
    /// Its Raft term.
    term: u64,
    /// What it has applied.
    applied_index: u64,
    /// The end of its log.
    last_log_index: u64,
    /// Up to where its log matches the leader's; null where no leader answers.
    matched_index: Option<u64>,
    /// Entries that it lacks of the leader's log; null where no leader answers.
    lag: Option<u64>,
    /// Milliseconds since it answered the leader's heartbeat; null on the leader, and where it never did.
    last_contact_ms: Option<u64>,
    /// Hash of its state at `applied_index`, hexadecimal; null while it is down.
    state_hash: Option<String>,
    /// The build that it runs; empty while it is down.
    build_version: String,
    /// The oldest and the newest cluster version that its build understands; null while it is down.
    supports: Option<[u16; 2]>,
    /// Why it didn't answer, and what to do; null where it did.
    problem: Option<String>,
    /// What is wrong with it; empty while it is well, or down.
    alarms: Vec<AlarmView>,
}

/// Something that is wrong with a node.
#[derive(Serialize, ToSchema)]
pub(super) struct AlarmView {
    /// Stable: `disk_stalled`, `no_space`, `quorum_no_space`, `state_differs` or `damaged`.
    code: String,
    /// What is wrong and what to do.
    detail: String,
}

impl From<Alarm> for AlarmView {
    fn from(alarm: Alarm) -> Self {
        Self { code: alarm.code, detail: alarm.detail }
    }
}

impl From<NodeStatus> for NodeView {
    fn from(node: NodeStatus) -> Self {
        let role = match node.role {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Down => "down",
        };
        Self {
            node_id: node.node_id.to_string(),
            name: node.name,
            address: node.http_address,
            peer_address: node.peer_address,
            role,
            voter: node.voter,
            reachable: node.reachable,
            term: node.term,
            applied_index: node.applied_index,
            last_log_index: node.last_log_index,
            matched_index: node.matched_index,
            lag: node.lag,
            last_contact_ms: node.last_contact_ms,
            state_hash: node.state_hash.map(|hash| hash.to_string()),
            build_version: node.build_version,
            supports: node.versions.map(|versions| [versions.min, versions.max]),
            problem: node.problem,
            alarms: node.alarms.into_iter().map(AlarmView::from).collect(),
        }
    }
}

/// Settings that all nodes share.
#[derive(Serialize, ToSchema)]
struct SettingsView {
    /// Commands up to this version are used.
    version: u16,
    /// How long answers are kept for retries, ms.
    idempotency_retention_ms: u64,
    /// How long delivered journal rows are kept, ms.
    journal_retention_ms: u64,
    /// Who finishes an upgrade: `auto` (the leader, when every member has run the newer build for
    /// a while) or `manual` (`POST /cluster/upgrade`).
    upgrade: Who,
}

impl From<ClusterSettings> for SettingsView {
    fn from(settings: ClusterSettings) -> Self {
        Self {
            version: settings.version,
            idempotency_retention_ms: settings.idempotency_retention_ms,
            journal_retention_ms: settings.journal_retention_ms,
            upgrade: settings.upgrade.unwrap_or_default().into(),
        }
    }
}

/// Settings to change; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SettingsPatch {
    /// 60 000 to 86 400 000.
    idempotency_retention_ms: Option<u64>,
    /// 0 drops journal rows as soon as all enabled sinks have acknowledged them.
    journal_retention_ms: Option<u64>,
    /// `auto` or `manual`. Needs cluster version 2.
    upgrade: Option<Who>,
}

/// Shows the nodes and who leads. Asks every node; one that doesn't answer in 1 s is `down`.
#[utoipa::path(get, path = "/cluster", tag = "cluster", responses((status = 200, body = ClusterView)))]
async fn get_cluster(State(api): State<Api>, ask: Ask<()>) -> Answer<ClusterView> {
    let reply = api.service.cluster_status(&ask.call).await?;
    let index = reply.value.membership.index;
    Ok(Shown::of(reply, |status: ClusterStatus| ClusterView {
        cluster_id: status.cluster_id.map(hex::encode),
        leader: status.leader.map(|leader| leader.to_string()),
        version: status.version,
        upgrade: status.upgrade.map(UpgradeView::from),
        nodes: status.nodes.into_iter().map(NodeView::from).collect(),
        membership: status.membership.index,
        joint: status.membership.joint,
        removed: status.membership.removed.into_iter().map(RemovedView::from).collect(),
    })
    .tagged(index))
}

/// Shows the settings that all nodes share.
#[utoipa::path(
    get,
    path = "/cluster/settings",
    tag = "cluster",
    responses((status = 200, body = SettingsView))
)]
async fn get_settings(State(api): State<Api>, ask: Ask<()>) -> Answer<SettingsView> {
    Ok(Shown::of(api.service.settings(&ask.call).await?, SettingsView::from))
}

/// Changes settings.
#[utoipa::path(
    patch,
    path = "/cluster/settings",
    tag = "cluster",
    request_body = SettingsPatch,
    responses((status = 200, body = SettingsView))
)]
async fn update_settings(
    State(api): State<Api>,
    order: Order<Body<SettingsPatch>>,
) -> Answer<SettingsView> {
    let Body(patch) = order.body;
    let changes = UpdateSettings {
        idempotency_retention_ms: patch.idempotency_retention_ms,
        journal_retention_ms: patch.journal_retention_ms,
        upgrade: patch.upgrade.map(Into::into),
    };
    let reply = api.service.update_settings(&order.call, changes).await?;
    Ok(Shown::of(reply, SettingsView::from))
}

/// Shows the cluster's audit chain, the newest entry first.
#[utoipa::path(
    get,
    path = "/cluster/audit",
    tag = "audit",
    params(ChainQuery),
    responses((status = 200, body = [AuditEntryView]))
)]
async fn get_cluster_audit(
    State(api): State<Api>,
    ask: Ask<ChainQuery>,
) -> Answer<Vec<AuditEntryView>> {
    let ChainQuery { before, limit } = ask.parameters;
    let reply = api.service.cluster_audit(&ask.call, before, limit).await?;
    let next = next_page("/cluster/audit", None, limit, &reply.value);
    Ok(Shown::of(reply, |page| page.entries.into_iter().map(AuditEntryView::from).collect())
        .followed_by(next))
}
