//! The connection to a NATS server, and the stream behind it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    Context, ContextBuilder, CreateStreamErrorKind, GetStreamErrorKind,
};
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::{Client, Event};
use tokio::sync::watch;

use super::credentials::Credentials;
use super::{ACK_TIMEOUT, LANES, Target, subject};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream that we create remembers message ids; covers a failover with a long outage.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(10 * 60);

/// An open connection. The client reconnects by itself for as long as this exists.
pub(super) struct Connection {
    client: Client,
    /// Publishes, and talks to the JetStream API.
    pub(super) context: Context,
    /// Counts lost connections.
    losses: watch::Receiver<u64>,
    /// Whether the stream was found fit since it was last doubted.
    stream_checked: AtomicBool,
}

impl Connection {
    /// Connects. The stream is looked at by [`Connection::check`].
    ///
    /// # Errors
    /// Says why, for people; without credentials.
    pub(super) async fn open(target: &Target, credentials: &Credentials) -> Result<Self, String> {
        // Another part of the process may have installed it already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let (count_loss, losses) = watch::channel(0);
        let options = credentials.options().map_err(|error| error.to_string())?;
        let connecting = options
            .name(format!("peat-gateway {}", target.org))
            .connection_timeout(CONNECT_TIMEOUT)
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected | Event::Closed) {
                    count_loss.send_modify(|count| *count += 1);
                }
                tracing::debug!(%event, "NATS connection");
                std::future::ready(())
            })
            .connect(target.url.as_str());
        let client = connecting.await.map_err(|error| format!("could not connect: {error}"))?;
        let context = ContextBuilder::new()
            .timeout(ACK_TIMEOUT)
            .max_ack_inflight(4 * LANES)
            .backpressure_on_inflight(true)
            .build(client.clone());
        Ok(Self { client, context, losses, stream_checked: AtomicBool::new(false) })
    }

    /// Whether the server is there now.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Returns a future that ends when the connection is lost after this call.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + use<> {
        let mut losses = self.losses.clone();
        losses.mark_unchanged();
        async move {
            if losses.changed().await.is_err() {
                // The client ended, and with it its callback: no ack comes any more.
                tracing::debug!("the NATS client ended");
            }
        }
    }

    /// Makes the next [`Connection::check`] look at the stream again.
    pub(super) fn forget_stream(&self) {
        self.stream_checked.store(false, Ordering::Relaxed);
    }

    /// Checks that the server is there and that its stream takes our subjects; creates a missing one.
    ///
    /// # Errors
    /// Says what is wrong and what to do, for people. An existing stream is never changed.
    pub(super) async fn check(&self, target: &Target) -> Result<(), String> {
        if !self.is_connected() {
            return Err(format!("not connected to {}", shown(&target.url)));
        }
        if !self.stream_checked.load(Ordering::Relaxed) {
            // Lanes that come here side by side do the same harmless check.
            self.find_or_create_stream(target).await?;
            self.stream_checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn find_or_create_stream(&self, target: &Target) -> Result<(), String> {
        let name = subject::stream_name(target);
        let wanted = subject::wildcard(target);
        match self.context.get_stream(&name).await {
            Ok(stream) => {
                let subjects = &stream.cached_info().config.subjects;
                if subjects.iter().any(|pattern| subject::covers(pattern, &wanted)) {
                    return Ok(());
                }
                Err(format!(
                    "the stream {name} holds the subjects {subjects:?}, not {wanted}; add it to the \
                     stream, or give the sink another prefix"
                ))
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(answer)
                    if answer.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    self.create_stream(target, name, wanted).await
                }
                _ => Err(format!("could not look at the stream {name}: {error}")),
            },
        }
    }

    async fn create_stream(
        &self,
        target: &Target,
        name: String,
        wanted: String,
    ) -> Result<(), String> {
        let config = Config {
            name: name.clone(),
            subjects: vec![wanted.clone()],
            storage: StorageType::File,
            num_replicas: target.replicas,
            duplicate_window: DUPLICATE_WINDOW,
            description: Some("Document changes of Peat meshes".into()),
            ..Config::default()
        };
        let Err(error) = self.context.create_stream(config).await else {
            tracing::info!(stream = name, subjects = wanted, "created a JetStream stream");
            return Ok(());
        };
        match error.kind() {
            // An operator's own stream has these subjects, under a name of theirs.
            CreateStreamErrorKind::JetStream(answer)
                if answer.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP =>
            {
                self.accept_stream_of_subject(&name, &wanted).await
            }
            _ => Err(format!("could not create the stream {name}: {error}")),
        }
    }

    /// Accepts an existing stream under another name where it takes all our subjects.
    async fn accept_stream_of_subject(&self, name: &str, wanted: &str) -> Result<(), String> {
        let found = self.context.stream_by_subject(wanted).await;
        let found = found.map_err(|error| format!("could not find the stream: {error}"))?;
        let stream = self.context.get_stream(&found).await;
        let stream = stream.map_err(|error| format!("could not look at {found}: {error}"))?;
        let subjects = &stream.cached_info().config.subjects;
        if subjects.iter().any(|pattern| subject::covers(pattern, wanted)) {
            return Ok(());
        }
        Err(format!(
            "the stream {name} can't be created: {found} holds {subjects:?}, which overlaps with \
             {wanted} without covering it; change one of them"
        ))
    }
}

/// A URL without what may stand before its host.
fn shown(url: &str) -> &str {
    url.rsplit('@').next().unwrap_or(url)
}
