//! Several frames in the payload of one ([`FrameKind::SyncBatch`]).
//!
//! ```text
//!   u64 BE batch id │ u64 BE created (ms) │ u8 ttl │ u32 BE entries │ entry … (laid out as frames)
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::frame::{FRAME_BYTES_MAX, Frame, FrameError, FrameKind};
use crate::reader::{Missing, Reader};

/// Key of frames with a batch.
pub const BATCH_KEY: &str = "batch";
/// The time to live that published nodes write; nothing decrements it.
pub const BATCH_TTL: u8 = 5;
/// Most entries of a batch; a batch that announces more is refused. It bounds what the shortest
/// entries could make of 64 MiB.
pub const BATCH_ENTRIES_MAX: usize = 1 << 18;

/// Several frames that travel as one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyncBatch {
    /// Often 0: of no use to tell batches apart.
    pub batch_id: u64,
    /// When the sender made it, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// See [`BATCH_TTL`].
    pub ttl: u8,
    /// Deltas, snapshots and tombstones; receivers skip entries of other kinds.
    pub entries: Vec<Frame>,
}

/// A batch could not be written or read; none of its entries counts.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The input ends inside a field.
    #[error("decode a sync batch: it ends inside its {field}")]
    Truncated {
        /// Which.
        field: &'static str,
    },
    /// There are too many entries.
    #[error("sync batch: {entries} entries are over the limit of {BATCH_ENTRIES_MAX}")]
    TooManyEntries {
        /// How many.
        entries: usize,
    },
    /// An entry is not a frame.
    #[error("sync batch: entry {index} is not a frame")]
    Entry {
        /// Its position.
        index: usize,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// Something follows the last entry.
    #[error("decode a sync batch: {bytes} bytes follow its last entry")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The batch does not fit a frame.
    #[error("encode a sync batch: its entries are over the {FRAME_BYTES_MAX} bytes of a frame")]
    TooLong,
}

impl From<Missing> for BatchError {
    fn from(missing: Missing) -> Self {
        Self::Truncated { field: missing.0 }
    }
}

impl SyncBatch {
    /// Reads a frame's payload; the entries share its memory.
    ///
    /// # Errors
    /// The payload is not a batch: nothing in it can be trusted.
    pub fn decode(payload: &Bytes) -> Result<Self, BatchError> {
        let mut reader = Reader::new(payload);
        let batch_id = reader.u64_be("id")?;
        let created_at_ms = reader.u64_be("creation time")?;
        let ttl = reader.u8("time to live")?;
        let count = usize::try_from(reader.u32_be("entry count")?).unwrap_or(usize::MAX);
        if count > BATCH_ENTRIES_MAX {
            return Err(BatchError::TooManyEntries { entries: count });
        }
        // The count is the peer's word only: the vector grows with what is really there.
        let mut entries = Vec::new();
        for index in 0..count {
            let entry = Frame::decode_next(payload, &mut reader)
                .map_err(|source| BatchError::Entry { index, source })?;
            entries.push(entry);
        }
        match reader.remaining() {
            0 => Ok(Self { batch_id, created_at_ms, ttl, entries }),
            bytes => Err(BatchError::Trailing { bytes }),
        }
    }

    /// Returns the payload.
    ///
    /// # Errors
    /// There are too many entries, or they do not fit into one frame: split the batch.
    pub fn encode(&self) -> Result<Bytes, BatchError> {
        let entries = self.entries.len();
        if entries > BATCH_ENTRIES_MAX {
            return Err(BatchError::TooManyEntries { entries });
        }
        let mut encoded = BytesMut::new();
        encoded.put_u64(self.batch_id);
        encoded.put_u64(self.created_at_ms);
        encoded.put_u8(self.ttl);
        encoded.put_u32(u32::try_from(entries).expect("the limit fits into 32 bits"));
        for (index, entry) in self.entries.iter().enumerate() {
            entry
                .encode_into(&mut encoded)
                .map_err(|source| BatchError::Entry { index, source })?;
            if encoded.len() > FRAME_BYTES_MAX {
                return Err(BatchError::TooLong);
            }
        }
        Ok(encoded.freeze())
    }

    /// Returns the frame that carries this batch.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn into_frame(self) -> Result<Frame, BatchError> {
        let payload = self.encode()?;
        Ok(Frame { key: BATCH_KEY.to_owned(), kind: FrameKind::SyncBatch, payload })
    }
}
