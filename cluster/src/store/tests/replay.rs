//! Golden replay: the log that an earlier build wrote, decided by this one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use peat_gateway_state::ids::Hash32;

use super::{apply, open};

/// Folders of `tests/fixtures/compat`, one per build whose formats have changed since.
fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/compat");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[tokio::test]
async fn log_of_an_earlier_build_gives_the_state_hash_that_it_recorded() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty(), "there are no data directories of earlier builds");
    for fixture in fixtures {
        let unpacked = tempfile::tempdir().unwrap();
        let done = Command::new("tar")
            .args(["-xzf".as_ref(), fixture.join("data.tar.gz").as_os_str()])
            .args(["-C".as_ref(), unpacked.path().as_os_str()])
            .status();
        assert!(done.unwrap().success(), "tar unpacks {}", fixture.display());
        let recorded = fs::read_to_string(fixture.join("state")).unwrap();
        let (index, hash) = recorded.trim().split_once(' ').unwrap();
        let (index, hash): (u64, &str) = (index.parse().unwrap(), hash);

        // What the directory holds is what the build said, or newer by its last entries.
        let old = open(&unpacked.path().join("data"));
        assert!(old.view().applied_index() >= index);
        let mut reader = old.log().get_log_reader().await;
        let entries = reader.try_get_log_entries(..).await.unwrap();
        assert_eq!(entries.first().unwrap().log_id.index, 0, "the log was purged");
        assert!(entries.len() > 100, "only {} entries", entries.len());

        // In one batch, and in batches of every size.
        for batch in [usize::MAX, 1, 7] {
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path());
            let mut machine = store.machine();
            let counted = entries.iter().filter(|entry| entry.log_id.index <= index);
            let counted: Vec<_> = counted.cloned().collect();
            for part in counted.chunks(batch.min(counted.len())) {
                apply(&mut machine, part.to_vec()).await;
            }
            let (applied, found): (u64, Hash32) = store.state_hash();
            assert_eq!((applied, found.to_string().as_str()), (index, hash), "{batch} at once");
        }
    }
}
