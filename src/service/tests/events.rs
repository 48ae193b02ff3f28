use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use peat_gateway_state::command::{
    AppendChanges, DocumentBatch, EventBody, NewEvent, RefusalRecord, SequencedEvent,
};
use peat_gateway_state::ids::{DocumentKey, SinkId};
use peat_gateway_state::record::{EnrollmentPolicy, SinkFilter, SinkKind, SinkStart};
use serde_json::json;

use super::super::formations::NewFormation;
use super::super::journal::Followed;
use super::super::sinks::NewSink;
use super::*;

const KEY: &str = "tracks:a/b:c";

/// Journals one more change of the document, as an observer would.
fn change(cluster: &Memory, document: &mut AutoCommit, value: i64) {
    let before = document.get_heads();
    document.put(ROOT, "value", value).unwrap();
    document.commit();
    let events = document
        .get_changes(&before)
        .into_iter()
        .map(|change| {
            SequencedEvent::Inline(NewEvent {
                change_hash: Hash32(change.hash().0),
                actor: change.actor_id().to_hex_string(),
                patches: format!(r#"[{{"value":{value}}}]"#).into_bytes(),
                body: EventBody::Change {
                    deps: change.deps().iter().map(|hash| Hash32(hash.0)).collect(),
                    bytes: change.raw_bytes().to_vec(),
                },
            })
        })
        .collect();
    let batch = DocumentBatch {
        app_id: app_id("alpha").unwrap(),
        document: DocumentKey::parse(KEY).unwrap(),
        events,
    };
    let outcome = cluster.lead(Command::AppendChanges(AppendChanges {
        fence: cluster.fence(),
        org_id: org_id("acme").unwrap(),
        batches: vec![batch],
    }));
    assert!(matches!(outcome, Outcome::Appended { known: 0, .. }), "{outcome:?}");
}

async fn with_formation() -> (Service, Arc<Memory>) {
    let (service, cluster) = service().await;
    let new = NewFormation {
        app_id: "alpha".to_owned(),
        enrollment_policy: EnrollmentPolicy::Open,
        static_peers: Vec::new(),
    };
    service.create_formation(&call(), "acme", new).await.unwrap();
    (service, cluster)
}

#[tokio::test]
async fn documents_are_made_from_their_changes_when_they_are_read() {
    let (service, cluster) = with_formation().await;
    let mut document = AutoCommit::new();
    for value in 1..=3 {
        change(&cluster, &mut document, value);
    }
    let listed = service.documents(&call(), "acme", "alpha", None, 10).await.unwrap().value;
    assert_eq!(listed.items[0].doc_id.as_str(), KEY);
    let view = service.document(&call(), "acme", "alpha", KEY).await.unwrap().value;
    assert_eq!(view.content, json!({"value": 3}));
    assert_eq!((view.document_sequence, view.heads.len()), (3, 1));
    assert_eq!(code_of(service.document(&call(), "acme", "alpha", "no").await), "not_found");
    assert_eq!(code_of(service.document(&call(), "acme", "beta", KEY).await), "not_found");
}

#[tokio::test]
async fn the_journal_is_read_in_pages_and_lag_is_counted() {
    let (service, cluster) = with_formation().await;
    let kind = SinkKind::File { name: "out".to_owned() };
    let (filter, start) = (SinkFilter::default(), SinkStart::Earliest);
    let new = NewSink { sink_type: kind, filter, start, credentials: None };
    let sink: SinkId = service.create_sink(&call(), "acme", new).await.unwrap().value.sink.sink_id;
    let mut document = AutoCommit::new();
    for value in 1..=3 {
        change(&cluster, &mut document, value);
    }
    let tail = service.journal(&call(), "acme", 1, 1).await.unwrap().value;
    assert_eq!((tail.events.len(), tail.head, tail.trimmed), (1, 3, 0));
    let event = &tail.events[0];
    assert_eq!((event.sequence, event.document_sequence, event.kind), (2, 2, "change"));
    assert_eq!(event.patches, json!([{"value": 2}]));
    assert_eq!((event.document_id.as_str(), event.event_id.len()), (KEY, 64));
    let progress = service.sink_progress(&call(), "acme", sink.as_str()).await.unwrap().value;
    assert_eq!((progress.head, progress.lag), (3, 3));
}

#[tokio::test]
async fn a_follower_sees_what_is_journalled_after_it_began() {
    let (service, cluster) = with_formation().await;
    let mut document = AutoCommit::new();
    change(&cluster, &mut document, 1);
    let mut follower = service.follow_journal(&call(), "acme", None).await.unwrap().value;
    let mut from_start = service.follow_journal(&call(), "acme", Some(0)).await.unwrap().value;
    change(&cluster, &mut document, 2);
    for (follower, sequences) in [(&mut follower, vec![2]), (&mut from_start, vec![1, 2])] {
        let next = tokio::time::timeout(Duration::from_secs(5), follower.next());
        let Some(Followed::Events(events)) = next.await.unwrap().unwrap() else {
            panic!("expected events");
        };
        assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), sequences);
    }
    let (ended, deleted) =
        tokio::join!(tokio::time::timeout(Duration::from_secs(5), follower.next()), async {
            service.delete_organization(&call(), "acme", None).await
        },);
    deleted.unwrap();
    assert_eq!(ended.unwrap().unwrap(), None);
}

#[tokio::test]
async fn audit_is_filtered_by_formation_and_refusals_are_written_once() {
    let (service, _) = with_formation().await;
    let of_alpha = service.audit(&call(), "acme", Some("alpha"), None, 10).await.unwrap().value;
    assert_eq!(of_alpha.entries.len(), 1);
    assert_eq!(of_alpha.entries[0].target, "formation/acme/alpha");
    let all = service.audit(&call(), "acme", None, None, 1).await.unwrap().value;
    let before = all.next_before.unwrap();
    let rest = service.audit(&call(), "acme", None, Some(before), 10).await.unwrap().value;
    assert_eq!((rest.entries.len(), rest.next_before), (1, None));
    let refusal = RefusalRecord {
        org_id: None,
        actor: Actor {
            principal: "anonymous".to_owned(),
            source: "127.0.0.1".to_owned(),
            request_id: String::new(),
        },
        target: "GET /orgs".to_owned(),
        code: "unauthenticated".to_owned(),
        count: 3,
    };
    for _ in 0..2 {
        service.record_refusals("batch", vec![refusal.clone()]).await.unwrap();
    }
    let entries = service.cluster_audit(&call(), None, 100).await.unwrap().value.entries;
    let counted: Vec<_> =
        entries.iter().filter(|entry| entry.target == "GET /orgs").map(|e| e.count).collect();
    assert_eq!(counted, [3]);
}
