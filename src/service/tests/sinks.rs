use std::sync::atomic::Ordering;

use peat_gateway_state::record::{SinkFilter, SinkKind, SinkStart};

use super::super::credentials::{SecretText, SinkCredentials};
use super::super::sinks::{NewSink, SinkChanges};
use super::*;

const URL: &str = "https://example.com/hook";

fn webhook(url: &str, credentials: Option<SinkCredentials>) -> NewSink {
    NewSink {
        sink_type: SinkKind::Webhook { url: url.to_owned() },
        filter: SinkFilter::default(),
        start: SinkStart::Now,
        credentials,
    }
}

fn bearer(token: &str) -> SinkCredentials {
    SinkCredentials { bearer_token: Some(SecretText::new(token)), ..SinkCredentials::default() }
}

async fn stored(service: &Service, sink: &str) -> (SinkCredentials, u64) {
    let snapshot = service.read_newest(0).await.unwrap();
    let org = org_id("acme").unwrap();
    let id = peat_gateway_state::ids::SinkId::from_trusted(sink);
    let sealed = query::sink_credentials(snapshot.reader(), &org, &id).unwrap().unwrap();
    let version = sealed.record_version;
    let bound = binding([2; 16], &org, SecretKind::SinkCredentials, sink, version);
    let opened = service.keyring.open(&bound, &sealed.envelope).await.unwrap();
    (SinkCredentials::decode(&opened).unwrap(), version)
}

#[tokio::test]
async fn a_webhook_gets_a_signing_secret_that_is_shown_once() {
    let (service, _) = service().await;
    let made = service.create_sink(&call(), "acme", webhook(URL, None)).await.unwrap().value;
    let secret = made.signing_secret.unwrap();
    assert!(secret.expose().starts_with("whsec_"));
    let (credentials, version) = stored(&service, made.sink.sink_id.as_str()).await;
    assert_eq!((credentials.signing_secrets.first(), version), (Some(&secret), 1));
    assert!(standardwebhooks::Webhook::new(secret.expose()).is_ok());

    let given = SinkCredentials { signing_secrets: vec![secret], ..SinkCredentials::default() };
    let made = service.create_sink(&call(), "acme", webhook(URL, Some(given))).await.unwrap();
    assert!(made.value.signing_secret.is_none());
}

#[tokio::test]
async fn a_retried_creation_shows_the_first_secret_again() {
    let (service, cluster) = service().await;
    let key = call_with_key("k");
    cluster.loses_answers.store(true, Ordering::Relaxed);
    assert_eq!(
        code_of(service.create_sink(&key, "acme", webhook(URL, None)).await),
        "unknown_outcome"
    );
    cluster.loses_answers.store(false, Ordering::Relaxed);
    let again = service.create_sink(&key, "acme", webhook(URL, None)).await.unwrap().value;
    let (credentials, _) = stored(&service, again.sink.sink_id.as_str()).await;
    assert_eq!(again.signing_secret.as_ref(), credentials.signing_secrets.first());
    assert!(again.signing_secret.is_some());
    let all = service.sinks(&call(), "acme", None, 10).await.unwrap().value;
    assert_eq!(all.items.len(), 1);
}

#[tokio::test]
async fn new_credentials_replace_the_old_but_keep_the_signing_secret() {
    let (service, _) = service().await;
    let made = service.create_sink(&call(), "acme", webhook(URL, Some(bearer("one")))).await;
    let made = made.unwrap().value;
    let id = made.sink.sink_id.as_str();
    let changes = SinkChanges { credentials: Some(bearer("two")), ..SinkChanges::default() };
    let changed = service.update_sink(&call(), "acme", id, None, changes).await.unwrap().value;
    assert!(changed.signing_secret.is_none());
    let (credentials, version) = stored(&service, id).await;
    assert_eq!(version, 2);
    assert_eq!(credentials.bearer_token.unwrap().expose(), "two");
    assert_eq!(credentials.signing_secrets.first(), made.signing_secret.as_ref());
}

#[tokio::test]
async fn a_sink_that_moves_to_another_server_needs_its_credentials_again() {
    let (service, _) = service().await;
    let made = service.create_sink(&call(), "acme", webhook(URL, Some(bearer("one")))).await;
    let id = made.unwrap().value.sink.sink_id.as_str().to_owned();
    let to = |url: &str| SinkChanges {
        sink_type: Some(SinkKind::Webhook { url: url.to_owned() }),
        ..SinkChanges::default()
    };
    let same = service.update_sink(&call(), "acme", &id, None, to("https://example.com/b")).await;
    assert!(same.is_ok());
    let moved = service.update_sink(&call(), "acme", &id, None, to("https://evil.test/")).await;
    assert_eq!(code_of(moved), "credentials_required");
    let given =
        SinkChanges { credentials: Some(bearer("two")), ..to("https://other.example/hook") };
    assert!(service.update_sink(&call(), "acme", &id, None, given).await.is_ok());
    let nats = SinkKind::Nats { url: String::new(), subject_prefix: "cdc".to_owned() };
    let other = SinkChanges { sink_type: Some(nats), ..SinkChanges::default() };
    let other = service.update_sink(&call(), "acme", &id, None, other).await.unwrap_err();
    assert!(["sink_type_immutable", "credentials_required"].contains(&other.code.as_ref()));
}

#[tokio::test]
async fn a_sink_is_paused_resumed_watched_and_deleted() {
    let (service, _) = service().await;
    let made = service.create_sink(&call(), "acme", webhook(URL, None)).await.unwrap().value;
    let id = made.sink.sink_id.as_str();
    let pause = SinkChanges { enabled: Some(false), ..SinkChanges::default() };
    let paused = service.update_sink(&call(), "acme", id, Some(made.sink.revision), pause).await;
    assert!(!paused.unwrap().value.sink.enabled);
    let resume = SinkChanges { enabled: Some(true), ..SinkChanges::default() };
    let late =
        service.update_sink(&call(), "acme", id, Some(made.sink.revision), resume.clone()).await;
    assert_eq!(code_of(late), "precondition_failed");
    assert!(
        service.update_sink(&call(), "acme", id, None, resume).await.unwrap().value.sink.enabled
    );
    let progress = service.sink_progress(&call(), "acme", id).await.unwrap().value;
    assert_eq!((progress.head, progress.lag), (0, 0));
    service.delete_sink(&call(), "acme", id, None).await.unwrap();
    assert_eq!(code_of(service.sink(&call(), "acme", id).await), "not_found");
    assert_eq!(code_of(service.sink(&call(), "acme", "../x").await), "not_found");
}

#[tokio::test]
async fn credentials_that_do_not_fit_are_refused_with_the_field() {
    let given = |json: &str| serde_json::from_str::<SinkCredentials>(json).unwrap();
    let web = SinkKind::Webhook { url: URL.to_owned() };
    let nats = SinkKind::Nats { url: String::new(), subject_prefix: "cdc".to_owned() };
    let file = SinkKind::File { name: "a".to_owned() };
    let short = r#"{"signing_secrets":["whsec_c2hvcnQ="]}"#;
    let cases = [
        (&web, r#"{"user":"u","password":"p"}"#, "/credentials/user"),
        (&web, r#"{"token":"t"}"#, "/credentials/token"),
        (&web, short, "/credentials/signing_secret"),
        (&web, r#"{"signing_secrets":["c2hvcnQ="]}"#, "/credentials/signing_secret"),
        (&web, r#"{"bearer":""}"#, "/credentials/bearer_token"),
        (&web, r#"{"bearer":"a\r\nb"}"#, "/credentials/bearer_token"),
        (&web, r#"{"headers":{"Host":"a"}}"#, "/credentials/headers"),
        (&web, r#"{"headers":{"webhook-id":"a"}}"#, "/credentials/headers"),
        (&web, r#"{"headers":{"a b":"a"}}"#, "/credentials/headers"),
        (&web, r#"{"headers":{"a":"b\nc"}}"#, "/credentials/headers"),
        (&web, r#"{"bearer":"t","headers":{"authorization":"x"}}"#, "/credentials/headers"),
        (&nats, r#"{"signing_secrets":["x"]}"#, "/credentials/signing_secret"),
        (&nats, r#"{"user":"u"}"#, "/credentials/user"),
        (&nats, r#"{"user":"u","password":"p","token":"t"}"#, "/credentials"),
        (&nats, r#"{"headers":{"a":"b"}}"#, "/credentials/headers"),
        (&file, r#"{"token":"t"}"#, "/credentials/token"),
    ];
    for (kind, json, pointer) in cases {
        let error = given(json).check(kind).unwrap_err();
        assert_eq!(error.pointer.as_deref(), Some(pointer), "{json}");
        assert_eq!(error.code, "invalid_credentials");
    }
    for (kind, json) in [
        (&web, r#"{"bearer":"t","headers":{"X-Key":"v"}}"#),
        (&nats, r#"{"user":"u","password":"p"}"#),
        (&nats, r#"{"creds":"-----BEGIN NATS USER JWT-----\n…"}"#),
        (&file, "{}"),
    ] {
        let credentials = given(json);
        credentials.check(kind).unwrap();
        assert_eq!(SinkCredentials::decode(&credentials.encode()).unwrap(), credentials);
        assert!(!format!("{credentials:?}").contains("\"u\""));
    }
    assert!(serde_json::from_str::<SinkCredentials>(r#"{"unknown":"x"}"#).is_err());
}

#[test]
fn what_is_sealed_is_what_delivery_reads() {
    let credentials = SinkCredentials {
        signing_secrets: vec![SecretText::new("whsec_x")],
        headers: [("X-Team".to_owned(), SecretText::new("blue"))].into(),
        ..bearer("t")
    };
    let sealed = String::from_utf8(credentials.encode().to_vec()).unwrap();
    let expected = r#"{"signing_secrets":["whsec_x"],"bearer":"t","headers":{"X-Team":"blue"}}"#;
    assert_eq!(sealed, expected);
}

#[tokio::test]
async fn credentials_can_not_be_taken_away() {
    let (service, _) = service().await;
    let token = SecretText::new("t");
    let new = NewSink {
        sink_type: SinkKind::Nats { url: String::new(), subject_prefix: "cdc".to_owned() },
        filter: SinkFilter::default(),
        start: SinkStart::Now,
        credentials: Some(SinkCredentials { token: Some(token), ..SinkCredentials::default() }),
    };
    let made = service.create_sink(&call(), "acme", new).await.unwrap().value;
    let none =
        SinkChanges { credentials: Some(SinkCredentials::default()), ..SinkChanges::default() };
    let id = made.sink.sink_id.as_str();
    let refused = service.update_sink(&call(), "acme", id, None, none).await;
    assert_eq!(code_of(refused), "invalid_credentials");
}
