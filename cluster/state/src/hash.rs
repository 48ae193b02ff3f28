//! The state hash: an order-independent sum per key space.
//!
//! A row adds BLAKE3(key length ‖ key ‖ value) as a 256-bit number modulo 2²⁵⁶, where `key` is the
//! full stored key; a removed row subtracts it. Equal rows give equal sums whatever the order and
//! batching of the writes, so `apply` keeps the sums up to date and a scrub can recompute them.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::ids::Hash32;
use crate::space::Space;

/// The spaces that version 1 knows: they count in the digest also without rows. Nothing is ever added here.
///
/// A space that came later counts once it has rows, so that builds which know it and builds which don't
/// have the same hash of the same state while both are there.
const FIRST_SPACES: [u8; 21] = [
    0x01, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x20, 0x21, 0x22, 0x30, 0x31, 0x40, 0x41, 0x50, 0x60,
    0x61, 0x62, 0x63, 0x64, 0x65,
];

/// Sums per key space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StateHash {
    #[n(0)]
    sums: BTreeMap<u8, Hash32>,
}

impl StateHash {
    /// Adds a row.
    pub fn add(&mut self, space: Space, key: &[u8], value: &[u8]) {
        let row = row_number(space, key, value);
        let sum = &mut self.sums.entry(space.byte()).or_default().0;
        let mut carry = 0u16;
        for (digit, add) in sum.iter_mut().zip(row) {
            let total = u16::from(*digit) + u16::from(add) + carry;
            *digit = total as u8;
            carry = total >> 8;
        }
    }

    /// Removes a row that was added.
    pub fn remove(&mut self, space: Space, key: &[u8], value: &[u8]) {
        let row = row_number(space, key, value);
        let sum = &mut self.sums.entry(space.byte()).or_default().0;
        let mut borrow = 0i16;
        for (digit, take) in sum.iter_mut().zip(row) {
            let total = i16::from(*digit) - i16::from(take) - borrow;
            *digit = total.rem_euclid(256) as u8;
            borrow = i16::from(total < 0);
        }
    }

    /// Returns the sum of one space; zeros where it has no rows.
    pub fn space(&self, space: Space) -> Hash32 {
        self.sums.get(&space.byte()).copied().unwrap_or_default()
    }

    /// Returns one hash over all spaces: what nodes compare.
    pub fn digest(&self) -> Hash32 {
        let mut hasher = blake3::Hasher::new();
        for space in Space::ALL {
            let sum = self.space(*space);
            if sum != Hash32::default() || FIRST_SPACES.contains(&space.byte()) {
                hasher.update(&[space.byte()]);
                hasher.update(&sum.0);
            }
        }
        Hash32(*hasher.finalize().as_bytes())
    }
}

/// A row as a little-endian 256-bit number.
fn row_number(space: Space, key: &[u8], value: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64 + 1).to_be_bytes());
    hasher.update(&[space.byte()]);
    hasher.update(key);
    hasher.update(value);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_that_came_later_counts_only_while_it_has_rows() {
        let later = Space::ALL.iter().find(|space| !FIRST_SPACES.contains(&space.byte()));
        let later = *later.expect("removed nodes came later");
        let mut state = StateHash::default();
        state.add(Space::Organization, b"key", b"value");
        let before = state.digest();
        let mut as_version_1 = blake3::Hasher::new();
        for byte in FIRST_SPACES {
            as_version_1.update(&[byte]);
            as_version_1.update(&state.sums.get(&byte).copied().unwrap_or_default().0);
        }
        assert_eq!(before.0, *as_version_1.finalize().as_bytes());
        state.add(later, b"key", b"value");
        assert_ne!(state.digest(), before);
        state.remove(later, b"key", b"value");
        assert_eq!(state.digest(), before);
    }
}
