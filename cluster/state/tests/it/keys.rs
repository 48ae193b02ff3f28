//! Keys sort by component and can be read back.

use peat_gateway_state::codec::{Key, after_prefix, take_text};
use peat_gateway_state::keys;
use peat_gateway_state::space::{Family, Space};
use proptest::prelude::*;

use crate::support::make::{app, doc, hash, org};

/// Short texts over the bytes that escaping is about.
fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('\u{10ffff}')];
    proptest::collection::vec(character, 0..4).prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #[test]
    fn text_keys_sort_by_component_and_are_read_back(
        left in (text(), text(), any::<u64>()), right in (text(), text(), any::<u64>()),
    ) {
        let key = |(first, second, number): &(String, String, u64)| {
            Key::new().text(first).text(second).number(*number).into_bytes()
        };
        prop_assert_eq!(key(&left).cmp(&key(&right)), left.cmp(&right));

        let bytes = key(&left);
        let (first, rest) = take_text(&bytes).unwrap();
        let (second, rest) = take_text(rest).unwrap();
        prop_assert_eq!((first, second, rest), (left.0, left.1, &left.2.to_be_bytes()[..]));
    }

    #[test]
    fn a_range_holds_exactly_the_keys_that_begin_with_it(first in text(), second in text(), tail in any::<u64>()) {
        let (start, end) = Key::new().text(&first).range();
        let within = Key::new().text(&first).text(&second).number(tail).into_bytes();
        prop_assert!(start <= within && within < end);
        if first != second {
            let outside = Key::new().text(&second).number(tail).into_bytes();
            prop_assert!(outside < start || end <= outside);
        }
    }

    #[test]
    fn bytes_that_are_no_component_are_refused_without_panic(bytes in proptest::collection::vec(0u8..3, 0..8)) {
        if let Some((text, rest)) = take_text(&bytes) {
            let mut again = Key::new().text(&text).into_bytes();
            again.extend_from_slice(rest);
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn the_end_of_a_prefix_carries_over_full_bytes() {
    assert_eq!(after_prefix(&[1, 0xff, 0xff]), vec![2]);
    assert_eq!(after_prefix(&[0xff]), Vec::<u8>::new());
}

#[test]
fn parts_of_keys_are_read_back() {
    let (org, app, doc) = (org("acme"), app("alpha"), doc("notes:1"));
    assert_eq!(keys::document_key(&keys::document(&org, &app, &doc)), Some(doc.clone()));
    assert_eq!(keys::document_key(b"junk"), None);
    assert_eq!(keys::journal_last_sequence(&keys::journal(&org, 77)), Some(77));
    let indexed = keys::change_index(&org, &app, &doc, &hash("c"));
    assert_eq!(keys::change_hash(&indexed), Some(hash("c")));
    let expiry = keys::idempotency_expiry(5, "admin", "k");
    let answer = keys::idempotency("admin", "k");
    assert_eq!(keys::idempotency_of_expiry(&expiry), Some((5, answer.as_slice())));
}

#[test]
fn the_whole_space_covers_the_largest_text() {
    let (start, end) = keys::whole_space();
    let largest = keys::organization(&org("\u{10ffff}\u{10ffff}"));
    assert!(start < largest && largest < end);
}

#[test]
fn space_bytes_are_in_order_and_read_back() {
    assert!(Space::ALL.windows(2).all(|pair| pair[0].byte() < pair[1].byte()));
    for space in Space::ALL {
        assert_eq!(Space::from_byte(space.byte()), Some(*space));
        assert!(Family::ALL.contains(&space.family()));
    }
    assert_eq!(Space::from_byte(0), None);
}
