//! The unit of the sync protocol: a keyed, typed payload.
//!
//! ```text
//!   u16 BE key length │ key (UTF-8) │ u8 kind │ u32 BE payload length │ payload
//! ```

use std::io;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::reader::{Missing, Reader};

/// Longest payload that is read or sent, in bytes (64 MiB); a longer one ends its stream with an
/// error. Published nodes set no limit.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// How long the peer may send nothing in the middle of a frame before its stream is given up.
pub const FRAME_STALL_MAX: Duration = Duration::from_secs(30);
/// By how much a payload's buffer grows ahead of what has arrived, in bytes.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a frame besides its key and payload.
pub(crate) const FRAME_FIXED_BYTES: usize = 7;

/// What a payload is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum FrameKind {
    /// An Automerge sync message of the document named by the key.
    DeltaSync = 0x00,
    /// A whole saved Automerge document, named by the key.
    StateSnapshot = 0x01,
    /// Defined but never sent; receivers up to 0.6 fail on it.
    WindowedHistory = 0x02,
    /// One deletion; key `tombstones:<collection>:<id>`.
    Tombstone = 0x04,
    /// Several deletions; key `tombstones:batch`.
    TombstoneBatch = 0x05,
    /// Ignored by receivers and never sent.
    TombstoneAck = 0x06,
    /// Several frames in one; key `batch`.
    SyncBatch = 0x07,
    /// Opens a set reconciliation; key `_negentropy`.
    NegentropyInit = 0x08,
    /// Answers one.
    NegentropyResponse = 0x09,
    /// Never sent.
    NegentropyRequest = 0x0A,
}

impl FrameKind {
    /// Returns the byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// Returns the kind with this byte, or none if there is none.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x00 => Self::DeltaSync,
            0x01 => Self::StateSnapshot,
            0x02 => Self::WindowedHistory,
            0x04 => Self::Tombstone,
            0x05 => Self::TombstoneBatch,
            0x06 => Self::TombstoneAck,
            0x07 => Self::SyncBatch,
            0x08 => Self::NegentropyInit,
            0x09 => Self::NegentropyResponse,
            0x0A => Self::NegentropyRequest,
            _ => return None,
        })
    }
}

/// A keyed, typed payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Mostly a document's key, `<collection>:<id>`; at most 65535 bytes.
    pub key: String,
    /// What the payload is.
    pub kind: FrameKind,
    /// At most [`FRAME_BYTES_MAX`] bytes.
    pub payload: Bytes,
}

/// What the reader of frames accepts.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Longest payload in bytes; a frame that announces more is refused before its payload is read.
    pub payload_bytes_max: usize,
    /// Longest pause in the middle of a frame; between frames a stream may be silent for ever.
    pub stall_max: Duration,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { payload_bytes_max: FRAME_BYTES_MAX, stall_max: FRAME_STALL_MAX }
    }
}

/// A frame could not be written or read. The stream it came on is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The key does not fit its length field.
    #[error("encode a frame: its key has {bytes} bytes, at most 65535 fit")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The payload is over the limit.
    #[error("frame of {kind:?}: {bytes} bytes of payload are over the limit of {max}")]
    PayloadTooLong {
        /// The frame's kind.
        kind: FrameKind,
        /// What was announced.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The input ends inside a frame.
    #[error("read a frame: the input ends inside its {field}")]
    Truncated {
        /// Which part.
        field: &'static str,
    },
    /// Something follows the frame.
    #[error("decode a frame: {bytes} bytes follow it")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The key is not UTF-8.
    #[error("read a frame: its key is not UTF-8")]
    KeyNotUtf8,
    /// The kind is unknown.
    #[error("read a frame: {byte:#04x} is not a kind of frame")]
    UnknownKind {
        /// The byte.
        byte: u8,
    },
    /// The peer paused too long in the middle of a frame.
    #[error("read a frame: nothing arrived for {stalled:?} in the middle of it")]
    Stalled {
        /// How long.
        stalled: Duration,
    },
    /// The stream failed.
    #[error("read a frame: the stream failed")]
    Io(#[source] io::Error),
}

impl From<Missing> for FrameError {
    fn from(missing: Missing) -> Self {
        Self::Truncated { field: missing.0 }
    }
}

impl Frame {
    /// Returns the bytes on the wire.
    ///
    /// # Errors
    /// The key or the payload is over its limit.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let mut encoded =
            BytesMut::with_capacity(FRAME_FIXED_BYTES + self.key.len() + self.payload.len());
        self.encode_into(&mut encoded)?;
        Ok(encoded.freeze())
    }

    /// Appends the bytes on the wire; on an error nothing is appended.
    pub(crate) fn encode_into(&self, encoded: &mut BytesMut) -> Result<(), FrameError> {
        self.encode_header(encoded)?;
        encoded.put_slice(&self.payload);
        Ok(())
    }

    /// Appends what precedes the payload; on an error nothing is appended.
    pub(crate) fn encode_header(&self, encoded: &mut BytesMut) -> Result<(), FrameError> {
        let key_bytes = u16::try_from(self.key.len())
            .map_err(|_| FrameError::KeyTooLong { bytes: self.key.len() })?;
        let payload_bytes = self.payload.len();
        check_payload(self.kind, payload_bytes, FRAME_BYTES_MAX)?;
        encoded.put_u16(key_bytes);
        encoded.put_slice(self.key.as_bytes());
        encoded.put_u8(self.kind.byte());
        encoded.put_u32(u32::try_from(payload_bytes).expect("64 MiB fit into 32 bits"));
        Ok(())
    }

    /// Reads exactly one frame; the payload shares the input's memory.
    ///
    /// # Errors
    /// The input is not exactly one frame, or its payload is over [`FRAME_BYTES_MAX`].
    pub fn decode(input: &Bytes) -> Result<Self, FrameError> {
        let mut reader = Reader::new(input);
        let frame = Self::decode_next(input, &mut reader)?;
        match reader.remaining() {
            0 => Ok(frame),
            bytes => Err(FrameError::Trailing { bytes }),
        }
    }

    /// Reads the frame at the reader's position in `input`.
    pub(crate) fn decode_next(input: &Bytes, reader: &mut Reader<'_>) -> Result<Self, FrameError> {
        let key_bytes = usize::from(reader.u16_be("key length")?);
        let key = reader.take(key_bytes, "key")?;
        let header = FrameHeader::parse(key.to_vec(), reader.array("kind and payload length")?)?;
        check_payload(header.kind, header.payload_bytes, FRAME_BYTES_MAX)?;
        reader.take(header.payload_bytes, "payload")?;
        let end = reader.position();
        let payload = input.slice(end - header.payload_bytes..end);
        Ok(Self { key: header.key, kind: header.kind, payload })
    }
}

/// What precedes a payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FrameHeader {
    pub(crate) key: String,
    pub(crate) kind: FrameKind,
    pub(crate) payload_bytes: usize,
}

impl FrameHeader {
    fn parse(key: Vec<u8>, kind_and_length: [u8; 5]) -> Result<Self, FrameError> {
        let [kind, length @ ..] = kind_and_length;
        Ok(Self {
            key: String::from_utf8(key).map_err(|_| FrameError::KeyNotUtf8)?,
            kind: FrameKind::from_byte(kind).ok_or(FrameError::UnknownKind { byte: kind })?,
            payload_bytes: usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX),
        })
    }
}

fn check_payload(kind: FrameKind, bytes: usize, max: usize) -> Result<(), FrameError> {
    if bytes > max { Err(FrameError::PayloadTooLong { kind, bytes, max }) } else { Ok(()) }
}

/// Reads the next frame of a stream; none if the stream ended between frames.
///
/// Never allocates more than 64 KiB ahead of what has arrived. Not cancel-safe: a cancelled call
/// loses what it had read, and the stream is of no further use.
///
/// # Errors
/// The stream failed, ended or stalled inside a frame, or has something that is not a frame.
pub async fn read_frame<R: AsyncRead + Unpin>(
    stream: &mut R,
    limits: &FrameLimits,
) -> Result<Option<Frame>, FrameError> {
    match read_header(stream, limits).await? {
        Some(header) => Ok(Some(read_payload(stream, header, limits).await?)),
        None => Ok(None),
    }
}

/// Reads what precedes a payload; none if the stream ended between frames.
pub(crate) async fn read_header<R: AsyncRead + Unpin>(
    stream: &mut R,
    limits: &FrameLimits,
) -> Result<Option<FrameHeader>, FrameError> {
    let mut first = [0; 1];
    if stream.read(&mut first).await.map_err(FrameError::Io)? == 0 {
        return Ok(None);
    }
    let mut second = [0; 1];
    read_exact(stream, &mut second, "key length", limits).await?;
    let mut key = vec![0; usize::from(u16::from_be_bytes([first[0], second[0]]))];
    read_exact(stream, &mut key, "key", limits).await?;
    let mut kind_and_length = [0; 5];
    read_exact(stream, &mut kind_and_length, "kind and payload length", limits).await?;
    let header = FrameHeader::parse(key, kind_and_length)?;
    check_payload(header.kind, header.payload_bytes, limits.payload_bytes_max)?;
    Ok(Some(header))
}

/// Reads the payload that a header announced.
pub(crate) async fn read_payload<R: AsyncRead + Unpin>(
    stream: &mut R,
    header: FrameHeader,
    limits: &FrameLimits,
) -> Result<Frame, FrameError> {
    let mut payload = BytesMut::new();
    while payload.len() < header.payload_bytes {
        let missing = header.payload_bytes - payload.len();
        // The length is the peer's word only: the buffer grows as bytes really arrive.
        payload.reserve(missing.min(READ_AHEAD_BYTES_MAX));
        let mut window = (&mut payload).limit(missing);
        let read = stream.read_buf(&mut window);
        match timeout(limits.stall_max, read).await {
            Err(_) => return Err(FrameError::Stalled { stalled: limits.stall_max }),
            Ok(Err(error)) => return Err(FrameError::Io(error)),
            Ok(Ok(0)) => return Err(FrameError::Truncated { field: "payload" }),
            Ok(Ok(_)) => {}
        }
    }
    Ok(Frame { key: header.key, kind: header.kind, payload: payload.freeze() })
}

async fn read_exact<R: AsyncRead + Unpin>(
    stream: &mut R,
    buffer: &mut [u8],
    field: &'static str,
    limits: &FrameLimits,
) -> Result<(), FrameError> {
    match timeout(limits.stall_max, stream.read_exact(buffer)).await {
        Err(_) => Err(FrameError::Stalled { stalled: limits.stall_max }),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(FrameError::Truncated { field })
        }
        Ok(Err(error)) => Err(FrameError::Io(error)),
    }
}
