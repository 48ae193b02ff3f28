//! The directory of `dev`: marked as ours, locked by one process.
//!
//! ```text
//!   DIR/.peat-dev           the mark and the lock
//!   DIR/dev.json            ports and identities that a second run continues with
//!   DIR/tls/                authority, node certificates
//!   DIR/secrets/            key-encryption key, cluster token
//!   DIR/node-1/{data,pid,log} …
//!   DIR/mesh-node/{pid,log,credentials,…}
//!   DIR/sink/               what the file sink writes
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::DevError;

/// The file that says that a directory is ours, and that holds the lock.
const MARKER: &str = ".peat-dev";
/// What stands in it.
const MARKER_TEXT: &str =
    "made by `peat-gateway dev`; `--fresh` deletes everything in this directory\n";

/// The locked directory. The lock ends with the process, however it ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Opens or makes the directory, and empties it where `fresh` says so.
    ///
    /// # Errors
    /// Another `dev` runs on it, it holds something else, or the file system refuses.
    pub(super) fn open(path: &Path, fresh: bool) -> Result<Self, DevError> {
        let failed = |what: &str, source| DevError::Directory {
            path: path.to_owned(),
            action: what.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(|error| failed("create", error))?;
        // Children run elsewhere, so relative paths must not reach them.
        let path = path.canonicalize().map_err(|error| failed("open", error))?;
        let marker = path.join(MARKER);
        let has_marker = marker.exists();
        let mut entries = std::fs::read_dir(&path).map_err(|error| failed("read", error))?;
        if !has_marker && entries.next().is_some() {
            return Err(DevError::NotOurs { path });
        }
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&marker)
            .map_err(|error| failed("open", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DevError::InUse { path }),
            Err(TryLockError::Error(error)) => return Err(failed("lock", error)),
        }
        if !has_marker {
            std::fs::write(&marker, MARKER_TEXT).map_err(|error| failed("mark", error))?;
        }
        if fresh {
            empty(&path).map_err(|error| failed("empty", error))?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// The absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a subdirectory's path, made where it is missing, for the owner only.
    ///
    /// # Errors
    /// As the file system says.
    pub(super) fn subdirectory(&self, name: &str) -> Result<PathBuf, DevError> {
        let path = self.path.join(name);
        let made = std::fs::create_dir_all(&path)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)));
        made.map_err(|source| DevError::Directory {
            path: path.clone(),
            action: "create".into(),
            source,
        })?;
        Ok(path)
    }
}

/// Deletes everything but the mark, which holds the lock.
fn empty(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// As the file system says.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), DevError> {
    let failed =
        |source| DevError::Directory { path: path.to_owned(), action: "write".into(), source };
    let unfinished = path.with_extension("unfinished");
    // Left over from a crash, if it is there at all.
    drop(std::fs::remove_file(&unfinished));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(failed)?;
    io::Write::write_all(&mut file, content).map_err(failed)?;
    std::fs::rename(&unfinished, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::open(root.path(), false).unwrap();
        assert!(matches!(Directory::open(root.path(), true), Err(DevError::InUse { .. })));
        drop(first);
        Directory::open(root.path(), false).unwrap();
    }

    #[test]
    fn fresh_empties_only_a_directory_that_is_marked() {
        let root = tempfile::tempdir().unwrap();
        let strange = root.path().join("photos");
        std::fs::create_dir(&strange).unwrap();
        std::fs::write(strange.join("cat"), "").unwrap();
        assert!(matches!(Directory::open(&strange, true), Err(DevError::NotOurs { .. })));
        assert!(strange.join("cat").exists());

        let ours = root.path().join("ours");
        drop(Directory::open(&ours, false).unwrap());
        std::fs::create_dir(ours.join("node-1")).unwrap();
        std::fs::write(ours.join("node-1/log"), "x").unwrap();
        drop(Directory::open(&ours, false).unwrap());
        assert!(ours.join("node-1/log").exists(), "without --fresh everything stays");
        let _lock = Directory::open(&ours, true).unwrap();
        assert!(!ours.join("node-1").exists());
        assert!(matches!(Directory::open(&ours, true), Err(DevError::InUse { .. })));
    }

    #[test]
    fn private_files_are_for_the_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("kek");
        write_private(&path, b"1").unwrap();
        write_private(&path, b"2").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
