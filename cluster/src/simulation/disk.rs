//! Disks: how fast they sync, what is durable on them, and what a crash leaves.
//!
//! A crash copies a data directory as it could be after a power cut. What was synced is there; of what
//! was written since, each sector is or isn't, whatever the order of the writes: of the WAL (RocksDB's
//! buffers are handed over first, so that more can be left than was ever written), and of the synced
//! mark. Files that RocksDB or the store finished are synced before they get their names, and stay.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::random::Random;
use crate::raft::LogId;
use crate::store::tests::inspect::{self, Database};

tokio::task_local! {
    /// The place of the host that the task runs on.
    pub(super) static PLACE: usize;
}

/// What a disk writes whole, bytes.
const SECTOR: usize = 4096;

thread_local! {
    static DISKS: RefCell<Vec<Disk>> = const { RefCell::new(Vec::new()) };
    static DURABLE: RefCell<BTreeMap<PathBuf, LogId>> = const { RefCell::new(BTreeMap::new()) };
    /// Of WAL files: how long they were at their last sync.
    static LENGTHS: RefCell<BTreeMap<PathBuf, usize>> = const { RefCell::new(BTreeMap::new()) };
    /// Of files that are written in place: what was in them at their last sync.
    static CONTENTS: RefCell<BTreeMap<PathBuf, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

struct Disk {
    random: Random,
    /// The longest that a sync takes now, ms.
    sync_ms_max: u64,
}

/// Makes the disks of all hosts.
pub(super) fn make(count: usize, random: &mut Random) {
    DISKS.with_borrow_mut(|disks| {
        disks.clear();
        disks.extend(
            (0..count).map(|_| Disk { random: Random::new(random.next()), sync_ms_max: 2 }),
        );
    });
}

/// From now on a host's syncs take up to `ms_max`.
pub(super) fn set_speed(place: usize, ms_max: u64) {
    DISKS.with_borrow_mut(|disks| disks[place].sync_ms_max = ms_max);
}

/// How long the next sync takes.
pub(super) fn sync_delay(place: usize) -> Duration {
    DISKS.with_borrow_mut(|disks| {
        let disk = &mut disks[place];
        Duration::from_millis(disk.random.of(0..disk.sync_ms_max + 1))
    })
}

/// Everything written to a database so far is durable now.
pub(crate) fn synced(database: &Database) {
    if !super::active() {
        return;
    }
    let (path, last) = inspect::written(database);
    LENGTHS.with_borrow_mut(|lengths| {
        for (file, length) in wal_files(&path).expect("could not list a database") {
            lengths.insert(file, length);
        }
    });
    if let Some(last) = last {
        DURABLE.with_borrow_mut(|durable| durable.insert(path, last));
    }
}

/// A file that is written in place is durable now as it is.
pub(crate) fn file_synced(file: &File) {
    if super::active() {
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let path = path.expect("/proc tells the path of an open file");
        let content = fs::read(&path).expect("could not read a file");
        CONTENTS.with_borrow_mut(|contents| contents.insert(path, content));
    }
}

fn wal_files(database: &Path) -> io::Result<Vec<(PathBuf, usize)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let length = fs::metadata(&path)?.len() as usize;
            files.push((path, length));
        }
    }
    files.sort();
    Ok(files)
}

/// The last entry that was durable in a data directory at its last sync.
pub(super) fn durable(data_dir: &Path) -> Option<LogId> {
    DURABLE.with_borrow(|durable| durable.get(&data_dir.join("db")).copied())
}

/// Copies what a data directory of a host holds after a power cut. RocksDB goes on in the old one, and
/// nobody looks at it again.
pub(super) fn copy_after_power_cut(place: usize, from: &Path, to: &Path) -> io::Result<()> {
    DISKS.with_borrow_mut(|disks| copy(&mut disks[place].random, from, to))?;
    DURABLE.with_borrow_mut(|all| {
        if let Some(last) = all.remove(&from.join("db")) {
            all.insert(to.join("db"), last);
        }
    });
    Ok(())
}

fn copy(random: &mut Random, from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    // Older ones were handed over when this one was begun.
    let current_wal = wal_files(from)?.pop().map(|(path, _)| path);
    let mut entries = fs::read_dir(from)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let content = CONTENTS.with_borrow(|contents| contents.get(&old).cloned());
        if entry.file_type()?.is_dir() {
            copy(random, &old, &new)?;
        } else if current_wal.as_ref() == Some(&old) {
            let length = LENGTHS.with_borrow(|lengths| lengths.get(&old).copied());
            let mut left = fs::read(&old)?;
            cut(random, &mut left, length.unwrap_or(0));
            LENGTHS.with_borrow_mut(|lengths| lengths.insert(new.clone(), left.len()));
            fs::write(&new, left)?;
        } else if let Some(content) = content {
            let mut left = fs::read(&old)?;
            for (written, synced) in left.chunks_mut(SECTOR).zip(content.chunks(SECTOR)) {
                if written.len() == synced.len() && random.chance(50) {
                    written.copy_from_slice(synced);
                }
            }
            CONTENTS.with_borrow_mut(|contents| contents.insert(new.clone(), left.clone()));
            fs::write(&new, left)?;
        } else if name.ends_with(".sst") || name.ends_with(".snapshot") {
            // Finished files are never written again.
            fs::hard_link(&old, &new)?;
        } else if !name.starts_with("LOG") && name != "LOCK" {
            fs::copy(&old, &new)?;
        }
    }
    Ok(())
}

/// Loses some of what a file got after its first `synced` bytes.
fn cut(random: &mut Random, content: &mut Vec<u8>, synced: usize) {
    match random.of(0..4) {
        0 => content.truncate(synced),
        1 => {}
        2 => {
            let unsynced = content.len().saturating_sub(synced) as u64;
            content.truncate(synced + random.of(0..unsynced + 1) as usize);
        }
        _ => {
            // The file has its length, and some sectors don't have their bytes.
            let mut at = synced;
            while at < content.len() {
                let end = content.len().min((at / SECTOR + 1) * SECTOR);
                if random.chance(50) {
                    content[at..end].fill(0);
                }
                at = end;
            }
        }
    }
}
