//! The journal: read in pages, or followed live as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::layers::INDEX;
use super::problem::Failure;
use super::request::{Ask, Ids, Pairs, Parameters, invalid_parameter, limit};
use super::response::{Answer, Shown};
use super::{Api, STREAMS_MAX};
use crate::service::journal::{Event, Followed, Follower};
use crate::service::{Error, Kind};

/// Between comments on a quiet stream, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_journal)).routes(routes!(follow_journal))
}

/// An event: one change of one document.
#[derive(Serialize, ToSchema)]
struct EventView {
    /// Its identity, hexadecimal: the same in every delivery.
    event_id: String,
    /// Position in the organisation's journal.
    sequence: u64,
    /// Position in the document's own order.
    document_sequence: u64,
    /// The organisation.
    org_id: String,
    /// The formation.
    app_id: String,
    /// The document's key.
    document_id: String,
    /// `change`, `snapshot` or `tombstone`.
    kind: &'static str,
    /// The Automerge change hash, hexadecimal.
    change_hash: String,
    /// Who made the change: an Automerge actor in hexadecimal.
    actor_id: String,
    /// Unix time in ms at which the gateway observed it.
    timestamp_ms: u64,
    /// What changed.
    #[schema(value_type = Object)]
    patches: Value,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            event_id: event.event_id,
            sequence: event.sequence,
            document_sequence: event.document_sequence,
            org_id: event.org_id,
            app_id: event.app_id,
            document_id: event.document_id,
            kind: event.kind,
            change_hash: event.change_hash,
            actor_id: event.actor_id,
            timestamp_ms: event.timestamp_ms,
            patches: event.patches,
        }
    }
}

/// Which part of a journal is asked for.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct JournalQuery {
    /// Events above this sequence.
    #[param(default = 0)]
    after: u64,
    /// Most events: 1 to 1000. An answer may hold fewer where they are large.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: usize,
}

impl Parameters for JournalQuery {
    fn take(pairs: &mut Pairs, _: &HeaderMap) -> Result<Self, Error> {
        let after = pairs.number("after")?.unwrap_or_default();
        Ok(Self { after, limit: limit(pairs)? })
    }
}

/// Where a live stream begins.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// Events above this sequence; without it, events from now on. The header `Last-Event-ID`, which
    /// browsers send when they reconnect, counts more.
    after: Option<u64>,
}

impl Parameters for StreamQuery {
    fn take(pairs: &mut Pairs, headers: &HeaderMap) -> Result<Self, Error> {
        let after = pairs.number("after")?;
        let last = match headers.get("last-event-id") {
            Some(last) => {
                let number = last.to_str().ok().and_then(|last| last.parse().ok());
                let malformed = || invalid_parameter("Last-Event-ID", "is not a sequence");
                Some(number.ok_or_else(malformed)?)
            }
            None => None,
        };
        Ok(Self { after: last.or(after) })
    }
}

/// Shows events in sequence. Events that every enabled sink has acknowledged may be gone.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/journal",
    tag = "journal",
    params(JournalQuery),
    responses((status = 200, body = [EventView]))
)]
async fn get_journal(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    ask: Ask<JournalQuery>,
) -> Answer<Vec<EventView>> {
    let JournalQuery { after, limit } = ask.parameters;
    let reply = api.service.journal(&ask.call, &org, after, limit).await?;
    let head = reply.value.head;
    let last = reply.value.events.last().map(|event| event.sequence);
    let next = last
        .filter(|last| *last < head)
        .map(|last| format!("/orgs/{org}/journal?after={last}&limit={limit}"));
    Ok(Shown::of(reply, |tail| tail.events.into_iter().map(EventView::from).collect())
        .followed_by(next))
}

/// Follows the journal live. Each message `event` carries one event and its sequence as id; a message
/// `trimmed` says up to which sequence events were gone before they could be sent.
#[utoipa::path(
    get,
    path = "/orgs/{org_id}/journal/stream",
    tag = "journal",
    params(StreamQuery),
    responses((status = 200, body = String, content_type = "text/event-stream"))
)]
async fn follow_journal(
    State(api): State<Api>,
    Ids(org): Ids<String>,
    ask: Ask<StreamQuery>,
) -> Result<Response, Failure> {
    let place = api.shared.streams.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{STREAMS_MAX} live streams are open on this node; try again");
        Error::new(Kind::TooMany, "overloaded", detail)
    })?;
    let reply = api.service.follow_journal(&ask.call, &org, ask.parameters.after).await?;
    let live = Live { follower: reply.value, shutdown: api.shared.shutdown.clone(), _place: place };
    let messages = stream::unfold(live, Live::next).flat_map(stream::iter);
    let mut response =
        Sse::new(messages).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(INDEX, reply.index.into());
    Ok(response)
}

/// A live stream at work.
struct Live {
    follower: Follower,
    shutdown: CancellationToken,
    /// Counts the stream for as long as it is open.
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// Waits for the next messages; `None` ends the stream, and the client comes again elsewhere.
    async fn next(mut self) -> Option<(Vec<Result<Message, Infallible>>, Self)> {
        let followed = tokio::select! {
            followed = self.follower.next() => followed,
            () = self.shutdown.cancelled() => return None,
        };
        let messages = match followed {
            Ok(Some(Followed::Events(events))) => events.into_iter().map(message).collect(),
            Ok(Some(Followed::Trimmed(through))) => {
                let data = json!({ "through": through }).to_string();
                vec![Ok(Message::default().event("trimmed").id(through.to_string()).data(data))]
            }
            Ok(None) => return None,
            Err(error) => {
                tracing::warn!(%error, "a live stream of the journal ended");
                return None;
            }
        };
        Some((messages, self))
    }
}

fn message(event: Event) -> Result<Message, Infallible> {
    let sequence = event.sequence.to_string();
    let view = EventView::from(event);
    let data = serde_json::to_string(&view).expect("an event is JSON under text keys");
    Ok(Message::default().event("event").id(sequence).data(data))
}
