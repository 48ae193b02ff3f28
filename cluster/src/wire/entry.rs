//! A log entry, the same bytes in the log and in `AppendEntries`.
//!
//! ```text
//!  0        version, 1
//!  1        kind: 0 blank, 1 command, 2 membership
//!  2..10    term, be64
//!  10..18   index, be64
//!  18..     payload   command: time in ms be64, then the envelope
//!                     membership: stored.v1.Membership
//!  last 4   CRC-32C of everything before, be32
//! ```
//!
//! The checksum travels with the entry, so a flipped bit is found wherever it happened.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use peat_gateway_proto::stored as proto;
use prost::Message;
use thiserror::Error;

use super::stored::{log_id, membership_from_stored, membership_to_stored};
use crate::raft::{Entry, LogCommand};

/// The layout that this build writes.
const VERSION: u8 = 1;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;
/// Bytes before the payload.
const HEAD_BYTES: usize = 18;
/// Bytes of a command's time.
const TIME_BYTES: usize = 8;
/// Bytes of the checksum.
const CHECKSUM_BYTES: usize = 4;

/// Bytes that an encoded command has besides its envelope.
pub(crate) const COMMAND_OVERHEAD_BYTES: usize = HEAD_BYTES + TIME_BYTES + CHECKSUM_BYTES;

/// Bytes that are no log entry.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum InvalidEntry {
    /// The bytes end too early.
    #[error("a log entry has at least {needed} bytes, not {found}")]
    Short {
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The checksum doesn't match: the bytes are damaged.
    #[error("the log entry's checksum is wrong: the bytes are damaged")]
    Checksum,
    /// A newer version wrote it.
    #[error("could not read version {0} of a log entry: a newer version of peat-gateway wrote it")]
    Version(u8),
    /// A newer version wrote it.
    #[error("could not read kind {0} of a log entry: a newer version of peat-gateway wrote it")]
    Kind(u8),
    /// The payload is not what its kind says.
    #[error("could not read the log entry's payload: {0}")]
    Payload(String),
}

/// Returns how many bytes [`encode`] gives for a command with an envelope of `envelope_bytes`, and
/// about as many for other kinds.
pub(crate) fn encoded_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Blank => HEAD_BYTES + CHECKSUM_BYTES,
        EntryPayload::Normal(command) => COMMAND_OVERHEAD_BYTES + command.envelope.len(),
        EntryPayload::Membership(membership) => {
            HEAD_BYTES + CHECKSUM_BYTES + membership_to_stored(membership).encoded_len()
        }
    }
}

/// Encodes an entry.
pub(crate) fn encode(entry: &Entry) -> Bytes {
    let mut bytes = BytesMut::with_capacity(encoded_bytes(entry));
    bytes.put_u8(VERSION);
    bytes.put_u8(match &entry.payload {
        EntryPayload::Blank => BLANK,
        EntryPayload::Normal(_) => COMMAND,
        EntryPayload::Membership(_) => MEMBERSHIP,
    });
    bytes.put_u64(entry.log_id.leader_id.term);
    bytes.put_u64(entry.log_id.index);
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(command) => {
            bytes.put_u64(command.time_ms);
            bytes.put_slice(&command.envelope);
        }
        EntryPayload::Membership(membership) => {
            membership_to_stored(membership)
                .encode(&mut bytes)
                .expect("a growing buffer takes every message");
        }
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.put_u32(checksum);
    bytes.freeze()
}

/// Decodes an entry; the envelope shares the memory of `bytes`.
///
/// # Errors
/// See [`InvalidEntry`]. Any bytes may be given.
pub(crate) fn decode(bytes: &Bytes) -> Result<Entry, InvalidEntry> {
    let needed = HEAD_BYTES + CHECKSUM_BYTES;
    if bytes.len() < needed {
        return Err(InvalidEntry::Short { found: bytes.len(), needed });
    }
    let body_end = bytes.len() - CHECKSUM_BYTES;
    if read_u32(bytes, body_end) != Some(crc32c::crc32c(&bytes[..body_end])) {
        return Err(InvalidEntry::Checksum);
    }
    if bytes[0] != VERSION {
        return Err(InvalidEntry::Version(bytes[0]));
    }
    let short = InvalidEntry::Short { found: bytes.len(), needed };
    let term = read_u64(bytes, 2).ok_or_else(|| short.clone())?;
    let index = read_u64(bytes, 10).ok_or(short)?;
    let payload = decode_payload(bytes[1], &bytes.slice(HEAD_BYTES..body_end))?;
    Ok(Entry { log_id: log_id(term, index), payload })
}

fn decode_payload(
    kind: u8,
    payload: &Bytes,
) -> Result<EntryPayload<LogCommand, u64, crate::raft::Member>, InvalidEntry> {
    match kind {
        BLANK if payload.is_empty() => Ok(EntryPayload::Blank),
        BLANK => Err(InvalidEntry::Payload("a blank entry carries bytes".to_owned())),
        COMMAND => {
            let time_ms = read_u64(payload, 0)
                .ok_or(InvalidEntry::Short { found: payload.len(), needed: TIME_BYTES })?;
            Ok(EntryPayload::Normal(LogCommand { time_ms, envelope: payload.slice(TIME_BYTES..) }))
        }
        MEMBERSHIP => {
            let stored = proto::Membership::decode(payload.clone())
                .map_err(|error| InvalidEntry::Payload(error.to_string()))?;
            let membership = membership_from_stored(stored)
                .map_err(|error| InvalidEntry::Payload(error.to_string()))?;
            Ok(EntryPayload::Membership(membership))
        }
        other => Err(InvalidEntry::Kind(other)),
    }
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use openraft::Membership;

    use super::*;

    fn samples() -> Vec<Entry> {
        let command =
            LogCommand { time_ms: 1_700_000_000_000, envelope: Bytes::from_static(b"abc") };
        let membership = Membership::new_with_defaults(vec![BTreeSet::from([1, 2])], [3]);
        vec![
            Entry { log_id: log_id(1, 0), payload: EntryPayload::Blank },
            Entry { log_id: log_id(2, 5), payload: EntryPayload::Normal(command) },
            Entry { log_id: log_id(3, u64::MAX), payload: EntryPayload::Membership(membership) },
        ]
    }

    #[test]
    fn every_kind_survives_the_round_trip() {
        for entry in samples() {
            let bytes = encode(&entry);
            assert_eq!(bytes.len(), encoded_bytes(&entry));
            assert_eq!(decode(&bytes).unwrap(), entry);
        }
    }

    #[test]
    fn the_stored_bytes_never_change() {
        let encoded = encode(&samples()[1]);
        let expected = "0101000000000000000200000000000000050000018bcfe5680061626374dc9013";
        assert_eq!(hex::encode(&encoded), expected);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        for entry in samples() {
            let bytes = encode(&entry);
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&damaged.into()), Err(InvalidEntry::Checksum));
            }
            for end in 0..bytes.len() {
                assert!(decode(&bytes.slice(..end)).is_err());
            }
        }
    }

    #[test]
    fn decoding_never_panics_on_any_bytes_with_a_right_checksum() {
        let seed = getrandom::u64().unwrap();
        eprintln!("seed {seed}");
        let mut random = crate::store::tests::Random::new(seed);
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            let samples = samples();
            let mut body = if random.below(2) == 0 {
                (0..random.below(64)).map(|_| random.below(256) as u8).collect::<Vec<_>>()
            } else {
                encode(&samples[random.below(3) as usize]).to_vec()
            };
            for _ in 0..random.below(4) {
                let at = random.below(body.len() as u64 + 1) as usize;
                if at < body.len() {
                    body[at] = random.below(256) as u8;
                }
            }
            let checksum = crc32c::crc32c(&body);
            body.extend_from_slice(&checksum.to_be_bytes());
            // Either answer is right; what counts is that there is one.
            if let Ok(entry) = decode(&body.into()) {
                assert_eq!(decode(&encode(&entry)).unwrap(), entry);
            }
        }
    }
}
