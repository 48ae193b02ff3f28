//! The NATS sink: one JetStream message per event.
//!
//! ```text
//!  subject  {org}.{prefix}.{app}.{document}     Nats-Msg-Id: <event id, hex>
//!  stream   peat-gw-cdc-{org}-{prefix}          subjects {org}.{prefix}.>
//! ```
//!
//! An event is acknowledged by the stream's publish ack. Lanes publish side by side over one
//! connection; within a lane the next event waits for the ack of the one before, so a document's
//! order holds whatever is lost. Repetitions carry the same id, and the stream drops them within its
//! duplicate window.

mod connection;
mod credentials;
mod subject;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use futures_util::future::BoxFuture;
use peat_gateway_state::ids::OrgId;
use tokio::sync::OnceCell;

use super::{BuildError, Delivery, Destination, Failure, FailureClass, Receipt, Shape};
use connection::Connection;
use credentials::Credentials;

/// How long an ack may take before the event is published again.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Lanes, each with at most one message without an ack.
const LANES: usize = 256;

/// Where a sink's messages go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `nats://host:port` or `tls://host:port`.
    pub(crate) url: String,
    /// First token of all subjects.
    pub(crate) org: OrgId,
    /// The tokens behind it.
    pub(crate) prefix: String,
    /// Replicas of a stream that has to be created.
    pub(crate) replicas: usize,
}

/// A JetStream stream.
pub(crate) struct NatsDestination {
    target: Target,
    credentials: Credentials,
    /// Made by the first attempt that reaches the server; it reconnects by itself from then on.
    connection: OnceCell<Connection>,
}

impl NatsDestination {
    /// Checks the credentials and the prefix; connects later.
    ///
    /// # Errors
    /// One of them can't be used.
    pub(crate) fn new(target: Target, credentials: Option<&[u8]>) -> Result<Self, BuildError> {
        subject::check_prefix(&target.prefix).map_err(BuildError)?;
        let credentials = Credentials::parse(credentials)?;
        Ok(Self { target, credentials, connection: OnceCell::new() })
    }

    async fn publish(&self, delivery: &Delivery) -> Result<Receipt, Failure> {
        let connect = || Connection::open(&self.target, &self.credentials);
        let connection = self.connection.get_or_try_init(connect).await.map_err(down)?;
        let lost = connection.lost();
        connection.check(&self.target).await.map_err(down)?;
        let subject = subject::subject(&self.target, &delivery.app, &delivery.document);
        let message = PublishMessage::build()
            .payload(delivery.body.clone())
            .message_id(delivery.event_id.to_string());
        let acknowledged = async { connection.context.send_publish(subject, message).await?.await };
        tokio::select! {
            ack = acknowledged => match ack {
                Ok(ack) => Ok(Receipt { duplicates: u64::from(ack.duplicate) }),
                Err(error) => Err(publish_failure(connection, &error)),
            },
            // No ack can come over a lost connection; waiting for the timeout would only cost time.
            () = lost => Err(down("the connection was lost before the ack came")),
        }
    }
}

impl Destination for NatsDestination {
    fn shape(&self) -> Shape {
        Shape { lanes: LANES, attempts_max: LANES, batch_events: 1, batch_bytes: usize::MAX }
    }

    fn deliver<'a>(&'a self, batch: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, Failure>> {
        Box::pin(async move {
            let mut receipt = Receipt::default();
            for delivery in batch {
                receipt.duplicates += self.publish(delivery).await?.duplicates;
            }
            Ok(receipt)
        })
    }
}

fn publish_failure(connection: &Connection, error: &PublishError) -> Failure {
    let reason = format!("could not publish: {error}");
    let class = match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => FailureClass::Rejected,
        // The stream may have been deleted; it is looked for again before the next attempt.
        PublishErrorKind::StreamNotFound => {
            connection.forget_stream();
            FailureClass::Down
        }
        PublishErrorKind::BrokenPipe => FailureClass::Down,
        _ if !connection.is_connected() => FailureClass::Down,
        _ => FailureClass::Transient,
    };
    Failure::new(class, reason)
}

fn down(reason: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Down, reason)
}
