//! Who belongs to the cluster.

use std::time::Duration;

use peat_gateway_cluster::{MembershipChanged, MembershipOrder};
use peat_gateway_state::ids::NodeId;

use super::access::{Operation, authorize};
use super::{Call, Error, Kind, Reply, Service};

/// How long an order may take before its outcome counts as unknown.
const ORDER_TIMEOUT: Duration = Duration::from_secs(20);
/// Most addresses that one request to join may name.
const JOIN_ADDRESSES_MAX: usize = 16;

impl Service {
    /// Changes who belongs to the cluster, or hands leadership on. `expected` is the log index of the
    /// membership that the order was decided on.
    ///
    /// # Errors
    /// `precondition_failed` where the membership is another one; what [`MembershipOrder`] names.
    pub async fn change_members(
        &self,
        call: &Call,
        order: MembershipOrder,
        expected: Option<u64>,
    ) -> Result<Reply<MembershipChanged>, Error> {
        authorize(call.principal, Operation::ChangeMembers)?;
        if let MembershipOrder::Add { peer_address, .. } = &order {
            check_address(peer_address, "/peer_address")?;
        }
        let changing = self.cluster.change_members(order, call.actor(), expected, ORDER_TIMEOUT);
        let changed = changing.await?;
        Ok(Reply { value: changed, index: changed.index })
    }

    /// Makes the cluster that this waiting node's configuration describes.
    ///
    /// # Errors
    /// `already_in_a_cluster`; unavailable where other first members are missing.
    pub async fn found_cluster(&self, call: &Call) -> Result<Reply<()>, Error> {
        authorize(call.principal, Operation::ChangeMembers)?;
        self.cluster.found(ORDER_TIMEOUT).await?;
        Ok(Reply { value: (), index: self.applied_index() })
    }

    /// Has this waiting node ask the members at these addresses to be taken in.
    ///
    /// # Errors
    /// `already_in_a_cluster`; unavailable where no member takes it in.
    pub async fn join_cluster(
        &self,
        call: &Call,
        addresses: &[String],
    ) -> Result<Reply<()>, Error> {
        authorize(call.principal, Operation::ChangeMembers)?;
        if addresses.is_empty() || addresses.len() > JOIN_ADDRESSES_MAX {
            let detail = format!("name 1 to {JOIN_ADDRESSES_MAX} addresses of members");
            return Err(Error::field("invalid_addresses", "/addresses", detail));
        }
        for address in addresses {
            check_address(address, "/addresses")?;
        }
        self.cluster.join(addresses, ORDER_TIMEOUT).await?;
        Ok(Reply { value: (), index: self.applied_index() })
    }
}

/// Reads a node's id from a path: one that can't exist is not found.
///
/// # Errors
/// `not_found`.
pub fn node_id(text: &str) -> Result<NodeId, Error> {
    let id = u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
    id.map(NodeId).ok_or_else(|| Error::not_found("member", text))
}

fn check_address(address: &str, pointer: &str) -> Result<(), Error> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Ok(());
    }
    let shown = address.get(..address.floor_char_boundary(128)).unwrap_or_default();
    let detail = format!("{shown:?} is not host:port");
    let mut error = Error::field("invalid_address", pointer, detail);
    error.kind = Kind::Invalid;
    Err(error)
}
