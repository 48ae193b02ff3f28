//! The tasks of one connection: one reads into the formation, one writes from its outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peat_gateway_mesh::frame::Frame;
use peat_gateway_mesh::link::{Link, LinkEvent, LinkSender, SendError};
use peat_gateway_mesh::negentropy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::observation::LinkId;
use super::outbox::Outbox;
use super::peers::{ConnectedPeer, unix_ms};

/// How often a node is asked for everything that it has. It answers with heads only, and sends what the
/// first push left out.
const ASK_FOR_EVERYTHING_INTERVAL: Duration = Duration::from_secs(30);
/// Payload bytes of one formation's frames that were read and not yet taken; then its links wait.
pub(super) const IN_FLIGHT_BYTES_MAX: usize = 128 << 20;
/// The unit in which they are counted, because a semaphore has 32-bit requests.
const PERMIT_BYTES: usize = 1 << 10;
/// Events of all links that wait for the formation; then its links wait.
pub(super) const ARRIVALS_MAX: usize = 128;
/// Close code of a link that the observer gives up.
const CLOSE_CODE: u32 = 0;

/// What happened on a link.
pub(super) enum Arrival {
    /// It is there.
    Connected { link: LinkId, peer: ConnectedPeer, outbox: Outbox, close: CancellationToken },
    /// A frame came. The permit is its share of memory.
    Frame { link: LinkId, frame: Frame, _share: OwnedSemaphorePermit },
    /// Something came that is no frame.
    Malformed { link: LinkId, reason: String },
    /// It is gone.
    Closed { link: LinkId },
}

/// Gives links their numbers and their way into the formation. Cheap to clone.
#[derive(Clone)]
pub(super) struct Entrance {
    arrivals: mpsc::Sender<Arrival>,
    in_flight: Arc<Semaphore>,
    next_link: Arc<AtomicU64>,
}

impl Entrance {
    pub(super) fn new(arrivals: mpsc::Sender<Arrival>) -> Self {
        Self {
            arrivals,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX / PERMIT_BYTES)),
            next_link: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Serves a link until it ends, or until `shutdown` or the formation closes it.
    pub(super) async fn serve(&self, link: Link, shutdown: &CancellationToken) {
        let number = self.next_link.fetch_add(1, Ordering::Relaxed);
        let peer = ConnectedPeer {
            peer_id: link.peer_id().to_string(),
            address: link.remote_address().map(|address| address.to_string()),
            connected_since: unix_ms(),
        };
        let outbox = Outbox::default();
        let close = shutdown.child_token();
        let connected =
            Arrival::Connected { link: number, peer, outbox: outbox.clone(), close: close.clone() };
        if self.arrivals.send(connected).await.is_err() {
            return;
        }
        let sender = link.sender();
        let reading = self.read(number, link, &outbox);
        tokio::select! {
            () = close.cancelled() => {}
            () = reading => {}
            error = write(&sender, &outbox) => {
                tracing::debug!(%error, "a link to a mesh node can't be written to");
            }
        }
        sender.close(CLOSE_CODE, "");
        // A formation that is gone needs no farewell.
        let told = self.arrivals.send(Arrival::Closed { link: number }).await;
        drop(told);
    }

    async fn read(&self, number: LinkId, mut link: Link, outbox: &Outbox) {
        loop {
            outbox.has_room().await;
            let Some(event) = link.recv().await else { return };
            let arrival = match event {
                LinkEvent::Frame(frame) => {
                    let permits = (frame.payload.len() / PERMIT_BYTES + 1)
                        .min(IN_FLIGHT_BYTES_MAX / PERMIT_BYTES)
                        as u32;
                    let share = Arc::clone(&self.in_flight).acquire_many_owned(permits).await;
                    let Ok(share) = share else { return };
                    Arrival::Frame { link: number, frame, _share: share }
                }
                LinkEvent::Malformed(error) => {
                    Arrival::Malformed { link: number, reason: error.to_string() }
                }
            };
            if self.arrivals.send(arrival).await.is_err() {
                return;
            }
        }
    }
}

/// Writes what is due, and asks for everything now and then; returns why it can't any more.
async fn write(sender: &LinkSender, outbox: &Outbox) -> SendError {
    let mut ask = interval(ASK_FOR_EVERYTHING_INTERVAL);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            biased;
            _ = ask.tick() => negentropy::empty_init(),
            frame = outbox.pop() => frame,
        };
        match sender.send(frame).await {
            // An old node that doesn't know the request stops the stream; others may read one frame only.
            Ok(()) | Err(SendError::Stopped | SendError::Frame(_)) => {}
            Err(error) => return error,
        }
    }
}
