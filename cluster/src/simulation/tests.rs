//! Seeds, each in a process of its own: what one run leaves behind in a process, such as the state of
//! `select!`'s generator, can't reach the next.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bugs::Bug;
use super::faults::Fault;
use super::run::run;

/// Seeds that the test command runs; `PEAT_TEST_SIM_SEEDS=N` runs others, `PEAT_TEST_SEED=N` one.
const SEEDS: u64 = 300;
/// Processes at a time.
const PARALLEL: usize = 2;
/// A seed takes seconds; one that takes this long hangs.
const SEED_TIMEOUT: Duration = Duration::from_secs(180);
/// The test that children run.
const CHILD: &str = "simulation::tests::every_invariant_holds_in_every_seed";
/// What a child is told.
const CHILD_SEED: &str = "PEAT_SIMULATION_SEED";
const CHILD_BUG: &str = "PEAT_SIMULATION_BUG";
const CHILD_TRACE: &str = "PEAT_SIMULATION_TRACE";
/// What a child's lines begin with.
const REPORT: &str = "simulation:";

/// The processors are for one test at a time.
static BUSY: Mutex<()> = Mutex::new(());

/// A seed's outcome, as its process told it.
#[derive(Clone, Debug, Default)]
struct Outcome {
    seed: u64,
    trace_hash: String,
    violated: Option<String>,
    counts: BTreeMap<String, u64>,
    /// Everything that the process said, where it didn't end well.
    said: String,
}

#[test]
fn every_invariant_holds_in_every_seed() {
    if let Ok(seed) = std::env::var(CHILD_SEED) {
        return one_seed(seed.parse().unwrap());
    }
    let _busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    let one = number("PEAT_TEST_SEED");
    let seeds: Vec<u64> = match one {
        Some(seed) => vec![seed],
        None => (1..=number("PEAT_TEST_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let begin = Instant::now();
    let outcomes = run_all(&seeds, None, one.is_some());
    let violated: Vec<&Outcome> =
        outcomes.iter().filter(|outcome| outcome.violated.is_some()).collect();
    for outcome in &violated {
        eprintln!("{}\n{}", outcome.said, repeat(outcome.seed));
    }
    let mut counts = BTreeMap::<&str, u64>::new();
    for (name, count) in outcomes.iter().flat_map(|outcome| &outcome.counts) {
        *counts.entry(name).or_default() += count;
    }
    let (ran, seconds) = (outcomes.len(), begin.elapsed().as_secs());
    eprintln!("{ran} seeds in {seconds} s: {counts:?}");
    let seeds: Vec<u64> = violated.iter().map(|outcome| outcome.seed).collect();
    assert!(seeds.is_empty(), "invariants were violated in seeds {seeds:?}, see above");
    // Runs in which nothing happens prove nothing.
    if ran >= 100 {
        let faults = Fault::ALL.map(|fault| format!("{fault:?}"));
        let events = ["written", "read", "unknown", "nothing", "leader work", "truncated logs"];
        let events = events.into_iter().chain(["installed snapshots", "joint memberships"]);
        for event in faults.iter().map(String::as_str).chain(events) {
            let count = counts.get(event).copied().unwrap_or(0);
            assert!(count >= 10, "too few of '{event}' happened: {count}");
        }
    }
}

#[test]
fn same_seed_gives_the_same_run_in_another_process() {
    let _busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    let seeds = [1, 2, 3, 4, 5, 6];
    let (first, second) = (run_all(&seeds, None, false), run_all(&seeds, None, false));
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first.trace_hash, second.trace_hash, "seed {}: {}", first.seed, second.said);
        assert!(!first.trace_hash.is_empty(), "{}", first.said);
    }
    assert_ne!(first[0].trace_hash, first[1].trace_hash);
}

#[test]
fn every_planted_bug_is_found_by_its_invariant() {
    let _busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    for bug in Bug::ALL {
        // Where several invariants see a bug, the order of events decides which is first.
        let expected: &[&str] = match bug {
            Bug::AcknowledgedBeforeSync => &["committed on quorum", "leader completeness"],
            Bug::VoteNotSynced => &["monotonic positions", "election safety"],
            Bug::StaleReadAsLinearizable | Bug::LeaderUnconfirmed => &["linearizable reads"],
            Bug::OldEpochAccepted => &["one epoch counts"],
            Bug::UnknownTriedAgain => &["exactly once", "acknowledged writes"],
        };
        let found = (1..=SEEDS).step_by(PARALLEL).find_map(|first| {
            let seeds: Vec<u64> = (first..first + PARALLEL as u64).collect();
            run_all(&seeds, Some(bug), false).into_iter().find(|outcome| outcome.violated.is_some())
        });
        let found = found.unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS} seeds"));
        let violated = found.violated.unwrap_or_default();
        eprintln!("{bug:?} violates '{violated}' in seed {}", found.seed);
        assert!(expected.contains(&violated.as_str()), "{violated}: {}", found.said);
    }
}

/// Work on other threads ends when it likes, and a run could not be repeated.
#[test]
fn work_beside_the_runtime_goes_through_one_place() {
    // The flusher has its own seam; the other thread is waited for at once.
    let allowed = ["blocking.rs", "flusher.rs", "open.rs"];
    let mut open = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut checked = 0;
    while let Some(path) = open.pop() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" && name != "simulation" {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        } else if !allowed.contains(&name.as_str()) && !name.starts_with("tests") {
            checked += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("mod tests {").next().unwrap();
            for beside in
                ["spawn_blocking(", "thread::spawn(", "thread::Builder", "block_in_place("]
            {
                assert!(!text.contains(beside), "{}: use crate::blocking", path.display());
            }
        }
    }
    assert!(checked > 30, "{checked}");
}

/// Runs a seed in this process, and tells the parent what came of it.
fn one_seed(seed: u64) {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(parent).unwrap();
    let bug = std::env::var(CHILD_BUG).ok();
    let bug = bug.map(|name| Bug::ALL.into_iter().find(|b| format!("{b:?}") == name).unwrap());
    let keep = std::env::var(CHILD_TRACE).is_ok();
    let report = run(seed, bug, directory.path());
    eprintln!("{REPORT} hash {:016x}", report.trace_hash);
    for (name, count) in &report.counts {
        eprintln!("{REPORT} count {count} {name}");
    }
    if let Some(violation) = &report.violation {
        eprintln!("{REPORT} violated {}", violation.invariant);
        eprintln!("seed {seed} violates '{}': {}", violation.invariant, violation.what);
        let from = report.trace.len().saturating_sub(40);
        eprintln!("the end of its trace:\n{}", report.trace[from..].join("\n"));
    }
    if keep || (report.violation.is_some() && bug.is_none()) {
        let path = std::env::temp_dir().join(format!("peat-simulation-{seed}.trace"));
        std::fs::write(&path, report.trace.join("\n")).unwrap();
        eprintln!("the whole trace is in {}", path.display());
    }
    drop(directory);
    eprintln!("{REPORT} ended");
}

fn repeat(seed: u64) -> String {
    format!(
        "again: PEAT_TEST_SEED={seed} cargo test --workspace --lib -- --exact {CHILD} --nocapture"
    )
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not '{text}'")))
}

/// Runs seeds, [`PARALLEL`] at a time; outcomes come in the order of the seeds.
fn run_all(seeds: &[u64], bug: Option<Bug>, keep_trace: bool) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_child(*seed, bug, keep_trace);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

fn run_child(seed: u64, bug: Option<Bug>, keep_trace: bool) -> Outcome {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--nocapture", "--test-threads=1"]);
    command.env(CHILD_SEED, seed.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(bug) = bug {
        command.env(CHILD_BUG, format!("{bug:?}"));
    }
    if keep_trace {
        command.env(CHILD_TRACE, "1");
    }
    let mut child = command.spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let readers = [read(stdout), read(stderr)];
    let end = Instant::now() + SEED_TIMEOUT;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > end => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let said: String = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    let mut outcome = Outcome { seed, ..Outcome::default() };
    let mut ended = false;
    for line in said.lines().filter_map(|line| line.strip_prefix(REPORT)) {
        match line.trim().split_once(' ') {
            Some(("hash", hash)) => hash.clone_into(&mut outcome.trace_hash),
            Some(("violated", invariant)) => outcome.violated = Some(invariant.to_owned()),
            Some(("count", count)) => {
                let (count, name) = count.split_once(' ').unwrap();
                outcome.counts.insert(name.to_owned(), count.parse().unwrap());
            }
            _ => ended = true,
        }
    }
    if !ended || status.is_none_or(|status| !status.success()) {
        outcome.violated.get_or_insert_with(|| format!("the process ended with {status:?}"));
    }
    outcome.said = said;
    outcome
}

fn read(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}
