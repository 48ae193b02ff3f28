//! No bytes make `apply` panic: what isn't understood stops the node, without a trace.

use std::time::{Duration, Instant};

use peat_gateway_state::apply::ApplyError;
use peat_gateway_state::{Command, Envelope, VERSION, codec};

use crate::samples;
use crate::support::Cluster;
use crate::support::make;
use crate::support::random::Random;

/// How long each random test may run.
const TIME_MAX: Duration = Duration::from_secs(2);
/// Envelopes applied before a fresh state is taken.
const ENTRIES_PER_STATE: usize = 200;

#[expect(clippy::disallowed_methods, reason = "the test's own bound, not the state machine's")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random::printed("random_bytes_never_panic");
    let end = now() + TIME_MAX;
    while now() < end {
        let mut cluster = Cluster::with_acme();
        for _ in 0..ENTRIES_PER_STATE {
            let length = random.below(64);
            let bytes = (0..length).map(|_| random.byte()).collect();
            let _understood = cluster.apply_bytes(bytes);
        }
    }
}

#[test]
fn mutated_envelopes_never_panic_and_keep_the_state_hash_true() {
    let mut random = Random::printed("mutated_envelopes_never_panic");
    let end = now() + TIME_MAX;
    let mut decided = 0;
    while now() < end {
        let mut cluster = Cluster::with_acme();
        let commands = samples::commands(cluster.fence());
        for _ in 0..ENTRIES_PER_STATE {
            let (_, command) = &commands[random.below(commands.len())];
            let mut bytes = codec::encode(&Envelope::new(make::actor("admin"), command.clone()));
            for _ in 0..random.below(4) {
                let place = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[place] = random.byte(),
                    1 => bytes[place] ^= 1 << random.below(8),
                    2 => bytes.truncate(place),
                    _ => bytes.insert(place, random.byte()),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            decided += usize::from(cluster.apply_bytes(bytes).is_ok());
        }
        assert_eq!(cluster.hash.digest(), cluster.rows.hash().digest());
    }
    assert!(decided > 0, "every envelope was broken: the test shows nothing");
}

#[test]
fn an_unknown_command_or_newer_version_stops_the_node() {
    let mut cluster = Cluster::with_acme();
    let before = cluster.rows.clone();
    let command = || make::rename_organization("acme", "x");
    let newer = Envelope { version: VERSION + 1, ..Envelope::new(make::actor("admin"), command()) };
    let mut trailing = codec::encode(&Envelope::new(make::actor("admin"), command()));
    trailing.push(0);
    // The command's number (2) is the fourth field's first item.
    let mut unknown = codec::encode(&Envelope::new(make::actor("admin"), command()));
    let payload = codec::encode::<Command>(&command());
    let place = unknown.len() - payload.len() + 1;
    assert_eq!(unknown[place], 2);
    unknown.splice(place..=place, [0x18, 200]);
    for bytes in [codec::encode(&newer), trailing, unknown, Vec::new()] {
        let index = cluster.next_index();
        let error = cluster.apply_bytes(bytes).unwrap_err();
        assert!(matches!(error, ApplyError::Unknown { index: at, .. } if at == index), "{error}");
    }
    assert_eq!(cluster.rows, before);
}

#[test]
fn fields_that_a_newer_build_appends_are_skipped() {
    // An organisation's quotas with a seventh field: an array of 7 instead of 6.
    let quotas = peat_gateway_state::record::OrganizationQuotas::default();
    let mut bytes = codec::encode(&quotas);
    assert_eq!(bytes[0], 0x86);
    bytes[0] = 0x87;
    bytes.extend_from_slice(&[0x82, 0x01, 0x61, b'x']);
    assert_eq!(codec::decode(&bytes), Ok(quotas));
}
