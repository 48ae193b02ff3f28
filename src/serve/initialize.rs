//! The cluster's first settings, and the check that this node has the cluster's key.

use std::future::Future;
use std::time::{Duration, Instant};

use peat_gateway_cluster::{Handle, ProposeError};
use peat_gateway_state::command::{FIRST_VERSION, Fence, InitializeCluster};
use peat_gateway_state::query::settings;
use peat_gateway_state::record::ClusterSettings;
use peat_gateway_state::{Command, Outcome};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::leadership::LeadershipError;
use crate::keys::{Binding, KeyError, Keyring, SecretKind};
use crate::leader::LeaderWork;

/// What is sealed at initialisation, for every node to open.
const KEY_CHECK_TEXT: &[u8] = b"peat-gateway key check";
/// How long answers are kept for retries: longer than any client should go on trying.
const IDEMPOTENCY_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// How long delivered journal rows are kept: so long can one look back by `journal tail`.
const JOURNAL_RETENTION: Duration = Duration::from_secs(3600);
/// How long the members of a new cluster may take to say which versions they support.
const VERSIONS_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before they are asked again.
const VERSIONS_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a key provider that doesn't answer is asked again.
const PROVIDER_RETRY_DELAY: Duration = Duration::from_secs(2);

fn key_check_binding(seal_domain: [u8; 16]) -> Binding<'static> {
    Binding { seal_domain, org: "", kind: SecretKind::KeyCheck, record: "cluster", version: 1 }
}

/// Writes the first settings where there are none. Called by a leader before its work.
///
/// # Errors
/// The proposal was not committed; the leader tries again or is none any more.
pub(super) async fn initialize(
    handle: &Handle,
    keyring: &Keyring,
    term: u64,
) -> Result<(), String> {
    if settings(&handle.local_view()).map_err(|error| error.to_string())?.is_some() {
        return Ok(());
    }
    let cluster_id = handle.cluster_id().ok_or("the cluster has no id yet")?;
    let mut seal_domain = [0; 16];
    getrandom::fill(&mut seal_domain).map_err(|error| error.to_string())?;
    let key_check = keyring
        .seal(&key_check_binding(seal_domain), KEY_CHECK_TEXT)
        .await
        .map_err(|error| error.to_string())?;
    let settings = ClusterSettings {
        cluster_id,
        seal_domain,
        version: first_version(handle).await,
        idempotency_retention_ms: milliseconds(IDEMPOTENCY_RETENTION),
        journal_retention_ms: milliseconds(JOURNAL_RETENTION),
        key_check,
        upgrade: None,
    };
    let work = LeaderWork {
        handle: handle.clone(),
        fence: Fence { term, epoch: None },
        keyring: keyring.clone(),
        shutdown: CancellationToken::new(),
    };
    let command = Command::InitializeCluster(InitializeCluster { term, settings });
    match work.propose(command).await {
        Ok(committed) => match committed.outcome {
            Outcome::Refused(refusal) => Err(refusal.detail),
            _ => {
                info!("the cluster is initialised");
                Ok(())
            }
        },
        Err(ProposeError::NotLeader) => Err("this node leads no more".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The version of a new cluster: what all its members support.
///
/// One that doesn't say so in time counts as one of the oldest: the version can be raised any time, and
/// never lowered.
async fn first_version(handle: &Handle) -> u16 {
    let asked = Instant::now();
    loop {
        match handle.common_version(VERSIONS_TIMEOUT).await {
            Ok(version) => return version,
            Err(reason) if asked.elapsed() >= VERSIONS_TIMEOUT => {
                warn!(reason, "the cluster begins with version {FIRST_VERSION}");
                return FIRST_VERSION;
            }
            Err(_) => tokio::time::sleep(VERSIONS_PAUSE).await,
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("retentions are days, not ages")
}

/// Checks the key before this node serves anything, where it has the settings from an earlier run:
/// nothing is ever sealed with a wrong key then. A provider that doesn't answer doesn't hold up the start.
///
/// # Errors
/// The key is not the cluster's, or the state can't be read.
pub(super) async fn check_key_at_start(
    handle: &Handle,
    keyring: &Keyring,
) -> Result<(), LeadershipError> {
    match settings(&handle.local_view()) {
        Ok(Some(settings)) => try_key(keyring, &settings).await.map(drop),
        Ok(None) => Ok(()),
        Err(error) => Err(LeadershipError::Failed(error.to_string())),
    }
}

/// Opens the key check; a provider that doesn't answer is asked until it does.
///
/// # Errors
/// The key is not the cluster's.
pub(super) async fn check_key(
    keyring: &Keyring,
    settings: &ClusterSettings,
) -> Result<(), LeadershipError> {
    while let Err(reason) = try_key(keyring, settings).await? {
        warn!(reason, "the key provider doesn't answer; trying again");
        tokio::time::sleep(PROVIDER_RETRY_DELAY).await;
    }
    Ok(())
}

/// Opens the key check; the inner error says that the provider doesn't answer.
async fn try_key(
    keyring: &Keyring,
    settings: &ClusterSettings,
) -> Result<Result<(), String>, LeadershipError> {
    let binding = key_check_binding(settings.seal_domain);
    match keyring.open(&binding, &settings.key_check).await {
        Ok(text) if text.as_slice() == KEY_CHECK_TEXT => Ok(Ok(())),
        Ok(_) => Err(LeadershipError::WrongKey(KeyError::Refused {
            kind: SecretKind::KeyCheck.name(),
            record: "cluster".into(),
            reason: "it holds another text".into(),
        })),
        Err(KeyError::Unavailable(reason)) => Ok(Err(reason)),
        Err(error) => Err(LeadershipError::WrongKey(error)),
    }
}

/// Checks the key as soon as this node has the settings. Resolves only when something is wrong.
pub(super) fn watch_key_check(
    handle: &Handle,
    keyring: &Keyring,
) -> impl Future<Output = LeadershipError> + use<> {
    let (handle, keyring) = (handle.clone(), keyring.clone());
    async move {
        let mut changes = handle.changes();
        loop {
            // Marked as seen before the state is read, so that no change falls between.
            changes.borrow_and_update();
            match settings(&handle.local_view()) {
                Ok(Some(settings)) => match check_key(&keyring, &settings).await {
                    Ok(()) => std::future::pending().await,
                    Err(error) => return error,
                },
                Ok(None) => {}
                Err(error) => return LeadershipError::Failed(error.to_string()),
            }
            if changes.changed().await.is_err() {
                // The node has ended and says so itself.
                std::future::pending().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use peat_gateway_state::VERSION;

    use super::*;
    use crate::keys::Kek;

    #[tokio::test]
    async fn only_the_clusters_own_key_passes_the_check() {
        let ring = |byte| Keyring::local(Kek::from_bytes(&[byte; 32]));
        let seal_domain = [7; 16];
        let binding = key_check_binding(seal_domain);
        let settings = ClusterSettings {
            cluster_id: [1; 16],
            seal_domain,
            version: VERSION,
            idempotency_retention_ms: 0,
            journal_retention_ms: 0,
            key_check: ring(1).seal(&binding, KEY_CHECK_TEXT).await.unwrap(),
            upgrade: None,
        };
        assert!(check_key(&ring(1), &settings).await.is_ok());
        assert!(matches!(
            check_key(&ring(2), &settings).await,
            Err(LeadershipError::WrongKey(KeyError::WrongKey { .. }))
        ));
        let restored_elsewhere = ClusterSettings { seal_domain: [8; 16], ..settings };
        assert!(check_key(&ring(1), &restored_elsewhere).await.is_err());
    }
}
