//! The formation handshake between this crate's two sides, and against peers that misbehave.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use peat_gateway_mesh::formation_key::FormationKey;
use peat_gateway_mesh::handshake::{
    Challenge, HANDSHAKE_STEP_TIMEOUT, HandshakeError, accept, connect,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::time::Instant;

fn key(formation: &str, secret: u8) -> FormationKey {
    FormationKey::from_secret(formation, &[secret; 32]).unwrap()
}

/// Runs both sides; each hangs up when it is done.
async fn meet(
    connector: FormationKey,
    acceptor: FormationKey,
) -> (Result<(), HandshakeError>, Result<(), HandshakeError>) {
    let (ours, theirs) = duplex(4096);
    let connecting = async move {
        let (mut receive, mut send) = split(ours);
        connect(&mut send, &mut receive, &connector).await
    };
    let accepting = async move {
        let (mut receive, mut send) = split(theirs);
        accept(&mut send, &mut receive, &acceptor).await
    };
    tokio::join!(connecting, accepting)
}

#[tokio::test]
async fn members_accept_one_another() {
    for formation in ["", "acme.alpha", &"i".repeat(990)] {
        let (connected, accepted) = meet(key(formation, 1), key(formation, 1)).await;
        connected.unwrap();
        accepted.unwrap();
    }
}

#[tokio::test]
async fn another_secret_is_rejected_and_both_sides_know() {
    let (connected, accepted) = meet(key("acme", 1), key("acme", 2)).await;
    assert!(matches!(connected, Err(HandshakeError::Rejected)), "{connected:?}");
    assert!(matches!(accepted, Err(HandshakeError::Rejected)), "{accepted:?}");
}

#[tokio::test]
async fn another_formation_is_noticed_by_the_connector_which_answers_nothing() {
    let (connected, accepted) = meet(key("acme", 1), key("bravo", 1)).await;
    let Err(HandshakeError::WrongFormation { ours, theirs }) = connected else {
        panic!("{connected:?}")
    };
    assert_eq!((ours.as_str(), theirs.as_str()), ("acme", "bravo"));
    assert!(matches!(accepted, Err(HandshakeError::Lost { step: "response", .. })), "{accepted:?}");
}

/// Lets the connector meet a peer that sends these bytes, then stays silent.
async fn connect_to(bytes: Vec<u8>) -> Result<(), HandshakeError> {
    let (ours, mut theirs) = duplex(4096);
    theirs.write_all(&bytes).await.unwrap();
    let (mut receive, mut send) = split(ours);
    let outcome = connect(&mut send, &mut receive, &key("acme", 1)).await;
    drop(theirs);
    outcome
}

/// Lets the acceptor meet a peer that sends these bytes, then stays silent.
async fn accept_from(bytes: Vec<u8>) -> Result<(), HandshakeError> {
    let (ours, mut theirs) = duplex(4096);
    theirs.write_all(&bytes).await.unwrap();
    let (mut receive, mut send) = split(ours);
    let outcome = accept(&mut send, &mut receive, &key("acme", 1)).await;
    drop(theirs);
    outcome
}

fn message(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

#[tokio::test(start_paused = true)]
async fn malformed_challenges_are_refused_before_they_are_read() {
    let challenge = Challenge { formation_id: "acme".to_owned(), nonce: [0; 32] }.encode();
    let mut not_utf8 = challenge.clone();
    not_utf8[2] = 0xff;
    let cases = [
        ("over the limit", 1025_u32.to_le_bytes().to_vec(), "over the limit of 1024"),
        ("huge", u32::MAX.to_le_bytes().to_vec(), "over the limit of 1024"),
        ("empty", message(&[]), "too short"),
        ("id beyond the end", message(&[200, 0, 1]), "too short"),
        ("short nonce", message(&challenge[..challenge.len() - 1]), "too short"),
        ("trailing", message(&[challenge.as_slice(), &[0]].concat()), "follows the nonce"),
        ("not text", message(&not_utf8), "not UTF-8"),
    ];
    for (name, bytes, expected) in cases {
        let started = Instant::now();
        let error = connect_to(bytes).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Malformed { step: "challenge", .. }), "{name}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert_eq!(started.elapsed(), Duration::ZERO, "{name} waited");
    }
}

#[tokio::test(start_paused = true)]
async fn malformed_preambles_and_responses_are_refused() {
    let cases = [
        ("another version", vec![2], "not version 1"),
        ("over the limit", [vec![1], 257_u32.to_le_bytes().to_vec()].concat(), "limit of 256"),
        ("short", [vec![1], message(&[7; 31])].concat(), "31 bytes instead of 32"),
        ("long", [vec![1], message(&[7; 33])].concat(), "33 bytes instead of 32"),
    ];
    for (name, bytes, expected) in cases {
        let error = accept_from(bytes).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Malformed { .. }), "{name}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
    let wrong = [vec![1], message(&[7; 32])].concat();
    let error = accept_from(wrong).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Rejected), "{error}");
}

#[tokio::test(start_paused = true)]
async fn each_step_times_out_after_thirty_seconds() {
    let challenge =
        message(&Challenge { formation_id: "acme".to_owned(), nonce: [0; 32] }.encode());
    for (bytes, step) in [
        (Vec::new(), "challenge"),
        (vec![36, 0], "challenge"),
        (challenge[..20].to_vec(), "challenge"),
        (challenge, "verdict"),
    ] {
        let started = Instant::now();
        let error = connect_to(bytes).await.unwrap_err();
        assert_timeout(&error, step, started);
    }
    for (bytes, step) in
        [(Vec::new(), "preamble"), (vec![1], "response"), (vec![1, 32], "response")]
    {
        let started = Instant::now();
        let error = accept_from(bytes).await.unwrap_err();
        assert_timeout(&error, step, started);
    }
}

fn assert_timeout(error: &HandshakeError, expected: &str, started: Instant) {
    match error {
        HandshakeError::Timeout { step } => assert_eq!(*step, expected),
        other => panic!("{expected}: {other:?}"),
    }
    assert_eq!(started.elapsed().as_secs(), HANDSHAKE_STEP_TIMEOUT.as_secs(), "{expected}");
}

#[tokio::test]
async fn a_peer_that_hangs_up_is_lost_not_malformed() {
    let (ours, mut theirs) = duplex(4096);
    let (mut receive, mut send) = split(ours);
    let hang_up = async {
        let mut preamble = [0; 1];
        DuplexStream::read_exact(&mut theirs, &mut preamble).await.unwrap();
        drop(theirs);
    };
    let acme = key("acme", 1);
    let (outcome, ()) = tokio::join!(connect(&mut send, &mut receive, &acme), hang_up);
    let lost = matches!(outcome, Err(HandshakeError::Lost { step: "challenge", .. }));
    assert!(lost, "{outcome:?}");
}
