//! Who a call is from and to: written into every call, checked before it counts.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::health::{AlarmCode, Health};
use crate::node::identity::Identity;

const CLUSTER: &str = "peat-cluster-id";
const FROM: &str = "peat-from";
const TO: &str = "peat-to";
/// In a refusal: the removed node that called.
const REMOVED: &str = "peat-removed-node";
/// In a refusal: the node that was reached in the place of another.
const REACHED: &str = "peat-reached-node";

/// Ids of nodes that were removed and have left the membership: their calls are refused.
#[derive(Default)]
pub(crate) struct Retired(RwLock<BTreeSet<u64>>);

impl Retired {
    /// Takes the newest set.
    pub(crate) fn replace(&self, nodes: BTreeSet<u64>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    fn contains(&self, node: u64) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }
}

/// The removed node that a refusal names, `None` where it is another refusal.
pub(crate) fn removed_node(status: &Status) -> Option<u64> {
    node_in(status, REMOVED)
}

/// The node that was reached in the place of the one that was meant.
pub(crate) fn reached_node(status: &Status) -> Option<u64> {
    node_in(status, REACHED)
}

fn node_in(status: &Status, key: &str) -> Option<u64> {
    u64::from_str_radix(status.metadata().get(key)?.to_str().ok()?, 16).ok()
}

fn naming(mut status: Status, key: &'static str, node: u64) -> Status {
    status.metadata_mut().insert(key, hexadecimal(node));
    status
}

fn hexadecimal(node: u64) -> MetadataValue<tonic::metadata::Ascii> {
    let text = hex::encode(node.to_be_bytes());
    MetadataValue::try_from(text).expect("hexadecimal digits are ASCII")
}

/// The refusal of a removed node's call; [`removed_node`] recognises it.
pub(crate) fn removed_status(node: u64) -> Status {
    let status = Status::failed_precondition(format!(
        "node {node:016x} was removed from this cluster and can't come back under its id; empty its \
         data directory and let it join as a new node: peat-gateway cluster join"
    ));
    naming(status, REMOVED, node)
}

/// Between two notices of the same thing in the log: calls come many times a second.
const NOTICE_INTERVAL: Duration = Duration::from_secs(30);

/// Says something now and then.
#[derive(Debug, Default)]
pub(crate) struct Notice(Mutex<Option<Instant>>);

impl Notice {
    /// Whether to say it now.
    pub(crate) fn due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= NOTICE_INTERVAL);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

/// The cluster that refused a call because it is another than the caller's; `None` for every other
/// failure.
pub(crate) fn foreign_cluster(status: &Status) -> Option<&str> {
    status.metadata().get(CLUSTER).and_then(|value| value.to_str().ok())
}

/// Refuses a call from another cluster, and names this one where a program finds it.
fn foreign(own: &str, theirs: &str) -> Status {
    let mut status = Status::failed_precondition(format!(
        "this node belongs to cluster {own}, the call is for cluster {theirs}"
    ));
    if let Ok(own) = MetadataValue::try_from(own) {
        status.metadata_mut().insert(CLUSTER, own);
    }
    status
}

/// Addresses a call to a node.
///
/// # Errors
/// This node belongs to no cluster yet, so there is nobody to call.
pub(crate) fn address<T>(identity: &Identity, to: u64, message: T) -> Result<Request<T>, Status> {
    let Some(cluster_id) = identity.cluster_id() else {
        return Err(Status::failed_precondition("this node belongs to no cluster yet"));
    };
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    let cluster_id = MetadataValue::try_from(hex::encode(cluster_id));
    metadata.insert(CLUSTER, cluster_id.expect("hexadecimal digits are ASCII"));
    metadata.insert(FROM, hexadecimal(identity.node_id()));
    metadata.insert(TO, hexadecimal(to));
    Ok(request)
}

/// The node that a call says it is from. Whether it may be believed is for [`Admission`].
pub(crate) fn caller(metadata: &MetadataMap) -> Option<u64> {
    let text = metadata.get(FROM)?.to_str().ok()?;
    u64::from_str_radix(text, 16).ok()
}

/// Admits calls that are meant for this node of this cluster.
#[derive(Clone)]
pub(crate) struct Admission {
    identity: Arc<Identity>,
    retired: Arc<Retired>,
    health: Arc<Health>,
    notice: Arc<Notice>,
}

impl Admission {
    pub(crate) fn new(identity: Arc<Identity>, retired: Arc<Retired>, health: Arc<Health>) -> Self {
        Self { identity, retired, health, notice: Arc::default() }
    }

    /// Returns the caller's id.
    ///
    /// # Errors
    /// `FailedPrecondition` with both sides' ids: another cluster, another node, or no cluster yet; a
    /// removed node; or another process with this node's own id.
    pub(crate) fn check(&self, metadata: &MetadataMap) -> Result<u64, Status> {
        let text = |key: &str| metadata.get(key).and_then(|value| value.to_str().ok());
        let number = |key: &str| text(key).and_then(|text| u64::from_str_radix(text, 16).ok());
        let (Some(cluster), Some(from), Some(to)) = (text(CLUSTER), number(FROM), number(TO))
        else {
            return Err(Status::invalid_argument(format!(
                "the call lacks the metadata {CLUSTER}, {FROM} or {TO}"
            )));
        };
        let own = self.identity.cluster_id().map(hex::encode);
        match own {
            None => Err(Status::failed_precondition(format!(
                "this node belongs to no cluster yet, the call is for cluster {cluster}"
            ))),
            Some(own) if own != cluster => {
                if self.notice.due() {
                    tracing::warn!(
                        from = format!("{from:016x}"),
                        cluster,
                        own,
                        "refused a call from a node of another cluster; if that cluster was restored \
                         or recovered into this one, stop its nodes and let them join this one with \
                         empty data directories (`peat-gateway cluster join`)"
                    );
                }
                Err(foreign(&own, cluster))
            }
            Some(_) if self.retired.contains(from) => Err(removed_status(from)),
            Some(_) if to != self.identity.node_id() => {
                let own = self.identity.node_id();
                let status = Status::failed_precondition(format!(
                    "this is node {own:016x}, the call is for node {to:016x}"
                ));
                Err(naming(status, REACHED, own))
            }
            Some(_) if from == to => Err(Status::failed_precondition(format!(
                "this is node {to:016x} too: two processes use copies of one data directory; stop \
                 one, empty its data directory and let it join: peat-gateway cluster join"
            ))),
            Some(_) => Ok(from),
        }
    }
}

impl Interceptor for Admission {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        // What comes this way is Raft's: a node that is out of service neither votes nor follows.
        if let Some(reason) = self.health.detail(AlarmCode::Damaged) {
            return Err(Status::unavailable(format!("this node is out of service: {reason}")));
        }
        self.check(request.metadata()).map(|_| request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::Code;

    use super::{Admission, Notice, Retired, address, foreign_cluster, reached_node, removed_node};
    use crate::health::Health;
    use crate::node::identity::Identity;

    #[test]
    fn call_for_this_node_of_this_cluster_is_admitted_and_no_other() {
        let cluster = Some([7; 16]);
        let caller = Identity::new(1, cluster);
        let health = Arc::new(Health::new());
        let admission = |node, cluster| {
            Admission::new(Arc::new(Identity::new(node, cluster)), Arc::default(), health.clone())
        };
        let call = address(&caller, 2, ()).expect("addressed");
        assert_eq!(admission(2, cluster).check(call.metadata()).expect("admitted"), 1);
        for other in [admission(3, cluster), admission(2, Some([8; 16])), admission(2, None)] {
            let refused = other.check(call.metadata()).expect_err("refused");
            assert_eq!(refused.code(), Code::FailedPrecondition);
            let expected = other.identity.cluster_id().filter(|own| Some(*own) != cluster);
            assert_eq!(foreign_cluster(&refused), expected.map(hex::encode).as_deref());
        }
        let bare = tonic::Request::new(());
        assert!(admission(2, cluster).check(bare.metadata()).is_err());
    }

    #[test]
    fn removed_node_is_told_so_and_a_wrong_address_names_who_was_reached() {
        let cluster = Some([7; 16]);
        let retired = Arc::new(Retired::default());
        let admission = Admission::new(
            Arc::new(Identity::new(2, cluster)),
            retired.clone(),
            Arc::new(Health::new()),
        );
        let from_1 = address(&Identity::new(1, cluster), 2, ()).expect("addressed");
        assert!(admission.check(from_1.metadata()).is_ok());
        retired.replace([1].into());
        let refused = admission.check(from_1.metadata()).expect_err("refused");
        assert_eq!((removed_node(&refused), reached_node(&refused)), (Some(1), None));
        assert!(refused.message().contains("cluster join"), "{refused}");
        let lost = address(&Identity::new(4, cluster), 3, ()).expect("addressed");
        let refused = admission.check(lost.metadata()).expect_err("refused");
        assert_eq!((removed_node(&refused), reached_node(&refused)), (None, Some(2)));
    }

    #[test]
    fn process_with_a_copy_of_the_data_directory_is_refused() {
        let identity = Arc::new(Identity::new(2, Some([7; 16])));
        let call = address(&identity, 2, ()).expect("addressed");
        let admission = Admission::new(identity, Arc::default(), Arc::new(Health::new()));
        let refused = admission.check(call.metadata()).expect_err("refused");
        assert!(refused.message().contains("copies of one data directory"), "{refused}");
    }

    #[test]
    fn a_notice_is_given_once_and_not_again_at_once() {
        let notice = Notice::default();
        assert!(notice.due());
        assert!(!notice.due());
    }

    #[test]
    fn node_without_a_cluster_calls_nobody() {
        assert!(address(&Identity::new(1, None), 2, ()).is_err());
    }
}
