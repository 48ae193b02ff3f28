//! Decoders against bytes that nobody should send. Every random test prints its seed; set
//! `PEAT_TEST_SEED` to repeat one.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use peat_gateway_mesh::batch::{BATCH_ENTRIES_MAX, BatchError, SyncBatch};
use peat_gateway_mesh::credentials::Credentials;
use peat_gateway_mesh::frame::{
    FRAME_BYTES_MAX, FRAME_STALL_MAX, Frame, FrameError, FrameKind, FrameLimits, read_frame,
};
use peat_gateway_mesh::genesis::Genesis;
use peat_gateway_mesh::handshake::Challenge;
use peat_gateway_mesh::negentropy;
use peat_gateway_mesh::tombstone::{TOMBSTONES_MAX, Tombstone, TombstoneError};
use serde_json::Value;
use support::vectors::{bytes, list, vector_file};
use tokio::io::AsyncWriteExt as _;

/// How long each decoder is fuzzed.
const FUZZ_TIME: Duration = Duration::from_secs(2);

struct Random(u64);

impl Random {
    fn new(name: &str) -> Self {
        let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let given = std::env::var("PEAT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(fresh);
        eprintln!("{name}: PEAT_TEST_SEED={seed}");
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Random bytes, or one of the seeds with some bytes changed, cut, doubled or put elsewhere.
    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        if seeds.is_empty() || self.below(8) == 0 {
            let length = self.below(200);
            return (0..length).map(|_| self.next() as u8).collect();
        }
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len());
            match self.below(6) {
                0 => input.truncate(at),
                1 => input.insert(at, self.next() as u8),
                2 if !input.is_empty() => drop(input.remove(at)),
                3 => input.extend_from_within(at..),
                // Lengths are what decoders trust.
                4 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                _ if !input.is_empty() => input[at] = self.next() as u8,
                _ => {}
            }
        }
        input
    }
}

/// Gives a decoder hostile input for a while; what it accepts must survive `check`.
fn fuzz(name: &str, seeds: Vec<Vec<u8>>, mut check: impl FnMut(&[u8])) {
    let mut random = Random::new(name);
    let deadline = Instant::now() + FUZZ_TIME;
    let mut inputs = 0_u64;
    while Instant::now() < deadline {
        for _ in 0..100 {
            check(&random.input(&seeds));
            inputs += 1;
        }
    }
    eprintln!("{name}: {inputs} inputs");
}

fn recorded(file: &Value, group: &str, field: &str) -> Vec<Vec<u8>> {
    list(file, group)
        .iter()
        .filter(|case| case.get(field).is_some())
        .map(|case| bytes(case, field))
        .collect()
}

fn recorded_frames() -> Vec<Vec<u8>> {
    let file = vector_file("sync");
    let mut frames = recorded(&file, "delta_exchange", "frame");
    frames.extend(recorded(&file, "tombstones", "frame_0x04"));
    frames.extend(recorded(&file["negentropy"], "messages", "frame"));
    frames.push(bytes(&file["sync_batch"], "frame_0x07"));
    frames.push(bytes(&file["tombstone_batch"], "frame_0x05"));
    frames.push(bytes(&file["state_snapshot"], "frame"));
    frames
}

#[test]
fn genesis_survives_hostile_input() {
    fuzz("genesis", recorded(&vector_file("genesis"), "cases", "encoded"), |input| {
        if let Ok(genesis) = Genesis::decode(input) {
            assert!(input.starts_with(&genesis.encode()));
        }
    });
}

#[test]
fn credentials_survive_hostile_input() {
    let seeds = recorded(&vector_file("genesis"), "cases", "credentials_encoded");
    fuzz("credentials", seeds, |input| {
        if let Ok(credentials) = Credentials::decode(input) {
            assert!(input.starts_with(&credentials.encode()));
        }
    });
}

#[test]
fn challenges_survive_hostile_input() {
    let seeds = recorded(&vector_file("formation_auth"), "cases", "challenge_bytes");
    fuzz("challenge", seeds, |input| {
        if let Ok(challenge) = Challenge::decode(input) {
            assert_eq!(challenge.encode(), input);
        }
    });
}

#[test]
fn frames_survive_hostile_input_and_the_stream_reader_agrees() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    fuzz("frame", recorded_frames(), |input| {
        let decoded = Frame::decode(&Bytes::copy_from_slice(input));
        if let Ok(frame) = &decoded {
            assert_eq!(frame.encode().unwrap(), input);
        }
        let streamed = runtime.block_on(async {
            let (mut stream, mut frames) = (input, Vec::new());
            while let Some(frame) = read_frame(&mut stream, &FrameLimits::default()).await? {
                frames.push(frame);
            }
            Ok::<_, FrameError>(frames)
        });
        match (decoded, streamed) {
            (Ok(frame), streamed) => assert_eq!(streamed.unwrap(), [frame]),
            // Several frames, or none, are a valid stream but not one frame.
            (Err(_), Ok(frames)) => assert_ne!(frames.len(), 1),
            (Err(_), Err(_)) => {}
        }
    });
}

#[test]
fn batches_survive_hostile_input() {
    let seeds = vec![bytes(&vector_file("sync")["sync_batch"], "payload")];
    fuzz("sync batch", seeds, |input| {
        if let Ok(batch) = SyncBatch::decode(&Bytes::copy_from_slice(input)) {
            assert_eq!(batch.encode().unwrap(), input);
        }
    });
}

#[test]
fn tombstones_survive_hostile_input() {
    let seeds = recorded(&vector_file("sync"), "tombstones", "payload");
    fuzz("tombstone", seeds, |input| {
        if let Ok(tombstone) = Tombstone::decode(input) {
            assert!(input.starts_with(&tombstone.encode().unwrap()));
        }
    });
    let seeds = vec![bytes(&vector_file("sync")["tombstone_batch"], "payload")];
    fuzz("tombstone batch", seeds, |input| {
        if let Ok(tombstones) = Tombstone::decode_batch(input) {
            assert!(tombstones.len() <= input.len());
        }
    });
}

#[test]
fn negentropy_survives_hostile_input() {
    let seeds = recorded(&vector_file("sync")["negentropy"], "messages", "payload");
    fuzz("negentropy", seeds, |input| {
        if let Ok(ids) = negentropy::listed_ids(input) {
            assert!(ids.len() <= input.len() / 32);
        }
    });
}

async fn read(mut input: &[u8], limits: &FrameLimits) -> Result<Option<Frame>, FrameError> {
    read_frame(&mut input, limits).await
}

#[tokio::test]
async fn truncated_frames_are_refused_wherever_they_end() {
    for whole in recorded_frames() {
        for end in 1..whole.len() {
            let error = read(&whole[..end], &FrameLimits::default()).await.unwrap_err();
            assert!(matches!(error, FrameError::Truncated { .. }), "{end}: {error}");
            let error = Frame::decode(&Bytes::copy_from_slice(&whole[..end])).unwrap_err();
            assert!(matches!(error, FrameError::Truncated { .. }), "{end}: {error}");
        }
        assert!(read(&[], &FrameLimits::default()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn oversize_frames_are_refused_at_their_header() {
    let announced = u32::try_from(FRAME_BYTES_MAX).unwrap() + 1;
    let header = [&[0, 1, b'k', 0][..], &announced.to_be_bytes()].concat();
    // The payload never comes: a reader that waited for it would report a truncation.
    let error = read(&header, &FrameLimits::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame of DeltaSync: 67108865 bytes of payload are over the limit of 67108864"
    );
    let limits = FrameLimits { payload_bytes_max: 3, ..FrameLimits::default() };
    let frame = Frame {
        key: "docs:1".to_owned(),
        kind: FrameKind::DeltaSync,
        payload: Bytes::from_static(b"four"),
    };
    let error = read(&frame.encode().unwrap(), &limits).await.unwrap_err();
    assert!(matches!(error, FrameError::PayloadTooLong { bytes: 4, max: 3, .. }), "{error}");
}

#[test]
fn frames_that_the_wire_cannot_carry_are_not_encoded() {
    let frame =
        Frame { key: "k".repeat(65_536), kind: FrameKind::DeltaSync, payload: Bytes::new() };
    assert!(matches!(frame.encode(), Err(FrameError::KeyTooLong { bytes: 65_536 })));
    let payload = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
    let frame = Frame { key: "k".to_owned(), kind: FrameKind::StateSnapshot, payload };
    assert!(matches!(frame.encode(), Err(FrameError::PayloadTooLong { .. })));
}

#[tokio::test]
async fn unknown_kinds_keys_that_are_no_text_and_trailing_bytes_are_refused() {
    for kind in [0x03, 0x0b, 0xff] {
        let error = read(&[0, 0, kind, 0, 0, 0, 0], &FrameLimits::default()).await.unwrap_err();
        assert!(matches!(error, FrameError::UnknownKind { byte } if byte == kind), "{error}");
    }
    let input = [0, 1, 0xff, 0, 0, 0, 0, 0];
    let error = read(&input, &FrameLimits::default()).await.unwrap_err();
    assert!(matches!(error, FrameError::KeyNotUtf8), "{error}");
    let error = Frame::decode(&Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 9])).unwrap_err();
    assert!(matches!(error, FrameError::Trailing { bytes: 1 }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_frame_may_pause_but_not_stall_and_a_stream_may_be_silent_between_frames() {
    let (mut peer, mut ours) = tokio::io::duplex(1024);
    let frame = recorded_frames().remove(0);
    let script = async move {
        tokio::time::sleep(FRAME_STALL_MAX * 10).await;
        for half in frame.chunks(frame.len().div_ceil(3)) {
            peer.write_all(half).await.unwrap();
            tokio::time::sleep(FRAME_STALL_MAX - Duration::from_secs(1)).await;
        }
        peer.write_all(&frame[..5]).await.unwrap();
        tokio::time::sleep(FRAME_STALL_MAX * 2).await;
    };
    let reading = async {
        let limits = FrameLimits::default();
        let first = read_frame(&mut ours, &limits).await.unwrap();
        (first.is_some(), read_frame(&mut ours, &limits).await.unwrap_err())
    };
    let ((first_arrived, error), ()) = tokio::join!(reading, script);
    assert!(first_arrived);
    assert!(matches!(error, FrameError::Stalled { .. }), "{error}");
}

#[test]
fn counts_beyond_their_limits_are_refused_without_reading_on() {
    let count = u32::try_from(BATCH_ENTRIES_MAX).unwrap() + 1;
    let batch = [&[0; 17][..], &count.to_be_bytes()].concat();
    let error = SyncBatch::decode(&batch.into()).unwrap_err();
    assert!(matches!(error, BatchError::TooManyEntries { .. }), "{error}");
    let count = u32::try_from(TOMBSTONES_MAX).unwrap() + 1;
    let error = Tombstone::decode_batch(&count.to_be_bytes()).unwrap_err();
    assert_eq!(error, TombstoneError::TooMany { count: TOMBSTONES_MAX + 1 });
    // Within the limit, but nothing follows: refused at the first entry.
    let error = Tombstone::decode_batch(&1000_u32.to_be_bytes()).unwrap_err();
    assert_eq!(error, TombstoneError::Truncated { field: "length" });
}
