//! A cluster of one in memory: decides as `apply` does, as far as the observer can see it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use peat_gateway_cluster::ProposeError;
use peat_gateway_state::command::{
    AppendChanges, EventBody, Fence, NewEvent, SavedForm, SequencedEvent,
};
use peat_gateway_state::ids::{AppId, DocumentKey, Hash32, OrgId};
use peat_gateway_state::record::{Peer, event_id};
use peat_gateway_state::space::ReadError;
use peat_gateway_state::{Command, Outcome, Refusal, RefusalKind, codec};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::mesh::journal::{Journal, StoredDocument};

/// The formation secret of every formation.
pub(super) const SECRET: [u8; 32] = [7; 32];

/// What becomes of proposals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Decides,
    /// Nothing is decided until the mode changes.
    Blocks,
    /// Nobody learns what happened, and nothing did.
    Unknown,
    /// The document is over its quota.
    OverQuota(DocumentKey),
    /// The journal is full.
    Full,
}

#[derive(Default)]
pub(super) struct Stored {
    pub documents: BTreeMap<(AppId, DocumentKey), StoredDocument>,
    pub events: Vec<(AppId, DocumentKey, NewEvent)>,
    pub event_ids: BTreeSet<Hash32>,
    pub parts: BTreeMap<(Hash32, u32), Vec<u8>>,
    pub peers: Vec<Peer>,
    pub proposals: usize,
    pub compactions: usize,
}

#[derive(Clone)]
pub(super) struct FakeJournal {
    pub stored: Arc<Mutex<Stored>>,
    mode: watch::Sender<Mode>,
}

impl FakeJournal {
    pub(super) fn new() -> Self {
        Self { stored: Arc::default(), mode: watch::Sender::new(Mode::Decides) }
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub(super) fn append(&self, append: &AppendChanges) -> Outcome {
        let mut guard = self.stored.lock().unwrap();
        let stored = &mut *guard;
        if let Mode::OverQuota(document) = &*self.mode.borrow()
            && append.batches.iter().any(|batch| batch.document == *document)
        {
            let refusal =
                Refusal::new(RefusalKind::TooMany, "document_quota_exceeded", "too many documents");
            return refusal.into();
        }
        let mut known = 0;
        let mut appended = Vec::new();
        for batch in &append.batches {
            let key = (batch.app_id.clone(), batch.document.clone());
            for sequenced in &batch.events {
                let event = match sequenced {
                    SequencedEvent::Inline(event) => event.clone(),
                    SequencedEvent::Staged { id, parts } => {
                        let bytes = stored.joined(id, *parts);
                        codec::decode(&bytes).expect("staged bytes are an event")
                    }
                };
                let id = event_id(
                    &append.org_id,
                    &batch.app_id,
                    &batch.document,
                    event.kind(),
                    &event.change_hash,
                );
                let document = stored.documents.entry(key.clone()).or_default();
                match &event.body {
                    EventBody::Change { deps, bytes } => {
                        if document.hashes.contains(&event.change_hash) {
                            known += 1;
                            continue;
                        }
                        if deps.iter().any(|dep| !document.hashes.contains(dep)) {
                            return Refusal::new(RefusalKind::Invalid, "missing_ancestor", "")
                                .into();
                        }
                        assert!(!document.deleted, "a change of a deleted document");
                        document.hashes.push(event.change_hash);
                        document.changes.push(bytes.clone());
                    }
                    EventBody::Snapshot { hashes, saved, .. } => {
                        if stored.event_ids.contains(&id) {
                            known += 1;
                            continue;
                        }
                        for hash in hashes {
                            if !document.hashes.contains(hash) {
                                document.hashes.push(*hash);
                            }
                        }
                        document.base.clone_from(saved);
                        document.changes.clear();
                    }
                    EventBody::Tombstone => {
                        if stored.event_ids.contains(&id) {
                            known += 1;
                            continue;
                        }
                        document.base.clear();
                        document.changes.clear();
                        document.deleted = true;
                    }
                }
                document.document_sequence += 1;
                stored.event_ids.insert(id);
                appended.push((batch.app_id.clone(), batch.document.clone(), event));
            }
        }
        let first = stored.events.len() as u64 + 1;
        stored.events.extend(appended);
        Outcome::Appended { first, last: stored.events.len() as u64, known }
    }

    /// Hashes that are committed for a document.
    pub(super) fn hashes(&self, app: &AppId, document: &DocumentKey) -> BTreeSet<Hash32> {
        let stored = self.stored.lock().unwrap();
        let found = stored.documents.get(&(app.clone(), document.clone()));
        found.map(|found| found.hashes.iter().copied().collect()).unwrap_or_default()
    }
}

impl Stored {
    fn joined(&self, id: &Hash32, parts: u32) -> Vec<u8> {
        (0..parts).flat_map(|part| self.parts[&(*id, part)].clone()).collect()
    }
}

impl Journal for FakeJournal {
    fn fence(&self) -> Fence {
        Fence { term: 1, epoch: None }
    }

    async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let mut mode = self.mode.subscribe();
        mode.wait_for(|mode| *mode != Mode::Blocks).await.expect("the journal lives");
        match *self.mode.borrow() {
            Mode::Unknown => return Err(ProposeError::Unknown("as told".into())),
            Mode::Full => {
                return Ok(Refusal::new(RefusalKind::Unavailable, "journal_full", "").into());
            }
            _ => {}
        }
        self.stored.lock().unwrap().proposals += 1;
        match command {
            Command::AppendChanges(append) => {
                assert!(codec::encode(&append).len() < 1 << 20, "a command fits an envelope");
                Ok(self.append(&append))
            }
            Command::StagePart(part) => {
                let mut stored = self.stored.lock().unwrap();
                stored.parts.insert((part.id, part.part), part.bytes);
                Ok(Outcome::Done)
            }
            Command::CompactDocument(compact) => {
                let mut stored = self.stored.lock().unwrap();
                let saved = match compact.saved {
                    SavedForm::Inline(saved) => saved,
                    SavedForm::Staged { id, parts } => stored.joined(&id, parts),
                };
                let document = stored
                    .documents
                    .get_mut(&(compact.app_id, compact.document))
                    .expect("a document that is compacted is there");
                // Changes after `through` stay; here one sequence is one change.
                let later = (document.document_sequence - compact.through) as usize;
                let keep = document.changes.len() - later.min(document.changes.len());
                document.changes.drain(..keep);
                document.base = saved;
                stored.compactions += 1;
                Ok(Outcome::Done)
            }
            Command::RememberPeers(remember) => {
                self.stored.lock().unwrap().peers.extend(remember.peers);
                Ok(Outcome::Done)
            }
            other => panic!("the observer proposed {other:?}"),
        }
    }

    fn stored_document(
        &self,
        _org: &OrgId,
        app: &AppId,
        document: &DocumentKey,
    ) -> Result<Option<StoredDocument>, ReadError> {
        let stored = self.stored.lock().unwrap();
        Ok(stored.documents.get(&(app.clone(), document.clone())).cloned())
    }

    fn knows_event(&self, _: &OrgId, _: &AppId, event_id: &Hash32) -> Result<bool, ReadError> {
        Ok(self.stored.lock().unwrap().event_ids.contains(event_id))
    }

    fn remembered_peers(&self, _: &OrgId, _: &AppId) -> Result<Vec<Peer>, ReadError> {
        Ok(self.stored.lock().unwrap().peers.clone())
    }

    async fn formation_secret(&self, _: &OrgId, _: &AppId) -> Result<Zeroizing<[u8; 32]>, String> {
        Ok(Zeroizing::new(SECRET))
    }
}
