//! A bit that flips on the disk of a node that is down: refused at the start, found by reading, or provably
//! harmless. Never is a wrong value served, and never is an entry missing that was synced (INV-1, INV-10).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use peat_gateway_state::{Family, Space};
use tempfile::TempDir;

use super::{Random, append, apply, copy, create_organization, open, populate};
use crate::raft::Entry;
use crate::store::layout::{Db, database_options};
use crate::store::scrub::{Pace, ScrubFailure, Scrubbed};
use crate::store::{LogStore, Store};

/// Flips per kind of file; `PEAT_TEST_FLIPS` asks for more.
const FLIPS: u64 = 40;
/// Entries in the directory: half of them in table files, half in the write-ahead log only.
const LAST: u64 = 400;

/// What came of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Refused,
    Found,
    Harmless,
}

/// All that a directory holds.
struct Facts {
    entries: Vec<Entry>,
    rows: BTreeMap<(Space, Vec<u8>), Vec<u8>>,
    hash: (u64, peat_gateway_state::ids::Hash32),
}

fn scrub(store: &Store) -> Result<Scrubbed, ScrubFailure> {
    store.scrub(&mut Pace::new(u64::MAX, &|| false))
}

async fn entries(log: &mut LogStore) -> Result<Vec<Entry>, std::io::Error> {
    use openraft::RaftLogReader;
    use openraft::storage::RaftLogStorage;
    log.get_log_reader().await.try_get_log_entries(0..u64::MAX).await
}

async fn facts(store: &Store) -> Facts {
    let mut rows = BTreeMap::new();
    let view = store.view();
    for family in Family::ALL {
        let collected = view.each_row(family, |key, value| {
            let space = Space::from_byte(key[0]).unwrap();
            rows.insert((space, key[1..].to_vec()), value.to_vec());
            Ok(())
        });
        collected.unwrap();
    }
    let entries = entries(&mut store.log()).await.unwrap();
    Facts { entries, rows, hash: store.state_hash() }
}

/// Makes a directory with table files and a write-ahead log.
async fn original(path: &Path) -> Facts {
    let store = open(path);
    store.adopt(super::CLUSTER).unwrap();
    populate(&store, LAST / 2).await;
    drop(store);
    // Opening writes what was only in the write-ahead log into table files.
    let store = open(path);
    let more = || (LAST / 2 + 1..=LAST).map(create_organization);
    append(&mut store.log(), more()).await;
    apply(&mut store.machine(), more()).await;
    let facts = facts(&store).await;
    assert_eq!(facts.entries.len() as u64, LAST);
    facts
}

fn files(root: &Path, of_kind: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in [root.to_owned(), root.join("db")] {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.metadata().unwrap().len() > 0
                && entry.file_type().unwrap().is_file()
                && of_kind(&name)
            {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn flip(path: &Path, random: &mut Random) -> String {
    let mut bytes = fs::read(path).unwrap();
    let at = random.below(bytes.len() as u64) as usize;
    let bit = random.below(8);
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
    format!("bit {bit} of byte {at} of {}", path.file_name().unwrap().display())
}

/// Starts as a node would, and reads everything as clients and other nodes would.
async fn examine(path: &Path, wanted: &Facts) -> (End, String) {
    let store = match Store::open(path) {
        Ok(opened) => opened.store,
        Err(error) => return (End::Refused, error.to_string()),
    };
    // What is served: each row is what it was, or an error. A state of an earlier index is one that the
    // log is applied to before anything is served.
    let behind = store.state_hash().0 < wanted.hash.0;
    let view = store.view();
    if !behind {
        use peat_gateway_state::Reader;
        for ((space, key), value) in &wanted.rows {
            if let Ok(found) = view.get(*space, key) {
                assert_eq!(found.as_ref(), Some(value), "a wrong row would be served");
            }
        }
    }
    drop(view);
    let log = entries(&mut store.log()).await;
    if let Ok(log) = &log {
        assert!(*log == wanted.entries, "a wrong log would be sent");
    }
    match scrub(&store) {
        Ok(_) => {
            let log = log.expect("a log that the scrub found well can be read");
            if behind {
                let applied = store.state_hash().0;
                let rest = log.into_iter().filter(|entry| entry.log_id.index > applied);
                apply(&mut store.machine(), rest).await;
            }
            assert_eq!(store.state_hash(), wanted.hash);
            assert!(facts(&store).await.rows == wanted.rows, "harmless, but rows differ");
            (End::Harmless, String::new())
        }
        Err(ScrubFailure::Damaged(what)) => (End::Found, what),
        Err(other) => panic!("neither well nor damaged: {other:?}"),
    }
}

async fn flips_end_well(kind: &str, of_kind: &dyn Fn(&str) -> bool, expected: &[End]) {
    let seed = std::env::var("PEAT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| getrandom::u64().unwrap());
    let flips = std::env::var("PEAT_TEST_FLIPS").ok().and_then(|text| text.parse().ok());
    let flips: u64 = flips.unwrap_or(FLIPS);
    eprintln!("{kind}: {flips} flips; PEAT_TEST_SEED={seed} repeats them");
    let mut random = Random::new(seed);
    let root = TempDir::new().unwrap();
    let wanted = original(&root.path().join("original")).await;
    let mut ends: BTreeMap<End, u64> = BTreeMap::new();
    for number in 0..flips {
        let path = root.path().join(format!("flip-{number}"));
        copy(&root.path().join("original"), &path);
        let files = files(&path, of_kind);
        let file = &files[random.below(files.len() as u64) as usize];
        let what = flip(file, &mut random);
        eprintln!("{kind}: {what}");
        let (end, said) = examine(&path, &wanted).await;
        eprintln!("{kind}: {end:?} {said}");
        *ends.entry(end).or_default() += 1;
        fs::remove_dir_all(&path).unwrap();
    }
    eprintln!("{kind}: {ends:?}");
    for end in expected {
        assert!(ends.contains_key(end), "no flip of {kind} was {end:?}: {ends:?}");
    }
}

#[tokio::test]
async fn bits_that_flip_in_table_files_are_refused_found_or_harmless() {
    flips_end_well("table files", &|name| name.ends_with(".sst"), &[End::Found]).await;
}

#[tokio::test]
async fn bits_that_flip_in_the_write_ahead_log_are_refused_or_harmless() {
    flips_end_well("write-ahead log", &|name| name.ends_with(".log"), &[End::Refused]).await;
}

#[tokio::test]
async fn bits_that_flip_in_the_manifest_are_refused_or_harmless() {
    flips_end_well("manifest", &|name| name.starts_with("MANIFEST"), &[End::Refused]).await;
}

/// Where the records of a file of RocksDB's log format end, in its first block: what a flipped length makes
/// of the rest is a torn end.
fn record_ends(bytes: &[u8]) -> Vec<usize> {
    const HEADER_BYTES: usize = 7;
    let mut ends = vec![];
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        at += HEADER_BYTES + usize::from(u16::from_le_bytes([header[4], header[5]]));
        ends.push(at);
    }
    assert_eq!(ends.last(), Some(&bytes.len()), "one block of whole records");
    ends
}

#[tokio::test]
async fn a_manifest_that_ends_early_is_refused_or_harmless() {
    let root = TempDir::new().unwrap();
    let original = root.path().join("original");
    let wanted = self::original(&original).await;
    let manifest = files(&original, &|name| name.starts_with("MANIFEST")).pop().unwrap();
    let bytes = fs::read(&manifest).unwrap();
    let mut ends = BTreeMap::new();
    for end in record_ends(&bytes) {
        let path = root.path().join(format!("end-{end}"));
        copy(&original, &path);
        let file = path.join("db").join(manifest.file_name().unwrap());
        fs::write(file, &bytes[..end]).unwrap();
        eprintln!("manifest: {end} of {} bytes", bytes.len());
        let (found, said) = examine(&path, &wanted).await;
        eprintln!("manifest: {found:?} {said}");
        *ends.entry(found).or_insert(0) += 1;
    }
    eprintln!("manifest: {ends:?}");
    assert!(ends.contains_key(&End::Refused) && ends.contains_key(&End::Harmless), "{ends:?}");
}

/// Records of a MANIFEST, from its end, whose length is damaged.
const LENGTHS: usize = 6;

#[tokio::test]
async fn lengths_that_flip_in_the_manifest_are_refused_or_harmless_whatever_was_written_last() {
    let root = TempDir::new().unwrap();
    let original = root.path().join("original");
    let wanted = self::original(&original).await;
    let columns = Db::list_cf(&database_options(), original.join("db")).unwrap();
    let mut ends = BTreeMap::new();
    for last in &columns {
        // This family's rows are the last that go into a table file; then their write-ahead log is removed.
        let base = root.path().join(format!("last-{last}"));
        copy(&original, &base);
        let store = open(&base);
        for column in columns.iter().filter(|column| *column != last).chain([last]) {
            let column = store.inner.database.column(column).unwrap();
            store.inner.database.db.flush_cf(&column).unwrap();
        }
        drop(store);
        let manifest = files(&base, &|name| name.starts_with("MANIFEST")).pop().unwrap();
        let bytes = fs::read(&manifest).unwrap();
        let ends_of_records = record_ends(&bytes);
        let begins = ends_of_records.iter().rev().skip(1);
        for begin in begins.take(LENGTHS) {
            let path = root.path().join("flipped");
            copy(&base, &path);
            let mut flipped = bytes.clone();
            // Longer than the rest of the file, as a record that a power cut tore would be.
            flipped[begin + 5] ^= 0x40;
            fs::write(path.join("db").join(manifest.file_name().unwrap()), flipped).unwrap();
            eprintln!("{last} was written last; the length at {begin} of {} flips", bytes.len());
            let (found, said) = examine(&path, &wanted).await;
            eprintln!("{found:?} {said}");
            *ends.entry(found).or_insert(0) += 1;
            fs::remove_dir_all(&path).unwrap();
        }
        fs::remove_dir_all(&base).unwrap();
    }
    eprintln!("manifest: {ends:?}");
    assert!(ends.contains_key(&End::Refused), "{ends:?}");
}

#[tokio::test]
async fn bits_that_flip_in_small_files_are_refused_or_harmless() {
    let small = |name: &str| {
        matches!(name, "CURRENT" | "FORMAT" | "synced" | "IDENTITY") || name.starts_with("OPTIONS")
    };
    flips_end_well("small files", &small, &[End::Refused, End::Harmless]).await;
}
