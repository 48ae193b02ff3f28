//! The observer: turns what mesh nodes send into journalled events, and answers only what is committed.

use crate::leader::LeaderWork;

/// Observes every active formation until `work.shutdown` is cancelled; returns when all connections closed.
pub async fn run(_work: LeaderWork, _settings: Settings) {
    unimplemented!("seam")
}

/// What the observer is told by the node's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// UDP address on which formations' endpoints bind; port 0 chooses one per formation.
    pub bind: std::net::SocketAddr,
    /// The gateway's node name in every mesh; its endpoint id is derived from it.
    pub node_name: String,
}
