use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peat_gateway_mesh::credentials::Credentials;
use peat_gateway_mesh::genesis::Genesis;
use peat_gateway_state::record::{EnrollmentPolicy, FormationStatus};

use super::super::formations::{FormationChanges, NewFormation};
use super::*;

fn new(app: &str) -> NewFormation {
    NewFormation {
        app_id: app.to_owned(),
        enrollment_policy: EnrollmentPolicy::Controlled,
        static_peers: vec!["node-1@127.0.0.1:4000".to_owned()],
    }
}

#[tokio::test]
async fn a_formation_is_created_with_a_sealed_genesis_of_its_mesh() {
    let (service, cluster) = service().await;
    let created = service.create_formation(&call(), "acme", new("alpha")).await.unwrap().value;
    assert_eq!(created.status, FormationStatus::Active);
    let snapshot = cluster.read(Consistency::default(), READ_TIMEOUT).await.unwrap();
    let (org, app) = (org_id("acme").unwrap(), app_id("alpha").unwrap());
    let sealed = query::genesis(snapshot.reader(), &org, &app).unwrap().unwrap();
    let bound = binding([2; 16], &org, SecretKind::Genesis, "alpha", 1);
    let opened = service.keyring.open(&bound, &sealed.envelope).await.unwrap();
    let genesis = Genesis::decode(&opened).unwrap();
    assert_eq!(genesis.mesh_id(), created.mesh_id);
    assert_eq!(genesis.mesh_name(), "alpha");
    let exported = service.mesh_credentials(&call(), "acme", "alpha").await.unwrap().value;
    let decoded = STANDARD.decode(exported.credentials.as_bytes()).unwrap();
    let credentials = Credentials::decode(&decoded).unwrap();
    assert_eq!(credentials.mesh_id(), created.mesh_id);
    assert_eq!(credentials.formation_secret(), &genesis.formation_secret());
    assert!(!decoded.windows(32).any(|window| window == genesis.mesh_seed().as_slice()));
}

#[tokio::test]
async fn a_retried_creation_gets_the_first_formation() {
    let (service, cluster) = service().await;
    cluster.loses_answers.store(true, Ordering::Relaxed);
    let lost = service.create_formation(&call_with_key("k"), "acme", new("alpha")).await;
    let lost = lost.unwrap_err();
    assert_eq!((lost.kind, lost.code.as_ref()), (Kind::UnknownOutcome, "unknown_outcome"));
    assert!(lost.detail.contains("Idempotency-Key"));
    cluster.loses_answers.store(false, Ordering::Relaxed);
    let again = service.create_formation(&call_with_key("k"), "acme", new("alpha")).await.unwrap();
    let read = service.formation(&call(), "acme", "alpha").await.unwrap();
    assert_eq!(again.value, read.value);
    let other = service.create_formation(&call(), "acme", new("alpha")).await;
    assert_eq!(code_of(other), "already_exists");
}

#[tokio::test]
async fn a_formation_is_suspended_changed_resumed_and_deleted() {
    let (service, _) = service().await;
    let created = service.create_formation(&call(), "acme", new("alpha")).await.unwrap().value;
    let suspend = FormationChanges {
        status: Some(FormationStatus::Suspended),
        static_peers: Some(Vec::new()),
        ..FormationChanges::default()
    };
    let revision = Some(created.revision);
    let suspended = service
        .update_formation(&call(), "acme", "alpha", revision, suspend.clone())
        .await
        .unwrap()
        .value;
    assert_eq!(suspended.status, FormationStatus::Suspended);
    assert!(suspended.static_peers.is_empty());
    assert_eq!(suspended.enrollment_policy, EnrollmentPolicy::Controlled);
    let late = service.update_formation(&call(), "acme", "alpha", revision, suspend).await;
    assert_eq!(code_of(late), "precondition_failed");
    assert!(service.peers(&call(), "acme", "alpha").await.unwrap().value.is_empty());
    service.delete_formation(&call(), "acme", "alpha", None).await.unwrap();
    assert_eq!(code_of(service.peers(&call(), "acme", "alpha").await), "not_found");
    assert_eq!(code_of(service.mesh_credentials(&call(), "acme", "alpha").await), "not_found");
}

#[tokio::test]
async fn malformed_formations_are_refused_with_the_field() {
    let (service, _) = service().await;
    for id in ["", "a/b", "_org", "peat", "ä"] {
        let error = service.create_formation(&call(), "acme", new(id)).await.unwrap_err();
        assert_eq!((error.kind, error.pointer.as_deref()), (Kind::Invalid, Some("/app_id")));
    }
    for peer in ["", "host", "host:0", "host:70000", ":1", "a b:1", "name@"] {
        let formation = NewFormation { static_peers: vec![peer.to_owned()], ..new("alpha") };
        let error = service.create_formation(&call(), "acme", formation).await.unwrap_err();
        assert_eq!(error.pointer.as_deref(), Some("/static_peers/0"), "{peer}");
    }
    let error = service.create_formation(&call(), "none", new("alpha")).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_ref()), (Kind::NotFound, "organization_not_found"));
}
