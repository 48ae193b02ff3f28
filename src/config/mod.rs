//! One typed configuration from flags, environment and a TOML file.
//!
//! ```text
//!   file (TOML)  <  environment (PEAT_*)  <  flags        the stronger source replaces the weaker
//!        └──────────────┬──────────────────────┘
//!                     Given ──► a struct per component ──► checks across components ──► Config
//!                       └── every problem, all at once ──► Problems
//! ```
//!
//! Nothing is ignored: an unknown key of the file or an unknown `PEAT_*` variable refuses the start. Only
//! this module reads the environment, through [`Environment`].

mod check;
mod components;
mod environment;
mod flags;
mod given;
pub mod reference;
mod secret;
mod setting;
mod sources;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

pub(crate) use check::{check_admin_tokens, check_cluster_token};
pub use components::{Backup, Cdc, Cluster, Gateway, Keys, Log, Mesh, SECTIONS, Storage};
pub use environment::{Environment, Process};
pub use flags::Flags;
pub use secret::Secret;
pub use setting::{Kind, Section, Setting};

use given::Given;

/// The whole configuration of a node, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// HTTP API and data directory.
    pub gateway: Gateway,
    /// Sealing.
    pub keys: Keys,
    /// Part in a cluster. `node_name` is always present after loading, `peer_address` where `peer_bind` is.
    pub cluster: Cluster,
    /// Disk.
    pub storage: Storage,
    /// Observer.
    pub mesh: Mesh,
    /// Delivery.
    pub cdc: Cdc,
    /// Snapshots that it saves by itself.
    pub backup: Backup,
    /// Logging.
    pub log: Log,
    /// Files of secrets that are taken up again when they change.
    pub secret_files: SecretFiles,
}

/// Files of secrets, where they were given by one.
#[derive(Clone, Debug, Default)]
pub struct SecretFiles {
    /// Of the administrator's tokens.
    pub admin_token: Option<PathBuf>,
    /// Of the cluster's token.
    pub cluster_token: Option<PathBuf>,
}

/// Everything that is wrong with a configuration, one sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(formatter, "the configuration has {count} problem{plural}:")?;
        self.0.iter().try_for_each(|problem| write!(formatter, "\n  - {problem}"))
    }
}

impl std::error::Error for Problems {}

/// Every setting, in the order of the reference page.
pub(crate) fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

impl Config {
    /// Reads all sources and checks everything.
    ///
    /// # Errors
    /// All problems at once; nothing was started.
    pub fn load(flags: &Flags, environment: &dyn Environment) -> Result<Self, Problems> {
        let variables = environment.variables();
        let mut given = Given::new(environment);
        let file = flags.config.clone().or_else(|| variables.get("PEAT_CONFIG").map(PathBuf::from));
        if let Some(path) = file {
            match environment.read_file(&path) {
                Ok(text) => sources::read_file(&mut given, &path, &text),
                Err(error) => {
                    given.problem(format!("could not read {}: {error}", path.display()));
                }
            }
        }
        sources::read_variables(&mut given, variables.iter());
        sources::read_flags(&mut given, flags);

        let gateway = Gateway::read(&mut given);
        let keys = Keys::read(&mut given);
        let cluster = Cluster::read(&mut given);
        let storage = Storage::read(&mut given);
        let mesh = Mesh::read(&mut given);
        let cdc = Cdc::read(&mut given);
        let backup = Backup::read(&mut given);
        let log = Log::read(&mut given);
        // Each component is checked even where another one could not be read.
        if let Some(gateway) = &gateway {
            check::gateway(&mut given, gateway);
        }
        if let Some(keys) = &keys {
            check::keys(&mut given, keys, cluster.as_ref());
        }
        if let Some(cluster) = &cluster {
            check::cluster(&mut given, cluster);
        }
        if let Some(storage) = &storage {
            check::storage(&mut given, storage);
        }
        if let Some(cdc) = &cdc {
            check::cdc(&mut given, cdc);
        }
        if let Some(backup) = &backup {
            check::backup(&mut given, backup, gateway.as_ref());
        }
        if let Some(log) = &log {
            check::log(&mut given, log);
        }
        let secret_files = SecretFiles {
            admin_token: given.file("gateway.admin_token"),
            cluster_token: given.file("cluster.token"),
        };
        let problems = given.into_problems();
        match (gateway, keys, cluster, storage, mesh, cdc, backup, log) {
            (
                Some(gateway),
                Some(keys),
                Some(cluster),
                Some(storage),
                Some(mesh),
                Some(cdc),
                Some(backup),
                Some(log),
            ) if problems.is_empty() => {
                let mut config =
                    Self { gateway, keys, cluster, storage, mesh, cdc, backup, log, secret_files };
                config.fill_in(&environment.host_name());
                Ok(config)
            }
            _ => Err(Problems(problems)),
        }
    }

    /// Defaults that depend on other settings or on the host.
    fn fill_in(&mut self, host_name: &str) {
        let gateway = &mut self.gateway;
        let host = match gateway.bind.ip() {
            ip if ip.is_unspecified() => host_name.to_owned(),
            ip if ip.is_ipv6() => format!("[{ip}]"),
            ip => ip.to_string(),
        };
        let port = gateway.bind.port();
        gateway.http_advertise.get_or_insert_with(|| format!("http://{host}:{port}"));
        let data_dir = &gateway.data_dir;
        self.cdc.file_sink_dir.get_or_insert_with(|| data_dir.join("sinks"));
        self.cluster.node_name.get_or_insert_with(|| host_name.to_owned());
        if let Some(bind) = self.cluster.peer_bind {
            self.cluster.peer_address.get_or_insert_with(|| bind.to_string());
        }
    }
}
