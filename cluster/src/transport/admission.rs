//! Who a call is from and to: written into every call, checked before it counts.

use std::sync::Arc;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::node::identity::Identity;

const CLUSTER: &str = "peat-cluster-id";
const FROM: &str = "peat-from";
const TO: &str = "peat-to";

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
    for (key, value) in [
        (CLUSTER, hex::encode(cluster_id)),
        (FROM, hex::encode(identity.node_id().to_be_bytes())),
        (TO, hex::encode(to.to_be_bytes())),
    ] {
        let value = MetadataValue::try_from(value).expect("hexadecimal digits are ASCII");
        metadata.insert(key, value);
    }
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
}

impl Admission {
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        Self { identity }
    }

    /// Returns the caller's id.
    ///
    /// # Errors
    /// `FailedPrecondition` with both sides' ids: another cluster, another node, or no cluster yet.
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
            Some(own) if own != cluster => Err(Status::failed_precondition(format!(
                "this node belongs to cluster {own}, the call is for cluster {cluster}"
            ))),
            Some(_) if to != self.identity.node_id() => Err(Status::failed_precondition(format!(
                "this is node {:016x}, the call is for node {to:016x}",
                self.identity.node_id()
            ))),
            Some(_) => Ok(from),
        }
    }
}

impl Interceptor for Admission {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.check(request.metadata()).map(|_| request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::Code;

    use super::{Admission, address};
    use crate::node::identity::Identity;

    #[test]
    fn call_for_this_node_of_this_cluster_is_admitted_and_no_other() {
        let cluster = Some([7; 16]);
        let caller = Identity::new(1, cluster);
        let admission = |node, cluster| Admission::new(Arc::new(Identity::new(node, cluster)));
        let call = address(&caller, 2, ()).expect("addressed");
        assert_eq!(admission(2, cluster).check(call.metadata()).expect("admitted"), 1);
        for other in [admission(3, cluster), admission(2, Some([8; 16])), admission(2, None)] {
            let refused = other.check(call.metadata()).expect_err("refused");
            assert_eq!(refused.code(), Code::FailedPrecondition);
        }
        let bare = tonic::Request::new(());
        assert!(admission(2, cluster).check(bare.metadata()).is_err());
    }

    #[test]
    fn node_without_a_cluster_calls_nobody() {
        assert!(address(&Identity::new(1, None), 2, ()).is_err());
    }
}
