//! The order of the store's system calls, as the kernel saw them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::EntryPayload;

use super::{append, open};
use crate::raft::{Entry, LogCommand};
use crate::store::steps::{FAULT, is_planted};
use crate::wire::stored::log_id;

#[expect(unreachable_pub, reason = "the tests of the whole gateway use this file too")]
#[path = "../../../../tests/it/support/trace.rs"]
mod trace;

/// Names the data directory to the child.
const CHILD: &str = "PEAT_STORE_TEST_TRACED_DIRECTORY";
const ENTRIES: usize = 40;
/// Answers before the sync. It syncs a while later, so that the answer is seen by then.
const FAULT_NAME: &str = "AcknowledgesFirst";
/// Time between two entries of the faulty child: the late sync of one must not cover the next.
const APART: Duration = Duration::from_millis(60);

#[tokio::test]
async fn an_append_is_answered_only_after_fdatasync_and_a_planted_fault_is_found() {
    if let Ok(data) = std::env::var(CHILD) {
        return acknowledge(Path::new(&data)).await;
    }
    match traced(None) {
        None => {}
        Some(checked) => {
            assert_eq!(checked, Ok(ENTRIES));
            let early = traced(Some(FAULT_NAME)).unwrap().expect_err("the planted fault");
            assert!(early.len() > ENTRIES / 2, "{} of {ENTRIES}: {early:?}", early.len());
        }
    }
}

/// Appends entry by entry, and says so after each.
async fn acknowledge(data: &Path) {
    let store = open(data);
    for number in 0..ENTRIES {
        let marker = trace::marker(number);
        // Twice, so that a block boundary of the WAL never cuts both.
        let envelope = Bytes::from(format!("{marker} and again {marker}"));
        let payload = EntryPayload::Normal(LogCommand { time_ms: 1, envelope });
        append(&mut store.log(), [Entry { log_id: log_id(1, number as u64), payload }]).await;
        let line = format!("acknowledged {marker}\n");
        std::io::Write::write_all(&mut std::io::stdout().lock(), line.as_bytes()).unwrap();
        if is_planted(FAULT_NAME) {
            tokio::time::sleep(APART).await;
        }
    }
}

/// Runs the child under a tracer; `None` where that isn't possible on this machine.
fn traced(fault: Option<&str>) -> Option<Result<usize, Vec<String>>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace");
    let strace = trace::strace(&path, &[]);
    let possible = Command::new(&strace[0]).args(&strace[1..]).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT RUN on this machine: the trace of the store (strace can't trace here)");
        return None;
    }
    let mut command = Command::new(&strace[0]);
    command
        .args(&strace[1..])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::traced::an_append_is_answered_only_after_fdatasync_and_a_planted_fault_is_found",
            "--nocapture",
        ])
        .env(CHILD, directory.path().join("data"))
        .env_remove(FAULT)
        .stdout(Stdio::piped());
    if let Some(fault) = fault {
        command.env(FAULT, fault);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The tracer ends a little after what it traced.
    let end = Instant::now() + Duration::from_secs(30);
    let text = loop {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        if text.ends_with("+++ exited with 0 +++\n") {
            break text;
        }
        assert!(Instant::now() < end, "the trace has no end");
        std::thread::sleep(Duration::from_millis(20));
    };
    let is_acknowledgement = |target: &str, bytes: &str| {
        target.starts_with("pipe:") && bytes.contains("acknowledged mark-")
    };
    Some(trace::check(&[trace::Trace::parse(&text)], 1, is_acknowledgement))
}
