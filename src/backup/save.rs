//! One snapshot: written aside, read back, named, and the old ones removed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use peat_gateway_cluster::backup::{self, SnapshotError};
use peat_gateway_state::ids::NodeId;
use tokio_util::sync::CancellationToken;

use super::publish;
use crate::service::cluster::WriteSnapshot;

/// Bytes between two looks at the free space and at whether the node stops.
const CHECK_BYTES: usize = 8 << 20;
/// Free bytes that a snapshot leaves on the disk that the data directory is on: what the node needs to
/// go on comes first.
const FREE_BYTES_MIN: u64 = 512 << 20;
const EXTENSION: &str = "snapshot";

/// What is to be saved, and where.
pub(super) struct Job {
    pub(super) directory: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) cluster_id: [u8; 16],
    pub(super) node_id: NodeId,
    pub(super) index: u64,
    /// How many of this node's are kept, the new one included.
    pub(super) keep: usize,
    /// Gives the snapshot up.
    pub(super) stop: CancellationToken,
    pub(super) write: WriteSnapshot,
}

/// A snapshot that was saved.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Old snapshots that were removed.
    pub(super) removed: usize,
}

impl Job {
    /// Saves it. The error says what to do.
    pub(super) fn save(self) -> Result<Saved, String> {
        let directory = self.directory.clone();
        let failed = |error: io::Error| refused(&directory, &error);
        fs::create_dir_all(&directory).map_err(failed)?;
        let path = directory.join(self.name());
        let part = directory.join(format!(".{}.part", self.name()));
        let own = OwnFiles::of(&self);
        own.remove_parts()?;
        let keep = self.keep;
        if path.exists() {
            // Nothing was written since: the newest snapshot is still one of now.
            let touched = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            touched.map_err(failed)?;
        } else {
            let written = self.write_and_check(&part);
            let published = written.and_then(|()| publish(&part, &path).map_err(failed));
            if let Err(reason) = published {
                drop(fs::remove_file(&part));
                return Err(reason);
            }
        }
        let bytes = fs::metadata(&path).map_err(failed)?.len();
        // Only now, when a newer one is whole.
        let removed = own.remove_oldest(keep)?;
        Ok(Saved { path, bytes, removed })
    }

    /// `peat-<cluster>-<index>-<node>.snapshot`: sorts by index.
    fn name(&self) -> String {
        let (prefix, suffix) = self.pattern();
        format!("{prefix}{:020}{suffix}", self.index)
    }

    /// What the names of this node's snapshots of this cluster begin and end with.
    fn pattern(&self) -> (String, String) {
        let cluster: String = hex::encode(self.cluster_id).chars().take(8).collect();
        (format!("peat-{cluster}-"), format!("-{}.{EXTENSION}", self.node_id))
    }

    fn write_and_check(self, part: &Path) -> Result<(), String> {
        let failed = |error: io::Error| refused(&self.directory, &error);
        let file = File::create(part).map_err(failed)?;
        let shares_disk = shares_disk(&self.directory, &self.data_dir);
        let guarded = Guarded { file, shares_disk, unchecked: CHECK_BYTES, stop: &self.stop };
        let mut to = BufWriter::with_capacity(256 << 10, guarded);
        let written = (self.write)(&mut to);
        let (guarded, rest) = to.into_parts();
        drop(rest);
        if let Err(SnapshotError::Failed(reason) | SnapshotError::Refused(reason)) = written {
            return Err(advise(&self.directory, &reason));
        }
        guarded.file.sync_all().map_err(failed)?;
        drop(guarded);
        let inspection = backup::inspect(part, &mut |_| {}).map_err(|error| {
            format!("the snapshot that was just written can't be read back: {error}")
        })?;
        if inspection.applied_index != self.index {
            return Err(
                "the snapshot that was just written is another one; is the directory shared \
                        with a node of the same id?"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// When this node's newest snapshot of this cluster was saved.
pub(super) fn newest(job: &Job) -> Option<SystemTime> {
    let newest = OwnFiles::of(job).list().ok()?.pop()?;
    fs::metadata(newest).ok()?.modified().ok()
}

/// Seconds since 1970.
pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The files of one node and cluster in a directory that others may use too.
struct OwnFiles {
    directory: PathBuf,
    prefix: String,
    suffix: String,
}

impl OwnFiles {
    fn of(job: &Job) -> Self {
        let (prefix, suffix) = job.pattern();
        Self { directory: job.directory.clone(), prefix, suffix }
    }

    fn names(&self, prefix: &str, suffix: &str) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix)) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// All snapshots, the oldest first.
    fn list(&self) -> io::Result<Vec<PathBuf>> {
        self.names(&self.prefix, &self.suffix)
    }

    /// Removes what attempts that were cut off left.
    fn remove_parts(&self) -> Result<(), String> {
        let failed = |error: io::Error| refused(&self.directory, &error);
        let (prefix, suffix) = (format!(".{}", self.prefix), format!("{}.part", self.suffix));
        for path in self.names(&prefix, &suffix).map_err(failed)? {
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes all but the newest `keep`; returns how many.
    fn remove_oldest(&self, keep: usize) -> Result<usize, String> {
        let failed = |error: io::Error| refused(&self.directory, &error);
        let all = self.list().map_err(failed)?;
        let old = all.len().saturating_sub(keep);
        for path in all.iter().take(old) {
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(old)
    }
}

/// Whether two places fill the same disk.
fn shares_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    device(one).is_some() && device(one) == device(other)
}

/// A file that stops growing before the node's own disk is full, and when the node stops.
struct Guarded<'s> {
    file: File,
    shares_disk: bool,
    /// Bytes written since the last look.
    unchecked: usize,
    stop: &'s CancellationToken,
}

impl Write for Guarded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unchecked >= CHECK_BYTES {
            self.unchecked = 0;
            if self.stop.is_cancelled() {
                return Err(io::Error::other("the node is stopping"));
            }
            if self.shares_disk {
                let disk = rustix::fs::fstatvfs(&self.file)?;
                if disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_BYTES_MIN {
                    return Err(io::Error::from(io::ErrorKind::StorageFull));
                }
            }
        }
        let count = self.file.write(bytes)?;
        self.unchecked += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn refused(directory: &Path, error: &io::Error) -> String {
    advise(directory, &error.to_string())
}

/// Says what to do about a directory that refuses.
fn advise(directory: &Path, reason: &str) -> String {
    let full =
        ["No space left", "no storage space", "os error 28", "Quota exceeded", "quota exceeded"];
    if full.iter().any(|sign| reason.contains(sign)) {
        return format!(
            "{} is full, or would leave its disk without room for the node ({reason}): free space, keep \
             fewer (PEAT_BACKUP_KEEP), or name another place (PEAT_BACKUP_DIR)",
            directory.display()
        );
    }
    format!("{reason}; check {} and its permissions", directory.display())
}
