//! Golden bytes were made by an independent implementation (Python `cryptography`), from the layout
//! and the contexts in [`super::envelope`].

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::envelope::{Envelope, MAGIC};
use super::local::{Local, Random};
use super::*;

const SECRET: &[u8] = b"the genesis of a mesh";
const GOLDEN_V1: &str = include_str!("golden/envelope_v1.hex");
const GOLDEN_V2: &str = include_str!("golden/envelope_v2.hex");
/// How long the fuzz tests go on.
const FUZZ: Duration = Duration::from_secs(2);

fn kek() -> Kek {
    Kek::from_bytes(&std::array::from_fn(|i| i as u8))
}

fn binding() -> Binding<'static> {
    Binding {
        seal_domain: std::array::from_fn(|i| i as u8),
        org: "acme",
        kind: SecretKind::Genesis,
        record: "alpha",
        version: 1,
    }
}

fn golden_random() -> Random {
    Random {
        data_key: Zeroizing::new(std::array::from_fn(|i| 0xd0 + (i % 16) as u8)),
        salt: [0x5a; 32],
        wrap_nonce: [0x0b; 12],
        data_nonce: [0x0d; 12],
    }
}

fn bytes(hex_line: &str) -> Vec<u8> {
    hex::decode(hex_line.trim()).unwrap()
}

fn refused(result: Result<Zeroizing<Vec<u8>>, KeyError>) -> String {
    match result {
        Err(KeyError::Refused { reason, .. }) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn golden_envelope_is_written_and_opened_byte_for_byte() {
    let local = Local::new(kek());
    let sealed = local.seal(&binding().bytes(), SECRET, &golden_random());
    assert_eq!(hex::encode(&sealed), GOLDEN_V2.trim());
    let opened = Keyring::local(kek()).open(&binding(), &bytes(GOLDEN_V2)).await.unwrap();
    assert_eq!(opened.as_slice(), SECRET);
}

#[tokio::test]
async fn every_seal_has_its_own_bytes_and_opens() {
    let ring = Keyring::local(kek());
    let first = ring.seal(&binding(), SECRET).await.unwrap();
    let second = ring.seal(&binding(), SECRET).await.unwrap();
    assert_ne!(first, second);
    for sealed in [first, second] {
        assert!(!sealed.windows(SECRET.len()).any(|window| window == SECRET));
        assert_eq!(ring.open(&binding(), &sealed).await.unwrap().as_slice(), SECRET);
    }
    let empty = ring.seal(&binding(), b"").await.unwrap();
    assert_eq!(ring.open(&binding(), &empty).await.unwrap().as_slice(), b"");
}

#[tokio::test]
async fn an_envelope_opens_in_no_other_place() {
    let ring = Keyring::local(kek());
    let here = binding();
    let sealed = ring.seal(&here, SECRET).await.unwrap();
    let elsewhere = [
        ("another version", Binding { version: 2, ..here }),
        ("an older version", Binding { version: 0, ..here }),
        ("another seal domain", Binding { seal_domain: [9; 16], ..here }),
        ("another organisation", Binding { org: "acm", ..here }),
        ("another record", Binding { record: "alph", ..here }),
        ("another kind", Binding { kind: SecretKind::SinkCredentials, ..here }),
        // The same bytes, split elsewhere: lengths are part of what is bound.
        ("shifted parts", Binding { org: "acmegenesis", record: "", ..here }),
    ];
    for (what, place) in elsewhere {
        let reason = refused(ring.open(&place, &sealed).await);
        assert!(reason.contains("another record"), "{what}: {reason}");
    }
}

#[tokio::test]
async fn every_flipped_bit_and_every_truncation_is_refused() {
    let ring = Keyring::local(kek());
    let sealed = bytes(GOLDEN_V2);
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1 << bit;
            assert!(ring.open(&binding(), &damaged).await.is_err(), "byte {at}, bit {bit}");
        }
        assert!(ring.open(&binding(), &sealed[..at]).await.is_err(), "first {at} bytes");
    }
    let longer = [sealed.as_slice(), &[0]].concat();
    assert!(ring.open(&binding(), &longer).await.is_err());
}

#[tokio::test]
async fn a_wrong_key_is_named() {
    let other = Keyring::local(Kek::from_bytes(&[7; 32]));
    match other.open(&binding(), &bytes(GOLDEN_V2)).await {
        Err(KeyError::WrongKey { sealed_with, have, record, .. }) => {
            assert_eq!(sealed_with, Keyring::local(kek()).key_id());
            assert_eq!(have, other.key_id());
            assert_eq!(record, "alpha");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_envelope_that_claims_the_wrong_keys_id_is_refused() {
    let other = Local::new(Kek::from_bytes(&[7; 32]));
    let sealed = bytes(GOLDEN_V2);
    let claimed =
        Envelope { key_id: other.key_id().as_bytes(), ..Envelope::parse(&sealed).unwrap() };
    let ring = Keyring::local(Kek::from_bytes(&[7; 32]));
    assert!(refused(ring.open(&binding(), &claimed.encode()).await).contains("data key"));
}

#[tokio::test]
async fn a_data_key_that_was_swapped_fails_its_commitment() {
    let local = Local::new(kek());
    let sealed = bytes(GOLDEN_V2);
    let swapped = Random { data_key: Zeroizing::new([1; 32]), ..golden_random() };
    let wrapped_key = local.wrap(&binding().bytes(), &swapped);
    let planted = Envelope { wrapped_key: &wrapped_key, ..Envelope::parse(&sealed).unwrap() };
    let reason = refused(Keyring::local(kek()).open(&binding(), &planted.encode()).await);
    assert!(reason.contains("isn't the one"), "{reason}");
}

#[tokio::test]
async fn a_rewrap_under_another_key_leaves_the_ciphertext() {
    let sealed = bytes(GOLDEN_V2);
    let before = Envelope::parse(&sealed).unwrap();
    let bound = binding().bytes();
    let data_key = Local::new(kek()).unwrap(&bound, &before).unwrap();
    let new_kek = Kek::from_bytes(&[3; 32]);
    let new = Local::new(new_kek.clone());
    let wrapped_key = new.wrap(&bound, &Random { data_key, ..Random::fresh().unwrap() });
    let after =
        Envelope { key_id: new.key_id().as_bytes(), wrapped_key: &wrapped_key, ..before }.encode();
    assert_eq!(Envelope::parse(&after).unwrap().ciphertext, before.ciphertext);
    let opened = Keyring::local(new_kek).open(&binding(), &after).await.unwrap();
    assert_eq!(opened.as_slice(), SECRET);
}

#[tokio::test]
async fn plaintext_and_sealed_blobs_are_never_taken_for_each_other() {
    let plain = Keyring::plaintext();
    let unsealed = plain.seal(&binding(), SECRET).await.unwrap();
    assert_eq!(plain.open(&binding(), &unsealed).await.unwrap().as_slice(), SECRET);
    let moved = Binding { version: 2, ..binding() };
    assert!(refused(plain.open(&moved, &unsealed).await).contains("another record"));
    assert!(refused(plain.open(&binding(), &unsealed[..20]).await).contains("truncated"));
    let ring = Keyring::local(kek());
    assert!(refused(ring.open(&binding(), &unsealed).await).contains("planted"));
    assert!(refused(plain.open(&binding(), &bytes(GOLDEN_V2)).await).contains("it is sealed"));
    assert!(refused(ring.open(&binding(), SECRET).await).contains("no envelope"));
}

#[tokio::test]
async fn version_1_opens_only_where_it_is_asked_for() {
    let ring = Keyring::local(kek());
    let old = bytes(GOLDEN_V1);
    assert_eq!(ring.open_v1("alpha", &old).await.unwrap().as_slice(), SECRET);
    assert!(refused(ring.open(&binding(), &old).await).contains("version 1"));
    assert!(refused(ring.open_v1("alpha", &bytes(GOLDEN_V2)).await).contains("version 2"));
    assert!(refused(Keyring::plaintext().open_v1("alpha", &old).await).contains("no key"));
    let other = Keyring::local(Kek::from_bytes(&[7; 32]));
    assert!(refused(other.open_v1("alpha", &old).await).contains("data key"));
    for at in 0..old.len() {
        assert!(ring.open_v1("alpha", &old[..at]).await.is_err(), "first {at} bytes");
    }
}

#[tokio::test]
async fn a_secret_over_the_limit_is_refused() {
    let ring = Keyring::local(kek());
    let secret = vec![0; SECRET_BYTES_MAX + 1];
    assert!(matches!(ring.seal(&binding(), &secret).await, Err(KeyError::TooLarge { .. })));
    assert!(ring.seal(&binding(), &secret[1..]).await.is_ok());
}

#[test]
fn keys_are_read_as_hex_or_base64_and_never_shown() {
    let hex_text = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
    let base64_text = " AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
    let id = Keyring::local(kek()).key_id().to_owned();
    for text in [hex_text, base64_text] {
        assert_eq!(Keyring::local(Kek::parse(text).unwrap()).key_id(), id);
    }
    for text in
        ["", "00", hex_text.get(2..).unwrap(), &format!("{hex_text}00"), "AAEC", "not a key"]
    {
        assert!(Kek::parse(text).is_err(), "{text}");
    }
    assert_eq!(format!("{:?}", kek()), "Kek([redacted])");
    let shown = format!("{:?}", Keyring::local(kek()));
    assert!(shown.contains(&id) && !shown.contains("0001"), "{shown}");
}

#[test]
fn a_key_file_is_made_once_and_refused_where_others_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kek");
    let (made, now) = Kek::load_or_create(&path).unwrap();
    assert!(now);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (read, now) = Kek::load_or_create(&path).unwrap();
    assert!(!now);
    assert_eq!(Keyring::local(made).key_id(), Keyring::local(read).key_id());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Kek::load(&path), Err(KekFileError::TooOpen { mode: 0o640, .. })));
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    std::fs::set_permissions(&empty, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(Kek::load_or_create(&empty), Err(KekFileError::Malformed { .. })));
    let missing = directory.path().join("none/kek");
    assert!(matches!(Kek::load(&missing), Err(KekFileError::File { action: "open", .. })));
}

/// A small generator with a printed seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

#[tokio::test]
async fn no_mutation_of_an_envelope_opens_or_panics() {
    let seed = getrandom::u64().unwrap() | 1;
    eprintln!("seed {seed}");
    let mut dice = Dice(seed);
    let rings = [Keyring::local(kek()), Keyring::plaintext()];
    let unsealed = rings[1].seal(&binding(), SECRET).await.unwrap();
    let samples = [bytes(GOLDEN_V2), bytes(GOLDEN_V1), unsealed];
    let end = Instant::now() + FUZZ;
    while Instant::now() < end {
        let mut blob = samples[dice.roll(samples.len())].clone();
        for _ in 0..=dice.roll(4) {
            if blob.is_empty() {
                break;
            }
            let at = dice.roll(blob.len());
            match dice.roll(5) {
                0 => blob[at] = dice.roll(256) as u8,
                1 => blob.truncate(at),
                2 => blob.insert(at, dice.roll(256) as u8),
                3 => drop(blob.remove(at)),
                _ => blob.splice(..at.min(MAGIC.len()), MAGIC.iter().copied()).for_each(drop),
            }
        }
        if !samples.contains(&blob) {
            assert!(rings[0].open(&binding(), &blob).await.is_err(), "seed {seed}");
            assert!(rings[0].open_v1("alpha", &blob).await.is_err(), "seed {seed}");
        }
        // The plaintext provider promises no integrity of the secret; only that nothing panics.
        drop(rings[1].open(&binding(), &blob).await);
    }
}
