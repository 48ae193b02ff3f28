//! Use cases over the real `apply`, without consensus.

mod destinations;
mod events;
mod formations;
mod sinks;

use std::sync::Arc;

use peat_gateway_cluster::Consistency;
use peat_gateway_state::command::{Idempotency, QuotaChanges};
use peat_gateway_state::ids::Hash32;

use super::memory::Memory;
use super::*;
use crate::keys::Kek;

/// A service over a fresh cluster that holds the organisation `acme`.
async fn service() -> (Service, Arc<Memory>) {
    let cluster = Arc::new(Memory::start());
    let keyring = Keyring::local(Kek::from_bytes(&[9; 32]));
    let service = Service::over(cluster.clone(), keyring, Settings::default());
    let quotas = QuotaChanges::default();
    service.create_organization(&call(), "acme", "Acme".to_owned(), quotas).await.unwrap();
    (service, cluster)
}

fn call() -> Call {
    Call {
        principal: Principal::Admin,
        source: "127.0.0.1".to_owned(),
        request_id: "test".to_owned(),
        idempotency: None,
        consistency: Consistency::default(),
    }
}

fn call_with_key(key: &str) -> Call {
    let request_digest = Hash32([5; 32]);
    let idempotency = Some(Idempotency { key: key.to_owned(), request_digest });
    Call { idempotency, ..call() }
}

fn code_of<T>(result: Result<T, Error>) -> String {
    result.map(drop).unwrap_err().code.into_owned()
}

#[tokio::test]
async fn an_organisation_is_created_read_changed_and_deleted() {
    let (service, _) = service().await;
    let created = service.organization(&call(), "acme").await.unwrap();
    assert_eq!(created.value.display_name, "Acme");
    assert_eq!(created.value.quotas.max_formations, 10);
    let quotas = QuotaChanges { max_formations: Some(1), ..QuotaChanges::default() };
    let revision = Some(created.value.revision);
    let changed =
        service.update_organization(&call(), "acme", revision, None, quotas).await.unwrap();
    assert_eq!(changed.value.quotas.max_formations, 1);
    assert_eq!(changed.value.quotas.max_cdc_sinks, 5);
    assert!(changed.index > created.value.revision);
    let stale = service.delete_organization(&call(), "acme", revision).await;
    assert_eq!(code_of(stale), "precondition_failed");
    service.delete_organization(&call(), "acme", None).await.unwrap();
    assert_eq!(code_of(service.organization(&call(), "acme").await), "not_found");
    // Its audit chain outlives it, and one that never was has none.
    let report = service.verify_audit(&call(), "acme").await.unwrap().value;
    assert!(report.broken.is_none() && report.entries >= 4, "{report:?}");
    assert_eq!(code_of(service.verify_audit(&call(), "other").await), "not_found");
}

#[tokio::test]
async fn listings_come_in_pages() {
    let (service, _) = service().await;
    for id in ["b", "c", "d"] {
        let quotas = QuotaChanges::default();
        service.create_organization(&call(), id, id.to_owned(), quotas).await.unwrap();
    }
    let first = service.organizations(&call(), None, 2).await.unwrap().value;
    let ids: Vec<_> = first.items.iter().map(|found| found.org_id.as_str()).collect();
    assert_eq!((ids, first.more), (vec!["acme", "b"], true));
    let rest = service.organizations(&call(), Some("b"), 2).await.unwrap().value;
    let ids: Vec<_> = rest.items.iter().map(|found| found.org_id.as_str()).collect();
    assert_eq!((ids, rest.more), (vec!["c", "d"], false));
}

#[tokio::test]
async fn every_use_case_refuses_who_is_unknown() {
    let (service, _) = service().await;
    let nobody = Call { principal: Principal::Anonymous, ..call() };
    let codes = [
        code_of(service.organizations(&nobody, None, 1).await),
        code_of(service.organization(&nobody, "acme").await),
        code_of(service.delete_organization(&nobody, "acme", None).await),
        code_of(service.formations(&nobody, "acme", None, 1).await),
        code_of(service.mesh_credentials(&nobody, "acme", "alpha").await),
        code_of(service.delete_formation(&nobody, "acme", "alpha", None).await),
        code_of(service.peers(&nobody, "acme", "alpha").await),
        code_of(service.documents(&nobody, "acme", "alpha", None, 1).await),
        code_of(service.document(&nobody, "acme", "alpha", "a:b").await),
        code_of(service.sinks(&nobody, "acme", None, 1).await),
        code_of(service.sink_progress(&nobody, "acme", "x").await),
        code_of(service.journal(&nobody, "acme", 0, 1).await),
        code_of(service.follow_journal(&nobody, "acme", None).await),
        code_of(service.audit(&nobody, "acme", None, None, 1).await),
        code_of(service.cluster_audit(&nobody, None, 1).await),
        code_of(service.verify_audit(&nobody, "acme").await),
        code_of(service.settings(&nobody).await),
        code_of(service.cluster_status(&nobody).await),
    ];
    assert!(codes.iter().all(|code| code == "unauthenticated"), "{codes:?}");
    assert!(service.organization(&call(), "acme").await.is_ok());
}

#[tokio::test]
async fn a_read_is_as_new_as_demanded_or_refused() {
    let (service, cluster) = service().await;
    let index = service.applied_index();
    let demanding = |min_index| Call {
        consistency: Consistency { min_index, ..Consistency::default() },
        ..call()
    };
    assert_eq!(service.organization(&demanding(index), "acme").await.unwrap().index, index);
    let behind = service.organization(&demanding(index + 1), "acme").await.unwrap_err();
    assert_eq!((behind.kind, behind.code.as_ref()), (Kind::Unavailable, "behind"));
    cluster.has_no_leader.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(code_of(service.organization(&call(), "acme").await), "unavailable");
    let stale = Consistency { stale: true, ..Consistency::default() };
    let stale = Call { consistency: stale, ..call() };
    assert!(service.organization(&stale, "acme").await.is_ok());
}
