//! Sinks: destinations of an organisation's events.

use std::collections::BTreeMap;

use axum::extract::State;
use peat_gateway_state::ids::AppId;
use peat_gateway_state::record::{Sink, SinkFilter, SinkKind, SinkStart};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::request::{Ask, Body, Empty, Ids, Order, PageQuery, cursor_after};
use super::response::{Answer, Shown};
use crate::service::credentials::{SecretText, SinkCredentials};
use crate::service::sinks::{NewSink, Progress, SinkChanges, WrittenSink};
use crate::service::{Error, Reply};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_sinks, create_sink))
        .routes(routes!(get_sink, update_sink, delete_sink))
        .routes(routes!(pause_sink))
        .routes(routes!(resume_sink))
        .routes(routes!(get_cursor))
}

/// What kind of destination.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
enum SinkType {
    /// A NATS JetStream stream; subject `{org}.{prefix}.{app}.{document}`.
    Nats {
        /// Tokens of letters, digits, `_` and `-`, joined by dots.
        subject_prefix: String,
        /// `nats://host:port` or `tls://host:port`; without it, the server of the node's configuration.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        url: String,
    },
    /// HTTP POST per event, signed as Standard Webhooks 1.0.0 says.
    Webhook {
        /// Absolute `http` or `https` URL.
        url: String,
    },
    /// NDJSON files on the leader.
    File {
        /// Name of the directory: 1 to 128 letters, digits, `_` and `-`.
        name: String,
    },
}

impl From<SinkType> for SinkKind {
    fn from(kind: SinkType) -> Self {
        match kind {
            SinkType::Nats { subject_prefix, url } => SinkKind::Nats { url, subject_prefix },
            SinkType::Webhook { url } => SinkKind::Webhook { url },
            SinkType::File { name } => SinkKind::File { name },
        }
    }
}

impl From<SinkKind> for SinkType {
    fn from(kind: SinkKind) -> Self {
        match kind {
            SinkKind::Nats { url, subject_prefix } => SinkType::Nats { subject_prefix, url },
            SinkKind::Webhook { url } => SinkType::Webhook { url },
            SinkKind::File { name } => SinkType::File { name },
        }
    }
}

/// Which events a sink gets; empty lists match everything.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    /// Formations.
    app_ids: Vec<String>,
    /// Collections: the part of a document's key before the first `:`.
    collections: Vec<String>,
}

impl Filter {
    fn parse(self) -> Result<SinkFilter, Error> {
        let parse = |(at, text): (usize, &String)| {
            AppId::parse(text).map_err(|invalid| {
                Error::field("invalid_filter", &format!("/filter/app_ids/{at}"), invalid.0)
            })
        };
        let app_ids = self.app_ids.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok(SinkFilter { app_ids, collections: self.collections })
    }
}

/// What a sink needs to get in. Written, never read again. Webhook: `signing_secret`, `bearer_token`,
/// `headers`. NATS: `user` and `password`, or `token`, or `creds`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    /// `whsec_` and 24 to 64 bytes in base64. Without it a new webhook gets one, and one that is
    /// changed keeps its own.
    signing_secret: Option<String>,
    /// Sent as `Authorization: Bearer`.
    bearer_token: Option<String>,
    /// Sent with each request; at most 16.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// User at the NATS server.
    user: Option<String>,
    /// Its password.
    password: Option<String>,
    /// Token at the NATS server.
    token: Option<String>,
    /// Text of a NATS `.creds` file.
    creds: Option<String>,
}

impl From<Credentials> for SinkCredentials {
    fn from(given: Credentials) -> Self {
        let secret = |text: Option<String>| text.map(SecretText::new);
        Self {
            signing_secrets: secret(given.signing_secret).into_iter().collect(),
            bearer_token: secret(given.bearer_token),
            headers: given
                .headers
                .into_iter()
                .map(|(name, value)| (name, SecretText::new(value)))
                .collect(),
            user: secret(given.user),
            password: secret(given.password),
            token: secret(given.token),
            creds: secret(given.creds),
        }
    }
}

/// Where a new sink begins.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Start {
    /// With the first event after its creation.
    #[default]
    Now,
    /// With the oldest event that the journal still holds.
    Earliest,
}

/// A new sink.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SinkBody {
    /// Where and how.
    sink_type: SinkType,
    /// Which events.
    #[serde(default)]
    filter: Filter,
    /// Where it begins.
    #[serde(default)]
    start: Start,
    /// What it needs to get in.
    credentials: Option<Credentials>,
}

/// What to change; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SinkPatch {
    /// Whether events are delivered.
    enabled: Option<bool>,
    /// Another destination of the same kind. Another server needs its credentials again.
    sink_type: Option<SinkType>,
    /// Which events, from now on.
    filter: Option<Filter>,
    /// All credentials anew; only a signing secret that is left out stays.
    credentials: Option<Credentials>,
}

/// A sink.
#[derive(Serialize, ToSchema)]
struct SinkView {
    /// Made by the gateway.
    sink_id: String,
    /// The organisation.
    org_id: String,
    /// Where and how.
    sink_type: SinkType,
    /// Which events.
    filter: Filter,
    /// Whether events are delivered. A sink that isn't enabled doesn't hold the journal.
    enabled: bool,
    /// Unix time in ms.
    created_at: u64,
    /// The number in the header ETag.
    revision: u64,
    /// The signing secret that the gateway made: in the answer to the creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
}

impl From<Sink> for SinkView {
    fn from(sink: Sink) -> Self {
        let app_ids = sink.filter.app_ids.iter().map(|app| app.as_str().to_owned()).collect();
        Self {
            sink_id: sink.sink_id.as_str().to_owned(),
            org_id: sink.org_id.as_str().to_owned(),
            sink_type: sink.sink_type.into(),
            filter: Filter { app_ids, collections: sink.filter.collections },
            enabled: sink.enabled,
            created_at: sink.created_at,
            revision: sink.revision,
            signing_secret: None,
        }
    }
}

/// How far a sink has got.
#[derive(Serialize, ToSchema)]
struct CursorView {
    /// Every event up to and including this sequence is acknowledged.
    acknowledged: u64,
    /// Ranges above it that are acknowledged too; both ends included.
    ahead: Vec<(u64, u64)>,
    /// Sequence of the newest event in the journal.
    head: u64,
    /// Events up to the head that aren't acknowledged.
    lag: u64,
    /// The leader's epoch that wrote it last.
    epoch: u64,
    /// Unix time in ms of the last write.
    updated_at: u64,
}

fn shown(reply: Reply<WrittenSink>) -> Shown<SinkView> {
    let revision = reply.value.sink.revision;
    let shows_secret = reply.value.signing_secret.is_some();
    let shown = Shown::of(reply, |WrittenSink { sink, signing_secret }| SinkView {
        signing_secret: signing_secret.map(|secret| secret.expose().to_owned()),
        ..SinkView::from(sink)
    })
    .tagged(revision);
    if shows_secret { shown.secret() } else { shown }
}

/// Lists an organisation's sinks by id.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/sinks",
    tag = "sinks",
    params(PageQuery),
    responses((status = 200, body = [SinkView]))
)]
async fn list_sinks(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    ask: Ask<PageQuery>,
) -> Answer<Vec<SinkView>> {
    let PageQuery { limit, cursor } = ask.parameters;
    let reply = api.service.sinks(&ask.call, &org, cursor.as_deref(), limit).await?;
    let page = &reply.value;
    let next = page.items.last().filter(|_| page.more).map(|last| {
        let cursor = cursor_after(last.sink_id.as_str());
        format!("/orgs/{org}/sinks?limit={limit}&cursor={cursor}")
    });
    Ok(Shown::of(reply, |page| page.items.into_iter().map(SinkView::from).collect())
        .followed_by(next))
}

/// Creates a sink. A webhook without a signing secret gets one; only this answer shows it.
#[utoipa::path(
    post,
    path = "/orgs/{org_id}/sinks",
    tag = "sinks",
    request_body = SinkBody,
    responses((status = 201, body = SinkView))
)]
async fn create_sink(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    order: Order<Body<SinkBody>>,
) -> Answer<SinkView> {
    let Body(body) = order.body;
    let new = NewSink {
        sink_type: body.sink_type.into(),
        filter: body.filter.parse()?,
        start: match body.start {
            Start::Now => SinkStart::Now,
            Start::Earliest => SinkStart::Earliest,
        },
        credentials: body.credentials.map(SinkCredentials::from),
    };
    let reply = api.service.create_sink(&order.call, &org, new).await?;
    let location = format!("/orgs/{org}/sinks/{}", reply.value.sink.sink_id);
    Ok(shown(reply).created(&location))
}

/// Shows a sink, without its credentials.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/sinks/{sink_id}",
    tag = "sinks",
    responses((status = 200, body = SinkView))
)]
async fn get_sink(
    State(api): State<Api>,
    Ids((org, sink)): Ids<(String, String)>,
    ask: Ask<()>,
) -> Answer<SinkView> {
    let reply = api.service.sink(&ask.call, &org, &sink).await?;
    let revision = reply.value.revision;
    Ok(Shown::of(reply, SinkView::from).tagged(revision))
}

/// Changes a sink.
#[utoipa::path(
    patch,
    path = "/orgs/{org_id}/sinks/{sink_id}",
    tag = "sinks",
    request_body = SinkPatch,
    responses((status = 200, body = SinkView))
)]
async fn update_sink(
    State(api): State<Api>,
    Ids((org, sink)): Ids<(String, String)>,
    order: Order<Body<SinkPatch>>,
) -> Answer<SinkView> {
    let Order { call, body: Body(body), expected_revision } = order;
    let changes = SinkChanges {
        enabled: body.enabled,
        sink_type: body.sink_type.map(SinkKind::from),
        filter: body.filter.map(Filter::parse).transpose()?,
        credentials: body.credentials.map(SinkCredentials::from),
    };
    let reply = api.service.update_sink(&call, &org, &sink, expected_revision, changes).await?;
    Ok(shown(reply))
}

/// Deletes a sink with its credentials and cursor.
#[utoipa::path(
    delete,
    path = "/orgs/{org_id}/sinks/{sink_id}",
    tag = "sinks",
    responses((status = 204))
)]
async fn delete_sink(
    State(api): State<Api>,
    Ids((org, sink)): Ids<(String, String)>,
    order: Order<Empty>,
) -> Answer<()> {
    let Order { call, expected_revision, .. } = order;
    Ok(Shown::nothing(api.service.delete_sink(&call, &org, &sink, expected_revision).await?))
}

/// Stops delivery to a sink. It no longer holds the journal.
#[utoipa::path(
    post,
    path = "/orgs/{org_id}/sinks/{sink_id}/pause",
    tag = "sinks",
    responses((status = 200, body = SinkView))
)]
async fn pause_sink(
    State(api): State<Api>,
    Ids(ids): Ids<(String, String)>,
    order: Order<Empty>,
) -> Answer<SinkView> {
    set_enabled(&api, &ids, order, false).await
}

/// Delivers to a sink again, from where it stopped or from the oldest event that is left.
#[utoipa::path(
    post,
    path = "/orgs/{org_id}/sinks/{sink_id}/resume",
    tag = "sinks",
    responses((status = 200, body = SinkView))
)]
async fn resume_sink(
    State(api): State<Api>,
    Ids(ids): Ids<(String, String)>,
    order: Order<Empty>,
) -> Answer<SinkView> {
    set_enabled(&api, &ids, order, true).await
}

async fn set_enabled(
    api: &Api,
    (org, sink): &(String, String),
    order: Order<Empty>,
    enabled: bool,
) -> Answer<SinkView> {
    let Order { call, expected_revision, .. } = order;
    let changes = SinkChanges { enabled: Some(enabled), ..SinkChanges::default() };
    Ok(shown(api.service.update_sink(&call, org, sink, expected_revision, changes).await?))
}

/// Shows how far a sink has got.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/sinks/{sink_id}/cursor",
    tag = "sinks",
    responses((status = 200, body = CursorView))
)]
async fn get_cursor(
    State(api): State<Api>,
    Ids((org, sink)): Ids<(String, String)>,
    ask: Ask<()>,
) -> Answer<CursorView> {
    let reply = api.service.sink_progress(&ask.call, &org, &sink).await?;
    Ok(Shown::of(reply, |Progress { cursor, head, lag }| CursorView {
        acknowledged: cursor.acknowledged,
        ahead: cursor.ahead,
        head,
        lag,
        epoch: cursor.epoch.0,
        updated_at: cursor.updated_at,
    }))
}
