//! Upgrades: what one waits for, and finishing it.

use axum::extract::State;
use peat_gateway_cluster::{Raised, Upgrade};
use peat_gateway_state::record;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::request::{BodyOrNothing, Order};
use super::response::{Answer, Shown};
use crate::service::members::node_id;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(finish_upgrade))
}

/// An upgrade that isn't finished: a member's build supports a newer version than the cluster has.
#[derive(Serialize, ToSchema)]
pub(super) struct UpgradeView {
    /// The version that it leads to.
    to: u16,
    /// Who is in the way and what to do about it, a sentence each; empty where it can be finished now.
    held_back_by: Vec<String>,
    /// When it is finished without an operator, ms from now, if nothing gets in the way; null where it
    /// isn't.
    automatic_in_ms: Option<u64>,
}

impl From<Upgrade> for UpgradeView {
    fn from(upgrade: Upgrade) -> Self {
        let milliseconds =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            to: upgrade.to,
            held_back_by: upgrade.held_back_by,
            automatic_in_ms: upgrade.automatic_in.map(milliseconds),
        }
    }
}

/// Who finishes an upgrade.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Who {
    Auto,
    Manual,
}

impl From<record::Upgrade> for Who {
    fn from(upgrade: record::Upgrade) -> Self {
        match upgrade {
            record::Upgrade::Auto => Who::Auto,
            record::Upgrade::Manual => Who::Manual,
        }
    }
}

impl From<Who> for record::Upgrade {
    fn from(who: Who) -> Self {
        match who {
            Who::Auto => record::Upgrade::Auto,
            Who::Manual => record::Upgrade::Manual,
        }
    }
}

/// Who needn't say what it supports.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct UpgradeOrder {
    /// Ids of members that are down: lost for good, or sure to come back with a newer build.
    without: Vec<String>,
}

/// The cluster's version, raised.
#[derive(Serialize, ToSchema)]
struct RaisedView {
    /// The version before.
    from: u16,
    /// The version now; the same where there was nothing to finish.
    to: u16,
}

impl From<Raised> for RaisedView {
    fn from(raised: Raised) -> Self {
        Self { from: raised.from, to: raised.to }
    }
}

/// Finishes an upgrade: raises the cluster's version to the newest that every member supports. No older
/// build can come back after that. Done again it changes nothing.
#[utoipa::path(
    post,
    path = "/cluster/upgrade",
    tag = "cluster",
    request_body = Option<UpgradeOrder>,
    responses((status = 200, body = RaisedView))
)]
async fn finish_upgrade(
    State(api): State<Api>,
    order: Order<BodyOrNothing<UpgradeOrder>>,
) -> Answer<RaisedView> {
    let BodyOrNothing(UpgradeOrder { without }) = order.body;
    let without = without.iter().map(|id| node_id(id)).collect::<Result<_, _>>()?;
    Ok(Shown::of(api.service.finish_upgrade(&order.call, without).await?, RaisedView::from))
}
