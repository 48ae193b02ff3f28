//! Who belongs to the cluster. Each order may carry `If-Match` with the tag of `GET /cluster`.

use axum::extract::State;
use peat_gateway_cluster::{MembershipChanged, MembershipOrder};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::request::{Body, BodyOrNothing, Empty, Ids, Order};
use super::response::{Answer, Shown};
use crate::service::members::node_id;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(add_member))
        .routes(routes!(remove_member))
        .routes(routes!(promote_member))
        .routes(routes!(transfer_leadership))
        .routes(routes!(init_cluster))
        .routes(routes!(join_cluster))
}

/// What an order came to.
#[derive(Serialize, ToSchema)]
struct MembershipChangedView {
    /// Id of the node that it was about; after a transfer the one that leads.
    node_id: String,
    /// The membership afterwards: the tag of a next order's `If-Match`.
    membership: u64,
}

impl From<MembershipChanged> for MembershipChangedView {
    fn from(changed: MembershipChanged) -> Self {
        Self { node_id: changed.node.to_string(), membership: changed.membership }
    }
}

/// A node to take in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMember {
    /// `host:port` of its peer listener; it runs there with `PEAT_BOOTSTRAP=wait`.
    peer_address: String,
    /// It stays a learner until it is promoted by hand.
    #[serde(default)]
    learner_only: bool,
}

/// How to promote.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Promotion {
    /// Id of the member whose place it takes; that one is removed in the same change.
    #[serde(default)]
    replaces: Option<String>,
}

/// How to remove.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Removal {
    /// Remove although the voters that answer are too few without it. Needs a reason.
    #[serde(default)]
    force: bool,
    /// Why it is forced, 1 to 256 bytes; stands in the audit log.
    #[serde(default)]
    reason: Option<String>,
}

/// To whom leadership goes.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Transfer {
    /// Id of a voter; left out: whoever is closest to the leader.
    #[serde(default)]
    to: Option<String>,
}

/// Whom to ask to be taken in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct JoinRequest {
    /// `host:port` of members' peer listeners, 1 to 16.
    addresses: Vec<String>,
}

/// Takes the node that waits at an address in as a learner. It is promoted when it has caught up.
#[utoipa::path(
    post,
    path = "/cluster/members",
    tag = "cluster",
    request_body = NewMember,
    responses((status = 201, body = MembershipChangedView))
)]
async fn add_member(
    State(api): State<Api>,
    order: Order<Body<NewMember>>,
) -> Answer<MembershipChangedView> {
    let Body(NewMember { peer_address, learner_only }) = order.body;
    let add = MembershipOrder::Add { peer_address, learner_only };
    let reply = api.service.change_members(&order.call, add, order.expected_revision).await?;
    let membership = reply.value.membership;
    let location = format!("/cluster/members/{}", reply.value.node);
    Ok(Shown::of(reply, MembershipChangedView::from).created(&location).tagged(membership))
}

/// Gives a learner that has caught up a vote, in the place of another member where one is named.
#[utoipa::path(
    post,
    path = "/cluster/members/{node_id}/promote",
    tag = "cluster",
    params(("node_id" = String, Path, description = "16 hexadecimal digits")),
    request_body = Option<Promotion>,
    responses((status = 200, body = MembershipChangedView))
)]
async fn promote_member(
    State(api): State<Api>,
    Ids(id): Ids<String>,
    order: Order<BodyOrNothing<Promotion>>,
) -> Answer<MembershipChangedView> {
    let node = node_id(&id)?;
    let replaces = order.body.0.replaces.as_deref().map(node_id).transpose()?;
    let promote = MembershipOrder::Promote { node, replaces };
    let reply = api.service.change_members(&order.call, promote, order.expected_revision).await?;
    let membership = reply.value.membership;
    Ok(Shown::of(reply, MembershipChangedView::from).tagged(membership))
}

/// Removes a member for good: its process ends, and its id never comes back.
#[utoipa::path(
    delete,
    path = "/cluster/members/{node_id}",
    tag = "cluster",
    params(("node_id" = String, Path, description = "16 hexadecimal digits")),
    request_body = Option<Removal>,
    responses((status = 200, body = MembershipChangedView))
)]
async fn remove_member(
    State(api): State<Api>,
    Ids(id): Ids<String>,
    order: Order<BodyOrNothing<Removal>>,
) -> Answer<MembershipChangedView> {
    let node = node_id(&id)?;
    let BodyOrNothing(Removal { force, reason }) = order.body;
    let forced = force.then(|| reason.unwrap_or_default());
    let remove = MembershipOrder::Remove { node, forced };
    let reply = api.service.change_members(&order.call, remove, order.expected_revision).await?;
    let membership = reply.value.membership;
    Ok(Shown::of(reply, MembershipChangedView::from).tagged(membership))
}

/// Hands leadership on; waits until the other node leads.
#[utoipa::path(
    post,
    path = "/cluster/transfer",
    tag = "cluster",
    request_body = Option<Transfer>,
    responses((status = 200, body = MembershipChangedView))
)]
async fn transfer_leadership(
    State(api): State<Api>,
    order: Order<BodyOrNothing<Transfer>>,
) -> Answer<MembershipChangedView> {
    let to = order.body.0.to.as_deref().map(node_id).transpose()?;
    let transfer = MembershipOrder::Transfer { to };
    let reply = api.service.change_members(&order.call, transfer, order.expected_revision).await?;
    Ok(Shown::of(reply, MembershipChangedView::from))
}

/// Makes the cluster that this node's configuration describes. For a node with `PEAT_BOOTSTRAP=wait`.
#[utoipa::path(post, path = "/cluster/init", tag = "cluster", responses((status = 204)))]
async fn init_cluster(State(api): State<Api>, order: Order<Empty>) -> Answer<()> {
    Ok(Shown::nothing(api.service.found_cluster(&order.call).await?))
}

/// Has this node join a cluster. For a node with `PEAT_BOOTSTRAP=wait`.
#[utoipa::path(
    post,
    path = "/cluster/join",
    tag = "cluster",
    request_body = JoinRequest,
    responses((status = 204))
)]
async fn join_cluster(State(api): State<Api>, order: Order<Body<JoinRequest>>) -> Answer<()> {
    let Body(JoinRequest { addresses }) = order.body;
    Ok(Shown::nothing(api.service.join_cluster(&order.call, &addresses).await?))
}
