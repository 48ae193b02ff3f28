//! Snapshots of running nodes, restored into new clusters; clusters that lost their quorum, recovered.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peat_gateway_cluster::backup::{
    Inspection, Made, NewCluster, Operator, RecoverOptions, SnapshotError, inspect, inspect_stream,
    recover, restore, survey,
};
use peat_gateway_cluster::{Consistency, Handle, Leadership, Node};
use peat_gateway_state::apply::restore::RAISE;
use peat_gateway_state::ids::Epoch;
use peat_gateway_state::query;
use peat_gateway_state::record::AuditAction;
use support::{Cluster, TIMEOUT, at_least, config, free_addresses, has, wait, write};
use tempfile::TempDir;

fn operator() -> Operator {
    Operator { user: "tester".into(), host: "here".into() }
}

/// Saves what a node has into a file.
fn save(handle: &Handle, path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    handle.write_snapshot(&handle.local_view(), &mut bytes).unwrap();
    fs::write(path, &bytes).unwrap();
    bytes
}

fn restored(file: &Path, data_dir: &Path) -> NewCluster {
    match restore(file, data_dir, &operator(), &mut |_| {}).unwrap() {
        Made::New(new) => new,
        Made::Completed => panic!("nothing was to be completed"),
    }
}

fn refused(result: Result<Made, SnapshotError>) -> String {
    match result {
        Err(SnapshotError::Refused(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// Starts the only node of a new cluster.
async fn start(data_dir: &Path) -> Node {
    let address = free_addresses(1).remove(0);
    let mut configured = config(data_dir, &address, &[]);
    configured.name = "restored".into();
    Node::start(configured).await.unwrap()
}

async fn leads(handle: &Handle) -> Epoch {
    wait("the new node leads", || match *handle.leadership().borrow() {
        Leadership::Leader { epoch, .. } => Ok(epoch),
        Leadership::Follower => Err("it doesn't"),
    })
    .await
}

/// A cluster of three with organisations `a-0` to `a-9`, and a snapshot of a follower.
async fn saved() -> (Cluster, TempDir, PathBuf, Inspection) {
    let cluster = Cluster::of_three().await;
    for number in 0..10 {
        write(&cluster.handle(number % 3), &format!("a-{number}")).await.unwrap();
    }
    cluster.wait_agreement().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.snapshot");
    save(&cluster.handle(cluster.follower().await), &file);
    let inspection = inspect(&file, &mut |_| {}).unwrap();
    (cluster, folder, file, inspection)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_snapshot_is_what_the_node_had_and_says_so() {
    let (cluster, _folder, file, inspection) = saved().await;
    let status = cluster.handle(0).local_status();
    assert_eq!(inspection.cluster_id, cluster.handle(0).cluster_id());
    assert_eq!(inspection.applied_index, status.applied_index);
    assert_eq!(Some(inspection.state_hash), status.state_hash);
    assert_eq!(inspection.members.len(), 3);
    assert!(inspection.members.iter().all(|member| member.voter));
    assert!(inspection.command_version.is_some());
    assert_eq!(inspection.bytes, fs::metadata(&file).unwrap().len());
    let rows: u64 = inspection.spaces.iter().map(|space| space.rows).sum();
    assert_eq!(rows, inspection.rows);
    let organizations = inspection.spaces.iter().find(|space| space.space == "organization");
    assert_eq!(organizations.unwrap().rows, 10);
    // A reader that goes away is told by an error, and a later snapshot is whole again.
    let handle = cluster.handle(0);
    let refused = handle.write_snapshot(&handle.local_view(), &mut Full(1 << 10));
    assert!(matches!(refused, Err(SnapshotError::Failed(_))), "{refused:?}");
    save(&handle, &file);
    assert!(inspect(&file, &mut |_| {}).is_ok());
}

/// Takes so many bytes.
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_node_leads_a_new_cluster_with_all_data_and_higher_numbers() {
    let (cluster, folder, file, inspection) = saved().await;
    let old_epoch = leads(&cluster.handle(cluster.leader().await)).await;
    // What comes after the snapshot is not in it.
    write(&cluster.handle(0), "later").await.unwrap();
    let data_dir = folder.path().join("new");
    let new = restored(&file, &data_dir);
    assert_eq!(Some(new.from_cluster), inspection.cluster_id);
    assert_eq!(new.index, inspection.applied_index + RAISE);
    assert_eq!(new.rows, inspection.rows);

    let mut node = start(&data_dir).await;
    for round in 0..2 {
        let handle = node.handle();
        assert_eq!((handle.cluster_id(), handle.node_id()), (Some(new.cluster_id), new.node_id));
        assert_ne!(handle.cluster_id(), cluster.handle(0).cluster_id());
        let epoch = leads(&handle).await;
        assert!(epoch.0 > old_epoch.0 + RAISE);
        wait("it is ready", || handle.ready()).await;
        let view = handle.read(Consistency::default(), TIMEOUT).await.unwrap();
        for number in 0..10 {
            assert!(has(&view, &format!("a-{number}")), "a-{number}");
        }
        assert!(!has(&view, "later"));
        let settings = query::settings(&view).unwrap().unwrap();
        assert_eq!((settings.cluster_id, settings.seal_domain), (new.cluster_id, [1; 16]));
        let audit = query::audit_entries(&view, None, None, 20).unwrap();
        let entry = audit.iter().find(|e| e.action == AuditAction::RestoreCluster).unwrap();
        assert_eq!(entry.actor.principal, "operator:tester");
        assert!(entry.target.ends_with("by snapshot a.snapshot"), "{}", entry.target);
        let members = handle.members(TIMEOUT).await;
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].name, "restored");
        let written = write(&handle, &format!("new-{round}")).await.unwrap();
        assert!(written.index > new.index);
        drop(view);
        // What the membership says is what a node that joins would be told.
        let again = folder.path().join("again.snapshot");
        save(&handle, &again);
        let member = inspect(&again, &mut |_| {}).unwrap().members.remove(0);
        assert_eq!((member.node_id, member.name.as_str()), (new.node_id, "restored"));
        assert!(member.peer_address.starts_with("127.0.0.1:"), "{}", member.peer_address);
        drop(handle);
        node.stop().await;
        node = start(&data_dir).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_restored_cluster_is_restored_again() {
    let (_cluster, folder, file, inspection) = saved().await;
    let first_dir = folder.path().join("first");
    let first = restored(&file, &first_dir);
    let node = start(&first_dir).await;
    leads(&node.handle()).await;
    let second_file = folder.path().join("second.snapshot");
    save(&node.handle(), &second_file);
    node.stop().await;
    let second_inspection = inspect(&second_file, &mut |_| {}).unwrap();
    let origin = second_inspection.origin.unwrap();
    assert_eq!((origin.cluster_id, origin.index), (first.from_cluster, inspection.applied_index));
    assert_eq!(origin.state_hash, inspection.state_hash);
    let second = restored(&second_file, &folder.path().join("second"));
    assert_eq!(second.from_cluster, first.cluster_id);
    assert!(second.index > first.index + RAISE);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_cut_foreign_and_newer_files_are_refused_and_nothing_is_made() {
    let (_cluster, folder, file, _) = saved().await;
    let bytes = fs::read(&file).unwrap();
    let data_dir = folder.path().join("new");
    let attempt = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let reason = refused(restore(&path, &data_dir, &operator(), &mut |_| {}));
        assert!(!data_dir.exists(), "{name}: something was made");
        assert!(inspect_stream(bytes, &mut |_| {}).is_err());
        reason
    };
    assert!(attempt("empty", b"").contains("damaged"));
    assert!(attempt("cut", &bytes[..bytes.len() - 1]).contains("damaged"));
    assert!(attempt("longer", &[&bytes[..], b"x"].concat()).contains("bytes follow its end"));
    assert!(attempt("text", &vec![b'x'; 200_000]).contains("no snapshot of peat-gateway"));
    let mut flipped = bytes.clone();
    flipped[(128 << 10) + 700] ^= 4;
    assert!(attempt("flipped", &flipped).contains("damaged"));
    // A header whose length leads out of its region.
    let mut long = bytes.clone();
    long[8] = 0xff;
    assert!(attempt("long-header", &long).contains("damaged"));
    // The format is the header's first field: tag 08, then the number.
    let mut newer = bytes;
    assert_eq!(newer[12], 0x08);
    newer[13] = 9;
    let length = u32::from_be_bytes(newer[8..12].try_into().unwrap()) as usize;
    let checksum = crc32c(&newer[..12 + length]).to_be_bytes();
    newer[12 + length..16 + length].copy_from_slice(&checksum);
    assert!(attempt("newer", &newer).contains("format is 9"));
    let missing = restore(&folder.path().join("none"), &data_dir, &operator(), &mut |_| {});
    assert!(refused(missing).contains("none"));
}

/// CRC-32C, bit by bit: written apart from what the store uses.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_data_or_with_a_process_on_it_is_refused() {
    let (cluster, folder, file, _) = saved().await;
    let used = cluster.configs[0].data_dir.clone();
    let reason = refused(restore(&file, &used, &operator(), &mut |_| {}));
    assert!(reason.contains("another process uses it"), "{reason}");
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letters.txt"), "mine").unwrap();
    let reason = refused(restore(&file, &full, &operator(), &mut |_| {}));
    assert!(reason.contains("letters.txt"), "{reason}");
    // The key of a cluster of one may lie there already.
    let prepared = folder.path().join("prepared");
    fs::create_dir(&prepared).unwrap();
    fs::write(prepared.join("kek"), "key").unwrap();
    restored(&file, &prepared);
    let reason = refused(restore(&file, &prepared, &operator(), &mut |_| {}));
    assert!(reason.contains("it holds"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_node_is_recovered_and_its_old_data_never_runs_again() {
    let (mut cluster, _folder, _, _) = saved().await;
    let last = cluster.handle(2);
    cluster.wait_agreement().await;
    let before = last.local_status();
    let old_cluster = last.cluster_id().unwrap();
    drop(last);
    let data_dir = cluster.configs[2].data_dir.clone();
    let options = |accepted: &str| RecoverOptions {
        keep_unconfirmed: true,
        from_snapshot: None,
        accepted: accepted.to_owned(),
    };
    let in_use = refused(recover(&data_dir, &options("00000000"), &operator(), &mut |_| {}));
    assert!(in_use.contains("another process uses it"), "{in_use}");
    for place in [2, 0, 1] {
        cluster.stop(place).await;
    }

    let found = wait("the directory is free", || survey(&data_dir, true)).await;
    assert_eq!((found.cluster_id, found.node_id), (old_cluster, before.node_id));
    assert!(found.kept_index >= before.applied_index);
    assert_eq!((found.members.len(), found.lost_entries), (3, 0));
    let typed = found.kept_hash.to_string();
    for wrong in ["", "0", typed.get(..7).unwrap(), "ffffffffffff"] {
        let reason = refused(recover(&data_dir, &options(wrong), &operator(), &mut |_| {}));
        assert!(reason.contains("beginning of the state's hash"), "{reason}");
    }
    // Until now nothing was changed.
    assert_eq!(survey(&data_dir, true).unwrap().kept_hash, found.kept_hash);
    let made =
        recover(&data_dir, &options(typed.get(..12).unwrap()), &operator(), &mut |_| {}).unwrap();
    let Made::New(new) = made else { panic!("{made:?}") };
    let retired = new.retired.clone().unwrap();

    let node = start(&data_dir).await;
    let handle = node.handle();
    assert_ne!(handle.cluster_id(), Some(old_cluster));
    assert_ne!(handle.node_id(), before.node_id);
    assert!(leads(&handle).await.0 > RAISE);
    let view = handle.read(Consistency::default(), TIMEOUT).await.unwrap();
    for number in 0..10 {
        assert!(has(&view, &format!("a-{number}")), "a-{number}");
    }
    let entry = query::audit_entries(&view, None, None, 20).unwrap();
    let entry = entry.iter().find(|e| e.action == AuditAction::RestoreCluster).unwrap();
    assert!(entry.target.contains("by the disk of node"), "{}", entry.target);
    drop((view, handle));
    node.stop().await;

    // Neither as a node nor as a source.
    let address = free_addresses(1).remove(0);
    let error = Node::start(config(&retired, &address, &[])).await.err().unwrap().to_string();
    assert!(error.contains("must never run again"), "{error}");
    let error = survey(&retired, false).unwrap_err().to_string();
    assert!(error.contains("must never run again"), "{error}");
    // The new cluster can lose its quorum too.
    let again = wait("the directory is free", || survey(&data_dir, false)).await;
    assert_eq!(again.cluster_id, new.cluster_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_unknown_fate_are_listed_and_kept_only_on_demand() {
    let (mut cluster, _folder, _, _) = saved().await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    for place in &others {
        cluster.stop(*place).await;
    }
    // Without a quorum nothing is acknowledged any more; what is logged here may still be kept.
    let handle = cluster.handle(leader);
    let unknown = support::create("unknown");
    assert!(handle.propose(&unknown, Duration::from_secs(1)).await.is_err());
    drop(handle);
    cluster.stop(leader).await;
    let data_dir = cluster.configs[leader].data_dir.clone();
    let careful = wait("the directory is free", || survey(&data_dir, false)).await;
    let discarded = careful.pending.iter().filter(|entry| !entry.kept).count();
    let bold = survey(&data_dir, true).unwrap();
    assert_eq!(bold.pending.iter().filter(|entry| !entry.kept).count(), 0);
    assert_eq!(bold.kept_index, bold.last_log_index);
    if discarded > 0 {
        let what: Vec<_> = careful.pending.iter().map(|entry| entry.what.as_str()).collect();
        assert!(what.iter().any(|what| what.starts_with("CreateOrganization by")), "{what:?}");
        assert_ne!(careful.kept_hash, bold.kept_hash, "what is typed must tell them apart");
    } else {
        // The leader noticed the loss first and logged nothing: then there is nothing to lose.
        assert_eq!(careful.kept_hash, bold.kept_hash);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_read_is_recovered_from_a_snapshot() {
    let (mut cluster, folder, file, inspection) = saved().await;
    for place in 0..3 {
        cluster.stop(place).await;
    }
    let data_dir = cluster.configs[1].data_dir.clone();
    wait("the directory is free", || survey(&data_dir, false)).await;
    let current = data_dir.join("db/CURRENT");
    fs::OpenOptions::new().write(true).open(&current).unwrap().write_all_at(b"X", 0).unwrap();
    let error = survey(&data_dir, false).unwrap_err().to_string();
    assert!(error.contains("snapshot"), "{error}");
    let options = RecoverOptions {
        keep_unconfirmed: false,
        from_snapshot: Some(file),
        accepted: inspection.state_hash.to_string().get(..8).unwrap().to_owned(),
    };
    let made = recover(&data_dir, &options, &operator(), &mut |_| {}).unwrap();
    let Made::New(new) = made else { panic!("{made:?}") };
    assert!(new.retired.unwrap().join("db/CURRENT").exists());
    let node = start(&data_dir).await;
    leads(&node.handle()).await;
    let view = node.handle().read(at_least(new.index), TIMEOUT).await.unwrap();
    assert!(has(&view, "a-9"));
    drop(view);
    node.stop().await;
    drop(folder);
}
