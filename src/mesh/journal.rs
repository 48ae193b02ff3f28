//! What the observer needs of the cluster: to propose, and to read what is committed.

use std::future::Future;

use peat_gateway_cluster::ProposeError;
use peat_gateway_state::command::Fence;
use peat_gateway_state::ids::{AppId, DocumentKey, Hash32, OrgId};
use peat_gateway_state::record::Peer;
use peat_gateway_state::space::ReadError;
use peat_gateway_state::{Command, Outcome};
use zeroize::Zeroizing;

/// A document as it is committed.
#[derive(Clone, Debug, Default)]
pub(super) struct StoredDocument {
    /// The saved form; empty where there is none.
    pub base: Vec<u8>,
    /// Raw changes after the base, in document order.
    pub changes: Vec<Vec<u8>>,
    /// Hashes of all changes that were ever committed, replaced histories included.
    pub hashes: Vec<Hash32>,
    /// Whether a tombstone is its newest event.
    pub deleted: bool,
    /// Position of its newest event.
    pub document_sequence: u64,
    /// Bytes of the base and of the changes after it.
    pub bytes: u64,
}

/// The committed state and the way into it. The leader's is [`super::leader_journal`]; tests have their own.
///
/// Reads may block on the disk, so they are called from blocking threads only. What an `Ok` outcome
/// of [`Journal::propose`] reported is seen by every later read.
pub(super) trait Journal: Clone + Send + Sync + 'static {
    /// What every command carries.
    fn fence(&self) -> Fence;

    /// Proposes a command of leader work; see [`ProposeError`] for what a failure means.
    fn propose(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Outcome, ProposeError>> + Send;

    /// Reads a document, `None` where nothing of it is committed.
    fn stored_document(
        &self,
        org: &OrgId,
        app: &AppId,
        document: &DocumentKey,
    ) -> Result<Option<StoredDocument>, ReadError>;

    /// Whether a snapshot or tombstone of this event id is committed.
    fn knows_event(&self, org: &OrgId, app: &AppId, event_id: &Hash32) -> Result<bool, ReadError>;

    /// Returns the mesh nodes of a formation that were met before.
    fn remembered_peers(&self, org: &OrgId, app: &AppId) -> Result<Vec<Peer>, ReadError>;

    /// Opens a formation's genesis and returns the formation secret; the error says why not, for the log.
    fn formation_secret(
        &self,
        org: &OrgId,
        app: &AppId,
    ) -> impl Future<Output = Result<Zeroizing<[u8; 32]>, String>> + Send;
}
