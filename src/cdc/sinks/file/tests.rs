//! Tests of the file sink.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use peat_gateway_state::ids::{AppId, DocumentKey, Epoch, Hash32, OrgId};
use tempfile::TempDir;

use super::writer::{Writer, file_name, parse_file_name};
use super::{Delivery, Destination, FileDestination};
use crate::cdc::tests::{Received, Target, check_contract};

/// All whole lines of a directory, file by file in the order in which they were begun.
pub(crate) fn read_lines(directory: &Path) -> Vec<Received> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some((parse_file_name(path.file_name()?.to_str()?)?, path)))
        .collect();
    files.sort();
    let mut lines = Vec::new();
    for (_, path) in files {
        let text = fs::read(path).unwrap();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let whole = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.extend(whole.map(Received::parse));
    }
    lines
}

struct Files(TempDir);

impl Target for Files {
    fn destination(&self, epoch: Epoch) -> Arc<dyn Destination> {
        let org = OrgId::from_trusted("acme");
        Arc::new(FileDestination::new(self.0.path(), &org, "all", epoch).unwrap())
    }

    fn received(&self) -> BoxFuture<'_, Vec<Received>> {
        async { read_lines(&self.0.path().join("acme/all")) }.boxed()
    }
}

#[tokio::test]
async fn file_sink_honours_the_contract() {
    check_contract("file", async || Files(tempfile::tempdir().unwrap())).await;
}

fn delivery(sequence: u64) -> Delivery {
    Delivery {
        sequence,
        event_id: Hash32([sequence as u8; 32]),
        app: AppId::from_trusted("alpha"),
        document: DocumentKey::from_trusted("a:1"),
        observed_at: 0,
        body: format!("{{\"n\":{sequence}}}").into(),
    }
}

fn writer(directory: &TempDir, epoch: u64) -> Writer {
    Writer::new(directory.path().join("acme/all"), Epoch(epoch))
}

fn path(directory: &TempDir, epoch: u64, number: u64) -> PathBuf {
    directory.path().join("acme/all").join(file_name(Epoch(epoch), number))
}

#[test]
fn torn_last_lines_are_cut_and_whole_ones_survive() {
    let directory = tempfile::tempdir().unwrap();
    writer(&directory, 5).append(b"one\ntwo\n").unwrap();
    writer(&directory, 6).append(b"three\n").unwrap();
    for (epoch, whole) in [(5, "one\ntwo\n"), (6, "three\n")] {
        let torn = format!("{whole}{}", "x".repeat(200_000));
        fs::write(path(&directory, epoch, 0), torn).unwrap();
    }
    writer(&directory, 6).append(b"four\n").unwrap();
    assert_eq!(fs::read(path(&directory, 6, 0)).unwrap(), b"three\nfour\n");
    assert_eq!(fs::read(path(&directory, 5, 0)).unwrap(), b"one\ntwo\n", "an earlier epoch's too");
    fs::write(path(&directory, 6, 0), "no line at all").unwrap();
    writer(&directory, 6).append(b"five\n").unwrap();
    assert_eq!(fs::read(path(&directory, 6, 0)).unwrap(), b"five\n");
}

#[test]
fn file_that_another_writer_holds_is_neither_cut_nor_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = writer(&directory, 5);
    first.append(b"one\n").unwrap();
    let refused = writer(&directory, 5).append(b"two\n").unwrap_err();
    assert!(refused.to_string().contains("another sink writes to it"), "{refused}");
    // A deposed leader in the middle of a line, as a shared directory shows it.
    fs::write(path(&directory, 5, 0), "one\nhalf").unwrap();
    writer(&directory, 6).append(b"three\n").unwrap();
    assert_eq!(fs::read(path(&directory, 5, 0)).unwrap(), b"one\nhalf");
}

#[test]
fn full_file_is_left_for_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(&directory, 5).with_file_bytes_max(10);
    for line in ["12345\n", "1234567890123\n", "1\n", "2\n"] {
        writer.append(line.as_bytes()).unwrap();
    }
    let read = |number| fs::read_to_string(path(&directory, 5, number)).unwrap();
    assert_eq!([read(0), read(1), read(2)], ["12345\n", "1234567890123\n", "1\n2\n"]);
    drop(writer);
    self::writer(&directory, 5).append(b"3\n").unwrap();
    assert_eq!(read(2), "1\n2\n3\n", "a reopened epoch goes on with its newest file");
}

#[test]
fn failed_sync_leaves_the_file_and_its_lines_count_as_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&fails);
    let mut writer = writer(&directory, 5).with_sync(Box::new(move |file| {
        if asked.swap(false, Ordering::SeqCst) {
            return Err(std::io::Error::other("injected"));
        }
        file.sync_data()
    }));
    writer.append(b"one\n").unwrap();
    fails.store(true, Ordering::SeqCst);
    writer.append(b"two\n").unwrap_err();
    writer.append(b"two\n").unwrap();
    assert_eq!(fs::read(path(&directory, 5, 0)).unwrap(), b"one\n");
    assert_eq!(fs::read(path(&directory, 5, 1)).unwrap(), b"two\n", "never the doubtful file");
}

#[tokio::test]
async fn batch_is_acknowledged_only_after_its_sync() {
    let directory = tempfile::tempdir().unwrap();
    let (reached, at_sync) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let file = path(&directory, 5, 0);
    let syncs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&syncs);
    let writer = writer(&directory, 5).with_sync(Box::new(move |open| {
        reached.send(fs::read(&file).unwrap()).unwrap();
        released.recv().unwrap();
        count.fetch_add(1, Ordering::SeqCst);
        open.sync_data()
    }));
    let destination = Arc::new(FileDestination::over(writer));
    let delivering =
        tokio::spawn(async move { destination.deliver(&[delivery(1), delivery(2)]).await });
    let written = tokio::task::spawn_blocking(move || at_sync.recv().unwrap()).await.unwrap();
    assert_eq!(written, b"{\"n\":1}\n{\"n\":2}\n", "written before the sync");
    assert!(!delivering.is_finished(), "not acknowledged before the sync");
    release.send(()).unwrap();
    delivering.await.unwrap().unwrap();
    assert_eq!(syncs.load(Ordering::SeqCst), 1);
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let org = OrgId::from_trusted("acme");
    for name in ["..", "a/b", "", "a.b", "/tmp"] {
        assert!(FileDestination::new(Path::new("/x"), &org, name, Epoch(1)).is_err(), "{name}");
    }
}
