//! Promise 7: no secret in clear on disk, in logs, in API answers or between nodes (INV-7).

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::cli;
use crate::support::cluster::{ADMIN_TOKEN, Cluster, KEK};
use crate::support::{self, ports, wait_for};

const WEBHOOK_SECRET: &[u8; 32] = b"canary-webhook-secret-0123456789";
const NATS_PASSWORD: &str = "canary-nats-password-77d0";
const HEADER_SECRET: &str = "canary-header-value-51ce";

/// How long anything may wait for a leader.
const LIMIT: Duration = Duration::from_secs(30);

/// The forms in which a leaked secret would be found.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let whole = STANDARD.encode(secret);
    // A secret inside a larger base64 text begins at any of three offsets; the middle stays the same.
    let shifted = (0..3).map(|pad| {
        let text = STANDARD.encode([vec![0; pad], secret.to_vec()].concat());
        text.into_bytes()[4 * usize::from(pad > 0)..].iter().take(24).copied().collect()
    });
    let mut all = vec![
        secret.to_vec(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
        whole.trim_end_matches('=').as_bytes().to_vec(),
    ];
    all.extend(shifted);
    all
}

fn holds(haystack: &[u8], secret: &[u8]) -> bool {
    forms(secret).iter().any(|form| haystack.windows(form.len()).any(|window| window == form))
}

fn scan_directory(directory: &Path, secrets: &[(&str, Vec<u8>)], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            scan_directory(&path, secrets, found);
        } else if let Ok(bytes) = std::fs::read(&path) {
            for (name, secret) in secrets {
                if holds(&bytes, secret) {
                    found.push(format!("{name} in {}", path.display()));
                }
            }
        }
    }
}

/// A wire tap: forwards connections to `target` and keeps what flows, both ways.
async fn tap(listener: TcpListener, target: u16, seen: std::sync::Arc<std::sync::Mutex<Vec<u8>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let seen = seen.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
            let (client, server) = (client.into_split(), server.into_split());
            let forward = copy(client.0, server.1, seen.clone());
            let backward = copy(server.0, client.1, seen);
            tokio::join!(forward, backward);
        });
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    seen: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        seen.lock().expect("no panic under the lock").extend_from_slice(&buffer[..count]);
    }
    to.shutdown().await.ok();
}

#[test]
fn no_secret_is_found_on_disk_in_logs_in_answers_or_between_nodes() {
    let _alone = support::alone();
    support::runtime().block_on(async {
        // Without TLS between the nodes: the tap sees what they say in clear.
        let mut cluster = Cluster::prepare(3);
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut public = Vec::new();
        for node in &mut cluster.nodes {
            for name in ["PEAT_PEER_CA", "PEAT_PEER_CERT", "PEAT_PEER_KEY"] {
                node.unset(name);
            }
            let listener =
                TcpListener::bind(("127.0.0.1", ports::free())).await.expect("a free port");
            let address = listener.local_addr().expect("its address").to_string();
            node.set("PEAT_PEER_ADDRESS", &address);
            public.push(address);
            tokio::spawn(tap(listener, node.peer_port, seen.clone()));
        }
        cluster.set("PEAT_INITIAL_PEERS", &public.join(","));
        cluster.start_all();
        cluster.wait_ready().await;
        let api = cluster.any();

        api.create("/orgs", &json!({ "org_id": "acme", "display_name": "Acme" })).await;
        api.create("/orgs/acme/formations", &json!({ "app_id": "field" })).await;
        let whsec = format!("whsec_{}", STANDARD.encode(WEBHOOK_SECRET));
        let webhook = json!({
            "sink_type": { "Webhook": { "url": "http://127.0.0.1:9/x" } },
            "credentials": { "signing_secret": whsec, "headers": { "x-key": HEADER_SECRET } },
        });
        let webhook = api.create("/orgs/acme/sinks", &webhook).await;
        let nats = json!({
            "sink_type": { "Nats": { "subject_prefix": "cdc", "url": "nats://127.0.0.1:9" } },
            "credentials": { "user": "u", "password": NATS_PASSWORD },
        });
        api.create("/orgs/acme/sinks", &nats).await;
        let credentials = api.read("/orgs/acme/formations/field/credentials").await;
        let encoded = credentials["credentials"].as_str().expect("base64 credentials");
        let encoded = STANDARD.decode(encoded).expect("base64");
        let name_length = usize::from(encoded[0]) + usize::from(encoded[1]) * 256;
        let formation_secret = encoded[2 + name_length + 8..][..32].to_vec();

        let mut answers = String::new();
        let sink = webhook["sink_id"].as_str().expect("the sink's id");
        for path in [
            "/orgs".to_owned(),
            "/orgs/acme".to_owned(),
            "/orgs/acme/formations/field".to_owned(),
            "/orgs/acme/sinks".to_owned(),
            format!("/orgs/acme/sinks/{sink}"),
            "/orgs/acme/audit".to_owned(),
            "/cluster".to_owned(),
            "/cluster/audit".to_owned(),
            "/openapi.json".to_owned(),
            "/metrics".to_owned(),
            "/health".to_owned(),
        ] {
            // A refusal while a leader is found would be an answer without anything to leak.
            answers += &wait_for(&path, LIMIT, || async {
                let answer = api.get(&path).await?;
                if answer.status == 200 { Ok(answer.body) } else { Err(answer.body) }
            })
            .await;
        }
        let wrong = api
            .send(Method::GET, "/orgs", None, &[("authorization", "Bearer canary-wrong-token")])
            .await
            .expect("an answer");
        answers += &wrong.body;

        let secrets: Vec<(&str, Vec<u8>)> = vec![
            ("webhook secret", WEBHOOK_SECRET.to_vec()),
            ("nats password", NATS_PASSWORD.as_bytes().to_vec()),
            ("header value", HEADER_SECRET.as_bytes().to_vec()),
            ("formation secret", formation_secret),
            ("admin token", ADMIN_TOKEN.as_bytes().to_vec()),
            ("sealing key", hex::decode(KEK).expect("hex")),
            ("cluster token", b"canary-cluster-token-93ab".to_vec()),
        ];
        let mut found = Vec::new();
        for (name, secret) in &secrets {
            if holds(answers.as_bytes(), secret) {
                found.push(format!("{name} in an API answer"));
            }
            if holds(&seen.lock().expect("no panic under the lock"), secret) {
                found.push(format!("{name} between nodes"));
            }
        }
        let frames = seen.lock().expect("no panic under the lock").len();
        assert!(frames > 10_000, "the tap saw only {frames} bytes");
        // A backup holds everything that there is, sealed.
        let backups = tempfile::tempdir().expect("a folder");
        let file = backups.path().join("all.snapshot");
        let url = cluster.nodes[0].url();
        wait_for("a snapshot", LIMIT, || async {
            let saved = cli::run(&["snapshot", "save", cli::text(&file), "--url", &url]);
            if saved.code == 0 { Ok(()) } else { Err(saved.stderr) }
        })
        .await;
        assert!(std::fs::metadata(&file).expect("the snapshot").len() > 128 << 10);
        scan_directory(backups.path(), &secrets, &mut found);
        cluster.nodes.iter_mut().for_each(|node| {
            node.stop();
        });
        for node in &cluster.nodes {
            scan_directory(&node.data, &secrets, &mut found);
            let log = std::fs::read(&node.log).expect("the log");
            for (name, secret) in &secrets {
                if holds(&log, secret) {
                    found.push(format!("{name} in {}", node.log.display()));
                }
            }
        }
        assert!(found.is_empty(), "secrets in clear:\n{}", found.join("\n"));
    });
}

#[test]
fn the_scan_finds_what_is_there_in_every_form() {
    let secret = b"canary-of-the-scan-itself-123456";
    for form in forms(secret) {
        let around = [b"before ".as_slice(), &form, b" after"].concat();
        assert!(holds(&around, secret));
    }
    for pad in 0..3 {
        let inside = [vec![b'x'; pad], secret.to_vec(), b"tail".to_vec()].concat();
        assert!(holds(STANDARD.encode(inside).as_bytes(), secret), "offset {pad}");
    }
    assert!(!holds(b"nothing of the kind", secret));
}
