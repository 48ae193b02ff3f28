//! The data directory: whose it is, which format it has, and that one process uses it.
//!
//! ```text
//!  LOCK         held by the process that uses the directory
//!  FORMAT       "peat-gateway data directory", format number
//!  synced       what must be in the WAL after a crash, see `synced`
//!  db/          RocksDB
//!  snapshots/   snapshots on their way between nodes; removed at start
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::StartError;

/// The format that this build writes.
pub(super) const FORMAT: u32 = 1;
/// The first line of `FORMAT`.
const TITLE: &str = "peat-gateway data directory";
/// What may stand in a directory that is new to us: a volume's own directory, and our lock.
const IGNORED: [&str; 2] = ["lost+found", "LOCK"];

/// Paths of a data directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

/// Keeps other processes out until it is dropped, or the process ends however it does.
pub(super) struct DirectoryLock {
    _file: File,
}

impl Directory {
    /// Creates the directory where it is missing.
    pub(super) fn create(root: &Path) -> Result<Self, StartError> {
        let directory = Self { root: root.to_owned() };
        directory
            .check(fs::create_dir_all(root), "create it; give the process write access")
            .map(|()| directory)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.root.join("db")
    }

    pub(super) fn synced(&self) -> PathBuf {
        self.root.join("synced")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Takes the lock.
    pub(super) fn lock(&self) -> Result<DirectoryLock, StartError> {
        let path = self.root.join("LOCK");
        let opened =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = self.check(opened, "open LOCK; give the process write access")?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DirectoryLock { _file: file }),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(self.refuse(
                "another process uses it; stop that process or choose another directory".to_owned(),
            )),
            Err(error) => Err(self.refuse(format!("could not lock it: {error}"))),
        }
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
                let text = format!("{TITLE}\nformat {FORMAT}\n");
                self.check(self.write_durably(&path, text.as_bytes()), "write FORMAT")
            }
            Err(error) => Err(self.refuse(format!("could not read FORMAT: {error}"))),
        }
    }

    fn read_format(&self, text: &str) -> Result<(), StartError> {
        let mut lines = text.lines();
        let title = lines.next();
        let format = lines.next().and_then(|line| line.strip_prefix("format "));
        match (title, format.and_then(|number| number.parse::<u32>().ok())) {
            (Some(TITLE), Some(FORMAT)) => Ok(()),
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

    fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory(&self.root)
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
        result.map_err(|error| self.refuse(format!("could not {doing}: {error}")))
    }

    /// Builds the error that names the directory.
    pub(super) fn refuse(&self, reason: String) -> StartError {
        StartError::DataDirectory { path: self.root.display().to_string(), reason }
    }
}

/// Makes a directory's names durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
