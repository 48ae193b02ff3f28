//! One host: its data directory, the node that runs on it, and what clients ask of that node.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::disk;
use super::history::History;
use super::leader_work;
use crate::config::{ClusterConfig, StorageLimits, Timing, WriteLimits};
use crate::error::StartError;
use crate::handle::Handle;
use crate::membership::MembershipConfig;
use crate::node::Node;

/// Work that waits for a host's runtime.
const JOBS_MAX: usize = 4_096;

/// Work of a client, run beside the node as the gateway's API would.
pub(super) type Job = Pin<Box<dyn Future<Output = ()>>>;

/// A host as the driver and its software share it.
pub(super) struct Host {
    pub(super) place: usize,
    pub(super) name: String,
    pub(super) config: ClusterConfig,
    /// How often its software was started.
    pub(super) starts: u64,
    pub(super) running: Option<Running>,
    /// Why its node ended by itself.
    pub(super) failed: Option<String>,
    /// Its node has stopped because it was asked to.
    pub(super) stopped: bool,
    /// Its node was removed from the cluster, and knows it.
    pub(super) left: bool,
    pub(super) history: Rc<RefCell<History>>,
}

/// A node that runs.
pub(super) struct Running {
    pub(super) handle: Handle,
    jobs: mpsc::Sender<Job>,
    stop: Rc<Notify>,
}

pub(super) type Shared = Rc<RefCell<Host>>;

impl Host {
    pub(super) fn new(
        place: usize,
        hosts: usize,
        directory: &std::path::Path,
        timing: &Timing,
        history: &Rc<RefCell<History>>,
    ) -> Shared {
        let address = |place: usize| format!("{}:7000", name(place));
        let mut host = Self {
            place,
            name: name(place),
            config: ClusterConfig {
                data_dir: PathBuf::new(),
                name: name(place),
                peer_bind: Some("localhost:7000".to_owned()),
                peer_address: address(place),
                http_address: format!("http://{}:8080/", name(place)),
                initial_peers: (0..hosts).map(address).collect(),
                cluster_token: "token of the simulation".to_owned(),
                peer_tls: None,
                timing: timing.clone(),
                membership: MembershipConfig {
                    promote_after: Duration::from_secs(1),
                    ..MembershipConfig::default()
                },
                writes: WriteLimits::default(),
            },
            starts: 0,
            running: None,
            failed: None,
            stopped: false,
            left: false,
            history: history.clone(),
        };
        host.config.data_dir = directory.join(name(place)).join("0");
        Rc::new(RefCell::new(host))
    }

    /// Gives a job to the host's runtime; it is lost where no node runs.
    pub(super) fn run(&self, job: impl Future<Output = ()> + 'static) {
        if let Some(running) = &self.running {
            running.jobs.try_send(Box::pin(job)).ok();
        }
    }

    /// Asks the node to stop in order; the next start uses the same directory.
    pub(super) fn stop(&mut self) {
        if let Some(running) = &self.running {
            running.stop.notify_one();
        }
    }

    /// Gives the host an empty disk, for a new node that asks the others to be taken in.
    pub(super) fn replace(&mut self) {
        self.starts += 1;
        self.config.data_dir.set_file_name(self.starts.to_string());
        let own = self.config.peer_address.clone();
        let peers = std::mem::take(&mut self.config.initial_peers);
        self.config.membership.join.extend(peers.into_iter().filter(|peer| *peer != own));
        self.running = None;
    }

    /// Leaves on the disk what a power cut leaves, for the next start.
    pub(super) fn cut_power(&mut self) {
        let old = self.config.data_dir.clone();
        let mut new = old.clone();
        self.starts += 1;
        new.set_file_name(self.starts.to_string());
        if let Some(running) = &self.running {
            running.handle.inner.store().hand_over_unsynced();
        }
        disk::copy_after_power_cut(self.place, &old, &new)
            .expect("could not copy a data directory");
        self.config.data_dir = new;
        self.running = None;
    }
}

/// The name of the host at a place.
pub(super) fn name(place: usize) -> String {
    format!("node-{place}")
}

/// What a host runs, from its start to its crash.
pub(super) async fn software(host: Shared) -> turmoil::Result {
    let (place, config) = {
        let host = host.borrow();
        (host.place, host.config.clone())
    };
    let started = disk::PLACE.scope(place, Node::start(config)).await;
    let mut node = match started {
        Ok(node) => node,
        Err(StartError::Removed { .. }) => {
            host.borrow_mut().left = true;
            return Ok(());
        }
        Err(error) => {
            host.borrow_mut().failed = Some(format!("it doesn't start: {error}"));
            return pending().await;
        }
    };
    let (jobs, mut waiting) = mpsc::channel::<Job>(JOBS_MAX);
    let stop = Rc::new(Notify::new());
    let history = {
        let mut host = host.borrow_mut();
        host.running = Some(Running { handle: node.handle(), jobs, stop: stop.clone() });
        host.history.clone()
    };
    tokio::task::spawn_local(leader_work::run(place, node.handle(), history));
    let removed = node.removed();
    tokio::pin!(removed);
    loop {
        tokio::select! {
            () = &mut removed => {
                let mut host = host.borrow_mut();
                host.running = None;
                host.left = true;
                return Ok(());
            }
            reason = node.failed() => {
                host.borrow_mut().failed = Some(reason);
                return pending().await;
            }
            () = stop.notified() => {
                node.stop().await;
                let mut host = host.borrow_mut();
                host.running = None;
                host.starts += 1;
                host.stopped = true;
                return Ok(());
            }
            Some(job) = waiting.recv() => {
                tokio::task::spawn_local(job);
            }
        }
    }
}

/// Timing of simulated nodes: the product's, with snapshots so small that they happen.
pub(super) fn timing(snapshot_entries: u64, entries_kept: u64) -> Timing {
    Timing {
        heartbeat_interval: Duration::from_millis(100),
        election_timeout_min: Duration::from_millis(250),
        election_timeout_max: Duration::from_millis(450),
        snapshot_entries,
        entries_kept,
        upgrade_delay: Duration::from_secs(1),
        storage: StorageLimits {
            // The free space of this machine would decide what happens.
            free_bytes_min: 0,
            free_percent_min: 0,
            comparison_interval: Duration::from_secs(2),
            ..StorageLimits::default()
        },
    }
}
