//! Certificates and tokens that are taken up from their files without a restart.
//!
//! ```text
//!  every interval, and on SIGHUP ─► read ─► same: nothing
//!                                     ├──► good: used from now on
//!                                     └──► bad: the old one goes on; said in the log, in a metric and
//!                                               in /health until the file is good again
//! ```
//!
//! A file is called bad only when it is so twice in a row: whoever writes three files isn't done with all
//! of them at once.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use peat_gateway_cluster::Handle;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::api::{Access, ApiSettings, Notices, Tokens};
use crate::config::{Config, Secret, check_admin_tokens, check_cluster_token};

/// Most bytes of a token's file; a larger one is refused.
const TOKEN_FILE_BYTES_MAX: u64 = 64 << 10;
/// Pause between the two looks that find a file bad after SIGHUP.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// What is watched.
#[derive(Clone)]
enum Watched {
    PeerCertificates(Handle),
    AdminToken(PathBuf, Tokens),
    ClusterToken(PathBuf, Handle),
}

impl Watched {
    /// As it is called in metrics, logs and problems.
    fn name(&self) -> &'static str {
        match self {
            Watched::PeerCertificates(_) => "peer_certificates",
            Watched::AdminToken(..) => "admin_token",
            Watched::ClusterToken(..) => "cluster_token",
        }
    }

    /// Looks at the files; `false` where nothing changed.
    async fn look(&self) -> Result<bool, String> {
        match self {
            Watched::PeerCertificates(handle) => handle.reload_peer_certificates().await,
            Watched::AdminToken(path, tokens) => {
                let text = read(path).await?;
                check_admin_tokens(&text)?;
                Ok(tokens.replace(text.expose().lines()))
            }
            Watched::ClusterToken(path, handle) => {
                let token = read(path).await?;
                check_cluster_token(&token)?;
                Ok(handle.replace_cluster_token(token.expose()))
            }
        }
    }
}

/// Reads a token's file as the start does.
async fn read(path: &Path) -> Result<Secret, String> {
    let failed = |error: std::io::Error| format!("could not read {}: {error}", path.display());
    let length = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if length > TOKEN_FILE_BYTES_MAX {
        return Err(format!("{}: {length} bytes are no token", path.display()));
    }
    let text = zeroize::Zeroizing::new(tokio::fs::read_to_string(path).await.map_err(failed)?);
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{} is empty", path.display())),
        token => Ok(Secret::new(token)),
    }
}

/// Watches this node's files.
pub(super) struct Reload {
    /// With what the last look at each said, if that was bad.
    watched: Vec<(Watched, Option<String>)>,
    handle: Handle,
    problems: Notices,
    reloads: IntCounterVec,
    refused: IntGaugeVec,
    expiry: IntGauge,
}

impl Reload {
    /// Finds out what is to be watched. What was given as a value and not as a file stays as it is.
    pub(super) fn new(config: &Config, handle: &Handle, api: &ApiSettings) -> Self {
        let mut watched = Vec::new();
        if config.cluster.peer_cert.is_some() {
            watched.push(Watched::PeerCertificates(handle.clone()));
        }
        if let (Some(path), Access::Tokens(tokens)) =
            (&config.secret_files.admin_token, &api.access)
        {
            watched.push(Watched::AdminToken(path.clone(), tokens.clone()));
        }
        if let Some(path) = &config.secret_files.cluster_token {
            watched.push(Watched::ClusterToken(path.clone(), handle.clone()));
        }
        let reload = Self {
            watched: watched.into_iter().map(|watched| (watched, None)).collect(),
            handle: handle.clone(),
            problems: api.notices.clone(),
            reloads: IntCounterVec::new(
                Opts::new(
                    "peat_file_reloads_total",
                    "Changed certificate or token files, by result",
                ),
                &["what", "result"],
            )
            .expect("the names are valid"),
            refused: IntGaugeVec::new(
                Opts::new(
                    "peat_file_refused",
                    "1 while a certificate or token file is unusable and the old content goes on",
                ),
                &["what"],
            )
            .expect("the names are valid"),
            expiry: IntGauge::new(
                "peat_peer_certificate_expiry_timestamp_seconds",
                "Unix time at which this node's peer certificate in use expires; 0 without one",
            )
            .expect("the name is valid"),
        };
        reload.register(&api.registry);
        reload
    }

    fn register(&self, registry: &Registry) {
        for (watched, _) in &self.watched {
            self.refused.with_label_values(&[watched.name()]).set(0);
            for result in ["done", "refused"] {
                self.reloads.with_label_values(&[watched.name(), result]).inc_by(0);
            }
        }
        self.show_expiry();
        let collectors: [Box<dyn prometheus::core::Collector>; 3] = [
            Box::new(self.reloads.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.expiry.clone()),
        ];
        for collector in collectors {
            if let Err(error) = registry.register(collector) {
                tracing::error!(%error, "a metric is not shown: give each node its own registry");
            }
        }
    }

    /// Watches for as long as the process lives.
    pub(super) async fn run(mut self, interval: Duration) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                error!(%error, "changed files of certificates and tokens won't be noticed");
                return;
            }
        };
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.look().await,
                _ = hangup.recv() => {
                    info!("SIGHUP: looking at the files of certificates and tokens");
                    self.look().await;
                    tokio::time::sleep(SECOND_LOOK).await;
                    self.look().await;
                }
            }
        }
    }

    async fn look(&mut self) {
        for number in 0..self.watched.len() {
            let (watched, before) = self.watched[number].clone();
            let found = watched.look().await;
            self.watched[number].1 = found.as_ref().err().cloned();
            self.note(watched.name(), found, before.is_some());
        }
        self.show_expiry();
    }

    fn note(&self, what: &'static str, found: Result<bool, String>, bad_before: bool) {
        match found {
            Ok(changed) => {
                if self.problems.note(what, None) && !changed {
                    info!(what, "the file is as it was again");
                }
                self.refused.with_label_values(&[what]).set(0);
                if changed {
                    info!(what, "the changed file is used from now on");
                    self.reloads.with_label_values(&[what, "done"]).inc();
                }
            }
            Err(reason) if bad_before => {
                self.refused.with_label_values(&[what]).set(1);
                let problem = format!("{reason}; the old content goes on. Correct the file");
                if self.problems.note(what, Some(problem)) {
                    error!(what, reason, "a changed file can't be used; the old content goes on");
                    self.reloads.with_label_values(&[what, "refused"]).inc();
                }
            }
            // Perhaps it is only half written.
            Err(_) => {}
        }
    }

    fn show_expiry(&self) {
        let expires = self.handle.peer_certificate_expires();
        let seconds = expires.and_then(|expires| expires.duration_since(UNIX_EPOCH).ok());
        self.expiry.set(seconds.map_or(0, |since| since.as_secs() as i64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn token_file_is_taken_up_when_it_changes_and_refused_when_it_is_bad() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("token");
        let tokens = Tokens::new(["the-first-token-of-all"]);
        let watched = Watched::AdminToken(path.clone(), tokens);
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        assert!(watched.look().await.is_err(), "there is no file");
        write("the-first-token-of-all\n");
        assert_eq!(watched.look().await, Ok(false));
        write("the-first-token-of-all\nanother-token-of-all\n");
        assert_eq!(watched.look().await, Ok(true));
        for bad in ["", "\n", "short", "another-token-of-all\nshort"] {
            write(bad);
            let refused = watched.look().await.expect_err(bad);
            assert!(!refused.contains("token-of"), "{refused}");
        }
        write("another-token-of-all");
        assert_eq!(watched.look().await, Ok(true));
    }
}
