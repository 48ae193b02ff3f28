//! Links over real QUIC on loopback: who gets one, and what travels on it.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use iroh::endpoint::{Connection, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, SecretKey, TransportAddr};
use peat_gateway_mesh::endpoint::{
    Acceptor, CLOSE_AUTH_FAILED, LinkError, MeshEndpoint, PeerAddress, SYNC_ALPN,
};
use peat_gateway_mesh::formation_key::FormationKey;
use peat_gateway_mesh::frame::{Frame, FrameError, FrameKind};
use peat_gateway_mesh::handshake::{self, HandshakeError};
use peat_gateway_mesh::identity::endpoint_secret;
use peat_gateway_mesh::link::{
    INBOUND_EVENTS_MAX, Link, LinkClosed, LinkEvent, SMALL_PAYLOAD_BYTES_MAX,
};
use support::vectors::{bytes, vector_file};
use tokio::time::timeout;

const SECRET: [u8; 32] = [7; 32];
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn key(formation: &str, secret: u8) -> FormationKey {
    FormationKey::from_secret(formation, &[secret; 32]).unwrap()
}

async fn endpoint(name: &str) -> (MeshEndpoint, PeerAddress) {
    let endpoint = MeshEndpoint::bind(endpoint_secret(&SECRET, name), loopback()).await.unwrap();
    let address = PeerAddress { id: endpoint.id(), sockets: endpoint.local_addrs() };
    (endpoint, address)
}

/// Two linked members, and the endpoints that keep them so.
async fn linked() -> (Link, Link, (MeshEndpoint, MeshEndpoint)) {
    let (gateway, _) = endpoint("gateway").await;
    let (node, address) = endpoint("node").await;
    let mut acceptor = node.acceptor(key("acme", 1));
    let acme = key("acme", 1);
    let (dialled, accepted) = tokio::join!(gateway.connect(&address, &acme), acceptor.accept());
    (dialled.unwrap(), accepted.unwrap().unwrap(), (gateway, node))
}

fn frame(key: &str, payload: impl Into<Bytes>) -> Frame {
    Frame { key: key.to_owned(), kind: FrameKind::DeltaSync, payload: payload.into() }
}

async fn next_event(link: &mut Link) -> LinkEvent {
    timeout(PATIENCE, link.recv()).await.expect("nothing arrived").expect("the link ended")
}

async fn next_frame(link: &mut Link) -> Frame {
    match next_event(link).await {
        LinkEvent::Frame(frame) => frame,
        LinkEvent::Malformed(error) => panic!("{error}"),
    }
}

/// A member that uses QUIC directly, as other implementations do.
async fn raw_peer(node: &PeerAddress) -> (Connection, Endpoint) {
    let endpoint = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(loopback())
        .unwrap()
        .secret_key(SecretKey::from_bytes(&[9; 32]))
        .bind()
        .await
        .unwrap();
    let sockets = node.sockets.iter().copied().map(TransportAddr::Ip);
    let address = EndpointAddr::from_parts(node.id, sockets);
    (endpoint.connect(address, SYNC_ALPN).await.unwrap(), endpoint)
}

/// A raw member, past its handshake.
async fn raw_link() -> (Connection, Link, (Endpoint, MeshEndpoint)) {
    let (node, address) = endpoint("node").await;
    let mut acceptor = node.acceptor(key("acme", 1));
    let greeting = async {
        let (connection, raw) = raw_peer(&address).await;
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        handshake::connect(&mut send, &mut receive, &key("acme", 1)).await.unwrap();
        (connection, raw)
    };
    let ((connection, raw), accepted) = tokio::join!(greeting, acceptor.accept());
    (connection, accepted.unwrap().unwrap(), (raw, node))
}

#[tokio::test]
async fn members_get_a_link_and_frames_travel_both_ways() {
    let (mut gateway, mut node, endpoints) = linked().await;
    assert_eq!(gateway.peer_id(), endpoints.1.id());
    assert_eq!(node.peer_id(), endpoints.0.id());
    assert_eq!(gateway.remote_address(), endpoints.1.local_addrs().first().copied());
    gateway.send(frame("docs:1", "up")).await.unwrap();
    assert_eq!(next_frame(&mut node).await, frame("docs:1", "up"));
    node.sender().send(frame("docs:1", "down")).await.unwrap();
    assert_eq!(next_frame(&mut gateway).await, frame("docs:1", "down"));
    node.close(5, "enough");
    let closed = timeout(PATIENCE, gateway.closed()).await.unwrap();
    assert_eq!(closed, LinkClosed::ByPeer { code: 5, reason: "enough".to_owned() });
    assert!(timeout(PATIENCE, gateway.recv()).await.unwrap().is_none());
    assert_eq!(node.closed().await, LinkClosed::ByUs);
    assert!(node.send(frame("docs:1", "late")).await.is_err());
}

async fn refused(theirs: FormationKey) -> (LinkError, LinkError) {
    let (gateway, _) = endpoint("gateway").await;
    let (node, address) = endpoint("node").await;
    let mut acceptor: Acceptor = node.acceptor(theirs);
    let acme = key("acme", 1);
    let accepting = async {
        let first = acceptor.accept().await.unwrap().unwrap_err();
        // Further attempts of the same connector, if it makes any.
        while let Ok(Some(_)) = timeout(Duration::from_secs(1), acceptor.accept()).await {}
        first
    };
    let (dialled, accepted) = tokio::join!(gateway.connect(&address, &acme), accepting);
    (dialled.unwrap_err(), accepted)
}

#[tokio::test]
async fn a_wrong_secret_is_refused_with_close_code_1() {
    let (dialled, accepted) = refused(key("acme", 2)).await;
    match dialled {
        LinkError::Refused { code, reason } => {
            assert_eq!(code, u64::from(CLOSE_AUTH_FAILED));
            assert_eq!(reason, "formation auth failed");
        }
        // The verdict may arrive before the close.
        LinkError::Handshake(HandshakeError::Rejected) => {}
        other => panic!("{other:?}"),
    }
    let rejected = matches!(accepted, LinkError::Handshake(HandshakeError::Rejected));
    assert!(rejected, "{accepted:?}");
}

#[tokio::test]
async fn a_wrong_formation_is_named() {
    let (dialled, _) = refused(key("bravo", 1)).await;
    let LinkError::Handshake(HandshakeError::WrongFormation { theirs, .. }) = dialled else {
        panic!("{dialled:?}")
    };
    assert_eq!(theirs, "bravo");
}

#[tokio::test]
async fn peers_that_never_speak_do_not_hold_up_others() {
    let (node, address) = endpoint("node").await;
    let mut acceptor = node.acceptor(key("acme", 1));
    let accepting = tokio::spawn(async move { acceptor.accept().await });
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(raw_peer(&address).await);
    }
    let (gateway, _) = endpoint("gateway").await;
    let linked = timeout(PATIENCE, gateway.connect(&address, &key("acme", 1))).await.unwrap();
    let accepted = timeout(PATIENCE, accepting).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(accepted.peer_id(), gateway.id());
    drop((linked.unwrap(), silent));
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_unreachable() {
    let (gateway, _) = endpoint("gateway").await;
    // Bound, so that nobody else takes the port, and silent.
    let nobody = std::net::UdpSocket::bind(loopback()).unwrap();
    let address = PeerAddress {
        id: endpoint_secret(&SECRET, "nobody").public(),
        sockets: vec![nobody.local_addr().unwrap()],
    };
    let error = timeout(PATIENCE, gateway.connect(&address, &key("acme", 1))).await.unwrap();
    let error = error.unwrap_err();
    assert!(matches!(error, LinkError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn an_address_that_is_taken_cannot_be_bound() {
    let (_first, address) = endpoint("first").await;
    let error = MeshEndpoint::bind(SecretKey::from_bytes(&[1; 32]), address.sockets[0]).await;
    assert_eq!(error.unwrap_err().address, address.sockets[0]);
}

#[tokio::test]
async fn many_frames_on_one_stream_all_arrive_in_order_and_heartbeats_are_ignored() {
    let (connection, mut link, _endpoints) = raw_link().await;
    let heartbeat = bytes(&vector_file("sync")["heartbeat_uni_stream"], "bytes");
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    for number in 0..200 {
        let encoded = frame(&format!("docs:{number}"), "x").encode().unwrap();
        send.write_all(&encoded).await.unwrap();
        if let Ok(mut uni) = connection.open_uni().await {
            // The other side stops it, at once or later.
            drop(uni.write_all(&heartbeat).await);
        }
        assert_eq!(next_frame(&mut link).await.key, format!("docs:{number}"));
    }
    // The stream stays open for as long as its sender likes.
    assert!(timeout(Duration::from_millis(200), link.recv()).await.is_err());
}

#[tokio::test]
async fn frames_on_the_stream_that_we_opened_arrive_too() {
    let (connection, mut link, _endpoints) = raw_link().await;
    link.send(frame("docs:1", "question")).await.unwrap();
    let (mut send, mut receive) = connection.accept_bi().await.unwrap();
    let question = receive.read_to_end(1000).await.unwrap();
    assert_eq!(question, frame("docs:1", "question").encode().unwrap());
    for answer in ["first", "second"] {
        send.write_all(&frame("docs:1", answer).encode().unwrap()).await.unwrap();
        assert_eq!(next_frame(&mut link).await.payload, answer);
    }
}

#[tokio::test]
async fn what_is_not_a_frame_ends_its_stream_only() {
    let (connection, mut link, _endpoints) = raw_link().await;
    let (mut good, _good_receive) = connection.open_bi().await.unwrap();
    good.write_all(&frame("docs:1", "before").encode().unwrap()).await.unwrap();
    assert_eq!(next_frame(&mut link).await.payload, "before");

    let (mut bad, _bad_receive) = connection.open_bi().await.unwrap();
    bad.write_all(&[0, 1, b'k', 0x77, 0, 0, 0, 0]).await.unwrap();
    let event = next_event(&mut link).await;
    let unknown = matches!(event, LinkEvent::Malformed(FrameError::UnknownKind { byte: 0x77 }));
    assert!(unknown, "{event:?}");
    // It is stopped: nobody reads on.
    let stopped = timeout(PATIENCE, bad.stopped()).await.unwrap();
    assert!(matches!(stopped, Ok(Some(_))), "{stopped:?}");

    let (mut cut, _cut_receive) = connection.open_bi().await.unwrap();
    cut.write_all(&[0, 9, b'k']).await.unwrap();
    cut.finish().unwrap();
    let event = next_event(&mut link).await;
    let truncated = matches!(event, LinkEvent::Malformed(FrameError::Truncated { field: "key" }));
    assert!(truncated, "{event:?}");

    good.write_all(&frame("docs:1", "after").encode().unwrap()).await.unwrap();
    assert_eq!(next_frame(&mut link).await.payload, "after");
}

#[tokio::test]
async fn large_frames_arrive_whole_among_small_ones() {
    let (mut gateway, node, _endpoints) = linked().await;
    let large = |fill: u8| vec![fill; SMALL_PAYLOAD_BYTES_MAX * 4 + 1];
    let sender = node.sender();
    let sending = async {
        let sends = (0..8).flat_map(|number| {
            [frame("docs:large", large(number)), frame("docs:small", vec![number])]
        });
        futures_util::future::try_join_all(sends.map(|frame| sender.send(frame))).await.unwrap();
    };
    let receiving = async {
        let mut received = Vec::new();
        for _ in 0..16 {
            let Frame { payload, .. } = next_frame(&mut gateway).await;
            assert!(payload.iter().all(|byte| *byte == payload[0]));
            received.push((payload.len(), payload[0]));
        }
        received.sort_unstable();
        received
    };
    let ((), received) = tokio::join!(sending, receiving);
    let sizes = (0..8).map(|number| (1, number));
    let expected = sizes.chain((0..8).map(|number| (SMALL_PAYLOAD_BYTES_MAX * 4 + 1, number)));
    assert_eq!(received, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_receiver_that_waits_stops_its_sender_and_loses_nothing() {
    const FRAMES: usize = 600;
    let (mut gateway, node, _endpoints) = linked().await;
    let sender = node.sender();
    let (sent, mut progress) = tokio::sync::watch::channel(0);
    let sending = tokio::spawn(async move {
        for number in 0..FRAMES {
            sender.send(frame(&format!("docs:{number}"), vec![0; 100_000])).await.unwrap();
            sent.send_replace(number + 1);
        }
    });
    // Nothing is received: sending comes to a halt far from the end.
    let mut last = 0;
    while timeout(Duration::from_secs(1), progress.changed()).await.is_ok() {
        last = *progress.borrow();
    }
    assert!((INBOUND_EVENTS_MAX..FRAMES).contains(&last), "{last} frames were sent");
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..FRAMES {
        keys.insert(next_frame(&mut gateway).await.key);
    }
    assert_eq!(keys.len(), FRAMES);
    sending.await.unwrap();
}
