//! Starts leader work when this node leads, and ends it when it doesn't.
//!
//! The epoch makes a deposed leader's commands count for nothing. Its deliveries may still reach sinks,
//! so work that doesn't end in time takes the process with it.

use std::future::Future;
use std::time::Duration;

use peat_gateway_cluster::{Handle, Leadership as Part};
use peat_gateway_state::command::Fence;
use peat_gateway_state::ids::Epoch;
use peat_gateway_state::query::settings;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::initialize::{check_key, initialize};
use crate::keys::{KeyError, Keyring};
use crate::leader::LeaderWork;

/// How long leader work may take to end. Observer and delivery allow themselves two seconds.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(4);
/// Pause before a step that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Why the process must end.
#[derive(Debug)]
pub(super) enum LeadershipError {
    /// This node's key is not the cluster's.
    WrongKey(KeyError),
    /// Leader work went on after its end was asked for.
    Stuck,
    /// Leader work panicked, or the state can't be read.
    Failed(String),
}

/// The loop, and what it runs as leader.
pub(super) struct Leadership<W> {
    pub(super) handle: Handle,
    pub(super) keyring: Keyring,
    /// Builds the work of one epoch; it ends soon after its token is cancelled.
    pub(super) work: W,
}

impl<W, F> Leadership<W>
where
    W: Fn(LeaderWork) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    /// Runs until `shutdown` is cancelled and all work has ended.
    ///
    /// # Errors
    /// See [`LeadershipError`]: the process must end.
    pub(super) async fn run(self, shutdown: CancellationToken) -> Result<(), LeadershipError> {
        let mut part = self.handle.leadership();
        loop {
            let now = *part.borrow_and_update();
            if let Part::Leader { term, epoch } = now {
                info!(term, epoch = epoch.0, "this node leads");
                self.lead(term, epoch, &mut part, &shutdown).await?;
                info!(term, "leader work has ended");
                if !shutdown.is_cancelled() && matches!(part.has_changed(), Ok(false)) {
                    warn!(term, "leader work ended by itself; starting it again");
                    tokio::time::sleep(RETRY_DELAY).await;
                    continue;
                }
            }
            if shutdown.is_cancelled() {
                return Ok(());
            }
            // A change during `lead` is still marked as unseen and comes back at once.
            let ended = tokio::select! {
                changed = part.changed() => changed.is_err(),
                () = shutdown.cancelled() => true,
            };
            if ended {
                return Ok(());
            }
        }
    }

    /// One epoch: prepares, works, ends.
    async fn lead(
        &self,
        term: u64,
        epoch: Epoch,
        part: &mut watch::Receiver<Part>,
        shutdown: &CancellationToken,
    ) -> Result<(), LeadershipError> {
        let mut deposed = part.clone();
        tokio::select! {
            prepared = self.prepare(term) => prepared?,
            _ = deposed.changed() => return Ok(()),
            () = shutdown.cancelled() => return Ok(()),
        }
        let work = LeaderWork {
            handle: self.handle.clone(),
            fence: Fence { term, epoch: Some(epoch) },
            keyring: self.keyring.clone(),
            shutdown: CancellationToken::new(),
        };
        let stop = work.shutdown.clone();
        let running = tokio::spawn((self.work)(work));
        supervise(running, stop, deposed, shutdown).await
    }

    /// The settings exist and this node has the cluster's key.
    async fn prepare(&self, term: u64) -> Result<(), LeadershipError> {
        loop {
            match initialize(&self.handle, &self.keyring, term).await {
                Ok(()) => break,
                Err(reason) => warn!(reason, "could not initialise the cluster; trying again"),
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
        match settings(&self.handle.local_view()) {
            Ok(Some(settings)) => check_key(&self.keyring, &settings).await,
            Ok(None) => Err(LeadershipError::Failed("the settings are gone".into())),
            Err(error) => Err(LeadershipError::Failed(error.to_string())),
        }
    }
}

/// Waits for the end of an epoch and then for the end of its work.
async fn supervise(
    mut running: JoinHandle<()>,
    stop: CancellationToken,
    mut deposed: watch::Receiver<Part>,
    shutdown: &CancellationToken,
) -> Result<(), LeadershipError> {
    let panicked = |error| LeadershipError::Failed(format!("leader work: {error}"));
    tokio::select! {
        ended = &mut running => {
            // It may know before the watch that this node leads no more.
            return ended.map_err(panicked);
        }
        _ = deposed.changed() => {}
        () = shutdown.cancelled() => {}
    }
    stop.cancel();
    match tokio::time::timeout(STOP_TIMEOUT, &mut running).await {
        Ok(ended) => ended.map_err(panicked),
        Err(_) => {
            running.abort();
            Err(LeadershipError::Stuck)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader() -> Part {
        Part::Leader { term: 3, epoch: Epoch(9) }
    }

    #[tokio::test]
    async fn work_is_cancelled_when_leadership_is_lost() {
        let (part, watched) = watch::channel(leader());
        let stop = CancellationToken::new();
        let work = tokio::spawn(stop.clone().cancelled_owned());
        part.send(Part::Follower).unwrap();
        let shutdown = CancellationToken::new();
        assert!(supervise(work, stop, watched, &shutdown).await.is_ok());
    }

    #[tokio::test]
    async fn work_that_goes_on_after_its_end_ends_the_process() {
        let (_part, watched) = watch::channel(leader());
        let work = tokio::spawn(std::future::pending());
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let ended = supervise(work, CancellationToken::new(), watched, &shutdown).await;
        assert!(matches!(ended, Err(LeadershipError::Stuck)));
    }

    #[tokio::test]
    async fn a_panic_of_leader_work_is_not_swallowed() {
        let (_part, watched) = watch::channel(leader());
        let work = tokio::spawn(async { panic!("planted") });
        let shutdown = CancellationToken::new();
        let ended = supervise(work, CancellationToken::new(), watched, &shutdown).await;
        assert!(matches!(ended, Err(LeadershipError::Failed(_))));
    }
}
