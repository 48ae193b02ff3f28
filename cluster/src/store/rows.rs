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
/// A longer value is not kept.
const VALUE_BYTES_MAX: usize = 4 << 10;
/// What a row costs besides its bytes.
const ROW_BYTES: usize = 64;

/// Whether `apply` may read a row soon after it was written or asked for: not what is appended and read by others,
/// nor what is only asked for to see that it isn't there.
fn is_read_again(space: u8) -> bool {
    const APPENDED: [u8; 6] = [
        Space::Audit.byte(),
        Space::Journal.byte(),
        Space::DocumentChange.byte(),
        Space::DocumentBase.byte(),
        Space::ChangeIndex.byte(),
        Space::ChangePart.byte(),
    ];
    !APPENDED.contains(&space)
}

/// Values by full key; `None` where there is no row.
type Half = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows as the newest view has them.
#[derive(Default)]
pub(super) struct RowCache {
    young: Half,
    young_bytes: usize,
    old: Half,
    first_expiry: First,
}

/// The first key of [`Space::IdempotencyExpiry`]. Every tick of the cluster's clock asks what has expired;
/// nearly always it is nothing, and an iterator is dear.
#[derive(Debug, Default, PartialEq, Eq)]
enum First {
    #[default]
    Unknown,
    /// The space is empty.
    None,
    /// The full key.
    At(Vec<u8>),
}

impl RowCache {
    /// Notes what was written, or read.
    pub(super) fn keep(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        if !key.first().is_some_and(|space| is_read_again(*space)) {
            return;
        }
        if key.first() == Some(&Space::IdempotencyExpiry.byte()) {
            return self.note_expiry(key, value.is_some());
        }
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

    fn note_expiry(&mut self, key: Vec<u8>, there: bool) {
        self.first_expiry = match (std::mem::take(&mut self.first_expiry), there) {
            (First::None, true) => First::At(key),
            (First::At(first), true) => First::At(first.min(key)),
            (First::At(first), false) if first != key => First::At(first),
            (First::None, false) => First::None,
            _ => First::Unknown,
        };
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
        if !is_read_again(space.byte()) {
            return self.view.get_full(space, &key);
        }
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
        if space == Space::IdempotencyExpiry && !self.may_have_expired(end)? {
            return Ok(());
        }
        self.view.scan(space, start, end, reverse, visit)
    }
}

impl CachedView<'_> {
    /// Whether a row of [`Space::IdempotencyExpiry`] lies before `end`.
    fn may_have_expired(&self, end: &[u8]) -> Result<bool, ReadError> {
        let mut rows = self.rows.borrow_mut();
        if rows.first_expiry == First::Unknown {
            rows.first_expiry = First::None;
            let last = [0xff; EXPIRY_TIME_BYTES + 1];
            self.view.scan(Space::IdempotencyExpiry, &[], &last, false, &mut |key, _| {
                rows.first_expiry = First::At(full_key(Space::IdempotencyExpiry, key));
                false
            })?;
        }
        Ok(match &rows.first_expiry {
            First::At(first) => first[1..] < *end,
            First::None | First::Unknown => false,
        })
    }
}

/// A key of [`Space::IdempotencyExpiry`] begins with a time.
const EXPIRY_TIME_BYTES: usize = 8;

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
    fn the_first_expiry_is_known_only_while_it_surely_is() {
        let key = |number: u8| vec![Space::IdempotencyExpiry.byte(), number];
        let mut rows = RowCache::default();
        rows.keep(key(5), Some(vec![]));
        assert_eq!(rows.first_expiry, First::Unknown, "an earlier one may be on the disk");
        rows.first_expiry = First::None;
        rows.keep(key(5), Some(vec![]));
        rows.keep(key(3), Some(vec![]));
        rows.keep(key(4), Some(vec![]));
        rows.keep(key(4), None);
        assert_eq!(rows.first_expiry, First::At(key(3)));
        rows.keep(key(3), None);
        assert_eq!(rows.first_expiry, First::Unknown);
    }

    #[test]
    fn a_long_value_is_not_kept_and_takes_the_shorter_one_before_it_along() {
        let mut rows = RowCache::default();
        rows.keep(b"key".to_vec(), Some(b"short".to_vec()));
        rows.keep(b"key".to_vec(), Some(vec![0; VALUE_BYTES_MAX + 1]));
        assert_eq!(rows.get(b"key"), None);
    }
}
