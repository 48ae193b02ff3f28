use tempfile::TempDir;

use super::{apply, create_organization, initialize, membership, open};

#[tokio::test]
async fn stores_that_apply_in_different_batches_know_the_same_checkpoints() {
    let root = TempDir::new().unwrap();
    let last = 2_100;
    let mut known = Vec::new();
    for (name, batch) in [("one", 97), ("two", 700)] {
        let store = open(&root.path().join(name));
        let entries: Vec<_> = [membership(1), initialize(2)]
            .into_iter()
            .chain((3..=last).map(create_organization))
            .collect();
        for part in entries.chunks(batch) {
            apply(&mut store.machine(), part.to_vec()).await;
        }
        known.push(store.state_hashes());
    }
    let indexes: Vec<_> = known[0].iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [1_024, 2_048, last]);
    assert_eq!(known[0], known[1]);
}
