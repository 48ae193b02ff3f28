//! What a running node takes up without a restart: certificates and the cluster token.

use std::time::SystemTime;

use super::inner::Inner;
use crate::blocking::blocking;

impl Inner {
    pub(crate) async fn reload_peer_certificates(&self) -> Result<bool, String> {
        let Some(certificates) = self.certificates.clone() else { return Ok(false) };
        let reloading = blocking(move || certificates.reload());
        reloading.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    pub(crate) fn peer_certificate_expires(&self) -> Option<SystemTime> {
        self.certificates.as_ref().map(|certificates| certificates.expires())
    }

    pub(crate) fn replace_cluster_token(&self, token: &str) -> bool {
        self.token.replace(token)
    }
}
