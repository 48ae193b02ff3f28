//! The cluster's settings.

use peat_gateway_state::command::UpdateSettings;
use peat_gateway_state::record::ClusterSettings;
use peat_gateway_state::{Command, query};

use super::access::{Operation, authorize};
use super::{Call, Error, Kind, Reply, Service, Snapshot};

impl Service {
    /// Returns the cluster's settings.
    ///
    /// # Errors
    /// `not_initialized` until the first leader wrote them.
    pub async fn settings(&self, call: &Call) -> Result<Reply<ClusterSettings>, Error> {
        authorize(call.principal, Operation::ReadSettings)?;
        stored(&self.read(call).await?)
    }

    /// Changes settings; what is `None` stays. Returns them as they are then.
    ///
    /// # Errors
    /// `invalid_settings`.
    pub async fn update_settings(
        &self,
        call: &Call,
        changes: UpdateSettings,
    ) -> Result<Reply<ClusterSettings>, Error> {
        authorize(call.principal, Operation::UpdateSettings)?;
        let done = self.propose(call, Command::UpdateSettings(changes)).await?;
        stored(&self.read_newest(done.index).await?)
    }
}

fn stored(snapshot: &Snapshot) -> Result<Reply<ClusterSettings>, Error> {
    let settings = query::settings(snapshot.reader())?.ok_or_else(|| {
        Error::new(Kind::Unavailable, "not_initialized", "the cluster is not initialized yet")
    })?;
    Ok(Reply { value: settings, index: snapshot.index() })
}
