//! A file system per node, and its power plug: loop-mounted ext4 or xfs on a RAM-backed image.
//!
//! A cut is what a power cut is to the kernel: everything that was not synced is gone. First the
//! processes are frozen, so that none sees an error and reacts; then the file system is shut down
//! without flushing its log; then the processes are killed and the file system is mounted again,
//! which replays its journal. It does not model a drive that lies about a flush.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system.
pub struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// Kinds of file systems that gateways are run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// xfs.
    Xfs,
}

/// Size of one image, MiB.
const IMAGE_MIB: u64 = 768;

/// Whether this machine lets us mount; the reason where it doesn't.
pub fn available(kind: FileSystem) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("loop mounts need root".into());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there is no /dev/loop-control".into());
    }
    let probe = tempfile::tempdir().map_err(|error| error.to_string())?;
    let disk = Disk::make(probe.path(), "probe", kind)?;
    drop(disk);
    Ok(())
}

impl Disk {
    /// Makes an image in RAM, a file system on it, and mounts it under `root`.
    pub fn make(root: &Path, name: &str, kind: FileSystem) -> Result<Self, String> {
        Self::make_sized(root, name, kind, IMAGE_MIB)
    }

    /// The same with a size of its own, MiB.
    pub fn make_sized(root: &Path, name: &str, kind: FileSystem, mib: u64) -> Result<Self, String> {
        let unique = format!("peat-gateway-test-{}-{name}.img", std::process::id());
        let image = Path::new("/dev/shm").join(unique);
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(mib << 20).map_err(|error| error.to_string())?;
        let mount = root.join(name);
        std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        let disk = Self { image, mount };
        match kind {
            FileSystem::Ext4 => run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image))?,
            FileSystem::Xfs => run(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(&disk.image))?,
        }
        disk.mount()?;
        Ok(disk)
    }

    /// Mounts it (again).
    pub fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    /// The cut: nothing that is not on the image by now will ever be.
    pub fn cut(&self) -> Result<(), String> {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.mount))
    }

    /// Writes a file of no use until this many MiB are free, as another user of the disk would.
    pub fn fill_up_to(&self, free_mib: u64) {
        let space = rustix::fs::statvfs(&self.mount).expect("the file system answers");
        let free = space.f_bavail * space.f_frsize;
        let wanted = free.saturating_sub(free_mib << 20);
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.filler())
            .expect("the filler can be made");
        let begin = file.metadata().expect("the filler is there").len();
        let flags = rustix::fs::FallocateFlags::empty();
        let filled = rustix::fs::fallocate(&file, flags, begin, wanted.max(1));
        assert!(filled.is_ok() || free_mib == 0, "the disk can be filled: {filled:?}");
        if free_mib == 0 {
            self.fill_the_rest(&file);
        }
    }

    /// Takes what is left, block by block: a large reservation fails as a whole.
    fn fill_the_rest(&self, mut file: &std::fs::File) {
        use std::io::Write;
        for bytes in [1 << 20, 64 << 10, 4 << 10] {
            let chunk = vec![0; bytes];
            while file.write_all(&chunk).is_ok() {}
        }
    }

    /// Removes what [`Self::fill_up_to`] wrote.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the filler can be removed");
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Unmounts it.
    pub fn unmount(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.mount))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount().ok();
        std::fs::remove_file(&self.image).ok();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
