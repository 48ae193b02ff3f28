//! `mesh-node`: a node of a mesh, as the field has them, that writes documents.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use peat_gateway_mesh::credentials::Credentials;
use peat_gateway_mesh::endpoint::PeerAddress;
use peat_gateway_mesh::identity::endpoint_id;
use peat_gateway_mesh::node::workload::{Changes, WRITES_PER_SECOND_MAX, Workload};
use peat_gateway_mesh::node::{MeshNode, NodeConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use zeroize::Zeroizing;

use super::output::{self, Format};
use super::{Exit, Failure, chain};
use crate::config::{Environment, Log, Process};
use crate::{serve, telemetry};

/// Most characters of credentials; their name has at most 65 535 bytes.
const CREDENTIALS_CHARACTERS_MAX: u64 = 128 * 1024;
/// Shortest time between two lots of writes: below it the timer itself would cost more than the writes.
const WRITE_INTERVAL_MIN: Duration = Duration::from_millis(5);

/// Arguments of `mesh-node`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The node's name in its mesh; its endpoint id is derived from it
    #[arg(long)]
    name: String,
    /// What `formation credentials` printed: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    credentials: PathBuf,
    /// The formation's id, where it isn't the mesh's name
    #[arg(long, value_name = "APP")]
    formation: Option<String>,
    /// UDP address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// Mesh node to dial, `<endpoint id or name>@address:port`; may be given several times
    #[arg(long = "peer", value_name = "ID@ADDRESS")]
    peers: Vec<String>,
    /// Changes to write each second; 0 writes nothing
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=i64::from(WRITES_PER_SECOND_MAX)))]
    rate: u32,
    /// Units and sensors that the changes are about
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    documents: u32,
    /// Stop writing after this many changes, and stay
    #[arg(long, value_name = "N")]
    changes: Option<u64>,
    /// Decides what is written; random where none is given and none is saved
    #[arg(long)]
    seed: Option<u64>,
    /// Directory where documents are kept between runs
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Seconds between status lines
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    status_every: u64,
    /// Go offline after as many seconds, again and again; writing goes on meanwhile
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    offline_every: Option<u64>,
    /// Seconds until an offline node returns
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    offline_for: u64,
    /// Form of the status lines
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// How far the workload has got: a second run goes on with the changes that come next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    seed: u64,
    written: u64,
}

/// Runs the node until a signal.
///
/// # Errors
/// The credentials, an address or the state can't be used.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let filter = Process.variables().get("PEAT_LOG").cloned().unwrap_or_else(|| "warn".into());
    telemetry::start(&Log { filter, format: "text".into() })
        .map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    let shutdown = serve::shutdown_on_signals()?;
    let config = arguments.node_config()?;
    let mut progress = arguments.progress()?;
    let mut node =
        MeshNode::start(config).await.map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;

    let mut writer = Writer::new(&arguments, &progress);
    let mut absence = Absence::new(&arguments);
    let mut status = interval(Duration::from_secs(arguments.status_every));
    let ended = loop {
        tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            count = writer.due() => {
                for change in writer.changes.by_ref().take(count) {
                    // A change of a document that a peer has deleted is refused; the next one counts.
                    if let Err(error) = node.write(&change) {
                        tracing::debug!(%error, "a change was not written");
                    }
                }
                progress.written += count as u64;
            }
            () = absence.due() => {
                if let Err(error) = node.set_online(absence.turn()).await {
                    break Err(Failure::new(Exit::Failed, chain(&error)));
                }
            }
            _ = status.tick() => {
                let shown = arguments.show(&node, progress).and_then(|()| arguments.save(progress));
                if let Err(failure) = shown {
                    break Err(failure);
                }
            }
        }
    };
    let saved = arguments.save(progress);
    node.stop().await;
    ended.and(saved)
}

/// Says when the node goes offline and when it returns.
struct Absence {
    /// How long it stays online; `None`: for ever.
    every: Option<Duration>,
    lasts: Duration,
    online: bool,
    next: Instant,
}

impl Absence {
    fn new(arguments: &Arguments) -> Self {
        let every = arguments.offline_every.map(Duration::from_secs);
        let lasts = Duration::from_secs(arguments.offline_for);
        Self { every, lasts, online: true, next: Instant::now() + every.unwrap_or_default() }
    }

    /// Waits until the node is to turn. Cancel-safe.
    async fn due(&self) {
        match self.every {
            Some(_) => sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }

    /// Turns, and returns whether the node is online from now on.
    fn turn(&mut self) -> bool {
        self.online = !self.online;
        let stay = if self.online { self.every.unwrap_or_default() } else { self.lasts };
        self.next = Instant::now() + stay;
        self.online
    }
}

/// Says when how many changes are to be written.
struct Writer {
    changes: Changes,
    rate: u32,
    begin: Instant,
    /// Changes given out since `begin`.
    given: u64,
    left: u64,
    ticks: tokio::time::Interval,
}

impl Writer {
    fn new(arguments: &Arguments, progress: &Progress) -> Self {
        let workload = Workload {
            seed: progress.seed,
            writes_per_second: arguments.rate.max(1),
            units: arguments.documents,
            prefix: arguments.name.clone(),
        };
        let mut changes = workload.changes();
        // The same seed gives the same changes: those of earlier runs are passed over.
        for _ in 0..progress.written {
            changes.next();
        }
        let period = Duration::from_secs(1) / arguments.rate.max(1);
        let mut ticks = interval(period.max(WRITE_INTERVAL_MIN));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let left = match arguments.rate {
            0 => 0,
            _ => arguments.changes.map_or(u64::MAX, |all| all.saturating_sub(progress.written)),
        };
        Self { changes, rate: arguments.rate, begin: Instant::now(), given: 0, left, ticks }
    }

    /// Waits until changes are due, and returns how many. Cancel-safe.
    async fn due(&mut self) -> usize {
        if self.left == 0 {
            return std::future::pending().await;
        }
        self.ticks.tick().await;
        let elapsed_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let target = (elapsed_ms.saturating_mul(self.rate.into()) / 1000).saturating_add(1);
        // A machine that stood still doesn't write all that it missed at once.
        let count = target.saturating_sub(self.given).min(self.left).min(self.rate.into());
        self.given = target;
        self.left -= count;
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}

impl Arguments {
    fn node_config(&self) -> Result<NodeConfig, Failure> {
        let credentials = read_credentials(&self.credentials)?;
        let secret = credentials.formation_secret();
        let formation =
            self.formation.clone().unwrap_or_else(|| credentials.mesh_name().to_owned());
        let mut config = NodeConfig::new(self.name.clone(), formation, secret.clone());
        config.bind = self.bind;
        for peer in &self.peers {
            config.peers.push(peer_address(peer, secret.as_slice())?);
        }
        if let Some(state) = &self.state {
            std::fs::create_dir_all(state)?;
            config.state_directory = Some(state.join("documents"));
        }
        Ok(config)
    }

    fn progress_file(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|state| state.join("workload.json"))
    }

    fn progress(&self) -> Result<Progress, Failure> {
        if let Some(path) = self.progress_file()
            && path.exists()
        {
            let saved: Progress =
                serde_json::from_slice(&std::fs::read(&path)?).map_err(|error| {
                    Failure::new(
                        Exit::Failed,
                        format!("could not read {}: {error}", path.display()),
                    )
                })?;
            if self.seed.is_none_or(|seed| seed == saved.seed) {
                return Ok(saved);
            }
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::new(Exit::Failed, format!("no random seed: {error}")))?;
        let seed = self.seed.unwrap_or_else(|| u64::from_le_bytes(random));
        Ok(Progress { seed, written: 0 })
    }

    fn save(&self, progress: Progress) -> Result<(), Failure> {
        let Some(path) = self.progress_file() else { return Ok(()) };
        let unfinished = path.with_extension("unfinished");
        std::fs::write(&unfinished, serde_json::to_vec(&progress).expect("numbers are JSON"))?;
        Ok(std::fs::rename(&unfinished, &path)?)
    }

    fn show(&self, node: &MeshNode, progress: Progress) -> Result<(), Failure> {
        let status = node.status();
        let line = match self.output {
            Format::Table => format!("{} {status}\n", self.name),
            Format::Json => format!("{}\n", status_json(&self.name, node, progress)),
        };
        Ok(output::write(&line)?)
    }
}

fn status_json(name: &str, node: &MeshNode, progress: Progress) -> Value {
    let status = node.status();
    json!({
        "name": name,
        "peer_id": node.id().to_string(),
        "addresses": node.address().sockets,
        "links": status.links,
        "documents": status.documents,
        "tombstones": status.tombstones,
        "written": status.written,
        "written_in_all_runs": progress.written,
        "pushed": status.pushed,
        "acknowledged": status.acknowledged,
        "dropped": status.dropped,
        "malformed": status.malformed,
    })
}

fn read_credentials(path: &Path) -> Result<Credentials, Failure> {
    let unusable = |reason: String| {
        let name = path.display();
        Failure::new(Exit::Usage, format!("could not use the credentials in {name}: {reason}"))
    };
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(CREDENTIALS_CHARACTERS_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(CREDENTIALS_CHARACTERS_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| unusable(error.to_string()))?;
    // The decoder's message would show a byte of the secret.
    let bytes = STANDARD
        .decode(text.trim())
        .map(Zeroizing::new)
        .map_err(|_| unusable("not base64".into()))?;
    Credentials::decode(&bytes).map_err(|error| unusable(error.to_string()))
}

/// Reads `<endpoint id or name>@address:port`.
fn peer_address(text: &str, formation_secret: &[u8]) -> Result<PeerAddress, Failure> {
    let unusable =
        || Failure::new(Exit::Usage, format!("{text:?} is not <endpoint id or name>@address:port"));
    let (who, address) =
        text.rsplit_once('@').filter(|(who, _)| !who.is_empty()).ok_or_else(unusable)?;
    let socket: SocketAddr = address.parse().map_err(|_| unusable())?;
    let id = who.parse().unwrap_or_else(|_| endpoint_id(formation_secret, who));
    Ok(PeerAddress { id, sockets: vec![socket] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_goes_offline_and_returns_in_turn() {
        let unit = Duration::from_millis(1);
        let begin = Instant::now();
        let mut absence = Absence { every: Some(3 * unit), lasts: unit, online: true, next: begin };
        absence.due().await;
        assert!(!absence.turn());
        assert!(absence.next >= begin + unit);
        absence.due().await;
        assert!(absence.turn());
        assert!(absence.next >= begin + 4 * unit);
    }

    #[test]
    fn peers_are_named_by_id_or_by_name() {
        let secret = [7; 32];
        let by_name = peer_address("unit-1@127.0.0.1:9", &secret).unwrap();
        let by_id = peer_address(&format!("{}@127.0.0.1:9", by_name.id), &secret).unwrap();
        assert_eq!(by_name, by_id);
        for wrong in ["127.0.0.1:9", "@127.0.0.1:9", "unit-1@nowhere"] {
            assert_eq!(peer_address(wrong, &secret).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn credentials_that_are_none_are_refused_without_being_shown() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("credentials");
        std::fs::write(&path, "canary-secret!").unwrap();
        let failure = read_credentials(&path).unwrap_err();
        assert!(!failure.message.contains("canary"), "{}", failure.message);
    }
}
