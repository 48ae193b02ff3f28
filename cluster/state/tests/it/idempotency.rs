//! Retries: the same key gives the same answer and one effect.

use peat_gateway_state::command::Idempotency;
use peat_gateway_state::query;
use peat_gateway_state::space::Space;
use peat_gateway_state::{Applied, Command, Envelope, Outcome};

use crate::support::Cluster;
use crate::support::make;

fn send(
    cluster: &mut Cluster,
    principal: &str,
    key: &str,
    body: &str,
    command: Command,
) -> Applied {
    let idempotency = Idempotency { key: key.into(), request_digest: make::hash(body) };
    let envelope =
        Envelope::new(make::actor(principal), command).with_idempotency(Some(idempotency));
    cluster.send_envelope(&envelope)
}

fn code(applied: &Applied) -> &str {
    match &applied.outcome {
        Outcome::Refused(refusal) => &refusal.code,
        _ => "done",
    }
}

#[test]
fn a_retry_gets_the_first_answer_and_index_and_leaves_no_second_entry() {
    let mut cluster = Cluster::new();
    let create = || make::create_organization("acme");
    let first = send(&mut cluster, "admin", "k", "body", create());
    cluster.done(make::rename_organization("acme", "Changed since"));
    let before = cluster.rows.clone();

    let again = send(&mut cluster, "admin", "k", "body", create());
    assert_eq!((again.outcome, again.index), (first.outcome, first.index));
    assert!(!again.effects.configuration);
    assert_eq!(cluster.rows, before);
}

#[test]
fn a_refusal_is_kept_too() {
    let mut cluster = Cluster::new();
    let rename = || make::rename_organization("acme", "x");
    let first = send(&mut cluster, "admin", "k", "body", rename());
    cluster.done(make::create_organization("acme"));
    let again = send(&mut cluster, "admin", "k", "body", rename());
    assert_eq!((code(&again), again.index), ("not_found", first.index));
}

#[test]
fn a_key_belongs_to_one_request_and_one_principal() {
    let mut cluster = Cluster::new();
    send(&mut cluster, "admin", "k", "one", make::create_organization("acme"));
    let other = send(&mut cluster, "admin", "k", "two", make::create_organization("beta"));
    assert_eq!(code(&other), "idempotency_key_reused");
    let again = send(&mut cluster, "admin", "k", "one", make::create_organization("acme"));
    assert_eq!(code(&again), "done");
    let foreign = send(&mut cluster, "loopback", "k", "two", make::create_organization("beta"));
    assert_eq!(code(&foreign), "done");
}

#[test]
fn unavailable_is_not_kept() {
    let mut cluster = Cluster::empty();
    let create = || make::create_organization("acme");
    assert_eq!(code(&send(&mut cluster, "admin", "k", "b", create())), "not_initialized");
    cluster.initialize();
    assert_eq!(code(&send(&mut cluster, "admin", "k", "b", create())), "done");
}

#[test]
fn an_empty_or_long_key_is_refused() {
    let mut cluster = Cluster::new();
    for key in [String::new(), "k".repeat(256)] {
        let applied = send(&mut cluster, "admin", &key, "b", make::create_organization("acme"));
        assert_eq!(code(&applied), "invalid_idempotency_key");
    }
    let longest = "k".repeat(255);
    let applied = send(&mut cluster, "admin", &longest, "b", make::create_organization("acme"));
    assert_eq!(code(&applied), "done");
    assert_eq!(cluster.rows.of(Space::Idempotency).len(), 1);
}

#[test]
fn an_answer_lives_exactly_as_long_as_the_settings_say() {
    let mut cluster = Cluster::new();
    let start = cluster.now;
    let rename = |name| make::rename_organization("ghost", name);
    let first = send(&mut cluster, "admin", "k", "b", rename("x"));
    cluster.now = start + 60_000;
    assert_eq!(send(&mut cluster, "admin", "k", "b", rename("x")).index, first.index);
    cluster.now = start + 60_001;
    let later = send(&mut cluster, "admin", "k", "b", rename("x"));
    assert_ne!(later.index, first.index);
}

#[test]
fn one_entry_forgets_a_bounded_number_and_the_backlog_goes() {
    let mut cluster = Cluster::new();
    for number in 0..50 {
        let key = format!("k{number}");
        send(&mut cluster, "admin", &key, "b", make::rename_organization("ghost", "x"));
        cluster.now += number % 3;
    }
    let left = |cluster: &Cluster| {
        let records = cluster.rows.of(Space::Idempotency).len();
        assert_eq!(records, cluster.rows.of(Space::IdempotencyExpiry).len());
        records
    };
    assert_eq!(left(&cluster), 50);
    cluster.now += 100_000;
    for expected in [34, 18, 2, 0, 0] {
        // Leader work forgets as well.
        cluster.claim();
        assert_eq!(left(&cluster), expected);
    }
    assert_eq!(query::clock(&cluster.rows).unwrap().forgotten_before, cluster.now);
}

#[test]
fn an_expired_answer_that_is_not_forgotten_yet_counts_no_more() {
    let mut cluster = Cluster::new();
    for number in 0..20 {
        let key = format!("k{number:02}");
        send(&mut cluster, "admin", &key, "b", make::rename_organization("ghost", "x"));
    }
    cluster.now += 100_000;
    // The last of 20 is beyond the 16 that this very entry forgets.
    let applied = send(&mut cluster, "admin", "k19", "other", make::create_organization("acme"));
    assert_eq!(code(&applied), "done");
    cluster.now += 1;
    cluster.claim();
    assert_eq!(cluster.rows.of(Space::Idempotency).len(), 1);
    assert_eq!(cluster.rows.of(Space::IdempotencyExpiry).len(), 1);
}

#[test]
fn the_clock_never_goes_back() {
    let mut cluster = Cluster::new();
    let start = cluster.now;
    cluster.now = 5;
    let applied = cluster.done(make::create_organization("acme"));
    let Outcome::Organization(organization) = applied.outcome else { panic!("{applied:?}") };
    assert_eq!(organization.created_at, start);
    assert_eq!(query::clock(&cluster.rows).unwrap().now, start);
}
