//! The rows that `apply` reads again and again, in memory.
//!
//! Deciding one request reads the cluster's clock and settings, an organisation, the head of its audit
//! chain: the same few rows for many entries, each some microseconds in RocksDB. The machine is the only
//! writer of rows, so it can keep what it read and wrote, and its answers are always those of the newest
//! view. A snapshot that is installed empties it.

use std::cell::RefCell;
use std::collections::HashMap;

use peat_gateway_state::space::{ReadError, Reader, Space};

use super::view::{View, full_key};

/// Bytes of keys and values in one of the two halves. A full young half becomes the old one, whose
/// rows are forgotten unless they were read meanwhile.
const HALF_BYTES_MAX: usize = 4 << 20;
/// A longer value is not kept: journal rows and document parts are read once.
const VALUE_BYTES_MAX: usize = 4 << 10;
/// What a row costs besides its bytes.
const ROW_BYTES: usize = 64;

/// Values by full key; `None` where there is no row.
type Half = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows as the newest view has them.
#[derive(Default)]
pub(super) struct RowCache {
    young: Half,
    young_bytes: usize,
    old: Half,
}

impl RowCache {
    /// Notes what was written, or read.
    pub(super) fn keep(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.old.remove(&key);
        let bytes = value.as_ref().map_or(0, Vec::len);
        if bytes > VALUE_BYTES_MAX {
            self.young.remove(&key);
            return;
        }
        if self.young_bytes > HALF_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += ROW_BYTES + key.len() + bytes;
        self.young.insert(key, value);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn get(&mut self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.keep(key, value.clone());
        Some(value)
    }
}

/// The newest view, read through the cache.
pub(super) struct CachedView<'v> {
    view: &'v View,
    rows: RefCell<&'v mut RowCache>,
}

impl<'v> CachedView<'v> {
    pub(super) fn new(view: &'v View, rows: &'v mut RowCache) -> Self {
        Self { view, rows: RefCell::new(rows) }
    }
}

impl Reader for CachedView<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let key = full_key(space, key);
        let mut rows = self.rows.borrow_mut();
        if let Some(known) = rows.get(&key) {
            return Ok(known);
        }
        let value = self.view.get_full(space, &key)?;
        rows.keep(key, value.clone());
        Ok(value)
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        self.view.scan(space, start, end, reverse, visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_as_it_was_last_kept_until_both_halves_have_moved_on() {
        let mut rows = RowCache::default();
        rows.keep(b"key".to_vec(), Some(b"old".to_vec()));
        rows.keep(b"key".to_vec(), Some(b"new".to_vec()));
        assert_eq!(rows.get(b"key"), Some(Some(b"new".to_vec())));
        rows.keep(b"key".to_vec(), None);
        assert_eq!(rows.get(b"key"), Some(None));
        let filler = |rows: &mut RowCache, name: u8| {
            for number in 0..2 * HALF_BYTES_MAX / VALUE_BYTES_MAX {
                let key = [&[name][..], &number.to_be_bytes()].concat();
                rows.keep(key, Some(vec![0; VALUE_BYTES_MAX / 2]));
            }
        };
        filler(&mut rows, 1);
        assert_eq!(rows.get(b"key"), Some(None), "it was read, so it moved to the young half");
        for name in 2..8 {
            filler(&mut rows, name);
        }
        assert_eq!(rows.get(b"key"), None);
        assert!(rows.young_bytes <= HALF_BYTES_MAX + VALUE_BYTES_MAX + 2 * ROW_BYTES);
    }

    #[test]
    fn a_long_value_is_not_kept_and_takes_the_shorter_one_before_it_along() {
        let mut rows = RowCache::default();
        rows.keep(b"key".to_vec(), Some(b"short".to_vec()));
        rows.keep(b"key".to_vec(), Some(vec![0; VALUE_BYTES_MAX + 1]));
        assert_eq!(rows.get(b"key"), None);
    }
}
