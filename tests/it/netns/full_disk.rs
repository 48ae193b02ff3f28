//! A node whose disk is really full.

use super::{LIMIT, finish, scenario};
use crate::support::cluster::Cluster;
use crate::support::disks::{self, Disk, FileSystem};
use crate::support::not_run;
use crate::support::random::Random;
use crate::support::registers::Registers;

/// Size of the disk that fills up, MiB: room for a write-ahead log, and little more.
const SMALL_DISK_MIB: u64 = 768;

#[test]
fn node_whose_disk_is_full_ends_cleanly_and_comes_back_when_it_is_not() {
    let test = "node_whose_disk_is_full_ends_cleanly_and_comes_back_when_it_is_not";
    if let Err(reason) = disks::available(FileSystem::Ext4) {
        not_run(test, &reason);
        return;
    }
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        let root = tempfile::tempdir().expect("a temporary directory");
        let disk = Disk::make_sized(root.path(), "small", FileSystem::Ext4, SMALL_DISK_MIB);
        let disk = disk.expect("a small disk");
        let full = random.between(0, 3) as usize;
        let mut cluster = Cluster::prepare_in(&network);
        cluster.nodes[full].place(disk.mount.join("data"));
        // Nothing warns and nothing is held back: the disk is really full.
        cluster.set("PEAT_DISK_FREE_MIB_MIN", "0");
        cluster.start_all();
        cluster.wait_ready().await;
        let registers = Registers::start(&cluster, &mut random).await;
        registers.progress(50, LIMIT).await;
        disk.fill_up_to(0);
        // What it has reserved ahead lasts for a while; a restart asks for new files at once.
        cluster.nodes[full].kill();
        cluster.nodes[full].start();
        let status = cluster.nodes[full].wait_exit(LIMIT).await;
        let said = cluster.nodes[full].log_tail();
        assert!(matches!(status.code(), Some(1 | 70)), "{status:?}\n{said}");
        assert!(said.contains("the disk is full: free some space"), "{said}");
        registers.progress(50, LIMIT).await;
        disk.free();
        cluster.nodes[full].start();
        cluster.wait_ready().await;
        registers.progress(50, LIMIT).await;
        finish(&cluster, registers).await;
        // The disk is unmounted after the process that uses it.
        drop(cluster);
        drop(disk);
    });
}
