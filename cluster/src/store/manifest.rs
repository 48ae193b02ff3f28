//! A MANIFEST whose end looks torn but is damaged.
//!
//! RocksDB takes a last record that is cut off for one that a power cut tore, and forgets it without a
//! word: rightly, because what that record told had not happened yet. But a flipped bit in the *length*
//! of any record makes it, and all that follow, look cut off too. Then table files are forgotten whose
//! write-ahead log is long gone, and their rows with them. So what is cut off is looked at before RocksDB
//! does: where another length makes its checksum right, the record is whole and its length damaged.
//!
//! The file's format: blocks of 32 KiB; a record is CRC-32C (masked) of type and data, 4 bytes; length of the
//! data, 2 bytes; type, 1 byte; data. The last 6 bytes of a block are unused where no header fits.

use std::fs;
use std::io;
use std::path::Path;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// Added to a rotated CRC before it is stored, so that data may hold CRCs itself.
const CRC_MASK: u32 = 0xa282_ead8;

/// Says what is wrong with the current MANIFEST of a database, if something is that RocksDB wouldn't see.
///
/// # Errors
/// A file can't be read.
pub(super) fn damage(database: &Path) -> io::Result<Option<String>> {
    let current = fs::read_to_string(database.join("CURRENT"))?;
    let name = current.trim_end();
    // What else is wrong with CURRENT, RocksDB says itself.
    if !name.starts_with("MANIFEST-") || name.contains('/') {
        return Ok(None);
    }
    let bytes = match fs::read(database.join(name)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = cut_off(&bytes).filter(|begin| is_whole_with_another_length(&bytes[*begin..]));
    Ok(damaged.map(|begin| {
        format!("{name} is damaged: the length of its record at byte {begin} is wrong")
    }))
}

/// Where the record begins that ends behind the file or its block; `None` where none does.
fn cut_off(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        let left_in_block = BLOCK_BYTES - at % BLOCK_BYTES;
        if left_in_block < HEADER_BYTES {
            at += left_in_block;
            continue;
        }
        let &[_, _, _, _, low, high, _, ..] = &bytes[at..] else { return Some(at) };
        let length = HEADER_BYTES + usize::from(u16::from_le_bytes([low, high]));
        if length > left_in_block || at + length > bytes.len() {
            return Some(at);
        }
        at += length;
    }
    None
}

/// Whether some length, none longer than what there is, makes the checksum of the record at the beginning right.
fn is_whole_with_another_length(record: &[u8]) -> bool {
    let &[a, b, c, d, _, _, kind, ref rest @ ..] = record else { return false };
    let wanted = u32::from_le_bytes([a, b, c, d]);
    let masked = |crc: u32| crc.rotate_right(15).wrapping_add(CRC_MASK);
    let mut crc = crc32c::crc32c(&[kind]);
    let mut prefixes = rest.iter().take(BLOCK_BYTES).map(|byte| {
        crc = crc32c::crc32c_append(crc, &[*byte]);
        crc
    });
    // The smallest edit has some bytes of data.
    prefixes.any(|crc| masked(crc) == wanted)
}

#[cfg(test)]
mod tests {
    use super::{CRC_MASK, cut_off, is_whole_with_another_length};

    fn record(data: &[u8]) -> Vec<u8> {
        let crc = crc32c::crc32c(&[&[1], data].concat()).rotate_right(15).wrapping_add(CRC_MASK);
        let length = u16::try_from(data.len()).unwrap();
        [&crc.to_le_bytes()[..], &length.to_le_bytes(), &[1], data].concat()
    }

    #[test]
    fn a_torn_record_is_told_from_one_with_a_damaged_length() {
        let bytes = [record(b"one"), record(b"second"), record(b"the third")].concat();
        assert_eq!(cut_off(&bytes), None);
        // Torn anywhere in the third: cut off, and nothing whole.
        let third = bytes.len() - record(b"the third").len();
        for end in third + 1..bytes.len() {
            assert_eq!(cut_off(&bytes[..end]), Some(third));
            assert!(!is_whole_with_another_length(&bytes[third..end]));
        }
        // A longer length in the second makes it and the third look torn.
        let second = record(b"one").len();
        for bit in 5..16 {
            let mut flipped = bytes.clone();
            flipped[second + 4 + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(cut_off(&flipped), Some(second), "bit {bit}");
            assert!(is_whole_with_another_length(&flipped[second..]), "bit {bit}");
        }
    }
}
