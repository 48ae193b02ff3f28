//! The servers that this gateway is compared with: found, never downloaded here.

use std::path::{Path, PathBuf};

use super::machine;
use super::suite::Opponent;

/// The versions of etcd that rows are compared with.
const ETCD: [&str; 2] = ["3.4.23", "3.7.3"];
/// The version of the NATS server.
const NATS: &str = "2.15.2";

/// A program to compare with.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Product and version.
    pub(super) name: String,
    pub(super) binary: PathBuf,
}

/// What was found, and what wasn't.
#[derive(Debug, Default)]
pub(super) struct Opponents {
    pub(super) etcd: Vec<Program>,
    pub(super) nats: Option<Program>,
    pub(super) missing: Vec<(Opponent, String)>,
}

impl Opponents {
    /// Looks at the paths that were given, else into the cache that `.ci/bench` fills, else on the PATH.
    pub(super) fn find(etcd: &[PathBuf], nats: Option<&Path>) -> Self {
        let mut found = Self::default();
        let places: Vec<PathBuf> = match etcd {
            [] => ETCD
                .iter()
                .map(|version| cache().join(format!("etcd-{version}")))
                .chain(on_path("etcd"))
                .collect(),
            given => given.to_vec(),
        };
        for binary in places {
            let Some(version) = machine::version(&binary) else { continue };
            let name = format!("etcd {version}");
            if found.etcd.iter().all(|program| program.name != name) {
                found.etcd.push(Program { name, binary });
            }
        }
        for version in ETCD {
            let name = format!("etcd {version}");
            if found.etcd.iter().all(|program| program.name != name) {
                found.missing.push((Opponent::Etcd, name));
            }
        }
        let nats = nats.map_or_else(|| cache().join(format!("nats-server-{NATS}")), Path::to_owned);
        match machine::version(&nats) {
            Some(version) if cfg!(feature = "nats") => {
                found.nats = Some(Program { name: format!("JetStream {version}"), binary: nats });
            }
            _ => found.missing.push((Opponent::JetStream, format!("JetStream {NATS}"))),
        }
        found
    }

    /// None of them.
    pub(super) fn nobody() -> Self {
        let mut missing: Vec<_> =
            ETCD.iter().map(|version| (Opponent::Etcd, format!("etcd {version}"))).collect();
        missing.push((Opponent::JetStream, format!("JetStream {NATS}")));
        Self { missing, ..Self::default() }
    }

    /// Names of all that were found.
    pub(super) fn names(&self) -> Vec<String> {
        self.etcd.iter().chain(&self.nats).map(|program| program.name.clone()).collect()
    }
}

/// Where `.ci/bench` keeps what it builds.
fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_default().join("peat-gateway/bench/bin")
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join(program)).find(|place| place.is_file())
}
