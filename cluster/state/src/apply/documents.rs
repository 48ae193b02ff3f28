//! A document's rows while events are added to it: head record, base, changes, index.

use super::work::{Decided, Work, refuse};
use crate::codec;
use crate::ids::{AppId, DocumentKey, Hash32, OrgId};
use crate::keys;
use crate::outcome::{RefusalKind, code};
use crate::query;
use crate::record::{Document, StoredChange};
use crate::space::{Reader, Space};

/// Bytes of one part of a base; the last may have fewer.
const BASE_PART_BYTES: usize = 1 << 20;

/// A document that is being changed. Its head record is written by [`OpenDocument::close`].
pub(super) struct OpenDocument<'d> {
    org: &'d OrgId,
    app: &'d AppId,
    key: &'d DocumentKey,
    /// Its head record as it is now.
    pub(super) record: Document,
    /// Whether it existed before.
    pub(super) existed: bool,
}

impl<'d> OpenDocument<'d> {
    /// Reads the head record, or begins an empty document.
    pub(super) fn open(
        work: &Work<'_>,
        org: &'d OrgId,
        app: &'d AppId,
        key: &'d DocumentKey,
    ) -> Decided<Self> {
        let stored = query::document(&work.rows, org, app, key)?;
        let existed = stored.is_some();
        Ok(Self { org, app, key, record: stored.unwrap_or_default(), existed })
    }

    /// Writes the head record.
    pub(super) fn close(self, work: &mut Work<'_>) -> Decided<()> {
        let key = keys::document(self.org, self.app, self.key);
        Ok(work.rows.put_record(Space::Document, key, &self.record)?)
    }

    /// Adds a change as the next event. `None`: it is known. Refuses one whose ancestors aren't.
    pub(super) fn add_change(
        &mut self,
        work: &mut Work<'_>,
        hash: Hash32,
        deps: &[Hash32],
        bytes: Vec<u8>,
    ) -> Decided<Option<u64>> {
        if self.record.deleted || self.has_change(work, &hash)? {
            return Ok(None);
        }
        for dep in deps {
            if !self.has_change(work, dep)? {
                let detail = format!(
                    "change {hash} of document '{}' builds on {dep}, which isn't committed",
                    self.key
                );
                return refuse(RefusalKind::Conflict, code::MISSING_ANCESTOR, detail);
            }
        }
        let sequence = self.next_event(work);
        // It was looked up above.
        let index = keys::change_index(self.org, self.app, self.key, &hash);
        work.rows.put_fresh(Space::ChangeIndex, index, sequence.to_be_bytes().to_vec());
        self.record.changes += 1;
        self.record.bytes += bytes.len() as u64;
        let key = keys::document_change(self.org, self.app, self.key, sequence);
        // Every event of a document has a sequence of its own.
        let change = codec::encode(&StoredChange { hash, bytes });
        work.rows.put_fresh(Space::DocumentChange, key, change);
        self.record.heads.retain(|head| !deps.contains(head));
        if let Err(place) = self.record.heads.binary_search(&hash) {
            self.record.heads.insert(place, hash);
        }
        Ok(Some(sequence))
    }

    /// Replaces everything by a saved form as the next event. `None`: it is known.
    pub(super) fn replace(
        &mut self,
        work: &mut Work<'_>,
        event_id: &Hash32,
        mut heads: Vec<Hash32>,
        hashes: &[Hash32],
        saved: &[u8],
    ) -> Decided<Option<u64>> {
        if self.record.deleted || !self.index_event(work, event_id)? {
            return Ok(None);
        }
        check_saved_form(saved)?;
        let sequence = self.next_event(work);
        // Later changes build on the heads, whether or not they are among the new hashes.
        for hash in heads.iter().chain(hashes) {
            self.index_change(work, hash)?;
        }
        heads.sort_unstable();
        heads.dedup();
        self.record.heads = heads;
        self.drop_bytes(work)?;
        self.write_base(work, saved)?;
        self.record.base_sequence = sequence;
        Ok(Some(sequence))
    }

    /// Deletes the document as the next event; its index stays. `None`: it is known.
    pub(super) fn bury(&mut self, work: &mut Work<'_>, event_id: &Hash32) -> Decided<Option<u64>> {
        if !self.index_event(work, event_id)? {
            return Ok(None);
        }
        let sequence = self.next_event(work);
        self.drop_bytes(work)?;
        self.record.base_sequence = sequence;
        self.record.deleted = true;
        Ok(Some(sequence))
    }

    /// Replaces the base and the changes up to `through` by a saved form. No event.
    pub(super) fn compact(
        &mut self,
        work: &mut Work<'_>,
        through: u64,
        saved: &[u8],
    ) -> Decided<()> {
        let (start, _) = keys::document_range(self.org, self.app, self.key);
        let last = keys::document_change(self.org, self.app, self.key, through);
        let mut covered = Vec::new();
        let end = keys::after((last.clone(), Vec::new()), &last).0;
        query::scan_records(
            &work.rows,
            Space::DocumentChange,
            &(start, end),
            false,
            &mut |key, change: StoredChange| {
                covered.push((key.to_vec(), change.bytes.len() as u64));
                true
            },
        )?;
        for (key, bytes) in covered {
            work.rows.delete(Space::DocumentChange, key)?;
            self.record.changes = self.record.changes.saturating_sub(1);
            self.record.bytes = self.record.bytes.saturating_sub(bytes);
        }
        let whole = keys::document_range(self.org, self.app, self.key);
        let base = work.rows.delete_range(Space::DocumentBase, &whole, &|_| true)?;
        self.record.bytes = self.record.bytes.saturating_sub(base.bytes);
        self.write_base(work, saved)?;
        self.record.base_sequence = through;
        Ok(())
    }

    /// Gives the next event its place.
    fn next_event(&mut self, work: &Work<'_>) -> u64 {
        self.record.document_sequence += 1;
        self.record.last_modified = work.entry.now;
        self.record.document_sequence
    }

    fn has_change(&self, work: &Work<'_>, hash: &Hash32) -> Decided<bool> {
        // Every head is in the index, and what a change builds on is nearly always one.
        if self.record.heads.binary_search(hash).is_ok() {
            return Ok(true);
        }
        let key = keys::change_index(self.org, self.app, self.key, hash);
        Ok(work.rows.get(Space::ChangeIndex, &key)?.is_some())
    }

    fn index_change(&self, work: &mut Work<'_>, hash: &Hash32) -> Decided<()> {
        let key = keys::change_index(self.org, self.app, self.key, hash);
        let sequence = self.record.document_sequence.to_be_bytes().to_vec();
        work.rows.put_new(Space::ChangeIndex, key, sequence)?;
        Ok(())
    }

    /// Returns whether the event is new.
    fn index_event(&self, work: &mut Work<'_>, event_id: &Hash32) -> Decided<bool> {
        let key = keys::event_index(self.org, self.app, event_id);
        Ok(work.rows.put_new(Space::EventIndex, key, Vec::new())?)
    }

    fn drop_bytes(&mut self, work: &mut Work<'_>) -> Decided<()> {
        let range = keys::document_range(self.org, self.app, self.key);
        work.rows.delete_range(Space::DocumentBase, &range, &|_| true)?;
        work.rows.delete_range(Space::DocumentChange, &range, &|_| true)?;
        self.record.changes = 0;
        self.record.bytes = 0;
        self.record.base_parts = 0;
        Ok(())
    }

    /// Writes a base where there is none.
    fn write_base(&mut self, work: &mut Work<'_>, saved: &[u8]) -> Decided<()> {
        self.record.base_parts = 0;
        for part in saved.chunks(BASE_PART_BYTES) {
            let key = keys::document_base(self.org, self.app, self.key, self.record.base_parts);
            work.rows.put(Space::DocumentBase, key, part.to_vec())?;
            self.record.base_parts += 1;
        }
        self.record.bytes += saved.len() as u64;
        Ok(())
    }
}

/// Refuses a saved form that can't be one: a document without bytes couldn't be read any more.
pub(super) fn check_saved_form(saved: &[u8]) -> Decided<()> {
    if saved.is_empty() {
        let detail = "a document's saved form can't be empty";
        return refuse(RefusalKind::Invalid, code::INVALID_SAVED_FORM, detail);
    }
    Ok(())
}
