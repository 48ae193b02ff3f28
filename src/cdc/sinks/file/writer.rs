//! Appends lines to the newest file of an epoch, durably.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use peat_gateway_state::ids::Epoch;
use thiserror::Error;

/// A file that would grow beyond this is left, and the next one begun.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// How much is read at a time in search of the last line's end.
const TAIL_STEP_BYTES: u64 = 64 << 10;

/// Lines could not be written durably.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    /// The file system refused.
    #[error("could not {action} {path}: {reason}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or directory.
        path: String,
        /// Why.
        reason: io::Error,
    },
    /// Another sink of this organisation has the same name.
    #[error("could not use {path}: another sink writes to it; give one of them another name")]
    InUse {
        /// Which file.
        path: String,
    },
}

/// Makes a file's data durable; `fdatasync` outside tests.
type Sync = Box<dyn FnMut(&File) -> io::Result<()> + Send>;

/// The writer of one epoch in one directory.
pub(crate) struct Writer {
    directory: PathBuf,
    epoch: Epoch,
    /// Number of the file to write to; `None` until the directory was looked at.
    number: Option<u64>,
    open: Option<Open>,
    file_bytes_max: u64,
    sync: Sync,
}

/// The file that is written to.
struct Open {
    file: File,
    path: PathBuf,
    /// Bytes of whole lines.
    bytes: u64,
}

impl Writer {
    /// Builds a writer that opens its file at the first append.
    pub(crate) fn new(directory: PathBuf, epoch: Epoch) -> Self {
        Self {
            directory,
            epoch,
            number: None,
            open: None,
            file_bytes_max: FILE_BYTES_MAX,
            sync: Box::new(File::sync_data),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_sync(mut self, sync: Sync) -> Self {
        self.sync = sync;
        self
    }

    #[cfg(test)]
    pub(crate) fn with_file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = bytes;
        self
    }

    /// Appends whole lines and syncs them.
    ///
    /// After a failure the file is left for a new one: once a sync has failed, a later one that
    /// succeeds says nothing about the data before it.
    ///
    /// # Errors
    /// The lines count as not written.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        let is_over = |open: &Open| open.bytes + lines.len() as u64 > self.file_bytes_max;
        if self.open.as_ref().is_some_and(|open| open.bytes > 0 && is_over(open)) {
            self.leave_file();
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open_file()?,
        };
        let written = open.file.write_all(lines).map_err(|e| failed("write to", &open.path, e));
        let synced = written
            .and_then(|()| (self.sync)(&open.file).map_err(|e| failed("sync", &open.path, e)));
        if let Err(error) = synced {
            // Best effort: without it readers see an unfinished line, or lines that come again.
            if let Err(reason) = open.file.set_len(open.bytes) {
                let path = open.path.display();
                tracing::warn!(%path, %reason, "could not cut off a failed write");
            }
            self.leave_file();
            return Err(error);
        }
        open.bytes += lines.len() as u64;
        self.open = Some(open);
        Ok(())
    }

    /// Goes on with the next file.
    fn leave_file(&mut self) {
        self.open = None;
        self.number = self.number.map(|number| number + 1);
    }

    fn open_file(&mut self) -> Result<Open, WriteError> {
        create_directory(&self.directory)?;
        let number = match self.number {
            Some(number) => number,
            None => self.look_around()?,
        };
        let path = self.directory.join(file_name(self.epoch, number));
        let is_new = !path.exists();
        let file = open_for_append(&path, true)?;
        lock(&file, &path)?;
        let bytes =
            cut_torn_tail(&file).map_err(|e| failed("cut the torn last line of", &path, e))?;
        if is_new {
            sync_directory(&self.directory)?;
        }
        self.number = Some(number);
        Ok(Open { file, path, bytes })
    }

    /// Finds the newest file of this epoch, and cuts torn lines that crashed leaders left.
    fn look_around(&self) -> Result<u64, WriteError> {
        let listing = |error| failed("list", &self.directory, error);
        let mut newest = 0;
        for entry in std::fs::read_dir(&self.directory).map_err(listing)? {
            let entry = entry.map_err(listing)?;
            match entry.file_name().to_str().and_then(parse_file_name) {
                Some((epoch, number)) if epoch == self.epoch => newest = newest.max(number),
                Some((epoch, _)) if epoch < self.epoch => cut_left_behind(&entry.path())?,
                _ => {}
            }
        }
        Ok(newest)
    }
}

/// Cuts the torn last line of an earlier epoch's file, unless somebody still writes to it.
fn cut_left_behind(path: &Path) -> Result<(), WriteError> {
    let file = open_for_append(path, false)?;
    match lock(&file, path) {
        Ok(()) => {
            let cut = cut_torn_tail(&file);
            cut.map(drop).map_err(|error| failed("cut the torn last line of", path, error))
        }
        Err(WriteError::InUse { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Cuts what follows the last line break; returns the bytes that are left.
fn cut_torn_tail(mut file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut step = Vec::new();
    let whole = loop {
        if end == 0 {
            break 0;
        }
        let start = end.saturating_sub(TAIL_STEP_BYTES);
        step.clear();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut step)?;
        if let Some(at) = step.iter().rposition(|byte| *byte == b'\n') {
            break start + at as u64 + 1;
        }
        end = start;
    };
    if whole < length {
        file.set_len(whole)?;
        file.sync_data()?;
    }
    Ok(whole)
}

fn open_for_append(path: &Path, create: bool) -> Result<File, WriteError> {
    let opened = OpenOptions::new().read(true).append(true).create(create).open(path);
    opened.map_err(|error| failed("open", path, error))
}

/// Takes the file for this writer until it is closed; a crash frees it.
fn lock(file: &File, path: &Path) -> Result<(), WriteError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => WriteError::InUse { path: path.display().to_string() },
        TryLockError::Error(reason) => failed("lock", path, reason),
    })
}

/// Creates a directory with its parents, each made durable in its own parent.
fn create_directory(directory: &Path) -> Result<(), WriteError> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_directory(parent)?;
    }
    match std::fs::create_dir(directory) {
        Ok(()) => sync_directory(parent.unwrap_or_else(|| Path::new("."))),
        // Another sink of this node was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("create", directory, error)),
    }
}

fn sync_directory(directory: &Path) -> Result<(), WriteError> {
    let synced = File::open(directory).and_then(|open| open.sync_all());
    synced.map_err(|error| failed("sync", directory, error))
}

/// `<epoch>.ndjson`, later `<epoch>-<number>.ndjson`; sorts by epoch.
pub(crate) fn file_name(epoch: Epoch, number: u64) -> String {
    match number {
        0 => format!("{:020}.ndjson", epoch.0),
        _ => format!("{:020}-{number}.ndjson", epoch.0),
    }
}

/// The reverse of [`file_name`]; `None` for files of others.
pub(crate) fn parse_file_name(name: &str) -> Option<(Epoch, u64)> {
    let stem = name.strip_suffix(".ndjson")?;
    let (epoch, number) = stem.split_once('-').unwrap_or((stem, "0"));
    Some((Epoch(epoch.parse().ok()?), number.parse().ok()?))
}

fn failed(action: &'static str, path: &Path, reason: io::Error) -> WriteError {
    WriteError::Io { action, path: path.display().to_string(), reason }
}
