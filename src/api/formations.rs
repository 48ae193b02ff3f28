//! Formations: one mesh each.

use axum::extract::State;
use peat_gateway_state::record::{EnrollmentPolicy, Formation, FormationStatus, Peer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::request::{Ask, Body, Empty, Ids, Order, PageQuery, cursor_after};
use super::response::{Answer, Shown};
use crate::service::Reply;
use crate::service::formations::{FormationChanges, MeshCredentials, NewFormation};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_formations, create_formation))
        .routes(routes!(get_formation, update_formation, delete_formation))
        .routes(routes!(suspend_formation))
        .routes(routes!(resume_formation))
        .routes(routes!(list_peers))
        .routes(routes!(get_mesh_credentials))
}

/// Who may enrol.
#[derive(Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
enum Policy {
    /// Anyone, without a credential.
    Open,
    /// Holders of a token or of an identity that a rule admits.
    #[default]
    Controlled,
    /// Only whom an operator approves.
    Strict,
}

impl From<Policy> for EnrollmentPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Open => EnrollmentPolicy::Open,
            Policy::Controlled => EnrollmentPolicy::Controlled,
            Policy::Strict => EnrollmentPolicy::Strict,
        }
    }
}

impl From<EnrollmentPolicy> for Policy {
    fn from(policy: EnrollmentPolicy) -> Self {
        match policy {
            EnrollmentPolicy::Open => Policy::Open,
            EnrollmentPolicy::Controlled => Policy::Controlled,
            EnrollmentPolicy::Strict => Policy::Strict,
        }
    }
}

/// A formation.
#[derive(Serialize, ToSchema)]
struct FormationView {
    /// The organisation that owns it.
    org_id: String,
    /// Chosen at creation, never changed; also the mesh's name.
    app_id: String,
    /// 8 upper-case hexadecimal digits, unique in the cluster.
    mesh_id: String,
    /// Who may enrol.
    enrollment_policy: Policy,
    /// `active`: the gateway observes the mesh. `suspended`: it doesn't.
    status: &'static str,
    /// Mesh nodes that the gateway dials.
    static_peers: Vec<String>,
    /// Documents that exist, deleted ones included.
    documents: u32,
    /// Unix time in ms.
    created_at: u64,
    /// The number in the header ETag.
    revision: u64,
}

impl From<Formation> for FormationView {
    fn from(formation: Formation) -> Self {
        Self {
            org_id: formation.org_id.as_str().to_owned(),
            app_id: formation.app_id.as_str().to_owned(),
            mesh_id: formation.mesh_id,
            enrollment_policy: formation.enrollment_policy.into(),
            status: match formation.status {
                FormationStatus::Active => "active",
                FormationStatus::Suspended => "suspended",
            },
            static_peers: formation.static_peers,
            documents: formation.documents,
            created_at: formation.created_at,
            revision: formation.revision,
        }
    }
}

/// A new formation. The gateway makes its root of trust.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FormationBody {
    /// 1 to 128 letters, digits, `_` and `-`; the first a letter or digit.
    app_id: String,
    /// Who may enrol.
    #[serde(default)]
    enrollment_policy: Policy,
    /// Mesh nodes to dial: `host:port`, or `name@host:port` where the endpoint id is derived from the
    /// node's name. At most 64.
    #[serde(default)]
    static_peers: Vec<String>,
}

/// What to change; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FormationPatch {
    /// Who may enrol.
    enrollment_policy: Option<Policy>,
    /// Mesh nodes to dial.
    static_peers: Option<Vec<String>>,
}

/// A mesh node that the gateway has met.
#[derive(Serialize, ToSchema)]
struct PeerView {
    /// Its endpoint id: 64 hexadecimal digits.
    peer_id: String,
    /// The formation.
    app_id: String,
    /// Where it was last reached.
    addresses: Vec<String>,
    /// Unix time in ms when it was last connected.
    last_seen: u64,
}

/// What admits a node to the mesh. Secret.
#[derive(Serialize, ToSchema)]
struct CredentialsView {
    /// The mesh.
    mesh_id: String,
    /// Mesh credentials in base64: mesh nodes take them as they are.
    credentials: String,
}

fn shown(reply: Reply<Formation>) -> Shown<FormationView> {
    let revision = reply.value.revision;
    Shown::of(reply, FormationView::from).tagged(revision)
}

/// Lists an organisation's formations by id.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/formations",
    tag = "formations",
    params(PageQuery),
    responses((status = 200, body = [FormationView]))
)]
async fn list_formations(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    ask: Ask<PageQuery>,
) -> Answer<Vec<FormationView>> {
    let PageQuery { limit, cursor } = ask.parameters;
    let reply = api.service.formations(&ask.call, &org, cursor.as_deref(), limit).await?;
    let page = &reply.value;
    let next = page.items.last().filter(|_| page.more).map(|last| {
        let cursor = cursor_after(last.app_id.as_str());
        format!("/orgs/{org}/formations?limit={limit}&cursor={cursor}")
    });
    Ok(Shown::of(reply, |page| page.items.into_iter().map(FormationView::from).collect())
        .followed_by(next))
}

/// Creates a formation with its root of trust.
#[utoipa::path(
    post,
    path = "/orgs/{org_id}/formations",
    tag = "formations",
    request_body = FormationBody,
    responses((status = 201, body = FormationView))
)]
async fn create_formation(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    order: Order<Body<FormationBody>>,
) -> Answer<FormationView> {
    let Body(body) = order.body;
    let location = format!("/orgs/{org}/formations/{}", body.app_id);
    let new = NewFormation {
        app_id: body.app_id,
        enrollment_policy: body.enrollment_policy.into(),
        static_peers: body.static_peers,
    };
    Ok(shown(api.service.create_formation(&order.call, &org, new).await?).created(&location))
}

/// Shows a formation.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/formations/{app_id}",
    tag = "formations",
    responses((status = 200, body = FormationView))
)]
async fn get_formation(
    State(api): State<Api>,
    Ids((org, app)): Ids<(String, String)>,
    ask: Ask<()>,
) -> Answer<FormationView> {
    Ok(shown(api.service.formation(&ask.call, &org, &app).await?))
}

/// Changes a formation.
#[utoipa::path(
    patch,
    path = "/orgs/{org_id}/formations/{app_id}",
    tag = "formations",
    request_body = FormationPatch,
    responses((status = 200, body = FormationView))
)]
async fn update_formation(
    State(api): State<Api>,
    Ids((org, app)): Ids<(String, String)>,
    order: Order<Body<FormationPatch>>,
) -> Answer<FormationView> {
    let Order { call, body: Body(body), expected_revision } = order;
    let changes = FormationChanges {
        enrollment_policy: body.enrollment_policy.map(EnrollmentPolicy::from),
        status: None,
        static_peers: body.static_peers,
    };
    let service = &api.service;
    Ok(shown(service.update_formation(&call, &org, &app, expected_revision, changes).await?))
}

/// Deletes a formation with its root of trust, peers and documents. Its events stay in the journal.
#[utoipa::path(
    delete,
    path = "/orgs/{org_id}/formations/{app_id}",
    tag = "formations",
    responses((status = 204))
)]
async fn delete_formation(
    State(api): State<Api>,
    Ids((org, app)): Ids<(String, String)>,
    order: Order<Empty>,
) -> Answer<()> {
    let Order { call, expected_revision, .. } = order;
    let reply = api.service.delete_formation(&call, &org, &app, expected_revision).await?;
    Ok(Shown::nothing(reply))
}

/// Stops observing a formation's mesh. What is journalled is still delivered.
#[utoipa::path(
    post,
    path = "/orgs/{org_id}/formations/{app_id}/suspend",
    tag = "formations",
    responses((status = 200, body = FormationView))
)]
async fn suspend_formation(
    State(api): State<Api>,
    Ids(ids): Ids<(String, String)>,
    order: Order<Empty>,
) -> Answer<FormationView> {
    set_status(&api, &ids, order, FormationStatus::Suspended).await
}

/// Observes a formation's mesh again.
#[utoipa::path(
    post,
    path = "/orgs/{org_id}/formations/{app_id}/resume",
    tag = "formations",
    responses((status = 200, body = FormationView))
)]
async fn resume_formation(
    State(api): State<Api>,
    Ids(ids): Ids<(String, String)>,
    order: Order<Empty>,
) -> Answer<FormationView> {
    set_status(&api, &ids, order, FormationStatus::Active).await
}

async fn set_status(
    api: &Api,
    (org, app): &(String, String),
    order: Order<Empty>,
    status: FormationStatus,
) -> Answer<FormationView> {
    let Order { call, expected_revision, .. } = order;
    let changes = FormationChanges { status: Some(status), ..FormationChanges::default() };
    let service = &api.service;
    Ok(shown(service.update_formation(&call, org, app, expected_revision, changes).await?))
}

/// Lists the mesh nodes that the gateway has met in a formation, at most 1024.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/formations/{app_id}/peers",
    tag = "formations",
    responses((status = 200, body = [PeerView]))
)]
async fn list_peers(
    State(api): State<Api>,
    Ids((org, app)): Ids<(String, String)>,
    ask: Ask<()>,
) -> Answer<Vec<PeerView>> {
    let reply = api.service.peers(&ask.call, &org, &app).await?;
    let show = |Peer { peer_id, addresses, last_seen }| PeerView {
        peer_id,
        app_id: app.clone(),
        addresses,
        last_seen,
    };
    Ok(Shown::of(reply, |peers| peers.into_iter().map(show).collect()))
}

/// Shows what admits a node to the formation's mesh. Secret.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/formations/{app_id}/credentials",
    tag = "formations",
    responses((status = 200, body = CredentialsView))
)]
async fn get_mesh_credentials(
    State(api): State<Api>,
    Ids((org, app)): Ids<(String, String)>,
    ask: Ask<()>,
) -> Answer<CredentialsView> {
    let reply = api.service.mesh_credentials(&ask.call, &org, &app).await?;
    let show = |MeshCredentials { mesh_id, credentials }| CredentialsView {
        mesh_id,
        credentials: credentials.to_string(),
    };
    Ok(Shown::of(reply, show).secret())
}
