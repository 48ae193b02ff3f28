//! Who may be part of a cluster: tokens, certificates, other clusters.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use peat_gateway_cluster::{ClusterConfig, Node, PeerTls, StartError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::{Cluster, PATIENCE, config, free_addresses, initialize, wait, write};
use tempfile::TempDir;

/// An authority and the certificates that it signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), directory }
    }

    fn node(&self, name: &str) -> PeerTls {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |file: String, text: String| -> PathBuf {
            let path = self.directory.path().join(file);
            std::fs::write(&path, text).unwrap();
            path
        };
        PeerTls {
            ca: self.directory.path().join("ca.pem"),
            cert: write(format!("{name}.pem"), certificate.pem()),
            key: write(format!("{name}.key"), key.serialize_pem()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_certificates_form_a_cluster_and_others_are_refused() {
    let authority = Authority::new();
    let tls = |config: &mut ClusterConfig| config.peer_tls = Some(authority.node(&config.name));
    let cluster = Cluster::of_three_with(tls).await;
    for place in 0..3 {
        write(&cluster.handle(place), &format!("org{place}")).await.unwrap();
    }
    cluster.wait_agreement().await;

    // One without a certificate, and one with a stranger's, each begin a bootstrap with a member.
    let stranger = Authority::new();
    for peer_tls in [None, Some(stranger.node("stranger"))] {
        let directory = TempDir::new().unwrap();
        // It sorts first, so that this node begins.
        let own = "127.0.0.0:1".to_owned();
        let peers = [own.clone(), cluster.configs[0].peer_address.clone()];
        let mut config = config(directory.path(), &own, &peers);
        config.peer_bind = Some(free_addresses(1).remove(0));
        config.peer_tls = peer_tls;
        let node = Node::start(config).await.unwrap();
        let handle = node.handle();
        let reason = wait("it can't reach the member", || match handle.ready() {
            Err(reason) if reason.contains("can't be reached") => Ok(reason),
            other => Err(other),
        })
        .await;
        assert!(reason.contains(&cluster.configs[0].peer_address), "{reason}");
        assert_eq!(handle.cluster_id(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listener_without_certificates_stays_on_loopback() {
    let directory = TempDir::new().unwrap();
    let mut config = config(directory.path(), "127.0.0.1:1", &[]);
    config.peer_bind = Some("0.0.0.0:0".to_owned());
    let refused = Node::start(config).await.err().expect("refused");
    assert!(matches!(refused, StartError::Tls(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_is_not_in_its_own_list_is_refused() {
    let directory = TempDir::new().unwrap();
    let config = config(directory.path(), "127.0.0.1:1", &["127.0.0.1:2".to_owned()]);
    let refused = Node::start(config).await.err().expect("refused");
    assert!(matches!(refused, StartError::Bootstrap(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_with_another_token_is_not_taken_in_until_it_has_the_right_one() {
    let mut cluster = Cluster::configured(3, |_| {});
    let first = initiator(&cluster);
    let wrong = (first + 1) % 3;
    let right = std::mem::replace(&mut cluster.configs[wrong].cluster_token, "wrong".to_owned());
    for place in 0..3 {
        cluster.start(place).await;
    }
    let handle = cluster.handle(first);
    wait("the token is refused", || {
        handle.ready().err().filter(|reason| reason.contains("tokens")).ok_or("not yet")
    })
    .await;
    assert!(cluster.running().iter().all(|handle| handle.cluster_id().is_none()));
    drop(handle);
    cluster.stop(wrong).await;
    cluster.configs[wrong].cluster_token = right;
    cluster.start(wrong).await;
    cluster.wait_ready().await;
}

fn initiator(cluster: &Cluster) -> usize {
    (0..cluster.configs.len()).min_by_key(|p| &cluster.configs[*p].peer_address).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn initiator_that_lost_its_disk_makes_no_second_cluster() {
    let mut cluster = Cluster::of_three().await;
    let first = initiator(&cluster);
    let (id, old) = (cluster.handle(first).cluster_id(), cluster.handle(first).node_id());
    cluster.kill(first);
    cluster.wipe(first);
    cluster.start(first).await;
    let handle = cluster.handle(first);
    wait("it is ready as a member of the same cluster", || handle.ready()).await;
    assert_eq!(handle.cluster_id(), id);
    assert_ne!(handle.node_id(), old);
    // It has no vote: only an operator gives it the lost one's.
    assert!(!handle.local_status().voter);
}

#[tokio::test(flavor = "multi_thread")]
async fn member_of_another_cluster_ends_the_bootstrap() {
    let mut cluster = Cluster::configured(3, |_| {});
    let first = initiator(&cluster);
    let foreign = (first + 1) % 3;
    let peers = std::mem::take(&mut cluster.configs[foreign].initial_peers);
    cluster.start(foreign).await;
    wait("it has a cluster", || cluster.handle(foreign).cluster_id().ok_or("none")).await;
    initialize(&cluster.running()).await;
    cluster.configs[foreign].initial_peers = peers;
    for place in (0..3).filter(|place| *place != foreign) {
        cluster.start(place).await;
    }
    let node = cluster.nodes[first].as_mut().unwrap();
    let reason = tokio::time::timeout(PATIENCE, node.failed()).await.expect("it fails");
    assert!(reason.contains("belongs to cluster"), "{reason}");
    assert_eq!(node.handle().cluster_id(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_of_another_cluster_at_a_members_address_is_refused() {
    let mut cluster = Cluster::of_three().await;
    let moved = cluster.follower().await;
    cluster.kill(moved);
    // A cluster of one takes the address over.
    let directory = TempDir::new().unwrap();
    let address = cluster.configs[moved].peer_address.clone();
    let mut other = Cluster::configured(1, |_| {});
    other.configs[0] = config(directory.path(), &address, &[]);
    other.start(0).await;
    other.wait_ready().await;
    initialize(&other.running()).await;
    let before = other.handle(0).cluster_id();
    for number in 0..20 {
        write(&cluster.handle(cluster.leader().await), &format!("org{number}")).await.unwrap();
    }
    let members = cluster.running()[0].members(Duration::from_secs(5)).await;
    let gone = members.iter().find(|member| member.peer_address == address).unwrap();
    assert_eq!(gone.role, peat_gateway_cluster::Role::Down);
    assert_eq!(other.handle(0).cluster_id(), before);
    assert!(!support::has(&other.handle(0).local_view(), "org0"));
}
