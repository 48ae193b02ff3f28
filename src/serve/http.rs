//! The HTTP API over this node: who is let in, and what it serves.

use peat_gateway_cluster::Handle;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::api::{Access, ApiSettings, Notices, Tokens};
use crate::config::Config;
use crate::keys::Keyring;
use crate::service::{Service, Settings};

/// Builds the use cases over a running node.
pub(super) fn service(config: &Config, handle: &Handle, keyring: &Keyring) -> Service {
    let settings = Settings { webhook_allow_private: config.cdc.webhook_allow_private };
    Service::new(handle.clone(), keyring.clone(), settings)
}

/// What the API is told. `registry` is where all of this node's metrics are, `draining` says that a
/// planned stop has begun.
pub(super) fn settings(
    config: &Config,
    registry: &Registry,
    draining: &CancellationToken,
) -> ApiSettings {
    let access = match &config.gateway.admin_token {
        Some(token) => Access::Tokens(Tokens::new(token.expose().lines())),
        None if config.gateway.insecure_open => Access::Open,
        None => Access::Loopback,
    };
    ApiSettings {
        access,
        registry: registry.clone(),
        draining: draining.clone(),
        notices: Notices::default(),
    }
}
