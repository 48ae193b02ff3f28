//! Reads what `strace` saw, and checks that nothing was acknowledged before it was on the disk (INV-1).
//!
//! Every value that is written carries a marker of its own. In the trace of a node the marker is seen
//! in a write to the WAL, then an `fdatasync` of that file begins and ends with 0: from then on the
//! node has it. The marker in an acknowledgement must come after enough nodes have it. A traced process
//! goes on only after its tracer has noted the call, so what caused what is never noted the other way round.
//!
//! The crate of the store uses this file too; it needs nothing but the standard library.

use std::collections::{BTreeMap, BTreeSet};

/// Markers begin so. What follows, up to [`MARKER_LENGTH`], tells them apart.
pub const MARKER_PREFIX: &str = "mark-";
/// Length of every marker, so that none is the beginning of another.
pub const MARKER_LENGTH: usize = 16;

/// Returns the marker with this number.
pub fn marker(number: usize) -> String {
    format!("{MARKER_PREFIX}{number:0width$}", width = MARKER_LENGTH - MARKER_PREFIX.len())
}

/// What `strace` must be given to write a trace that can be read here; the traced command follows.
///
/// The traced process stays the child of whoever starts it (`-D`).
pub fn strace(trace: &std::path::Path, more: &[&str]) -> Vec<String> {
    let fixed = [
        "strace",
        "-D",
        "-f",
        "-q",
        "-y",
        "-ttt",
        "--seccomp-bpf",
        "-s",
        "1048576",
        "-e",
        "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fdatasync,fsync",
        "-e",
        "signal=kill",
        "-o",
    ];
    fixed
        .into_iter()
        .map(str::to_owned)
        .chain([trace.display().to_string()])
        .chain(more.iter().map(|argument| (*argument).to_owned()))
        .collect()
}

/// One system call.
#[derive(Debug)]
struct Call {
    name: String,
    /// What the descriptor is: a path, a socket, a pipe.
    target: String,
    arguments: String,
    /// Lines of the trace on which it began and ended.
    lines: (usize, usize),
    /// Microseconds since 1970 at which it began and ended.
    times: (u128, u128),
    /// What it returned; `None` where strace made that up instead of the kernel.
    result: Option<i64>,
}

/// What one node did.
#[derive(Debug, Default)]
pub struct Trace {
    calls: Vec<Call>,
}

impl Trace {
    /// Reads a trace; lines that don't belong to finished calls are passed over.
    pub fn parse(text: &str) -> Self {
        let mut open: BTreeMap<String, (String, usize, u128)> = BTreeMap::new();
        let mut calls = Vec::new();
        for (line, text) in text.lines().enumerate() {
            let mut words = text.trim_start().splitn(2, ' ');
            let (Some(thread), Some(rest)) = (words.next(), words.next()) else { continue };
            let mut words = rest.trim_start().splitn(2, ' ');
            let (Some(time), Some(rest)) = (words.next(), words.next()) else { continue };
            let Some(time) = microseconds(time) else { continue };
            if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
                open.insert(thread.to_owned(), (begun.trim_end().to_owned(), line, time));
            } else if let Some(resumed) = rest.strip_prefix("<... ") {
                let Some((begun, begun_line, begun_time)) = open.remove(thread) else { continue };
                let Some((_, tail)) = resumed.split_once(" resumed>") else { continue };
                let whole = begun + tail;
                calls.extend(call(&whole, (begun_line, line), (begun_time, time)));
            } else {
                calls.extend(call(rest, (line, line), (time, time)));
            }
        }
        Self { calls }
    }

    /// When this node had each marker on its disk.
    fn durable(&self) -> BTreeMap<&str, u128> {
        let mut durable = BTreeMap::new();
        // Markers by file that no sync has covered yet, with the line on which their write ended.
        let mut waiting: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut by_end: Vec<_> = self.calls.iter().collect();
        by_end.sort_by_key(|call| call.lines.1);
        for call in by_end {
            if call.writes() && call.is_wal() && call.result.is_some_and(|count| count > 0) {
                for marker in markers(&call.arguments) {
                    // The first is the log entry; applied rows repeat it.
                    if seen.insert(marker) {
                        waiting.entry(&call.target).or_default().push((marker, call.lines.1));
                    }
                }
            } else if call.syncs() && call.result == Some(0) {
                let Some(waiting) = waiting.get_mut(call.target.as_str()) else { continue };
                waiting.retain(|(marker, written)| {
                    let covered = *written < call.lines.0;
                    if covered {
                        durable.insert(*marker, call.times.1);
                    }
                    !covered
                });
            }
        }
        durable
    }

    /// When this node first sent each marker in what counts as an acknowledgement.
    fn acknowledged(&self, is_acknowledgement: fn(&str, &str) -> bool) -> BTreeMap<&str, u128> {
        let mut acknowledged = BTreeMap::new();
        for call in &self.calls {
            if call.writes() && is_acknowledgement(&call.target, &call.arguments) {
                for marker in markers(&call.arguments) {
                    acknowledged.entry(marker).or_insert(call.times.0);
                }
            }
        }
        acknowledged
    }
}

impl Call {
    fn writes(&self) -> bool {
        !self.syncs()
    }

    fn syncs(&self) -> bool {
        matches!(self.name.as_str(), "fdatasync" | "fsync")
    }

    fn is_wal(&self) -> bool {
        self.target.contains("/db/") && self.target.ends_with(".log")
    }
}

/// Checks that every acknowledged marker was on the disks of `quorum` nodes before. Returns how many
/// acknowledgements there were.
///
/// `is_acknowledgement` gets what was written to (`socket:[…]`, a path) and the bytes, as strace shows them.
///
/// # Errors
/// The acknowledgements that came too early.
pub fn check(
    nodes: &[Trace],
    quorum: usize,
    is_acknowledgement: fn(&str, &str) -> bool,
) -> Result<usize, Vec<String>> {
    let durable: Vec<_> = nodes.iter().map(Trace::durable).collect();
    let mut count = 0;
    let mut early = Vec::new();
    for (node, trace) in nodes.iter().enumerate() {
        for (marker, sent) in trace.acknowledged(is_acknowledgement) {
            count += 1;
            let when: Vec<_> = durable.iter().map(|node| node.get(marker).copied()).collect();
            let had = when.iter().flatten().filter(|when| **when <= sent).count();
            if had < quorum {
                early.push(format!(
                    "{marker}: node {node} acknowledged it at {sent} µs, when {had} of {quorum} nodes had it on \
                     disk; they had it at {when:?}"
                ));
            }
        }
    }
    if early.is_empty() { Ok(count) } else { Err(early) }
}

/// All markers in a text, each once.
fn markers(text: &str) -> BTreeSet<&str> {
    text.match_indices(MARKER_PREFIX)
        .filter_map(|(at, _)| text.get(at..at + MARKER_LENGTH))
        .filter(|marker| {
            let number = marker.strip_prefix(MARKER_PREFIX).unwrap_or_default();
            number.bytes().all(|byte| byte.is_ascii_digit())
        })
        .collect()
}

/// `name(fd<target>, arguments) = result`
fn call(text: &str, lines: (usize, usize), times: (u128, u128)) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (before, result) = rest.rsplit_once(" = ")?;
    let (_, target) = before.split_once('<')?;
    let (target, arguments) = target.split_once('>')?;
    let number = result.split(' ').next().and_then(|word| word.parse().ok());
    let result = if result.contains("(INJECTED)") { None } else { number };
    Some(Call {
        name: name.to_owned(),
        target: target.to_owned(),
        arguments: arguments.to_owned(),
        lines,
        times,
        result,
    })
}

fn microseconds(text: &str) -> Option<u128> {
    let (seconds, fraction) = text.split_once('.')?;
    let (seconds, fraction): (u128, u128) = (seconds.parse().ok()?, fraction.parse().ok()?);
    Some(seconds * 1_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAL: &str = "/data/db/000004.log";

    fn sent(target: &str, bytes: &str) -> bool {
        target.starts_with("socket:") && bytes.contains("HTTP/1.1 200")
    }

    fn verdict(lines: &[&str]) -> Result<usize, Vec<String>> {
        let text: String = lines
            .iter()
            .enumerate()
            .map(|(at, line)| {
                let line = line.replace("WAL", WAL).replace("MARK", &marker(7));
                let (thread, rest) = line.split_once(' ').expect("a thread");
                format!("{thread} 1700000000.{:06} {rest}\n", at + 1)
            })
            .collect();
        check(&[Trace::parse(&text)], 1, sent)
    }

    const WRITE: &str = r#"11 write(5<WAL>, "\1\2MARK\0", 90) = 90"#;
    const SYNC: &str = "11 fdatasync(5<WAL>) = 0";
    const ANSWER: &str = r#"12 writev(9<socket:[77]>, [{iov_base="HTTP/1.1 200 OK", iov_len=15}, {iov_base="MARK", iov_len=16}], 2) = 31"#;

    #[test]
    fn an_answer_after_the_sync_is_accepted() {
        assert_eq!(verdict(&[WRITE, SYNC, ANSWER]), Ok(1));
        let slow = [
            WRITE,
            "11 fdatasync(5<WAL> <unfinished ...>",
            "11 <... fdatasync resumed>) = 0",
            ANSWER,
        ];
        assert_eq!(verdict(&slow), Ok(1));
    }

    #[test]
    fn an_answer_before_the_end_of_a_sync_that_covers_it_is_found() {
        let found = |lines: &[&str]| assert!(verdict(lines).is_err(), "{lines:?}");
        found(&[WRITE, ANSWER, SYNC]);
        found(&[ANSWER, WRITE, SYNC]);
        found(&[SYNC, WRITE, ANSWER]);
        found(&[WRITE, ANSWER]);
        let begun = "11 fdatasync(5<WAL> <unfinished ...>";
        let ended = "11 <... fdatasync resumed>) = 0";
        found(&[WRITE, begun, ANSWER, ended]);
        // This sync began too early to cover the write.
        found(&[begun, &WRITE.replace("11 ", "13 "), ended, ANSWER]);
        found(&[WRITE, "11 fdatasync(5<WAL>) = -1 EIO (Input/output error)", ANSWER]);
        found(&[WRITE, "11 fdatasync(5<WAL>) = 0 (INJECTED)", ANSWER]);
        found(&[WRITE, "11 fdatasync(6</data/db/000009.sst>) = 0", ANSWER]);
    }

    #[test]
    fn a_quorum_must_have_it_and_not_just_one() {
        let at = |micros: u32, call: &str| {
            let (_, call) = call.split_once(' ').expect("a thread");
            format!("1 1700000000.{micros:06} {call}\n")
        };
        let node = |sync: bool| {
            let text = at(1, WRITE) + &if sync { at(2, SYNC) } else { String::new() };
            Trace::parse(&text.replace("WAL", WAL).replace("MARK", &marker(7)))
        };
        let answer = |node: &mut Trace| {
            let text = at(9, ANSWER).replace("MARK", &marker(7));
            node.calls.extend(Trace::parse(&text).calls);
        };
        let mut nodes = [node(true), node(true), node(false)];
        answer(&mut nodes[2]);
        assert_eq!(check(&nodes, 2, sent), Ok(1));
        let mut nodes = [node(true), node(false), node(false)];
        answer(&mut nodes[0]);
        let early = check(&nodes, 2, sent).expect_err("one node is no quorum");
        assert!(early[0].contains("when 1 of 2 nodes had it"), "{early:?}");
    }
}
