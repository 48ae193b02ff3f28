//! Destinations: what a worker delivers to.
//!
//! A destination takes batches of one lane, in order, and answers when it durably has all of them.
//! It keeps no position of its own and never retries: the worker does both, the same for all kinds.

pub(crate) mod file;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "webhook")]
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use peat_gateway_state::ids::{AppId, DocumentKey, Epoch, Hash32};
use peat_gateway_state::record::{Sink, SinkKind};
use thiserror::Error;

use super::Settings;

/// One event on its way to one sink.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Its place in the organisation's order.
    pub(crate) sequence: u64,
    /// What receivers deduplicate by.
    pub(crate) event_id: Hash32,
    /// Its formation.
    pub(crate) app: AppId,
    /// Its document.
    pub(crate) document: DocumentKey,
    /// When the leader observed it, Unix ms.
    pub(crate) observed_at: u64,
    /// The JSON object, the same at every attempt.
    pub(crate) body: Bytes,
}

/// How a destination wants its events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Documents are spread over this many lanes; 1 keeps the whole sequence in order.
    pub(crate) lanes: usize,
    /// Attempts that run at the same time, at most one per lane.
    pub(crate) attempts_max: usize,
    /// Most events of one attempt.
    pub(crate) batch_events: usize,
    /// Most bytes of one attempt; a single larger event is still tried.
    pub(crate) batch_bytes: usize,
}

/// A destination has a whole batch, durably.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Events that it had already and recognised.
    pub(crate) duplicates: u64,
}

/// What a failure says about other events.
#[cfg_attr(
    not(all(feature = "webhook", feature = "nats")),
    allow(dead_code, reason = "some classes are known to some destinations only")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureClass {
    /// A passing problem: the lane tries again soon.
    Transient,
    /// The destination refuses this event as it is: the lane tries again slowly.
    Rejected,
    /// The destination takes nothing now: all lanes wait.
    Down,
    /// The destination says that it is gone for good: tried again as slowly as `Rejected`.
    Gone,
}

impl FailureClass {
    /// The word in metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            FailureClass::Transient => "transient",
            FailureClass::Rejected => "rejected",
            FailureClass::Down => "down",
            FailureClass::Gone => "gone",
        }
    }
}

/// A batch did not certainly arrive as a whole; it will be tried again with the same bytes.
#[derive(Clone, Debug, Error)]
#[error("{reason}")]
pub(crate) struct Failure {
    /// What it says about other events.
    pub(crate) class: FailureClass,
    /// For people; holds no secret.
    pub(crate) reason: String,
    /// The destination asked not to be called for this long.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    /// Builds a failure.
    pub(crate) fn new(class: FailureClass, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), retry_after: None }
    }
}

/// Where events go.
pub(crate) trait Destination: Send + Sync {
    /// How it wants its events; the same at every call.
    fn shape(&self) -> Shape;

    /// Delivers events of one lane in order; all or, as far as the caller knows, none.
    ///
    /// Dropping the future leaves open whether they arrived.
    fn deliver<'a>(&'a self, batch: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, Failure>>;
}

/// A sink that can't be started as it is configured.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct BuildError(pub(crate) String);

/// Builds a sink's destination. Connects to nothing yet: a destination may be down at start.
///
/// # Errors
/// The configuration or credentials can't be used, or this build lacks the sink's feature.
pub(crate) fn build(
    sink: &Sink,
    #[cfg_attr(
        not(any(feature = "webhook", feature = "nats")),
        expect(unused_variables, reason = "files need none")
    )]
    credentials: Option<&[u8]>,
    epoch: Epoch,
    settings: &Settings,
) -> Result<Arc<dyn Destination>, BuildError> {
    match &sink.sink_type {
        SinkKind::File { name } => {
            let root = &settings.file_sink_root;
            Ok(Arc::new(file::FileDestination::new(root, &sink.org_id, name, epoch)?))
        }
        #[cfg(feature = "webhook")]
        SinkKind::Webhook { url } => {
            let allow_private = settings.webhook_allow_private;
            let built = webhook::WebhookDestination::new(url, credentials, epoch, allow_private)?;
            Ok(Arc::new(built))
        }
        #[cfg(not(feature = "webhook"))]
        SinkKind::Webhook { .. } => Err(missing_feature("webhook")),
        #[cfg(feature = "nats")]
        SinkKind::Nats { url, subject_prefix } => {
            let url = Some(url.as_str()).filter(|url| !url.is_empty());
            let url = url.or(settings.nats_url.as_deref()).ok_or_else(|| {
                BuildError(
                    "the sink names no NATS server and the node has none; set the sink's url or \
                     PEAT_CDC_NATS_URL"
                        .into(),
                )
            })?;
            let target = nats::Target {
                url: url.to_owned(),
                org: sink.org_id.clone(),
                prefix: subject_prefix.clone(),
                replicas: settings.nats_stream_replicas.max(1),
            };
            Ok(Arc::new(nats::NatsDestination::new(target, credentials)?))
        }
        #[cfg(not(feature = "nats"))]
        SinkKind::Nats { .. } => Err(missing_feature("nats")),
    }
}

#[cfg(not(all(feature = "webhook", feature = "nats")))]
fn missing_feature(feature: &str) -> BuildError {
    BuildError(format!(
        "this build of peat-gateway has no '{feature}' sinks; build it with --features {feature}"
    ))
}
