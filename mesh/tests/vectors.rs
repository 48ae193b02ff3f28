//! Every recorded vector of the protocol, read whole.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ROOT, ScalarValue};
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use peat_gateway_mesh::batch::{BATCH_KEY, SyncBatch};
use peat_gateway_mesh::credentials::Credentials;
use peat_gateway_mesh::formation_key::FormationKey;
use peat_gateway_mesh::frame::{Frame, FrameKind, FrameLimits, read_frame};
use peat_gateway_mesh::genesis::Genesis;
use peat_gateway_mesh::handshake::{self, Challenge, HandshakeError};
use peat_gateway_mesh::identity::{
    DeviceId, endpoint_id, endpoint_secret, endpoint_secret_before_rc18, signing_key_from_seed,
};
use peat_gateway_mesh::policy::Policy;
use peat_gateway_mesh::tombstone::Tombstone;
use peat_gateway_mesh::{json, negentropy};
use serde_json::Value;
use support::vectors::{array, bytes, hex32, list, number, optional_text, text, vector_file};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

#[test]
fn genesis_derives_and_encodes_what_published_nodes_do() {
    let file = vector_file("genesis");
    assert!(!text(&file, "library").is_empty());
    let cases = list(&file, "cases");
    assert_eq!(cases.len(), 7);
    for case in cases {
        let policy: Policy = text(case, "policy").parse().unwrap();
        assert_eq!(u64::from(policy.byte()), number(case, "policy_byte"));
        let created = Genesis::create(
            text(case, "mesh_name"),
            policy,
            number(case, "created_at_ms"),
            Zeroizing::new(hex32(case, "mesh_seed")),
        )
        .unwrap();
        let decoded = Genesis::decode(&bytes(case, "encoded")).unwrap();
        for genesis in [created, decoded] {
            check_genesis(&genesis, case);
            assert_eq!(genesis.mesh_seed().as_slice(), hex32(case, "mesh_seed"));
            assert_eq!(genesis.authority().to_bytes(), hex32(case, "authority_secret_key"));
            let device = DeviceId::of_public_key(&genesis.authority_public_key());
            assert_eq!(device.to_string(), text(case, "authority_device_id"));
            assert_eq!(*genesis.credentials().encode(), bytes(case, "credentials_encoded"));
            check_root_certificate(&genesis, &bytes(case, "root_certificate_issued_at_created"));
        }
        let credentials = Credentials::decode(&bytes(case, "credentials_encoded")).unwrap();
        assert_eq!(credentials.mesh_name(), text(case, "mesh_name"));
        assert_eq!(credentials.mesh_id(), text(case, "mesh_id"));
        assert_eq!(credentials.formation_secret().as_slice(), hex32(case, "formation_secret"));
        assert_eq!(credentials.authority_public_key(), hex32(case, "authority_public_key"));
        assert_eq!(credentials.policy(), policy);
        assert_eq!(*credentials.encode(), bytes(case, "credentials_encoded"));
    }
}

#[test]
fn an_authority_from_elsewhere_is_kept_and_not_derived() {
    let file = vector_file("genesis");
    let case = &file["external_authority"];
    let genesis = Genesis::decode(&bytes(case, "encoded")).unwrap();
    check_genesis(&genesis, case);
    assert_eq!(genesis.authority().to_bytes(), hex32(case, "external_authority_secret"));
}

#[test]
fn genesis_decoding_accepts_and_refuses_what_published_nodes_do() {
    for case in list(&vector_file("genesis"), "decode_edge_cases") {
        let decoded = Genesis::decode(&bytes(case, "bytes"));
        assert_eq!(decoded.is_ok(), case["decodes"].as_bool().unwrap(), "{case}: {decoded:?}");
    }
}

fn check_genesis(genesis: &Genesis, case: &Value) {
    assert_eq!(genesis.mesh_name(), text(case, "mesh_name"));
    assert_eq!(genesis.mesh_id(), text(case, "mesh_id"));
    assert_eq!(genesis.created_at_ms(), number(case, "created_at_ms"));
    assert_eq!(genesis.policy(), text(case, "policy").parse().unwrap());
    assert_eq!(genesis.formation_secret().as_slice(), hex32(case, "formation_secret"));
    assert_eq!(genesis.authority_public_key(), hex32(case, "authority_public_key"));
    assert_eq!(*genesis.encode(), bytes(case, "encoded"));
    if let Some(okm) = optional_text(case, "mesh_id_okm32") {
        assert!(okm.to_uppercase().starts_with(&genesis.mesh_id()));
    }
}

/// The authority signs everything but the signature, which is the last 64 bytes.
fn check_root_certificate(genesis: &Genesis, certificate: &[u8]) {
    let (signed, signature) = certificate.split_last_chunk::<64>().unwrap();
    assert_eq!(genesis.authority().sign(signed).to_bytes(), *signature);
}

#[test]
fn device_and_endpoint_identities_are_those_of_published_nodes() {
    let file = vector_file("identity");
    for case in list(&file, "device_keypairs") {
        let key = SigningKey::from_bytes(&hex32(case, "secret"));
        check_device(&key, case);
        let signature = key.sign(b"hello mesh").to_bytes().to_vec();
        assert_eq!(signature, bytes(case, "sig_of_hello_mesh"));
    }
    for case in list(&file, "device_keypair_from_seed_hkdf_no_salt") {
        let key = signing_key_from_seed(&bytes(case, "seed"), text(case, "context"));
        assert_eq!(key.to_bytes(), hex32(case, "secret"));
        check_device(&key, case);
    }
    for case in list(&file, "iroh_endpoint_from_formation_secret") {
        let secret = bytes(case, "formation_secret");
        let node_name = text(case, "node_name");
        assert_eq!(format!("iroh:{node_name}"), text(case, "hkdf_info"));
        let key = endpoint_secret(&secret, node_name);
        assert_eq!(key.to_bytes(), hex32(case, "iroh_secret_key"));
        let id = endpoint_id(&secret, node_name);
        assert_eq!(*id.as_bytes(), hex32(case, "endpoint_id_hex"));
        assert_eq!(id.to_string(), text(case, "endpoint_id_hex"));
        assert_eq!(id.fmt_short().to_string(), text(case, "endpoint_short"));
    }
    for case in list(&file, "peat_protocol_from_seed_sha256_legacy_until_rc17") {
        let key = endpoint_secret_before_rc18(text(case, "seed"));
        assert_eq!(key.to_bytes(), hex32(case, "secret"));
        assert_eq!(*key.public().as_bytes(), hex32(case, "endpoint_id_hex"));
    }
}

fn check_device(key: &SigningKey, case: &Value) {
    let public = key.verifying_key().to_bytes();
    assert_eq!(public, hex32(case, "public"));
    assert_eq!(DeviceId::of_public_key(&public).to_string(), text(case, "device_id"));
}

#[tokio::test]
async fn formation_keys_answer_and_speak_as_published_nodes_do() {
    let file = vector_file("formation_auth");
    for case in list(&file, "cases") {
        let key =
            FormationKey::from_secret(text(case, "formation_id"), &hex32(case, "shared_secret"))
                .unwrap();
        let nonce = hex32(case, "nonce");
        assert_eq!(key.respond(&nonce), hex32(case, "response"));
        assert!(key.verify(&nonce, &hex32(case, "response_bytes")));
        let challenge = Challenge { formation_id: key.formation_id().to_owned(), nonce };
        assert_eq!(challenge.encode(), bytes(case, "challenge_bytes"));
        assert_eq!(Challenge::decode(&bytes(case, "challenge_bytes")).unwrap(), challenge);

        let transcript = &case["transcript_mesh_0_8_1_and_later"];
        for (verdict, accepted) in
            [("4_acceptor_verdict_ok", true), ("4_acceptor_verdict_reject", false)]
        {
            let (mut ours, theirs) = tokio::io::duplex(4096);
            let (mut receive, mut send) = tokio::io::split(theirs);
            let script = async {
                expect(&mut ours, &bytes(transcript, "1_initiator_preamble")).await;
                ours.write_all(&bytes(transcript, "2_acceptor")).await.unwrap();
                expect(&mut ours, &bytes(transcript, "3_initiator")).await;
                ours.write_all(&bytes(transcript, verdict)).await.unwrap();
            };
            let (outcome, ()) =
                tokio::join!(handshake::connect(&mut send, &mut receive, &key), script);
            match outcome {
                Ok(()) => assert!(accepted),
                Err(error) => assert!(!accepted && matches!(error, HandshakeError::Rejected)),
            }
        }
    }
    for case in list(&file, "from_base64") {
        let id = text(case, "formation_id");
        let from_text = FormationKey::from_base64(id, text(case, "base64")).unwrap();
        let from_secret =
            FormationKey::from_secret(id, &hex32(case, "effective_shared_secret")).unwrap();
        let nonce = hex32(case, "nonce");
        for key in [from_text, from_secret] {
            assert_eq!(key.respond(&nonce), hex32(case, "response"));
        }
    }
}

async fn expect(stream: &mut tokio::io::DuplexStream, expected: &[u8]) {
    let mut read = vec![0; expected.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(read, expected);
}

/// Decodes a frame both ways, and encodes it to the same bytes.
async fn check_frame(encoded: &[u8]) -> Frame {
    let frame = Frame::decode(&Bytes::copy_from_slice(encoded)).unwrap();
    assert_eq!(frame.encode().unwrap(), encoded);
    let mut stream = encoded;
    let limits = FrameLimits::default();
    let streamed = read_frame(&mut stream, &limits).await.unwrap();
    assert_eq!(streamed.as_ref(), Some(&frame));
    assert!(read_frame(&mut stream, &limits).await.unwrap().is_none());
    check_payload(&frame);
    frame
}

/// Decodes what a frame carries, and encodes it to the same bytes.
fn check_payload(frame: &Frame) {
    let payload = &frame.payload;
    match frame.kind {
        FrameKind::DeltaSync => {
            automerge::sync::Message::decode(payload).unwrap();
        }
        FrameKind::StateSnapshot => {
            AutoCommit::load(payload).unwrap();
        }
        FrameKind::Tombstone => {
            let tombstone = Tombstone::decode(payload).unwrap();
            assert_eq!(tombstone.to_frame().unwrap(), *frame);
        }
        FrameKind::TombstoneBatch => {
            let tombstones = Tombstone::decode_batch(payload).unwrap();
            assert_eq!(Tombstone::encode_batch(&tombstones).unwrap(), payload);
        }
        FrameKind::SyncBatch => {
            let batch = SyncBatch::decode(payload).unwrap();
            for entry in &batch.entries {
                check_payload(entry);
            }
            assert_eq!(batch.into_frame().unwrap(), *frame);
        }
        FrameKind::NegentropyInit | FrameKind::NegentropyResponse => {
            let ids = negentropy::listed_ids(payload).unwrap();
            assert_eq!(negentropy::id_list(&ids), payload);
        }
        FrameKind::WindowedHistory | FrameKind::TombstoneAck | FrameKind::NegentropyRequest => {
            panic!("no vector has a frame of {:?}", frame.kind)
        }
    }
}

#[tokio::test]
async fn sync_frames_decode_and_encode_to_the_same_bytes() {
    let file = vector_file("sync");
    for step in list(&file, "delta_exchange") {
        let frame = check_frame(&bytes(step, "frame")).await;
        assert_eq!(frame.kind, FrameKind::DeltaSync);
        assert_eq!(frame.key, text(&file["document"], "doc_key"));
        assert_eq!(frame.payload, bytes(step, "sync_message"));
    }
    let snapshot = &file["state_snapshot"];
    let frame = check_frame(&bytes(snapshot, "frame")).await;
    assert_eq!((frame.key.as_str(), frame.kind), ("beacons:b-1", FrameKind::StateSnapshot));
    assert_eq!(frame.payload, bytes(snapshot, "saved"));

    let expected = &file["sync_batch"];
    let frame = check_frame(&bytes(expected, "frame_0x07")).await;
    assert_eq!(frame.key, BATCH_KEY);
    assert_eq!(frame.payload, bytes(expected, "payload"));
    let batch = SyncBatch::decode(&frame.payload).unwrap();
    assert_eq!(batch.batch_id, number(expected, "batch_id"));
    assert_eq!(batch.created_at_ms, number(expected, "created_at_ms"));
    assert_eq!(u64::from(batch.ttl), number(expected, "ttl"));
    let kinds: Vec<FrameKind> = batch.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [FrameKind::DeltaSync, FrameKind::StateSnapshot, FrameKind::Tombstone]);

    let tombstones: Vec<Tombstone> =
        list(&file, "tombstones").iter().map(check_tombstone).collect();
    for case in list(&file, "tombstones") {
        check_frame(&bytes(case, "frame_0x04")).await;
    }
    let frame = check_frame(&bytes(&file["tombstone_batch"], "frame_0x05")).await;
    assert_eq!(frame.payload, bytes(&file["tombstone_batch"], "payload"));
    assert_eq!(Tombstone::decode_batch(&frame.payload).unwrap(), tombstones[..2]);
}

fn check_tombstone(case: &Value) -> Tombstone {
    let tombstone = Tombstone::decode(&bytes(case, "payload")).unwrap();
    assert_eq!(tombstone.collection, text(case, "collection"));
    assert_eq!(tombstone.document_id, text(case, "document_id"));
    assert_eq!(tombstone.deleted_at_ms, number(case, "deleted_at_ms"));
    assert_eq!(tombstone.lamport.to_string(), text(case, "lamport"));
    assert_eq!(tombstone.deleted_by, text(case, "deleted_by"));
    assert_eq!(tombstone.reason.as_deref(), optional_text(case, "reason"));
    assert_eq!(format!("{:?}", tombstone.direction), text(case, "direction"));
    assert_eq!(tombstone.encode().unwrap(), bytes(case, "payload"));
    tombstone
}

#[tokio::test]
async fn negentropy_messages_list_the_items_of_published_nodes() {
    let file = vector_file("sync");
    let mut ids: Vec<negentropy::ItemId> = Vec::new();
    for item in list(&file["negentropy"], "items") {
        let id = negentropy::item_id(text(item, "doc_key"));
        assert_eq!(id, hex32(item, "id_sha256_of_key"));
        ids.push(id);
    }
    ids.sort_unstable();
    let messages: Vec<&Value> = list(&file["negentropy"], "messages")
        .iter()
        .filter(|message| message.get("frame").is_some())
        .collect();
    let [init, response] = messages[..] else { panic!("two messages are recorded") };
    for (message, kind, listed) in [
        (init, FrameKind::NegentropyInit, ids),
        (response, FrameKind::NegentropyResponse, Vec::new()),
    ] {
        let frame = check_frame(&bytes(message, "frame")).await;
        assert_eq!((frame.key.as_str(), frame.kind), (negentropy::NEGENTROPY_KEY, kind));
        assert_eq!(frame.payload, bytes(message, "payload"));
        assert_eq!(negentropy::listed_ids(&frame.payload).unwrap(), listed);
    }
    assert_eq!(negentropy::empty_init().payload, bytes(response, "payload"));
}

#[test]
fn documents_have_the_json_that_was_written() {
    let file = vector_file("sync");
    let document = AutoCommit::load(&bytes(&file["document"], "saved_v1")).unwrap();
    assert_eq!(json::document(&document), file["document"]["json_v1"]);
    let mut changed = AutoCommit::load(&bytes(&file["document"], "saved_v2")).unwrap();
    let heads: Vec<String> = changed.get_heads().iter().map(ToString::to_string).collect();
    assert_eq!(heads, array(&file["document"], "heads_v2"));
    let first_heads = AutoCommit::load(&bytes(&file["document"], "saved_v1")).unwrap().get_heads();
    assert_eq!(json::document_at(&changed, &first_heads), file["document"]["json_v1"]);
    assert_ne!(json::document(&changed), file["document"]["json_v1"]);
}

#[test]
fn an_answer_built_by_automerge_is_the_recorded_one() {
    // The observer's side of the recorded exchange, with the library's own state machine.
    use automerge::sync::{Message, State, SyncDoc as _};
    let file = vector_file("sync");
    let actor = hex::decode(text(&file, "observer_actor")).unwrap();
    let mut document = AutoCommit::new().with_actor(ActorId::from(actor));
    let mut state = State::new();
    let mut answers = 0;
    for step in list(&file, "delta_exchange") {
        let recorded = Message::decode(&bytes(step, "sync_message")).unwrap();
        if text(step, "dir") == "node->observer" {
            document.sync().receive_sync_message(&mut state, recorded).unwrap();
        } else {
            let answer = document.sync().generate_sync_message(&mut state).unwrap();
            // Flags name what a library version can do; the rest is the protocol.
            assert_eq!((answer.heads, answer.need), (recorded.heads, recorded.need));
            assert_eq!(answer.have, recorded.have);
            assert!(answer.changes.is_empty());
            answers += 1;
        }
    }
    assert_eq!(answers, 4);
    let saved = AutoCommit::load(&bytes(&file["document"], "saved_v2")).unwrap();
    assert_eq!(json::document(&document), json::document(&saved));
}

#[test]
fn scalars_that_json_wrote_come_back_as_json() {
    // What a node makes of JSON is tested with the node; here only the way back.
    let file = vector_file("sync");
    let expected = &file["json_roundtrip"]["out"];
    let mut document = AutoCommit::new();
    document.put(ROOT, "i", -5_i64).unwrap();
    document.put(ROOT, "u", ScalarValue::Int(9_007_199_254_740_993)).unwrap();
    document.put(ROOT, "f", 0.25).unwrap();
    let written = json::document(&document);
    for field in ["i", "u", "f"] {
        assert_eq!(written[field], expected[field]);
    }
}

#[tokio::test]
async fn every_captured_frame_decodes_and_encodes_to_the_same_bytes() {
    for (name, frames) in [("v060", 29), ("v081", 25), ("rc25", 25), ("observer_accepts", 260)] {
        let file = vector_file(&format!("live_capture_{name}"));
        let captured = list(&file, "frames");
        assert_eq!(captured.len(), frames, "{name}");
        for frame in captured {
            let byte = u8::from_str_radix(text(frame, "type").trim_start_matches("0x"), 16);
            let frame = Frame {
                key: text(frame, "doc_key").to_owned(),
                kind: FrameKind::from_byte(byte.unwrap()).unwrap(),
                payload: bytes(frame, "payload").into(),
            };
            assert_eq!(check_frame(&frame.encode().unwrap()).await, frame);
        }
        check_auth_transcript(list(&file, "auth_transcript"));
    }
}

/// A captured handshake has our shapes; its secret is not recorded.
fn check_auth_transcript(transcript: &[Value]) {
    let messages: Vec<Vec<u8>> = transcript.iter().map(|step| bytes(step, "bytes")).collect();
    let [preamble, challenge, response, verdict] = messages.as_slice() else {
        assert!(messages.is_empty());
        return;
    };
    assert_eq!((preamble.as_slice(), verdict.as_slice()), (&[1][..], &[1][..]));
    let (length, challenge) = challenge.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_le_bytes(*length) as usize, challenge.len());
    assert_eq!(Challenge::decode(challenge).unwrap().encode(), challenge);
    assert_eq!((response[..4].to_vec(), response.len()), (vec![32, 0, 0, 0], 36));
}
