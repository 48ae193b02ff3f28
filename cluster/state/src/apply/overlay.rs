//! Uncommitted rows over a consistent view.
//!
//! ```text
//!   store's view ◄── overlay of a batch ◄── overlay of one command
//!                      (absorbs it if the command is done, drops it if it is refused)
//! ```
//!
//! Entries are applied one after another onto one overlay; the store then writes all changed rows
//! in one batch together with the applied index. Each key's old value is remembered when it is first
//! written, so the state hash is corrected once per key and batch.

use std::collections::BTreeMap;
use std::ops::Bound;

use minicbor::{Decode, Encode};

use crate::codec;
use crate::hash::StateHash;
use crate::keys::KeyRange;
use crate::space::{ReadError, Reader, Space};

/// A row to write: the value, or `None` to delete it.
pub type RowChange = (Space, Vec<u8>, Option<Vec<u8>>);

/// Rows changed since the view, on top of the view.
pub struct Overlay<'v> {
    base: &'v dyn Reader,
    rows: Rows,
    bytes: usize,
}

/// Changed rows by space and key.
type Rows = BTreeMap<Space, BTreeMap<Vec<u8>, Slot>>;

/// A key that we wrote, with its value now.
type OurRow<'s> = (&'s [u8], Option<&'s [u8]>);

/// A key that was written.
struct Slot {
    /// The value in the view.
    before: Option<Vec<u8>>,
    /// The value now.
    now: Option<Vec<u8>>,
}

impl Slot {
    fn fresh(value: Vec<u8>) -> Self {
        Self { before: None, now: Some(value) }
    }
}

/// What an overlay changed, detached from its view.
pub(super) struct Changed(Rows);

/// Rows that were deleted.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    /// How many.
    pub(super) rows: u64,
    /// Bytes of their values.
    pub(super) bytes: u64,
    /// The last one's key.
    pub(super) last_key: Option<Vec<u8>>,
}

impl<'v> Overlay<'v> {
    /// Begins on a view.
    pub fn new(base: &'v dyn Reader) -> Self {
        Self { base, rows: BTreeMap::new(), bytes: 0 }
    }

    /// Writes a row.
    ///
    /// # Errors
    /// The old value could not be read.
    pub fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) -> Result<(), ReadError> {
        self.bytes += value.len();
        self.slot(space, key)?.now = Some(value);
        Ok(())
    }

    /// Writes a row under a key that has none: its old value is known without reading it.
    ///
    /// The caller knows it from a counter that only grows, such as the head of an audit chain, or has just
    /// looked.
    pub(super) fn put_fresh(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += value.len();
        let fresh = self.rows.entry(space).or_default().insert(key, Slot::fresh(value));
        debug_assert!(fresh.is_none(), "a key of {} was used twice", space.name());
    }

    /// Writes a row where there is none; returns whether it did.
    pub(super) fn put_new(
        &mut self,
        space: Space,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> Result<bool, ReadError> {
        let bytes = value.len();
        let slot = self.slot(space, key)?;
        let new = slot.now.is_none();
        if new {
            slot.now = Some(value);
            self.bytes += bytes;
        }
        Ok(new)
    }

    /// Writes a record.
    ///
    /// # Errors
    /// The old value could not be read.
    pub fn put_record<T: Encode<()>>(
        &mut self,
        space: Space,
        key: Vec<u8>,
        record: &T,
    ) -> Result<(), ReadError> {
        self.put(space, key, codec::encode(record))
    }

    /// Deletes a row; no row is no error.
    ///
    /// # Errors
    /// The old value could not be read.
    pub fn delete(&mut self, space: Space, key: Vec<u8>) -> Result<(), ReadError> {
        self.slot(space, key)?.now = None;
        Ok(())
    }

    /// Deletes the first rows of a range: as many as `go_on` allows, which is asked before each row
    /// but the first with what is deleted so far.
    pub(super) fn delete_range(
        &mut self,
        space: Space,
        range: &KeyRange,
        go_on: &dyn Fn(&Deleted) -> bool,
    ) -> Result<Deleted, ReadError> {
        let mut deleted = Deleted::default();
        let mut rows = Vec::new();
        self.scan(space, &range.0, &range.1, false, &mut |key, value| {
            if deleted.rows > 0 && !go_on(&deleted) {
                return false;
            }
            deleted.rows += 1;
            deleted.bytes += value.len() as u64;
            rows.push((key.to_vec(), value.to_vec()));
            true
        })?;
        deleted.last_key = rows.last().map(|(key, _)| key.clone());
        let slots = self.rows.entry(space).or_default();
        for (key, value) in rows {
            // A row that isn't ours was read from the view, so the scan's value is the one before.
            let slot = slots.entry(key).or_insert(Slot { before: Some(value), now: None });
            slot.now = None;
        }
        Ok(deleted)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The store failed, or the bytes are no such record.
    pub fn record<T>(&self, space: Space, key: &[u8]) -> Result<Option<T>, ReadError>
    where
        T: for<'b> Decode<'b, ()>,
    {
        crate::query::record(self, space, key)
    }

    /// Returns the changed rows in key order, and corrects `hash` by them.
    pub fn finish(self, hash: &mut StateHash) -> Vec<RowChange> {
        let mut changes = Vec::with_capacity(self.len());
        for (space, rows) in self.rows {
            for (key, slot) in rows {
                if slot.before == slot.now {
                    continue;
                }
                if let Some(before) = &slot.before {
                    hash.remove(space, &key, before);
                }
                if let Some(now) = &slot.now {
                    hash.add(space, &key, now);
                }
                changes.push((space, key, slot.now));
            }
        }
        changes
    }

    /// Returns the changes without their view.
    pub(super) fn into_changed(self) -> Changed {
        Changed(self.rows)
    }

    /// Takes over the changes of an overlay whose view was this one.
    pub(super) fn absorb(&mut self, changed: Changed) {
        for (space, rows) in changed.0 {
            let slots = self.rows.entry(space).or_default();
            for (key, slot) in rows {
                self.bytes += slot.now.as_ref().map_or(0, Vec::len);
                match slots.get_mut(&key) {
                    Some(ours) => ours.now = slot.now,
                    None => {
                        slots.insert(key, slot);
                    }
                }
            }
        }
    }

    /// Rows that were written or deleted.
    pub fn len(&self) -> usize {
        self.rows.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.rows.values().all(BTreeMap::is_empty)
    }

    /// Bytes of all values written so far, overwritten ones included: when to end a batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn slot(&mut self, space: Space, key: Vec<u8>) -> Result<&mut Slot, ReadError> {
        use std::collections::btree_map::Entry;
        match self.rows.entry(space).or_default().entry(key) {
            Entry::Occupied(occupied) => Ok(occupied.into_mut()),
            Entry::Vacant(vacant) => {
                let before = self.base.get(space, vacant.key())?;
                Ok(vacant.insert(Slot { now: before.clone(), before }))
            }
        }
    }

    /// Our rows of a range, in the order in which a scan visits them.
    fn ours<'s>(
        &'s self,
        space: Space,
        start: &[u8],
        end: &[u8],
        reverse: bool,
    ) -> Box<dyn Iterator<Item = OurRow<'s>> + 's> {
        let Some(rows) = self.rows.get(&space) else {
            return Box::new(std::iter::empty());
        };
        let rows = rows
            .range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)))
            .map(|(key, slot)| (key.as_slice(), slot.now.as_deref()));
        if reverse { Box::new(rows.rev()) } else { Box::new(rows) }
    }
}

impl Reader for Overlay<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match self.rows.get(&space).and_then(|rows| rows.get(key)) {
            Some(slot) => Ok(slot.now.clone()),
            None => self.base.get(space, key),
        }
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        if start >= end {
            return Ok(());
        }
        let mut ours = self.ours(space, start, end, reverse).peekable();
        let before = |a: &[u8], b: &[u8]| if reverse { a > b } else { a < b };
        let mut go_on = true;
        self.base.scan(space, start, end, reverse, &mut |key, value| {
            while let Some((our_key, row)) = ours.next_if(|(our_key, _)| before(our_key, key)) {
                if let Some(row) = row
                    && !visit(our_key, row)
                {
                    go_on = false;
                    return false;
                }
            }
            go_on = match ours.next_if(|(our_key, _)| *our_key == key) {
                Some((our_key, Some(row))) => visit(our_key, row),
                Some((_, None)) => true,
                None => visit(key, value),
            };
            go_on
        })?;
        if go_on {
            for (our_key, row) in ours {
                if let Some(row) = row
                    && !visit(our_key, row)
                {
                    break;
                }
            }
        }
        Ok(())
    }
}
