//! How much space the data directory's file system has, and the ballast that is given up before it is gone.
//!
//! A full disk must not take away what a node needs to come back from it. So writes are refused early, and
//! a file of no use holds some space back: when the disk fills up all the same, removing it leaves room
//! for the log while the node drains.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::directory::Directory;

/// The space of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still use.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// What free space means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpaceLimits {
    /// Below this many free bytes, writes are refused.
    pub low_bytes: u64,
    /// From this many on, they are taken again.
    pub clear_bytes: u64,
    /// Below this many, the ballast is given up.
    pub critical_bytes: u64,
    /// The size of the ballast.
    pub ballast_bytes: u64,
}

impl SpaceLimits {
    /// The limits on a file system of this size: the lower one of `bytes_max` and `percent` of it.
    pub(crate) fn of(total_bytes: u64, bytes_max: u64, percent: u64, ballast_max: u64) -> Self {
        let share = u64::try_from(u128::from(total_bytes) * u128::from(percent) / 100);
        let low_bytes = bytes_max.min(share.unwrap_or(u64::MAX));
        Self {
            low_bytes,
            // Not at once again: what makes room frees it in steps.
            clear_bytes: low_bytes + low_bytes / 8,
            critical_bytes: low_bytes / 4,
            // Giving it up must not look like space: a quarter and a half are below the limit.
            ballast_bytes: ballast_max.min(low_bytes / 2),
        }
    }
}

/// Asks how much space there is.
///
/// # Errors
/// What the system says.
pub(crate) fn measure(path: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Space {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

impl Directory {
    /// Makes the ballast, if it isn't there.
    ///
    /// # Errors
    /// The file system is full, or can't reserve space.
    pub(crate) fn take_ballast(&self, bytes: u64) -> io::Result<()> {
        let path = self.ballast();
        if bytes == 0 || fs::metadata(&path).is_ok_and(|found| found.len() >= bytes) {
            return Ok(());
        }
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        let reserved = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes);
        if let Err(error) = reserved {
            // Half a ballast is no use, and takes space.
            fs::remove_file(&path)?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Gives the ballast up; returns whether there was one.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn drop_ballast(&self) -> io::Result<bool> {
        match fs::remove_file(self.ballast()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Before the database is opened: a disk that is full gives up the ballast, so that the node starts.
    pub(super) fn make_room(&self) {
        let Ok(ballast) = fs::metadata(self.ballast()) else { return };
        let root = self.root();
        if measure(root).is_ok_and(|space| space.free_bytes < ballast.len())
            && let Ok(true) = self.drop_ballast()
        {
            tracing::warn!("the disk is full: the ballast is given up");
        }
    }
}

/// Whether a failure is a full disk, by its text: RocksDB gives no more.
pub(super) fn is_full(failure: &str) -> bool {
    failure.contains("No space left on device") || failure.contains("Disk quota exceeded")
}

/// What to do about a full disk.
pub(super) const MAKE_ROOM: &str = "the disk is full: free some space and start the node again; nothing \
                                    that was acknowledged is lost";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_file_system_up_to_the_configured_bytes() {
        let small = SpaceLimits::of(768 << 20, 512 << 20, 5, 32 << 20);
        assert_eq!((small.low_bytes >> 20, small.ballast_bytes >> 20), (38, 19));
        let large = SpaceLimits::of(1 << 40, 512 << 20, 5, 32 << 20);
        assert_eq!((large.low_bytes >> 20, large.ballast_bytes >> 20), (512, 32));
        for limits in [small, large] {
            assert!(limits.critical_bytes + limits.ballast_bytes < limits.low_bytes);
            assert!(limits.low_bytes < limits.clear_bytes);
        }
        let off = SpaceLimits::of(1 << 40, 0, 5, 32 << 20);
        assert_eq!((off.low_bytes, off.ballast_bytes), (0, 0));
    }

    #[test]
    fn ballast_holds_space_until_it_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::create(root.path()).unwrap();
        directory.take_ballast(1 << 20).unwrap();
        directory.take_ballast(1 << 20).unwrap();
        assert_eq!(fs::metadata(directory.ballast()).unwrap().len(), 1 << 20);
        assert!(directory.drop_ballast().unwrap());
        assert!(!directory.drop_ballast().unwrap());
        assert!(measure(root.path()).unwrap().total_bytes > 0);
    }
}
