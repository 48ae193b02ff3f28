//! Deletions that nodes hand on.
//!
//! ```text
//!   u16 BE + collection │ u16 BE + document id │ u64 BE deleted (ms) │ u64 BE lamport │
//!   u16 BE + deleted by │ u16 BE + reason (empty: none) │ u8 direction
//!
//!   batch: u32 BE count │ (u32 BE length │ tombstone) …
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::frame::{Frame, FrameKind};
use crate::reader::{Missing, Reader};

/// Key of frames with several tombstones.
pub const TOMBSTONE_BATCH_KEY: &str = "tombstones:batch";
/// Most tombstones of a batch; a batch that announces more is refused.
pub const TOMBSTONES_MAX: usize = 1 << 18;

/// Which way a deletion spreads in a hierarchy.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Direction {
    /// Everywhere.
    #[default]
    Bidirectional = 0,
    /// Towards headquarters only.
    UpOnly = 1,
    /// Towards the field only.
    DownOnly = 2,
    /// Everywhere, whatever the hierarchy.
    SystemWide = 3,
}

impl Direction {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Bidirectional),
            1 => Some(Self::UpOnly),
            2 => Some(Self::DownOnly),
            3 => Some(Self::SystemWide),
            _ => None,
        }
    }
}

/// A document was deleted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Tombstone {
    /// The document's collection.
    pub collection: String,
    /// The document's id within it; may contain `:`.
    pub document_id: String,
    /// When, in milliseconds since 1970, by the deleting node's clock.
    pub deleted_at_ms: u64,
    /// The deleting node's logical time.
    pub lamport: u64,
    /// The name of the deleting node.
    pub deleted_by: String,
    /// Why, if it was said.
    pub reason: Option<String>,
    /// Which way it spreads.
    pub direction: Direction,
}

/// Tombstones could not be written or read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TombstoneError {
    /// The input ends inside a field.
    #[error("decode a tombstone: it ends inside its {field}")]
    Truncated {
        /// Which.
        field: &'static str,
    },
    /// A text is not UTF-8.
    #[error("decode a tombstone: its {field} is not UTF-8")]
    NotUtf8 {
        /// Which.
        field: &'static str,
    },
    /// The direction is unknown.
    #[error("decode a tombstone: {byte} is not a direction")]
    UnknownDirection {
        /// The byte.
        byte: u8,
    },
    /// A text does not fit its length field.
    #[error("encode a tombstone: its {field} has {bytes} bytes, at most 65535 fit")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// There are too many.
    #[error("tombstone batch: {count} tombstones are over the limit of {TOMBSTONES_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Something follows the last one.
    #[error("decode a tombstone batch: {bytes} bytes follow its last tombstone")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl From<Missing> for TombstoneError {
    fn from(missing: Missing) -> Self {
        Self::Truncated { field: missing.0 }
    }
}

impl Tombstone {
    /// Returns the key of the deleted document.
    #[must_use]
    pub fn document_key(&self) -> String {
        format!("{}:{}", self.collection, self.document_id)
    }

    /// Reads a frame's payload. Bytes after the direction are ignored.
    ///
    /// # Errors
    /// The payload is not a tombstone.
    pub fn decode(payload: &[u8]) -> Result<Self, TombstoneError> {
        let mut reader = Reader::new(payload);
        let collection = read_text(&mut reader, "collection")?;
        let document_id = read_text(&mut reader, "document id")?;
        let deleted_at_ms = reader.u64_be("deletion time")?;
        let lamport = reader.u64_be("lamport time")?;
        let deleted_by = read_text(&mut reader, "deleting node")?;
        let reason = Some(read_text(&mut reader, "reason")?).filter(|reason| !reason.is_empty());
        let byte = reader.u8("direction")?;
        let direction =
            Direction::from_byte(byte).ok_or(TombstoneError::UnknownDirection { byte })?;
        Ok(Self { collection, document_id, deleted_at_ms, lamport, deleted_by, reason, direction })
    }

    /// Returns the payload.
    ///
    /// # Errors
    /// A text has more than 65535 bytes.
    pub fn encode(&self) -> Result<Bytes, TombstoneError> {
        let mut encoded = BytesMut::new();
        put_text(&mut encoded, "collection", &self.collection)?;
        put_text(&mut encoded, "document id", &self.document_id)?;
        encoded.put_u64(self.deleted_at_ms);
        encoded.put_u64(self.lamport);
        put_text(&mut encoded, "deleting node", &self.deleted_by)?;
        put_text(&mut encoded, "reason", self.reason.as_deref().unwrap_or(""))?;
        encoded.put_u8(self.direction as u8);
        Ok(encoded.freeze())
    }

    /// Returns the frame that carries this tombstone alone.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn to_frame(&self) -> Result<Frame, TombstoneError> {
        Ok(Frame {
            key: format!("tombstones:{}", self.document_key()),
            kind: FrameKind::Tombstone,
            payload: self.encode()?,
        })
    }

    /// Reads the payload of a frame with several.
    ///
    /// # Errors
    /// The payload is not a batch of tombstones: none of them counts.
    pub fn decode_batch(payload: &[u8]) -> Result<Vec<Self>, TombstoneError> {
        let mut reader = Reader::new(payload);
        let count = usize::try_from(reader.u32_be("count")?).unwrap_or(usize::MAX);
        if count > TOMBSTONES_MAX {
            return Err(TombstoneError::TooMany { count });
        }
        // The count is the peer's word only: the vector grows with what is really there.
        let mut tombstones = Vec::new();
        for _ in 0..count {
            let bytes = usize::try_from(reader.u32_be("length")?).unwrap_or(usize::MAX);
            tombstones.push(Self::decode(reader.take(bytes, "body")?)?);
        }
        match reader.remaining() {
            0 => Ok(tombstones),
            bytes => Err(TombstoneError::Trailing { bytes }),
        }
    }

    /// Returns the payload of a frame with several.
    ///
    /// # Errors
    /// There are too many, or one cannot be encoded.
    pub fn encode_batch(tombstones: &[Self]) -> Result<Bytes, TombstoneError> {
        let count = tombstones.len();
        if count > TOMBSTONES_MAX {
            return Err(TombstoneError::TooMany { count });
        }
        let mut encoded = BytesMut::new();
        encoded.put_u32(u32::try_from(count).expect("the limit fits into 32 bits"));
        for tombstone in tombstones {
            let one = tombstone.encode()?;
            encoded.put_u32(u32::try_from(one.len()).expect("four texts of 64 KiB fit"));
            encoded.put_slice(&one);
        }
        Ok(encoded.freeze())
    }
}

fn read_text(reader: &mut Reader<'_>, field: &'static str) -> Result<String, TombstoneError> {
    let bytes = usize::from(reader.u16_be(field)?);
    let text = str::from_utf8(reader.take(bytes, field)?);
    Ok(text.map_err(|_| TombstoneError::NotUtf8 { field })?.to_owned())
}

fn put_text(encoded: &mut BytesMut, field: &'static str, text: &str) -> Result<(), TombstoneError> {
    let bytes = u16::try_from(text.len())
        .map_err(|_| TombstoneError::TooLong { field, bytes: text.len() })?;
    encoded.put_u16(bytes);
    encoded.put_slice(text.as_bytes());
    Ok(())
}
