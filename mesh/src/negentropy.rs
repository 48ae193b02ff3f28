//! Set reconciliation (negentropy version 1), as far as the mesh uses it.
//!
//! An observer sends one message, [`EMPTY_INIT`]: "I have nothing". The node answers with a batch of
//! everything it has, past its own rate limit. Real reconciliation does not work between published
//! nodes, since each side stamps its items with its own clock; so only lists of ids are spoken here,
//! no fingerprints.
//!
//! ```text
//!   0x61 │ range …      range: varint timestamp bound (0: infinity) │ varint + id prefix │ varint mode │ …
//!                       mode 0: skip │ 1: 16 bytes fingerprint │ 2: varint count, 32-byte ids
//! ```

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::frame::{Frame, FrameKind};
use crate::reader::{Missing, Reader};

/// Key of negentropy frames.
pub const NEGENTROPY_KEY: &str = "_negentropy";
/// Asks a node for everything it has: an empty list of ids up to infinity.
pub const EMPTY_INIT: &[u8] = &[PROTOCOL_VERSION, 0, 0, MODE_ID_LIST, 0];
/// Most ids in one message; a message with more is refused.
pub const IDS_MAX: usize = 1 << 20;

const PROTOCOL_VERSION: u8 = 0x61;
const MODE_SKIP: u8 = 0;
const MODE_FINGERPRINT: u8 = 1;
const MODE_ID_LIST: u8 = 2;
const FINGERPRINT_BYTES: usize = 16;
/// Longest varint of a 64-bit number, in bytes.
const VARINT_BYTES_MAX: usize = 10;

/// An item's id: SHA-256 of its document's key.
pub type ItemId = [u8; 32];

/// Returns the id of a document's item.
#[must_use]
pub fn item_id(document_key: &str) -> ItemId {
    Sha256::digest(document_key.as_bytes()).into()
}

/// A negentropy message could not be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NegentropyError {
    /// The message ends inside a field.
    #[error("decode a negentropy message: it ends inside its {field}")]
    Truncated {
        /// Which.
        field: &'static str,
    },
    /// The version is not 1.
    #[error("decode a negentropy message: {byte:#04x} is not version 1")]
    UnknownVersion {
        /// The byte.
        byte: u8,
    },
    /// A number does not fit 64 bits.
    #[error("decode a negentropy message: its {field} does not fit 64 bits")]
    Overflow {
        /// Which.
        field: &'static str,
    },
    /// The mode of a range is unknown.
    #[error("decode a negentropy message: {mode} is not a mode")]
    UnknownMode {
        /// The number.
        mode: u64,
    },
    /// There are too many ids.
    #[error("decode a negentropy message: more than {IDS_MAX} ids")]
    TooManyIds,
}

impl From<Missing> for NegentropyError {
    fn from(missing: Missing) -> Self {
        Self::Truncated { field: missing.0 }
    }
}

/// Returns every id that a message lists; its skipped and fingerprinted ranges count as empty.
///
/// # Errors
/// The message is not negentropy version 1.
pub fn listed_ids(message: &[u8]) -> Result<Vec<ItemId>, NegentropyError> {
    let mut reader = Reader::new(message);
    match reader.u8("version")? {
        PROTOCOL_VERSION => {}
        byte => return Err(NegentropyError::UnknownVersion { byte }),
    }
    let mut ids = Vec::new();
    while !reader.is_empty() {
        varint(&mut reader, "timestamp bound")?;
        let prefix_bytes = length(&mut reader, "id prefix length")?;
        reader.take(prefix_bytes, "id prefix")?;
        match varint(&mut reader, "mode")? {
            mode if mode == u64::from(MODE_SKIP) => {}
            mode if mode == u64::from(MODE_FINGERPRINT) => {
                reader.take(FINGERPRINT_BYTES, "fingerprint")?;
            }
            mode if mode == u64::from(MODE_ID_LIST) => {
                let count = length(&mut reader, "id count")?;
                if count > IDS_MAX - ids.len() {
                    return Err(NegentropyError::TooManyIds);
                }
                for _ in 0..count {
                    ids.push(reader.array("id")?);
                }
            }
            mode => return Err(NegentropyError::UnknownMode { mode }),
        }
    }
    Ok(ids)
}

/// Returns the message that lists these ids, in this order, in one range up to infinity.
#[must_use]
pub fn id_list(ids: &[ItemId]) -> Bytes {
    let mut message = vec![PROTOCOL_VERSION, 0, 0, MODE_ID_LIST];
    put_varint(&mut message, ids.len());
    message.extend(ids.iter().flatten());
    message.into()
}

/// Returns the frame that asks a node for everything it has.
#[must_use]
pub fn empty_init() -> Frame {
    Frame {
        key: NEGENTROPY_KEY.to_owned(),
        kind: FrameKind::NegentropyInit,
        payload: Bytes::from_static(EMPTY_INIT),
    }
}

/// Reads a number in base 128, most significant digit first.
fn varint(reader: &mut Reader<'_>, field: &'static str) -> Result<u64, NegentropyError> {
    let mut number: u64 = 0;
    for _ in 0..VARINT_BYTES_MAX {
        let byte = reader.u8(field)?;
        if number > u64::MAX >> 7 {
            break;
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(NegentropyError::Overflow { field })
}

fn length(reader: &mut Reader<'_>, field: &'static str) -> Result<usize, NegentropyError> {
    usize::try_from(varint(reader, field)?).map_err(|_| NegentropyError::Overflow { field })
}

fn put_varint(message: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(7).max(1);
    for place in (0..digits).rev() {
        let digit = u8::try_from(number >> (7 * place) & 0x7f).expect("seven bits fit");
        message.push(if place == 0 { digit } else { digit | 0x80 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_every_length_survive_the_wire() {
        for count in [0_u32, 1, 127, 128, 129, 20_000] {
            let ids: Vec<ItemId> = (0..count).map(|number| item_id(&number.to_string())).collect();
            assert_eq!(listed_ids(&id_list(&ids)), Ok(ids));
        }
        assert_eq!(id_list(&[]).as_ref(), EMPTY_INIT);
    }

    #[test]
    fn every_mode_is_read_and_nonsense_is_refused() {
        let mut skipped_then_fingerprint = vec![0x61, 5, 1, 0xaa, 0, 0, 0, 1];
        skipped_then_fingerprint.extend([0; FINGERPRINT_BYTES]);
        assert_eq!(listed_ids(&skipped_then_fingerprint), Ok(vec![]));
        let refused: [(&[u8], NegentropyError); 5] = [
            (&[], NegentropyError::Truncated { field: "version" }),
            (&[0x62], NegentropyError::UnknownVersion { byte: 0x62 }),
            (&[0x61, 0, 0, 3], NegentropyError::UnknownMode { mode: 3 }),
            (&[0x61, 0, 0, 2, 0xc0, 0x80, 0x01], NegentropyError::TooManyIds),
            (&[0x61, 0, 0, 2, 1, 9], NegentropyError::Truncated { field: "id" }),
        ];
        for (message, error) in refused {
            assert_eq!(listed_ids(message), Err(error), "{message:02x?}");
        }
        let endless = [vec![0x61], vec![0xff; 20]].concat();
        let error = NegentropyError::Overflow { field: "timestamp bound" };
        assert_eq!(listed_ids(&endless), Err(error));
    }
}
