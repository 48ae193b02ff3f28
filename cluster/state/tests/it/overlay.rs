//! The overlay reads like a merged map.

use std::collections::BTreeMap;

use peat_gateway_state::apply::Overlay;
use peat_gateway_state::space::{Reader, Space};
use proptest::prelude::*;

use crate::support::Rows;

const SPACE: Space = Space::Organization;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0u8..3, 0..4)
}

fn scanned(
    reader: &dyn Reader,
    start: &[u8],
    end: &[u8],
    reverse: bool,
    max: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seen = Vec::new();
    reader
        .scan(SPACE, start, end, reverse, &mut |key, value| {
            seen.push((key.to_vec(), value.to_vec()));
            seen.len() < max
        })
        .expect("rows in memory are read");
    seen
}

proptest! {
    #[test]
    fn overlay_scan_equals_a_merged_map(
        base in proptest::collection::btree_map(key(), any::<[u8; 1]>(), 0..12),
        lower in proptest::collection::vec((key(), any::<Option<u8>>()), 0..12),
        upper in proptest::collection::vec((key(), any::<Option<u8>>()), 0..12),
        start in key(), end in key(), reverse in any::<bool>(), max in 1usize..9,
    ) {
        let mut merged: Map = base.iter().map(|(k, v)| (k.clone(), v.to_vec())).collect();
        let mut rows = Rows::default();
        for (key, value) in &merged {
            rows.0.insert((SPACE, key.clone()), value.clone());
            // A neighbour space must never show through.
            rows.0.insert((Space::OrganizationCounters, key.clone()), vec![0xee]);
        }
        let mut below = Overlay::new(&rows);
        write(&mut below, &mut merged, &lower);
        let mut above = Overlay::new(&below);
        write(&mut above, &mut merged, &upper);

        let mut expected: Vec<_> = if start < end {
            merged.range(start.clone()..end.clone()).map(|(k, v)| (k.clone(), v.clone())).collect()
        } else {
            Vec::new()
        };
        if reverse {
            expected.reverse();
        }
        expected.truncate(max);
        prop_assert_eq!(scanned(&above, &start, &end, reverse, max), expected);
        for key in merged.keys().chain([&start, &end]) {
            prop_assert_eq!(&above.get(SPACE, key).unwrap(), &merged.get(key).cloned());
        }
    }
}

fn write(overlay: &mut Overlay<'_>, merged: &mut Map, writes: &[(Vec<u8>, Option<u8>)]) {
    for (key, value) in writes {
        match value {
            Some(value) => {
                overlay.put(SPACE, key.clone(), vec![*value]).expect("rows in memory are read");
                merged.insert(key.clone(), vec![*value]);
            }
            None => {
                overlay.delete(SPACE, key.clone()).expect("rows in memory are read");
                merged.remove(key);
            }
        }
    }
}

#[test]
fn finish_gives_only_what_differs_and_keeps_the_hash_true() {
    let mut rows = Rows::default();
    rows.0.insert((SPACE, b"same".to_vec()), b"1".to_vec());
    rows.0.insert((SPACE, b"gone".to_vec()), b"2".to_vec());
    let mut hash = rows.hash();

    let mut overlay = Overlay::new(&rows);
    assert!(overlay.is_empty());
    overlay.put(SPACE, b"same".to_vec(), b"other".to_vec()).unwrap();
    overlay.put(SPACE, b"same".to_vec(), b"1".to_vec()).unwrap();
    overlay.delete(SPACE, b"gone".to_vec()).unwrap();
    overlay.put(SPACE, b"new".to_vec(), b"3".to_vec()).unwrap();
    overlay.delete(SPACE, b"never".to_vec()).unwrap();
    assert_eq!((overlay.len(), overlay.bytes()), (4, 7));

    let changes = overlay.finish(&mut hash);
    let expected =
        vec![(SPACE, b"gone".to_vec(), None), (SPACE, b"new".to_vec(), Some(b"3".to_vec()))];
    assert_eq!(changes, expected);
    rows.write(changes);
    assert_eq!(hash.digest(), rows.hash().digest());
}
