//! Killed right after every single storage step, and started again (see `store::steps`).
//!
//! A child process works on a data directory and says what it promises; it is killed at one step, and
//! then the directory must hold every promise. The same log was applied here before, entry by entry,
//! so the state that belongs to any applied index is known without trusting the child.

mod child;
mod verify;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use peat_gateway_state::ids::Hash32;

use super::{Random, apply, open};
use crate::raft::Entry;
use crate::store::steps::{KILL_AT, Step};

/// Names the data directory to the child.
const CHILD: &str = "PEAT_STORE_TEST_STEPS_DIRECTORY";
/// Names the directory of the leader's snapshots to the child.
const SNAPSHOTS: &str = "PEAT_STORE_TEST_STEPS_SNAPSHOTS";
/// The child's seed.
const SEED: &str = "PEAT_STORE_TEST_STEPS_SEED";
/// How often each step kills; `PEAT_TEST_STEP_ROUNDS` asks for more.
const ROUNDS: u64 = 1;
/// The last entry of the log: three children in a row write at most 60 each beyond the last snapshot.
const LAST: u64 = 600;
/// The leader's snapshots.
const SNAPSHOT_AT: [u64; 4] = [100, 200, 300, 400];
/// SIGKILL, which nothing can catch or tidy up after.
const SIGKILL: i32 = 9;

#[tokio::test]
async fn killed_after_any_storage_step_a_node_has_what_it_acknowledged() {
    if let Ok(data) = std::env::var(CHILD) {
        return child::work(Path::new(&data)).await;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("PEAT_TEST_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    let rounds = number("PEAT_TEST_STEP_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("seed {seed}; repeat with PEAT_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let truth = Truth::make().await;

    // Undisturbed first: it tells how often each step is reached.
    let directory = in_memory();
    let mut ledger = Ledger::default();
    let run = truth.run(directory.path(), random.below(u64::MAX), None, &mut ledger);
    assert!(run.ended, "the undisturbed child failed:\n{}", run.output);
    verify::all(directory.path(), &ledger, &truth).await;
    let missed: Vec<_> = Step::ALL.iter().filter(|step| run.hits(**step) == 0).collect();
    assert!(missed.is_empty(), "never reached, so never tested: {missed:?}");

    let mut kills = 0;
    for _ in 0..rounds {
        for step in Step::ALL {
            let directory = in_memory();
            let mut ledger = Ledger::default();
            let hit = 1 + random.below(run.hits(*step));
            let child_seed = random.below(u64::MAX);
            let mut killed =
                truth.run(directory.path(), child_seed, Some((*step, hit)), &mut ledger);
            if killed.ended {
                // Group commit varies: this time there were fewer.
                let directory = directory.path();
                std::fs::remove_dir_all(directory).unwrap();
                ledger = Ledger::default();
                killed = truth.run(directory, child_seed, Some((*step, 1)), &mut ledger);
            }
            eprintln!("{step:?} at hit {hit}: {ledger:?}");
            assert!(killed.killed, "{step:?} at {hit}: not killed there:\n{}", killed.output);
            kills += 1;
            // Half of them die again on the way up, in front of any eyes but the next start's.
            if random.below(2) == 0 {
                let step = Step::ALL[random.below(Step::ALL.len() as u64) as usize];
                let at = Some((step, 1 + random.below(2)));
                let again = truth.run(directory.path(), child_seed ^ 1, at, &mut ledger);
                assert!(again.killed || again.ended, "then {step:?}:\n{}", again.output);
                kills += u64::from(again.killed);
            }
            verify::all(directory.path(), &ledger, &truth).await;
            // What stands there is good to work with, to the end.
            let last = truth.run(directory.path(), child_seed ^ 2, None, &mut ledger);
            assert!(last.ended, "after {step:?}:\n{}", last.output);
            verify::all(directory.path(), &ledger, &truth).await;
        }
    }
    eprintln!("{kills} kills after {} different steps", Step::ALL.len());
}

/// A directory in memory where there is one: SIGKILL doesn't lose the page cache, so the disk adds
/// nothing but time.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The log as it should be, and the state after each of its entries.
struct Truth {
    /// By index; the first is that of no entry.
    hashes: Vec<Hash32>,
    snapshots: tempfile::TempDir,
}

impl Truth {
    async fn make() -> Self {
        let (directory, snapshots) = (in_memory(), in_memory());
        let store = open(directory.path());
        store.adopt(super::CLUSTER).unwrap();
        let mut hashes = vec![store.state_hash().1];
        for index in 1..=LAST {
            apply(&mut store.machine(), [child::entry(index)]).await;
            hashes.push(store.state_hash().1);
            if SNAPSHOT_AT.contains(&index) {
                let built = super::snapshot::build(&store).await;
                let bytes = super::snapshot::bytes_of(&built).await;
                std::fs::write(snapshot_path(snapshots.path(), index), bytes).unwrap();
            }
        }
        verify::every_family_has_rows(&store);
        Self { hashes, snapshots }
    }

    /// Runs a child on a directory, to its end or to the hit of a step, and notes what it promised.
    fn run(&self, data: &Path, seed: u64, at: Option<(Step, u64)>, ledger: &mut Ledger) -> Run {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "store::tests::steps::killed_after_any_storage_step_a_node_has_what_it_acknowledged",
                "--nocapture",
            ])
            .env(CHILD, data)
            .env(SNAPSHOTS, self.snapshots.path())
            .env(SEED, seed.to_string())
            .env_remove(KILL_AT)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some((step, hit)) = at {
            command.env(KILL_AT, format!("{step:?}:{hit}"));
        }
        let output = command.output().unwrap();
        let mut run = Run {
            ended: false,
            killed: output.status.signal() == Some(SIGKILL),
            hits: Vec::new(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        for line in BufReader::new(&output.stdout[..]).lines().map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            // A line without its end was never said.
            match &words[..] {
                ["end", "."] => run.ended = output.status.success(),
                ["hits", step, hits, "."] => {
                    run.hits.push(((*step).to_owned(), hits.parse().unwrap()));
                }
                [word, numbers @ .., "."] => {
                    let numbers: Vec<u64> = numbers.iter().map(|n| n.parse().unwrap()).collect();
                    ledger.note(word, &numbers);
                }
                _ => {}
            }
        }
        run
    }
}

fn snapshot_path(directory: &Path, index: u64) -> PathBuf {
    directory.join(index.to_string())
}

/// What became of a child.
struct Run {
    ended: bool,
    killed: bool,
    hits: Vec<(String, u64)>,
    output: String,
}

impl Run {
    fn hits(&self, step: Step) -> u64 {
        let name = format!("{step:?}");
        self.hits.iter().find(|(other, _)| *other == name).map_or(0, |(_, hits)| *hits)
    }
}

/// What a child has promised.
#[derive(Debug, Default)]
struct Ledger {
    node: Option<u64>,
    adopted: bool,
    /// The true log is there up to this entry.
    entry: u64,
    /// Entries of another leader that are there, until they may be truncated.
    foreign: Option<(u64, u64)>,
    vote: u64,
    installed: u64,
    /// Applied when the directory was opened last.
    opened_at: u64,
}

impl Ledger {
    fn note(&mut self, word: &str, numbers: &[u64]) {
        match (word, numbers) {
            ("node", [id]) => {
                assert!(self.node.is_none_or(|node| node == *id), "another node id: {id:016x}");
                self.node = Some(*id);
            }
            ("opened", [applied]) => {
                assert!(*applied >= self.opened_at, "applied went back to {applied}: {self:?}");
                self.opened_at = *applied;
            }
            ("adopted", []) => self.adopted = true,
            ("entry", [index]) => self.entry = self.entry.max(*index),
            ("foreign", [first, last]) => self.foreign = Some((*first, *last)),
            ("truncating", []) => self.foreign = None,
            ("vote", [term]) => self.vote = *term,
            ("installed", [index]) => {
                self.installed = *index;
                self.entry = self.entry.max(*index);
            }
            other => panic!("the child said {other:?}"),
        }
    }
}

/// An entry of the true log may not be told from another by its index alone.
fn is_true(entry: &Entry) -> bool {
    *entry == child::entry(entry.log_id.index)
}
