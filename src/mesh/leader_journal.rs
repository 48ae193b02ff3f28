//! The cluster as the leader's observer uses it.

use peat_gateway_cluster::ProposeError;
use peat_gateway_mesh::genesis::Genesis;
use peat_gateway_state::command::Fence;
use peat_gateway_state::ids::{AppId, DocumentKey, Hash32, OrgId};
use peat_gateway_state::record::Peer;
use peat_gateway_state::space::{ReadError, Reader, Space};
use peat_gateway_state::{Command, Outcome, keys, query};
use zeroize::Zeroizing;

use super::journal::{Journal, StoredDocument};
use crate::keys::{Binding, SecretKind};
use crate::leader::LeaderWork;

/// Proposes as leader work, and reads what is applied here: on the leader, all that it proposed.
#[derive(Clone)]
pub(super) struct LeaderJournal {
    pub(super) work: LeaderWork,
}

impl Journal for LeaderJournal {
    fn fence(&self) -> Fence {
        self.work.fence
    }

    async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.work.propose(command).await.map(|committed| committed.outcome)
    }

    fn stored_document(
        &self,
        org: &OrgId,
        app: &AppId,
        document: &DocumentKey,
    ) -> Result<Option<StoredDocument>, ReadError> {
        let view = self.work.handle.local_view();
        let Some(content) = query::document_content(&view, org, app, document)? else {
            return Ok(None);
        };
        let hashes = query::change_hashes(&view, org, app, document)?;
        Ok(Some(StoredDocument {
            base: content.base,
            changes: content.changes.into_iter().map(|change| change.bytes).collect(),
            hashes,
            deleted: content.document.deleted,
            document_sequence: content.document.document_sequence,
            bytes: content.document.bytes,
        }))
    }

    fn knows_event(&self, org: &OrgId, app: &AppId, event_id: &Hash32) -> Result<bool, ReadError> {
        let view = self.work.handle.local_view();
        let row = view.get(Space::EventIndex, &keys::event_index(org, app, event_id))?;
        Ok(row.is_some())
    }

    fn remembered_peers(&self, org: &OrgId, app: &AppId) -> Result<Vec<Peer>, ReadError> {
        query::peers(&self.work.handle.local_view(), org, app)
    }

    async fn formation_secret(
        &self,
        org: &OrgId,
        app: &AppId,
    ) -> Result<Zeroizing<[u8; 32]>, String> {
        let (settings, sealed) = {
            let view = self.work.handle.local_view();
            let settings = query::settings(&view).map_err(|error| error.to_string())?;
            let sealed = query::genesis(&view, org, app).map_err(|error| error.to_string())?;
            (settings, sealed)
        };
        let settings = settings.ok_or("the cluster has no settings yet")?;
        let sealed = sealed.ok_or("the formation has no genesis")?;
        let binding = Binding {
            seal_domain: settings.seal_domain,
            org: org.as_str(),
            kind: SecretKind::Genesis,
            record: app.as_str(),
            version: sealed.record_version,
        };
        let opened = self.work.keyring.open(&binding, &sealed.envelope).await;
        let encoded = opened.map_err(|error| error.to_string())?;
        let genesis = Genesis::decode(&encoded).map_err(|error| error.to_string())?;
        Ok(genesis.formation_secret())
    }
}
