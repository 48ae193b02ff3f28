//! kill -9, again and again: nothing that was acknowledged is ever gone.
//!
//! The WAL buffer is in the process's own memory (see `layout`), so what isn't synced dies with it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use super::{Random, append, apply, blank, last_index, open, vote};
use crate::wire::stored::log_id;

/// Names the data directory to the child.
const CHILD: &str = "PEAT_STORE_TEST_CRASH_DIRECTORY";
const KILLS: u64 = 12;

#[tokio::test]
async fn kill_nine_never_loses_an_acknowledged_entry_or_vote() {
    if let Ok(data) = std::env::var(CHILD) {
        return write_until_killed(std::path::Path::new(&data)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let seed = getrandom::u64().unwrap();
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let (mut entry, mut term, mut applied) = (0, 0, 0);
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::crash::kill_nine_never_loses_an_acknowledged_entry_or_vote",
            ])
            .arg("--nocapture")
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            // A last line without its end was never written whole.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                acknowledged.push(line);
            }
            acknowledged
        });
        std::thread::sleep(Duration::from_millis(150 + random.below(300)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            let mut words = line.split(' ');
            let (kind, number) = (words.next(), words.next());
            let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
                continue;
            };
            match kind {
                Some("entry") if words.next() == Some(".") => entry = number,
                Some("vote") if words.next() == Some(".") => term = number,
                _ => {}
            }
        }
        let store = open(directory.path());
        let mut log = store.log();
        let mut reader = log.get_log_reader().await;
        let last = last_index(&mut log).await.unwrap_or(0);
        assert!(last >= entry, "round {round}: entry {entry} was acknowledged, {last} is there");
        let kept = reader.read_vote().await.unwrap().map_or(0, |vote| vote.leader_id.term);
        assert!(kept >= term, "round {round}: vote {term} was acknowledged, {kept} is there");
        let now = store.view().applied_index();
        assert!(now >= applied, "round {round}: applied went back from {applied} to {now}");
        applied = now;
        let purged = log.get_log_state().await.unwrap().last_purged_log_id.map_or(0, |id| id.index);
        assert!(purged <= applied, "round {round}: purged {purged} beyond applied {applied}");
        let entries = reader.try_get_log_entries(..).await.unwrap();
        assert_eq!(entries.len() as u64, last - purged, "round {round}: the log has a gap");
        assert!(entries.iter().zip(purged + 1..).all(|(entry, index)| *entry == blank(index)));
    }
    assert!(entry > 0 && term > 0, "the children wrote nothing: {entry} entries, vote {term}");
}

async fn write_until_killed(data: &std::path::Path) {
    let store = open(data);
    let (mut log, mut machine) = (store.log(), store.machine());
    let mut next = last_index(&mut log).await.unwrap_or(0) + 1;
    let mut reader = log.get_log_reader().await;
    let mut term = reader.read_vote().await.unwrap().map_or(0, |vote| vote.leader_id.term);
    let behind = reader.try_get_log_entries(store.view().applied_index() + 1..next).await.unwrap();
    apply(&mut machine, behind).await;
    let mut random = Random::new(next);
    // The lock is taken per line: the harness writes to the same pipe.
    let say = |text: String| std::io::stdout().lock().write_all(text.as_bytes()).unwrap();
    say("\n".to_owned());
    loop {
        let count = 1 + random.below(20);
        append(&mut log, (next..next + count).map(blank)).await;
        next += count;
        say(format!("entry {} .\n", next - 1));
        let start = store.view().applied_index() + 1;
        apply(&mut machine, (start..next).map(blank)).await;
        match random.below(10) {
            0 => {
                term += 1;
                log.save_vote(&vote(term, 1)).await.unwrap();
                say(format!("vote {term} .\n"));
            }
            1 if next > 100 => log.purge(log_id(1, next - 50)).await.unwrap(),
            2 => log.save_committed(Some(log_id(1, next - 1))).await.unwrap(),
            _ => {}
        }
    }
}
