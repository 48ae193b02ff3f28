//! The cluster's version: who supports what, and what may be proposed. `raise` raises it.
//!
//! A command names the version that it needs (`peat_gateway_state::command::version` is the table).
//! Whoever proposes it checks: the node that a client asks, before it forwards; the leader, for what
//! another node forwards; and `apply` once more. Commands that every build knows pass without a look.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use peat_gateway_proto::cluster as proto;
use peat_gateway_state::command::FIRST_VERSION;
use peat_gateway_state::query;
use peat_gateway_state::record::Upgrade as Who;
use peat_gateway_state::{Command, Envelope, VERSION};
use tokio_util::sync::CancellationToken;

use super::inner::Inner;
use crate::blocking::blocking;
use crate::error::ProposeError;
use crate::handle::{Consistency, NodeStatus, NodeVersions, Role, Upgrade};

/// The oldest version of commands and records that this build understands.
const VERSION_MIN: u16 = FIRST_VERSION;
/// How long members may take to say what they support.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a refused command may take to be sure that the cluster's version isn't newer by now.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two looks at the state for a new version; applying doesn't wait for it.
const MARK_PAUSE: Duration = Duration::from_millis(200);

/// When this node's build began to run, and the newest cluster version that it has seen.
pub(crate) struct KnownVersion {
    started: Instant,
    newest: AtomicU16,
}

impl KnownVersion {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), newest: AtomicU16::new(FIRST_VERSION) }
    }
}

impl Inner {
    /// What this build understands, and when this node agrees to a raise.
    pub(crate) fn versions(&self) -> NodeVersions {
        let ran = self.known_version.started.elapsed();
        let agrees_in = self.timing.upgrade_delay.saturating_sub(ran);
        NodeVersions { min: VERSION_MIN, max: VERSION, agrees_in }
    }

    /// The cluster's version as it is applied here.
    pub(crate) fn cluster_version(&self) -> u16 {
        let applied = match query::settings(&self.store.view()) {
            Ok(settings) => settings.map_or(FIRST_VERSION, |settings| settings.version),
            Err(error) => {
                tracing::error!(%error, "could not read the cluster's version");
                FIRST_VERSION
            }
        };
        self.known_version.newest.fetch_max(applied, Ordering::Relaxed).max(applied)
    }

    /// Whether the cluster is known to have this version; it never loses it again.
    fn has_version(&self, needed: u16) -> bool {
        needed <= FIRST_VERSION
            || needed <= self.known_version.newest.load(Ordering::Relaxed)
            || needed <= self.cluster_version()
    }

    /// Says whether a node with such a build may become a member, which may join or be added.
    ///
    /// # Errors
    /// Says what to start instead.
    pub(crate) fn admits_version(&self, versions: NodeVersions) -> Result<(), String> {
        let version = self.cluster_version();
        if (versions.min..=versions.max).contains(&version) {
            return Ok(());
        }
        let (min, max) = (versions.min, versions.max);
        let other = if max < version { "a newer" } else { "an older" };
        Err(format!(
            "the cluster has version {version}, the node's build understands {min} to {max}; start \
             it with {other} build"
        ))
    }

    /// Refuses a command that is newer than the cluster. Costs nothing where it isn't.
    pub(super) async fn admit(&self, command: &Command) -> Result<(), ProposeError> {
        let needed = command.minimum_version();
        if self.has_version(needed) || command.sets_version() {
            return Ok(());
        }
        // This node may lag behind a raise that the client knows of.
        let newest = self.read(Consistency::default(), CONFIRM_TIMEOUT).await;
        newest.map_err(|error| ProposeError::Unavailable(error.to_string()))?;
        if self.has_version(needed) {
            return Ok(());
        }
        let version = self.cluster_version();
        let members = self.members(ASK_TIMEOUT).await;
        let blockers = blockers(needed, &members);
        let held_back = match blockers.is_empty() {
            true => "every member supports it; finish the upgrade with `peat-gateway cluster \
                     upgrade`"
                .to_owned(),
            false => blockers.join("; "),
        };
        Err(ProposeError::TooNew { needed, version, held_back })
    }

    /// Refuses what another node forwarded and this one, which knows as much, would not propose.
    pub(super) fn admit_envelope(&self, envelope: &[u8]) -> Result<(), String> {
        let needed = Envelope::version_of(envelope).ok_or("the command can't be read")?;
        if self.has_version(needed) {
            return Ok(());
        }
        let version = self.cluster_version();
        Err(format!("this needs cluster version {needed}, the cluster has {version}"))
    }

    /// The newest version that all members support.
    pub(crate) async fn common_version(&self, timeout: Duration) -> Result<u16, String> {
        let members = self.members(timeout).await;
        let mut common = VERSION;
        for member in &members {
            match member.versions {
                Some(versions) => common = common.min(versions.max),
                None => return Err(format!("{} doesn't answer", named(member))),
            }
        }
        Ok(common)
    }

    /// The upgrade that these members are in.
    pub(crate) fn upgrade(&self, members: &[NodeStatus]) -> Option<Upgrade> {
        let settings = query::settings(&self.store.view()).ok().flatten()?;
        upgrade(settings.version, settings.upgrade.unwrap_or_default(), members)
    }
}

/// Keeps what is noted in the data directory true to the cluster's version, until `shutdown`.
pub(super) async fn keep_marked(inner: Arc<Inner>, shutdown: CancellationToken) {
    let mut changes = inner.changes();
    let mut marked = FIRST_VERSION;
    loop {
        changes.borrow_and_update();
        let version = inner.cluster_version();
        if version > marked {
            let store = inner.store.clone();
            let written = blocking(move || store.mark_version(version)).await;
            match written.map_err(std::io::Error::other).flatten() {
                Ok(()) => marked = version,
                Err(error) => tracing::warn!(
                    %error,
                    version,
                    "could not note the cluster's version in the data directory"
                ),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(MARK_PAUSE) => {}
        }
        if marked >= VERSION {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// The upgrade that members are in, in a cluster of this version; `None` where none is newer.
pub(super) fn upgrade(version: u16, who: Who, members: &[NodeStatus]) -> Option<Upgrade> {
    let known = || members.iter().filter_map(|member| member.versions);
    let newest = known().map(|versions| versions.max).max()?;
    let common = known().map(|versions| versions.max).min()?;
    let to = if common > version { common } else { newest };
    if to <= version {
        return None;
    }
    let held_back_by = blockers(to, members);
    let agrees_in = known().map(|versions| versions.agrees_in).max();
    let automatic_in = agrees_in.filter(|_| held_back_by.is_empty() && matches!(who, Who::Auto));
    Some(Upgrade { to, held_back_by, automatic_in })
}

/// Members that keep the cluster from this version, and what to do about each.
fn blockers(to: u16, members: &[NodeStatus]) -> Vec<String> {
    let blocker = |member: &NodeStatus| match member.versions {
        Some(versions) if versions.max >= to => None,
        Some(versions) => Some(format!(
            "{} runs build {}, which supports up to version {}: upgrade it",
            named(member),
            member.build_version,
            versions.max
        )),
        None => Some(format!(
            "{} is {}, so nobody knows which versions it supports: start it, or, if it is lost, leave it \
             out (`peat-gateway cluster upgrade --without {}`)",
            named(member),
            if member.role == Role::Down { "down" } else { "silent" },
            member.node_id
        )),
    };
    members.iter().filter_map(blocker).collect()
}

fn named(member: &NodeStatus) -> String {
    match member.name.as_str() {
        "" => format!("node {}", member.node_id),
        name => format!("node {name} ({})", member.node_id),
    }
}

/// What a build says that doesn't say anything: it is from before versions were said.
pub(crate) fn versions_from_wire(versions: Option<proto::NodeVersions>) -> NodeVersions {
    let number = |wide: u32| u16::try_from(wide).unwrap_or(u16::MAX);
    match versions {
        None => NodeVersions { min: FIRST_VERSION, max: FIRST_VERSION, agrees_in: Duration::MAX },
        Some(wire) => NodeVersions {
            min: number(wire.min),
            max: number(wire.max),
            agrees_in: Duration::from_millis(wire.agrees_in_ms),
        },
    }
}

/// Writes what a build understands.
pub(crate) fn versions_to_wire(versions: NodeVersions) -> proto::NodeVersions {
    // Rounded up: a node that says 0 agrees.
    let agrees_in_ms = versions.agrees_in.as_micros().div_ceil(1000);
    proto::NodeVersions {
        min: versions.min.into(),
        max: versions.max.into(),
        agrees_in_ms: u64::try_from(agrees_in_ms).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use peat_gateway_state::ids::NodeId;

    use super::*;

    /// A member that supports versions up to `max`, or is down, and agrees in so many seconds.
    fn member(name: &str, max: Option<u16>, agrees_in_s: u64) -> NodeStatus {
        let agrees_in = Duration::from_secs(agrees_in_s);
        NodeStatus {
            node_id: NodeId(name.len() as u64),
            name: name.to_owned(),
            http_address: String::new(),
            peer_address: String::new(),
            role: if max.is_some() { Role::Follower } else { Role::Down },
            term: 1,
            applied_index: 1,
            last_log_index: 1,
            voter: true,
            reachable: max.is_some(),
            matched_index: None,
            lag: None,
            last_contact_ms: None,
            alarms: Vec::new(),
            problem: None,
            state_hash: None,
            build_version: "0.1.0".to_owned(),
            versions: max.map(|max| NodeVersions { min: 1, max, agrees_in }),
        }
    }

    #[test]
    fn upgrade_waits_for_the_slowest_member_and_names_who_holds_it_back() {
        let all = |a, b| upgrade(1, Who::Auto, &[member("a", a, 0), member("bb", b, 60)]);
        assert_eq!(all(Some(1), Some(1)), None, "no build is newer");
        assert_eq!(all(Some(1), None), None, "no build is known to be newer");

        let ready = all(Some(2), Some(2)).expect("an upgrade");
        assert_eq!((ready.to, ready.held_back_by.len()), (2, 0));
        assert_eq!(ready.automatic_in, Some(Duration::from_secs(60)));

        let old = all(Some(2), Some(1)).expect("an upgrade");
        assert_eq!((old.to, old.automatic_in), (2, None));
        let reason = old.held_back_by.join("; ");
        assert!(reason.contains("node bb (") && reason.contains("up to version 1"), "{reason}");

        let down = all(Some(2), None).expect("an upgrade");
        assert_eq!(down.automatic_in, None);
        let reason = down.held_back_by.join("; ");
        assert!(reason.contains("node bb (") && reason.contains("is down"), "{reason}");
    }

    #[test]
    fn upgrade_leads_to_the_newest_version_that_all_support() {
        let members = [member("a", Some(4), 0), member("bb", Some(3), 0)];
        let found = upgrade(2, Who::Manual, &members).expect("an upgrade");
        assert_eq!((found.to, found.held_back_by.len(), found.automatic_in), (3, 0, None));
        let further = upgrade(3, Who::Manual, &members).expect("an upgrade");
        assert_eq!((further.to, further.held_back_by.len()), (4, 1));
    }

    #[test]
    fn build_that_says_nothing_of_versions_understands_the_first_and_never_agrees() {
        let old = versions_from_wire(None);
        assert_eq!((old.min, old.max), (FIRST_VERSION, FIRST_VERSION));
        assert_eq!(old.agrees_in, Duration::MAX);
        let new = NodeVersions { min: 1, max: 2, agrees_in: Duration::from_micros(1) };
        let read = versions_from_wire(Some(versions_to_wire(new)));
        assert_eq!((read.min, read.max, read.agrees_in.as_millis()), (1, 2, 1));
    }
}
