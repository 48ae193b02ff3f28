//! One observed formation, running: its endpoint, its links, and the task that owns its observation.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peat_gateway_mesh::endpoint::MeshEndpoint;
use peat_gateway_mesh::formation_key::FormationKey;
use peat_gateway_mesh::identity;
use peat_gateway_state::ids::{AppId, DocumentKey, OrgId};
use peat_gateway_state::record::Formation;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::compaction::Growth;
use super::connection::{ARRIVALS_MAX, Arrival, Entrance};
use super::dialing;
use super::journal::Journal;
use super::metrics::Metrics;
use super::observation::{LinkId, Observation};
use super::outbox::Outbox;
use super::peers::{self, Peers};
use super::pipeline::{Job, NOTICES_MAX, Notice};
use super::proposer::{Broken, Proposer};
use super::sighting::{Sighting, sightings};

/// First wait before a formation that could not begin is tried again; doubles.
const BEGIN_DELAY_MIN: Duration = Duration::from_millis(200);
/// Longest such wait.
const BEGIN_DELAY_MAX: Duration = Duration::from_secs(5);
/// Pieces that wait for the pipeline; then nothing more is taken from the links.
const ITEMS_LEFT_MAX: usize = 256;
/// Frames that are taken in one go on a blocking thread.
const FRAMES_AT_ONCE_MAX: usize = 64;
/// How often the connected nodes are written into the state.
const REMEMBER_INTERVAL: Duration = Duration::from_secs(60);
/// How long new connections are collected before they are.
const REMEMBER_DELAY: Duration = Duration::from_secs(1);
/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What all formations of an organisation share.
#[derive(Clone)]
pub(super) struct Surroundings<J> {
    pub proposer: Proposer<J>,
    pub jobs: mpsc::Sender<Job>,
    pub compactions: mpsc::Sender<(AppId, DocumentKey)>,
    pub bind: SocketAddr,
    pub node_name: String,
    pub peers: Peers,
    pub shutdown: CancellationToken,
}

/// Observes a formation until `shutdown`.
///
/// # Errors
/// The committed state can't be read: everything of the organisation begins again.
pub(super) async fn run<J: Journal>(
    around: Surroundings<J>,
    formation: Formation,
) -> Result<(), Broken> {
    let Some((endpoint, key, secret)) = begin(&around, &formation.app_id).await else {
        return Ok(());
    };
    let (org, app) = (around.proposer.org.clone(), formation.app_id.clone());
    let metrics = around.proposer.metrics.clone();
    metrics.formations.inc();
    let remembered = remembered(&around.proposer.journal, &org, &app).await?;
    let (targets, nameless) =
        dialing::targets(&formation.static_peers, &remembered, &secret, endpoint.id());
    for peer in nameless {
        tracing::warn!(
            %org, %app, peer,
            "a static peer can't be dialled without its name or endpoint id; write name@host:port"
        );
    }
    tracing::info!(
        %org, %app, id = %endpoint.id(), addresses = ?endpoint.local_addrs(), peers = targets.len(),
        "observing a formation"
    );
    let (arrivals, inbox) = mpsc::channel(ARRIVALS_MAX);
    let links_shutdown = around.shutdown.child_token();
    let dialing = tokio::spawn(dialing::run(
        endpoint.clone(),
        key,
        targets,
        Entrance::new(arrivals),
        links_shutdown.clone(),
    ));
    let newcomers = Arc::new(Notify::new());
    let remembering = tokio::spawn(remember(
        around.proposer.clone(),
        app.clone(),
        around.peers.clone(),
        Arc::clone(&newcomers),
        links_shutdown.clone(),
    ));
    let (notices, notices_in) = mpsc::channel(NOTICES_MAX);
    let mut running = Running {
        observation: Some(Observation::new(
            org.clone(),
            app.clone(),
            around.proposer.journal.clone(),
            metrics.clone(),
        )),
        links: HashMap::new(),
        growth: Growth::default(),
        notices,
        newcomers,
        around,
        app: app.clone(),
        metrics: metrics.clone(),
    };
    let outcome = running.run(inbox, notices_in).await;
    links_shutdown.cancel();
    metrics.links.sub(running.links.len() as i64);
    running.around.peers.clear(&org, &app);
    // Nobody waits longer than this for nodes that don't answer: the next leader dials them.
    let closing = timeout(CLOSE_TIMEOUT, async {
        endpoint.close().await;
        drop((dialing.await, remembering.await));
    });
    if closing.await.is_err() {
        tracing::debug!(%org, %app, "closing the connections took too long");
    }
    metrics.formations.dec();
    outcome
}

/// Opens the genesis and the endpoint, trying until it works; `None` at shutdown. Logs each new reason once.
async fn begin<J: Journal>(
    around: &Surroundings<J>,
    app: &AppId,
) -> Option<(MeshEndpoint, FormationKey, Zeroizing<[u8; 32]>)> {
    let org = &around.proposer.org;
    let mut delay = BEGIN_DELAY_MIN;
    let mut last_reason = None;
    loop {
        match around.shutdown.run_until_cancelled(open(around, app)).await? {
            Ok(opened) => return Some(opened),
            Err(reason) => {
                if last_reason.as_ref() != Some(&reason) {
                    tracing::error!(%org, %app, reason, "a formation can't be observed; trying on");
                    last_reason = Some(reason);
                }
            }
        }
        around.shutdown.run_until_cancelled(sleep(delay)).await?;
        delay = (delay * 2).min(BEGIN_DELAY_MAX);
    }
}

async fn open<J: Journal>(
    around: &Surroundings<J>,
    app: &AppId,
) -> Result<(MeshEndpoint, FormationKey, Zeroizing<[u8; 32]>), String> {
    let org = &around.proposer.org;
    let secret = around.proposer.journal.formation_secret(org, app).await?;
    let key =
        FormationKey::from_secret(app.as_str(), &secret).map_err(|error| error.to_string())?;
    let identity = identity::endpoint_secret(secret.as_slice(), &around.node_name);
    let endpoint = match MeshEndpoint::bind(identity.clone(), around.bind).await {
        // One UDP port serves one formation: the first takes the configured one, others any.
        Err(error) if around.bind.port() != 0 => {
            tracing::debug!(%error, %org, %app, "the configured UDP port is taken; choosing one");
            let any = SocketAddr::new(around.bind.ip(), 0);
            MeshEndpoint::bind(identity, any).await
        }
        bound => bound,
    };
    Ok((endpoint.map_err(|error| error.to_string())?, key, secret))
}

async fn remembered<J: Journal>(
    journal: &J,
    org: &OrgId,
    app: &AppId,
) -> Result<Vec<peat_gateway_state::record::Peer>, Broken> {
    let (journal, org, app) = (journal.clone(), org.clone(), app.clone());
    tokio::task::spawn_blocking(move || journal.remembered_peers(&org, &app))
        .await
        .map_err(|error| Broken(error.to_string()))?
        .map_err(|error| Broken(error.to_string()))
}

/// Writes the connected nodes into the state: soon after one came, and regularly.
async fn remember<J: Journal>(
    proposer: Proposer<J>,
    app: AppId,
    peers: Peers,
    newcomers: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let mut regularly = interval(REMEMBER_INTERVAL);
    regularly.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        loop {
            tokio::select! {
                _ = regularly.tick() => {}
                () = newcomers.notified() => sleep(REMEMBER_DELAY).await,
            }
            let connected = peers.connected(&proposer.org, &app);
            peers::remember(&proposer, &app, &connected).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

struct OpenLink {
    outbox: Outbox,
    close: CancellationToken,
}

struct Running<J> {
    around: Surroundings<J>,
    app: AppId,
    metrics: Metrics,
    /// Absent only while a blocking thread works on it.
    observation: Option<Observation<J>>,
    links: HashMap<LinkId, OpenLink>,
    growth: Growth,
    notices: mpsc::Sender<Notice>,
    newcomers: Arc<Notify>,
}

impl<J: Journal> Running<J> {
    async fn run(
        &mut self,
        mut arrivals: mpsc::Receiver<Arrival>,
        mut notices: mpsc::Receiver<Notice>,
    ) -> Result<(), Broken> {
        let shutdown = self.around.shutdown.clone();
        let jobs = self.around.jobs.clone();
        loop {
            let items_left = self.observation().items_left();
            // Notices first: they free what the others wait for, and the pipeline waits for us to take them.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(notice) = notices.recv() => self.note(notice),
                permit = jobs.reserve(), if items_left > 0 => {
                    // A closed queue means that the organisation is being closed.
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(item) = self.observation().next_item() {
                        permit.send(Job { item, notices: self.notices.clone() });
                    }
                }
                Some(arrival) = arrivals.recv(), if items_left < ITEMS_LEFT_MAX => {
                    self.take(arrival, &mut arrivals).await?;
                }
            }
            self.send_answers();
        }
    }

    fn observation(&mut self) -> &mut Observation<J> {
        self.observation.as_mut().expect("it is put back before anything else happens")
    }

    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Settled(ticket) => self.observation().committed(ticket),
            Notice::Failed(document, reason) => {
                self.observation().failed(&document, &reason, Instant::now());
            }
            Notice::Diverged(document) => self.observation().diverged(&document),
            Notice::Journalled { document, events, bytes } => {
                if self.growth.note(&document, events, bytes) {
                    // A full queue drops it; it is due again when it has grown again.
                    drop(self.around.compactions.try_send((self.app.clone(), document)));
                }
            }
        }
    }

    /// Takes an arrival and what came right behind it.
    async fn take(
        &mut self,
        first: Arrival,
        arrivals: &mut mpsc::Receiver<Arrival>,
    ) -> Result<(), Broken> {
        let mut next = Some(first);
        let mut frames = Vec::new();
        while let Some(arrival) = next {
            match arrival {
                Arrival::Connected { link, peer, outbox, close } => {
                    self.observation().connect(link);
                    self.links.insert(link, OpenLink { outbox, close });
                    self.around.peers.add(&self.around.proposer.org, &self.app, link, peer);
                    self.metrics.links.inc();
                    self.newcomers.notify_one();
                }
                Arrival::Closed { link } => {
                    // What it sent before it closed counts.
                    self.take_frames(std::mem::take(&mut frames)).await?;
                    self.observation().disconnect(link);
                    self.around.peers.remove(&self.around.proposer.org, &self.app, link);
                    if self.links.remove(&link).is_some() {
                        self.metrics.links.dec();
                    }
                }
                frame => frames.push(frame),
            }
            if frames.len() >= FRAMES_AT_ONCE_MAX {
                break;
            }
            next = arrivals.try_recv().ok();
        }
        self.take_frames(frames).await
    }

    /// Works on frames on a blocking thread: Automerge and the disk would hold up the runtime.
    async fn take_frames(&mut self, frames: Vec<Arrival>) -> Result<(), Broken> {
        if frames.is_empty() {
            return Ok(());
        }
        let Some(mut observation) = self.observation.take() else { return Ok(()) };
        let metrics = self.metrics.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let now = Instant::now();
            for arrival in frames {
                match arrival {
                    Arrival::Frame { link, frame, _share } => {
                        for sighting in sightings(frame, &metrics) {
                            observation.take(link, sighting, now)?;
                        }
                    }
                    Arrival::Malformed { link, reason } => {
                        observation.take(link, Sighting::Malformed(reason), now)?;
                    }
                    Arrival::Connected { .. } | Arrival::Closed { .. } => {}
                }
            }
            Ok::<_, peat_gateway_state::ReadError>(observation)
        });
        let observation = worked
            .await
            .map_err(|error| Broken(error.to_string()))?
            .map_err(|error| Broken(error.to_string()))?;
        self.observation = Some(observation);
        Ok(())
    }

    fn send_answers(&mut self) {
        let answers = self.observation().take_answers();
        for (link, frame) in answers {
            if let Some(open) = self.links.get(&link) {
                self.metrics.answers.inc();
                open.outbox.push(frame);
            }
        }
        for link in self.observation().take_closing() {
            if let Some(open) = self.links.get(&link) {
                tracing::info!(app = %self.app, "closing a link to a mesh node");
                open.close.cancel();
            }
        }
    }
}
