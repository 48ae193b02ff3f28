//! Saving by schedule, over a real node's state and real files.

use std::path::Path;
use std::time::Duration;

use peat_gateway_cluster::config::Timing;
use peat_gateway_cluster::{ClusterConfig, Handle, Leadership, Node, WriteLimits, backup};
use tokio_util::sync::CancellationToken;

use super::save::{Job, newest};
use crate::service::cluster::WriteSnapshot;

/// A cluster of one, with a state worth saving.
async fn node(folder: &Path) -> Node {
    drop(rustls::crypto::ring::default_provider().install_default());
    let node = Node::start(ClusterConfig {
        data_dir: folder.join("data"),
        name: "one".into(),
        peer_bind: None,
        peer_address: String::new(),
        http_address: "http://127.0.0.1:1".into(),
        initial_peers: Vec::new(),
        cluster_token: String::new(),
        peer_tls: None,
        membership: peat_gateway_cluster::MembershipConfig::default(),
        timing: Timing::default(),
        writes: WriteLimits::default(),
    })
    .await
    .unwrap();
    let handle = node.handle();
    let mut leadership = handle.leadership();
    let leads = leadership.wait_for(|part| matches!(part, Leadership::Leader { .. }));
    tokio::time::timeout(Duration::from_secs(30), leads).await.unwrap().unwrap();
    node
}

fn job(handle: &Handle, folder: &Path, keep: usize) -> Job {
    let view = handle.local_view();
    let index = view.applied_index();
    let writer = handle.clone();
    let write: WriteSnapshot = Box::new(move |to| writer.write_snapshot(&view, to));
    Job {
        directory: folder.join("backups"),
        data_dir: folder.join("data"),
        cluster_id: handle.cluster_id().unwrap(),
        node_id: handle.node_id(),
        index,
        keep,
        stop: CancellationToken::new(),
        write,
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("backups")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_snapshot_is_whole_and_only_the_oldest_of_the_same_node_go() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path()).await;
    let handle = node.handle();
    let backups = folder.path().join("backups");
    std::fs::create_dir_all(&backups).unwrap();
    // Older ones of this node, one of another node, one of another cluster, one that was cut off.
    let cluster: String = hex::encode(handle.cluster_id().unwrap()).chars().take(8).collect();
    let own = format!("-{}.snapshot", handle.node_id());
    let old: Vec<_> = (0..2).map(|index| format!("peat-{cluster}-{index:020}{own}")).collect();
    let others = [
        format!("peat-{cluster}-{:020}-00000000000000aa.snapshot", 1),
        format!("peat-00000000-{:020}{own}", 1),
        "notes.txt".to_owned(),
    ];
    for name in old.iter().chain(&others) {
        std::fs::write(backups.join(name), "x").unwrap();
    }
    std::fs::write(backups.join(format!(".peat-{cluster}-{:020}{own}.part", 9)), "x").unwrap();

    let job = job(&handle, folder.path(), 1);
    let index = job.index;
    let saved = job.save().unwrap();
    assert_eq!(saved.removed, 2);
    let inspection = backup::inspect(&saved.path, &mut |_| {}).unwrap();
    assert_eq!(inspection.applied_index, index);
    assert_eq!(inspection.bytes, saved.bytes);
    let name = saved.path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut expected = vec![name];
    expected.extend(others);
    expected.sort();
    assert_eq!(names(folder.path()), expected);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_the_same_index_is_not_written_again_but_counts_as_new() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path()).await;
    let handle = node.handle();
    let first = job(&handle, folder.path(), 2);
    let index = first.index;
    let saved = first.save().unwrap();
    let file = std::fs::File::options().write(true).open(&saved.path).unwrap();
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
    file.set_modified(long_ago).unwrap();
    let mut again = job(&handle, folder.path(), 2);
    again.index = index;
    assert_eq!(newest(&again), Some(long_ago));
    again.write = Box::new(|_| panic!("it is there already"));
    assert_eq!(again.save().unwrap().path, saved.path);
    assert!(newest(&job(&handle, folder.path(), 2)).unwrap() > long_ago);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_fails_leaves_the_old_ones_and_nothing_of_itself() {
    use backup::SnapshotError::Failed;
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path()).await;
    let handle = node.handle();
    let backups = folder.path().join("backups");
    std::fs::create_dir_all(&backups).unwrap();
    let cluster: String = hex::encode(handle.cluster_id().unwrap()).chars().take(8).collect();
    let old = format!("peat-{cluster}-{:020}-{}.snapshot", 0, handle.node_id());
    std::fs::write(backups.join(&old), "x").unwrap();
    let attempt = |write: WriteSnapshot| {
        let mut job = job(&handle, folder.path(), 1);
        job.write = write;
        let reason = job.save().unwrap_err();
        assert_eq!(names(folder.path()), std::slice::from_ref(&old));
        reason
    };
    let full = attempt(Box::new(|_| {
        Err(Failed("could not write the stream: No space left on device (os error 28)".into()))
    }));
    assert!(full.contains("PEAT_BACKUP_KEEP") && full.contains("backups"), "{full}");
    let cut = attempt(Box::new(|to| {
        to.write_all(&[7; 200_000]).unwrap();
        Ok(())
    }));
    assert!(cut.contains("can't be read back"), "{cut}");
    let mut stopped = job(&handle, folder.path(), 1);
    stopped.stop.cancel();
    stopped.write =
        Box::new(|to| to.write_all(&vec![7; 9 << 20]).map_err(|error| Failed(error.to_string())));
    assert!(stopped.save().unwrap_err().contains("stopping"));
    let mut nowhere = job(&handle, folder.path(), 1);
    nowhere.directory = folder.path().join("backups").join(&old).join("below-a-file");
    assert!(nowhere.save().unwrap_err().contains("permissions"));
    node.stop().await;
}
