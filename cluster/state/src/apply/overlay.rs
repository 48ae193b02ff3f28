//! Uncommitted rows over a consistent view.
//!
//! Entries are applied one after another onto one overlay; the store then writes all changed rows
//! in one batch together with the applied index. Each key's old value is remembered when it is first
//! read, so the state hash is corrected once per key and batch.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::codec;
use crate::hash::StateHash;
use crate::space::{ReadError, Reader, Space};

/// A row to write: the value, or `None` to delete it.
pub type RowChange = (Space, Vec<u8>, Option<Vec<u8>>);

/// Rows changed since the view, on top of the view.
pub struct Overlay<'v> {
    base: &'v dyn Reader,
    rows: BTreeMap<(Space, Vec<u8>), Slot>,
}

/// A key that was read or written.
struct Slot {
    /// The value in the view.
    before: Option<Vec<u8>>,
    /// The value now.
    now: Option<Vec<u8>>,
}

impl<'v> Overlay<'v> {
    /// Begins on a view.
    pub fn new(base: &'v dyn Reader) -> Self {
        Self { base, rows: BTreeMap::new() }
    }

    /// Writes a row.
    ///
    /// # Errors
    /// The old value could not be read.
    pub fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) -> Result<(), ReadError> {
        self.slot(space, key)?.now = Some(value);
        Ok(())
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
        let mut changes = Vec::with_capacity(self.rows.len());
        for ((space, key), slot) in self.rows {
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
        changes
    }

    /// Bytes of the values that would be written: when to end a batch.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing was read for writing.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn slot(&mut self, space: Space, key: Vec<u8>) -> Result<&mut Slot, ReadError> {
        use std::collections::btree_map::Entry;
        match self.rows.entry((space, key)) {
            Entry::Occupied(occupied) => Ok(occupied.into_mut()),
            Entry::Vacant(vacant) => {
                let before = self.base.get(space, &vacant.key().1)?;
                Ok(vacant.insert(Slot { now: before.clone(), before }))
            }
        }
    }
}

impl Reader for Overlay<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match self.rows.get(&(space, key.to_vec())) {
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
        use std::ops::Bound;
        if start >= end {
            return Ok(());
        }
        let range =
            (Bound::Included((space, start.to_vec())), Bound::Excluded((space, end.to_vec())));
        let mut changed: Vec<(&[u8], Option<&[u8]>)> = self
            .rows
            .range(range)
            .map(|((_, key), slot)| (key.as_slice(), slot.now.as_deref()))
            .collect();
        if reverse {
            changed.reverse();
        }
        let mut changed = changed.into_iter().peekable();
        let before = |a: &[u8], b: &[u8]| if reverse { a > b } else { a < b };
        let mut go_on = true;
        self.base.scan(space, start, end, reverse, &mut |key, value| {
            while let Some((ours, row)) = changed.next_if(|(ours, _)| before(ours, key)) {
                if let Some(row) = row
                    && !visit(ours, row)
                {
                    go_on = false;
                    return false;
                }
            }
            go_on = match changed.next_if(|(ours, _)| *ours == key) {
                Some((ours, Some(row))) => visit(ours, row),
                Some((_, None)) => true,
                None => visit(key, value),
            };
            go_on
        })?;
        if go_on {
            for (ours, row) in changed {
                if let Some(row) = row
                    && !visit(ours, row)
                {
                    break;
                }
            }
        }
        Ok(())
    }
}
