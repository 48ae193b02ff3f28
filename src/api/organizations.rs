//! Organisations.

use axum::extract::State;
use peat_gateway_state::command::QuotaChanges;
use peat_gateway_state::record::{Organization, OrganizationQuotas};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::request::{Ask, Body, Empty, Ids, Order, PageQuery, cursor_after};
use super::response::{Answer, Shown};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_organizations, create_organization)).routes(routes!(
        get_organization,
        update_organization,
        delete_organization
    ))
}

/// An organisation: a tenant whose data no other organisation sees.
#[derive(Serialize, ToSchema)]
struct OrganizationView {
    /// Chosen at creation, never changed.
    org_id: String,
    /// Shown to people.
    display_name: String,
    /// What it may hold.
    quotas: QuotasView,
    /// Unix time in ms.
    created_at: u64,
    /// The number in the header ETag.
    revision: u64,
}

/// What an organisation may hold.
#[derive(Serialize, ToSchema)]
struct QuotasView {
    /// Formations.
    max_formations: u32,
    /// Certificates that are valid in one formation.
    max_peers_per_formation: u32,
    /// Documents in one formation.
    max_documents_per_formation: u32,
    /// Sinks.
    max_cdc_sinks: u32,
    /// Enrolments in one hour.
    max_enrollments_per_hour: u32,
    /// Bytes of undelivered journal.
    max_journal_bytes: u64,
}

impl From<Organization> for OrganizationView {
    fn from(organization: Organization) -> Self {
        let OrganizationQuotas {
            max_formations,
            max_peers_per_formation,
            max_documents_per_formation,
            max_cdc_sinks,
            max_enrollments_per_hour,
            max_journal_bytes,
        } = organization.quotas;
        Self {
            org_id: organization.org_id.as_str().to_owned(),
            display_name: organization.display_name,
            quotas: QuotasView {
                max_formations,
                max_peers_per_formation,
                max_documents_per_formation,
                max_cdc_sinks,
                max_enrollments_per_hour,
                max_journal_bytes,
            },
            created_at: organization.created_at,
            revision: organization.revision,
        }
    }
}

/// Quotas to set; what is left out stays, at creation the default.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct QuotasPatch {
    /// Formations; default 10.
    max_formations: Option<u32>,
    /// Certificates that are valid in one formation; default 100.
    max_peers_per_formation: Option<u32>,
    /// Documents in one formation; default 10 000.
    max_documents_per_formation: Option<u32>,
    /// Sinks; default 5.
    max_cdc_sinks: Option<u32>,
    /// Enrolments in one hour; default 1000.
    max_enrollments_per_hour: Option<u32>,
    /// Bytes of undelivered journal; default 4 GiB.
    max_journal_bytes: Option<u64>,
}

impl From<QuotasPatch> for QuotaChanges {
    fn from(patch: QuotasPatch) -> Self {
        Self {
            max_formations: patch.max_formations,
            max_peers_per_formation: patch.max_peers_per_formation,
            max_documents_per_formation: patch.max_documents_per_formation,
            max_cdc_sinks: patch.max_cdc_sinks,
            max_enrollments_per_hour: patch.max_enrollments_per_hour,
            max_journal_bytes: patch.max_journal_bytes,
        }
    }
}

/// A new organisation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOrganization {
    /// 1 to 128 letters, digits, `_` and `-`; the first a letter or digit.
    org_id: String,
    /// 1 to 1024 bytes.
    display_name: String,
    /// What it may hold.
    quotas: Option<QuotasPatch>,
}

/// What to change; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OrganizationPatch {
    /// 1 to 1024 bytes.
    display_name: Option<String>,
    /// What it may hold.
    quotas: Option<QuotasPatch>,
}

fn shown(reply: crate::service::Reply<Organization>) -> Shown<OrganizationView> {
    let revision = reply.value.revision;
    Shown::of(reply, OrganizationView::from).tagged(revision)
}

/// Lists organisations by id.
#[utoipa::path(
    get,
    path = "/orgs",
    tag = "organizations",
    params(PageQuery),
    responses((status = 200, body = [OrganizationView]))
)]
async fn list_organizations(
    State(api): State<Api>,
    ask: Ask<PageQuery>,
) -> Answer<Vec<OrganizationView>> {
    let PageQuery { limit, cursor } = ask.parameters;
    let reply = api.service.organizations(&ask.call, cursor.as_deref(), limit).await?;
    let page = &reply.value;
    let next =
        page.items.last().filter(|_| page.more).map(|last| {
            format!("/orgs?limit={limit}&cursor={}", cursor_after(last.org_id.as_str()))
        });
    Ok(Shown::of(reply, |page| page.items.into_iter().map(OrganizationView::from).collect())
        .followed_by(next))
}

/// Creates an organisation.
#[utoipa::path(
    post,
    path = "/orgs",
    tag = "organizations",
    request_body = NewOrganization,
    responses((status = 201, body = OrganizationView))
)]
async fn create_organization(
    State(api): State<Api>,
    order: Order<Body<NewOrganization>>,
) -> Answer<OrganizationView> {
    let Body(NewOrganization { org_id, display_name, quotas }) = order.body;
    let quotas = quotas.unwrap_or_default().into();
    let reply = api.service.create_organization(&order.call, &org_id, display_name, quotas).await?;
    Ok(shown(reply).created(&format!("/orgs/{org_id}")))
}

/// Shows an organisation.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}",
    tag = "organizations",
    responses((status = 200, body = OrganizationView))
)]
async fn get_organization(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    ask: Ask<()>,
) -> Answer<OrganizationView> {
    Ok(shown(api.service.organization(&ask.call, &org).await?))
}

/// Changes an organisation.
#[utoipa::path(
    patch,
    path = "/orgs/{org_id}",
    tag = "organizations",
    request_body = OrganizationPatch,
    responses((status = 200, body = OrganizationView))
)]
async fn update_organization(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    order: Order<Body<OrganizationPatch>>,
) -> Answer<OrganizationView> {
    let Body(OrganizationPatch { display_name, quotas }) = order.body;
    let quotas = quotas.unwrap_or_default().into();
    let reply = api
        .service
        .update_organization(&order.call, &org, order.expected_revision, display_name, quotas)
        .await?;
    Ok(shown(reply))
}

/// Deletes an organisation with its formations, sinks, documents and journal. Its audit chain stays.
#[utoipa::path(
    delete,
    path = "/orgs/{org_id}",
    tag = "organizations",
    responses((status = 204))
)]
async fn delete_organization(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    order: Order<Empty>,
) -> Answer<()> {
    let Order { call, expected_revision, .. } = order;
    Ok(Shown::nothing(api.service.delete_organization(&call, &org, expected_revision).await?))
}
