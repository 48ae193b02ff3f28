//! The Automerge chunks of a sync message, as single changes.
//!
//! A V1 message carries a list of change chunks; a V2 message one blob of chunks that follow one
//! another, whole documents among them. Chunk: 4 magic bytes, 4 checksum bytes, 1 type byte, the
//! body's length in LEB128, the body. (Automerge binary format, “Chunk header”)

use automerge::{Automerge, Change};
use thiserror::Error;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Bytes of a chunk before its length.
const HEADER_BYTES: usize = 9;
/// Most bytes of a 64-bit number in LEB128.
const LEB128_BYTES_MAX: usize = 10;

const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const COMPRESSED_CHANGE: u8 = 2;
const BUNDLE: u8 = 3;

/// Bytes that are no Automerge chunks.
#[derive(Debug, Error)]
pub(super) enum ChunkError {
    /// The framing is wrong.
    #[error("could not split the message into chunks: {0}")]
    Framing(&'static str),
    /// A chunk's body is wrong.
    #[error("could not decode a chunk: {0}")]
    Body(String),
}

/// Returns the changes in `blob` in the order in which they stand; a document's in causal order.
pub(super) fn changes(blob: &[u8]) -> Result<Vec<Change>, ChunkError> {
    let mut found = Vec::new();
    let mut rest = blob;
    while !rest.is_empty() {
        let (kind, chunk, after) = split(rest)?;
        match kind {
            CHANGE | COMPRESSED_CHANGE => found.push(
                Change::try_from(chunk).map_err(|error| ChunkError::Body(error.to_string()))?,
            ),
            DOCUMENT | BUNDLE => {
                let document =
                    Automerge::load(chunk).map_err(|error| ChunkError::Body(error.to_string()))?;
                found.extend(document.get_changes(&[]));
            }
            _ => return Err(ChunkError::Framing("a chunk's type is unknown")),
        }
        rest = after;
    }
    Ok(found)
}

/// Splits the first chunk off: its type, its bytes, and what follows.
fn split(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), ChunkError> {
    let header = bytes.get(..HEADER_BYTES).ok_or(ChunkError::Framing("a header is cut short"))?;
    if header[..4] != MAGIC {
        return Err(ChunkError::Framing("a chunk doesn't begin with the magic bytes"));
    }
    let mut length = 0_u64;
    let mut at = HEADER_BYTES;
    loop {
        let byte = *bytes.get(at).ok_or(ChunkError::Framing("a length is cut short"))?;
        let shift = 7 * (at - HEADER_BYTES);
        at += 1;
        if at - HEADER_BYTES > LEB128_BYTES_MAX {
            return Err(ChunkError::Framing("a length is too long"));
        }
        length |= u64::from(byte & 0x7f).checked_shl(shift as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            break;
        }
    }
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| at.checked_add(length))
        .filter(|end| *end <= bytes.len())
        .ok_or(ChunkError::Framing("a chunk is longer than the message"))?;
    let (chunk, after) = bytes.split_at(end);
    Ok((header[8], chunk, after))
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ROOT};

    use super::*;

    #[test]
    fn documents_and_changes_that_follow_one_another_are_split() {
        let mut document = AutoCommit::new();
        document.put(ROOT, "a", 1).unwrap();
        document.commit();
        let saved = document.save();
        document.put(ROOT, "b", "x".repeat(1000)).unwrap();
        let late = document.get_changes(&[]);
        let mut blob = saved;
        blob.extend_from_slice(late[1].clone().bytes().as_ref());
        let hashes: Vec<_> = changes(&blob).unwrap().iter().map(Change::hash).collect();
        assert_eq!(hashes, vec![late[0].hash(), late[1].hash()]);
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_an_error_or_changes_but_no_panic() {
        let mut document = AutoCommit::new();
        document.put(ROOT, "a", 1).unwrap();
        let saved = document.save();
        for end in 1..saved.len() {
            assert!(changes(&saved[..end]).is_err(), "cut at {end}");
        }
        for at in 0..saved.len() {
            let mut flipped = saved.clone();
            flipped[at] ^= 0xff;
            drop(changes(&flipped));
        }
    }
}
