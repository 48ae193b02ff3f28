//! The data directory: whose it is, which format it has, and that one process uses it.
//!
//! ```text
//!  LOCK         held by the process that uses the directory
//!  FORMAT       "peat-gateway data directory", format number, the cluster's version from 2 on
//!  synced       what must be in the WAL after a crash, see `synced`
//!  db/          RocksDB
//!  ballast      space that is given up when the disk is full, see `space`
//!  OUT-OF-SERVICE  why this directory must never be used again, see `quarantine`
//!  snapshots/   snapshots on their way between nodes; removed at start
//!  REMOVED      says that its node was removed from the cluster: never used again
//!  UNFINISHED   a restore or a recovery is under way, or was interrupted; see `restore::place`
//!  RETIRED      a recovery has put this directory aside; it is never opened again
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use peat_gateway_state::VERSION;
use peat_gateway_state::command::FIRST_VERSION;
use rustix::fs::FlockOperation;

use super::space::{MAKE_ROOM, is_full};
use super::steps::step;
use crate::error::StartError;

/// How long a start waits for the lock: a process that is just ending holds it a moment longer, and so does
/// a child that it has begun to make. Then the directory is somebody else's.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two tries for the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// The format of a directory of a cluster of version 1: builds from before there were versions read it.
const FORMAT_FIRST: u32 = 1;
/// The format from version 2 on: those builds refuse it. The version stands in the next line.
const FORMAT: u32 = 2;
/// The first line of `FORMAT`.
const TITLE: &str = "peat-gateway data directory";
/// What may stand in a directory that is new to us: a volume's own directory, our lock, and the FORMAT file of
/// a first start that was killed before it had its name.
const IGNORED: [&str; 3] = ["lost+found", "LOCK", "FORMAT.tmp"];
/// Says that a restore or a recovery has not ended: its verb, then how far it is.
pub(super) const UNFINISHED: &str = "UNFINISHED";
/// Says that a directory was put aside, and why.
pub(super) const RETIRED: &str = "RETIRED";

/// Paths of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    root: PathBuf,
}

/// Keeps other processes out until it is dropped, or the process ends however it does.
pub(crate) struct DirectoryLock {
    _file: File,
}

impl Directory {
    /// Creates the directory where it is missing.
    pub(crate) fn create(root: &Path) -> Result<Self, StartError> {
        let directory = Self { root: root.to_owned() };
        directory
            .check(fs::create_dir_all(root), "create it; give the process write access")
            .map(|()| directory)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn database(&self) -> PathBuf {
        self.root.join("db")
    }

    pub(super) fn synced(&self) -> PathBuf {
        self.root.join("synced")
    }

    pub(super) fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    pub(super) fn out_of_service(&self) -> PathBuf {
        self.root.join("OUT-OF-SERVICE")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Takes the lock; waits a moment for a process that is just ending.
    pub(crate) fn lock(&self) -> Result<DirectoryLock, StartError> {
        let path = self.root.join("LOCK");
        let opened =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = self.check(opened, "open LOCK; give the process write access")?;
        let end = Instant::now() + LOCK_PATIENCE;
        let locked = loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(error) if error == rustix::io::Errno::WOULDBLOCK && Instant::now() < end => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                other => break other,
            }
        };
        match locked {
            Ok(()) => Ok(DirectoryLock { _file: file }),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(self.refuse(
                "another process uses it; stop that process or choose another directory".to_owned(),
            )),
            Err(error) => Err(self.refuse(format!("could not lock it: {error}"))),
        }
    }

    /// Refuses a directory in which a restore or a recovery was interrupted, and one that was put
    /// aside: neither may ever run as a node.
    pub(super) fn check_finished(&self) -> Result<(), StartError> {
        self.check_not_retired()?;
        let Some(text) = self.read_note(UNFINISHED)? else { return Ok(()) };
        Err(self.refuse(match text.lines().next() {
            Some("recover") => "a recovery of it was interrupted; run `peat-gateway cluster \
                 recover` on it again to the end"
                .to_owned(),
            _ => "a restore into it was interrupted; run `peat-gateway snapshot restore` on it again \
                 to the end"
                .to_owned(),
        }))
    }

    /// Refuses a directory that was put aside.
    pub(crate) fn check_not_retired(&self) -> Result<(), StartError> {
        let Some(text) = self.read_note(RETIRED)? else { return Ok(()) };
        let text = text.trim();
        Err(self.refuse(format!("{text}; delete it when nothing in it is needed any more")))
    }

    /// Refuses a directory that isn't a node's, or of a format that this build doesn't read.
    pub(crate) fn check_ours(&self) -> Result<(), StartError> {
        match self.read_note("FORMAT")? {
            Some(text) => self.read_format(&text),
            None => Err(self.refuse("it is no data directory of a node".to_owned())),
        }
    }

    /// The text of a note beside the data; `None` where there is none.
    pub(super) fn read_note(&self, name: &str) -> Result<Option<String>, StartError> {
        match fs::read_to_string(self.root.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.refuse(format!("could not read {name}: {error}"))),
        }
    }

    /// Marks the directory as ours, and of a cluster of this version.
    pub(super) fn write_format(&self, version: u16) -> Result<(), StartError> {
        self.write_note("FORMAT", &format_text(version))
    }

    /// Writes a note beside the data, durably.
    pub(super) fn write_note(&self, name: &str, text: &str) -> Result<(), StartError> {
        let written = self.write_durably(&self.root.join(name), text.as_bytes());
        self.check(written, &format!("write {name}"))
    }

    /// Checks that the directory is ours and of a format that this build reads; a new one is marked.
    pub(super) fn check_format(&self) -> Result<(), StartError> {
        let path = self.root.join("FORMAT");
        match fs::read_to_string(&path) {
            Ok(text) => self.read_format(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let entries = self.check(fs::read_dir(&self.root), "list it")?;
                for entry in entries {
                    let name = self.check(entry, "list it")?.file_name();
                    if !IGNORED.iter().any(|ignored| name == *ignored) {
                        return Err(self.refuse(format!(
                            "it holds {}, but nothing says that it is a peat-gateway data \
                             directory; choose an empty one",
                            name.display()
                        )));
                    }
                }
                self.write_format(FIRST_VERSION)
            }
            Err(error) => Err(self.refuse(format!("could not read FORMAT: {error}"))),
        }
    }

    /// Refuses a directory whose node was removed.
    pub(super) fn check_not_removed(&self) -> Result<(), StartError> {
        match fs::read_to_string(self.root.join("REMOVED")) {
            Ok(text) => Err(StartError::Removed {
                path: self.root.display().to_string(),
                reason: text.trim().to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.refuse(format!("could not read REMOVED: {error}"))),
        }
    }

    /// Marks the directory as one whose node was removed; durable when it returns.
    pub(super) fn mark_removed(&self, reason: &str) -> io::Result<()> {
        self.write_durably(&self.root.join("REMOVED"), reason.as_bytes())
    }

    fn read_format(&self, text: &str) -> Result<(), StartError> {
        let mut lines = text.lines();
        let title = lines.next();
        let mut number = |name: &str| {
            lines.next().and_then(|line| line.strip_prefix(name)).and_then(|text| text.parse().ok())
        };
        match (title, number("format ")) {
            (Some(TITLE), Some(FORMAT_FIRST)) => Ok(()),
            (Some(TITLE), Some(FORMAT)) => match number("cluster version ") {
                Some(version) => self.check_version(version),
                None => Err(self.refuse("its FORMAT file lacks the cluster's version".to_owned())),
            },
            (Some(TITLE), Some(newer)) if newer > FORMAT => Err(self.refuse(format!(
                "its format is {newer}, this version of peat-gateway reads up to {FORMAT}; start \
                 the newer version that wrote it"
            ))),
            _ => Err(self.refuse(
                "its FORMAT file is not one that peat-gateway wrote; choose another directory"
                    .to_owned(),
            )),
        }
    }

    /// Refuses a directory of a cluster that this build is too old for.
    pub(super) fn check_version(&self, version: u32) -> Result<(), StartError> {
        if version <= u32::from(VERSION) {
            return Ok(());
        }
        Err(self.refuse(format!(
            "its cluster has version {version}, this build understands up to {VERSION}; start the \
             newer build that ran here. Once a cluster's version is raised there is no way back to \
             an older build, but for a restore of a backup that was made before"
        )))
    }

    /// Notes the cluster's version where builds too old for it look before anything else. Durable when
    /// it returns.
    pub(super) fn mark_version(&self, version: u16) -> io::Result<()> {
        let path = self.root.join("FORMAT");
        // Never back: after a crash the state may lag behind what was noted.
        if marked_version(&fs::read_to_string(&path)?) >= version {
            return Ok(());
        }
        self.write_durably(&path, format_text(version).as_bytes())
    }

    pub(super) fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        step!(FormatTemporary);
        fs::rename(&temporary, path)?;
        step!(FormatRenamed);
        sync_directory(&self.root)?;
        step!(FormatWritten);
        Ok(())
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync(&self) -> Result<(), StartError> {
        self.check(sync_directory(&self.root), "sync it")
    }

    /// Turns a failure into one that names the directory.
    pub(super) fn check<T, E: std::fmt::Display>(
        &self,
        result: Result<T, E>,
        doing: &str,
    ) -> Result<T, StartError> {
        result.map_err(|error| {
            let reason = format!("could not {doing}: {error}");
            self.refuse(if is_full(&reason) { format!("{reason}; {MAKE_ROOM}") } else { reason })
        })
    }

    /// Builds the error that names the directory.
    pub(crate) fn refuse(&self, reason: String) -> StartError {
        StartError::DataDirectory { path: self.root.display().to_string(), reason }
    }
}

/// What FORMAT holds in a cluster of this version.
fn format_text(version: u16) -> String {
    match version {
        ..=FIRST_VERSION => format!("{TITLE}\nformat {FORMAT_FIRST}\n"),
        _ => format!("{TITLE}\nformat {FORMAT}\ncluster version {version}\n"),
    }
}

/// The cluster's version that a FORMAT file notes.
fn marked_version(text: &str) -> u16 {
    let noted = text.lines().nth(2).and_then(|line| line.strip_prefix("cluster version "));
    noted.and_then(|number| number.parse().ok()).unwrap_or(FIRST_VERSION)
}

/// Makes a directory's names durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
