//! A file system per node, and its power plug: loop-mounted ext4 on a RAM-backed image.
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

/// Size of one image, MiB.
const IMAGE_MIB: u64 = 768;

/// Whether this machine lets us mount; the reason where it doesn't.
pub fn available() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("loop mounts need root".into());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there is no /dev/loop-control".into());
    }
    let probe = tempfile::tempdir().map_err(|error| error.to_string())?;
    let disk = Disk::make(probe.path(), "probe")?;
    drop(disk);
    Ok(())
}

impl Disk {
    /// Makes an image in RAM, a file system on it, and mounts it under `root`.
    pub fn make(root: &Path, name: &str) -> Result<Self, String> {
        let unique = format!("peat-gateway-test-{}-{name}.img", std::process::id());
        let image = Path::new("/dev/shm").join(unique);
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(IMAGE_MIB << 20).map_err(|error| error.to_string())?;
        let mount = root.join(name);
        std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        let disk = Self { image, mount };
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image))?;
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
