//! Tests of the NATS sink against a real `nats-server`.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use peat_gateway_state::ids::{AppId, DocumentKey, Epoch, Hash32, OrgId};
use peat_gateway_state::record::SinkKind;
use tempfile::TempDir;

use super::{FailureClass, NatsDestination, Target as NatsTarget, subject};
use crate::cdc::sinks::{Delivery, Destination};
use crate::cdc::tests::{MemoryJournal, Received, Run, Target, check_contract, eventually};
use crate::service::credentials::{SecretText, SinkCredentials};

/// A `nats-server` with JetStream on a free port; its data outlives a restart.
pub(crate) struct Server {
    process: Option<Child>,
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self {
            process: None,
            directory: tempfile::tempdir().unwrap(),
            port,
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        };
        server.restart().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it on the same port and data.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let process = Command::new("nats-server")
            .args(["-js", "-a", "127.0.0.1", "-p", &self.port.to_string()])
            .arg("-sd")
            .arg(self.directory.path())
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need a nats-server: apt-get install nats-server");
        self.process = Some(process);
        let port = self.port;
        eventually("nats-server answers", async || {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    pub(crate) async fn context(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.url()).await.unwrap())
    }

    /// All messages of a stream, in order, with subject.
    pub(crate) async fn messages(&self, stream: &str) -> Vec<(String, Received)> {
        let Ok(stream) = self.context().await.get_stream(stream).await else {
            return Vec::new();
        };
        let state = &stream.cached_info().state;
        let mut messages = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            messages.push((message.subject.to_string(), Received::parse(&message.payload)));
        }
        messages
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn target(server: &Server) -> NatsTarget {
    let org = OrgId::from_trusted("acme");
    NatsTarget { url: server.url(), org, prefix: "changes".into(), replicas: 1 }
}

fn destination(server: &Server) -> Arc<NatsDestination> {
    Arc::new(NatsDestination::new(target(server), None).unwrap())
}

const STREAM: &str = "peat-gw-cdc-acme-changes";

impl Target for Server {
    fn destination(&self, _epoch: Epoch) -> Arc<dyn Destination> {
        destination(self)
    }

    fn received(&self) -> BoxFuture<'_, Vec<Received>> {
        async {
            let messages = self.messages(STREAM).await;
            messages.into_iter().map(|(_, received)| received).collect()
        }
        .boxed()
    }
}

fn kind() -> SinkKind {
    SinkKind::Nats { url: String::new(), subject_prefix: "changes".into() }
}

fn documents(count: u64) -> Vec<String> {
    (0..count).map(|n| format!("units:{}", n % 9)).collect()
}

async fn cursor_reaches(journal: &MemoryJournal, sequence: u64) {
    eventually("the cursor moves", async || {
        let cursor = journal.committed();
        if cursor.acknowledged >= sequence { Ok(()) } else { Err(format!("{cursor:?}")) }
    })
    .await;
}

fn delivery(document: &str) -> Delivery {
    Delivery {
        sequence: 1,
        event_id: Hash32([0xab; 32]),
        app: AppId::from_trusted("alpha"),
        document: DocumentKey::from_trusted(document),
        observed_at: 0,
        body: r#"{"event_id":"x","document_id":"y","sequence":1}"#.into(),
    }
}

#[tokio::test]
async fn nats_sink_honours_the_contract() {
    check_contract("nats", async || Server::start(&[]).await).await;
}

#[tokio::test]
async fn redelivery_after_a_failover_leaves_no_duplicate_in_the_stream() {
    let server = Server::start(&[]).await;
    let journal = Arc::new(MemoryJournal::new());
    let sink = journal.put_sink(kind(), true, 1);
    let last = journal.append(&documents(200));
    let run = Run::start(&journal, &sink, destination(&server));
    cursor_reaches(&journal, last).await;
    run.crash().await;
    // The new leader knows an old cursor only.
    journal.state.lock().unwrap().cursors.clear();
    let run = Run::start(&journal, &sink, destination(&server));
    let last = journal.append(&documents(10));
    journal.put_sink(kind(), true, 1);
    cursor_reaches(&journal, last).await;
    run.stop().await;
    let messages = server.messages(STREAM).await;
    assert_eq!(messages.len() as u64, last, "each event once");
    let receipt = destination(&server).deliver(&[delivery("a:1")]).await.unwrap();
    assert_eq!(receipt.duplicates, 0);
    let receipt = destination(&server).deliver(&[delivery("a:1")]).await.unwrap();
    assert_eq!(receipt.duplicates, 1, "a recognised repetition is a success");
}

#[tokio::test]
async fn killed_and_restarted_server_loses_nothing() {
    let mut server = Server::start(&[]).await;
    let journal = Arc::new(MemoryJournal::new());
    let sink = journal.put_sink(kind(), true, 1);
    let run = Run::start(&journal, &sink, destination(&server));
    let mut last = 0;
    for _ in 0..3 {
        last = journal.append(&documents(400));
        cursor_reaches(&journal, last - 300).await;
        server.kill();
        last = journal.append(&documents(50)).max(last);
        server.restart().await;
    }
    cursor_reaches(&journal, last).await;
    run.stop().await;
    let messages = server.messages(STREAM).await;
    let mut newest = std::collections::BTreeMap::new();
    for (_, received) in &messages {
        let before = newest.insert(received.document.clone(), received.sequence);
        assert!(before < Some(received.sequence), "{received:?} came after {before:?}");
    }
    assert_eq!(messages.len() as u64, last);
}

#[tokio::test]
async fn server_that_is_down_at_start_is_waited_for() {
    let mut server = Server::start(&[]).await;
    server.kill();
    let journal = Arc::new(MemoryJournal::new());
    let sink = journal.put_sink(kind(), true, 1);
    let last = journal.append(&documents(20));
    let destination = destination(&server);
    let failure = destination.deliver(&[delivery("a:1")]).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Down, "{failure}");
    let run = Run::start(&journal, &sink, destination);
    server.restart().await;
    cursor_reaches(&journal, last).await;
    run.stop().await;
}

#[tokio::test]
async fn stream_is_created_as_documented_and_again_when_it_was_deleted() {
    let server = Server::start(&[]).await;
    let destination = destination(&server);
    let document = "notes:50% of a.b *>";
    destination.deliver(&[delivery(document)]).await.unwrap();
    let context = server.context().await;
    let stream = context.get_stream(STREAM).await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!(config.subjects, ["acme.changes.>"]);
    assert_eq!(config.storage, jetstream::stream::StorageType::File);
    assert!(config.duplicate_window >= Duration::from_secs(600));
    let subject = &server.messages(STREAM).await[0].0;
    assert_eq!(subject, "acme.changes.alpha.notes:50%25%20of%20a%2Eb%20%2A%3E");
    context.delete_stream(STREAM).await.unwrap();
    let failure = destination.deliver(&[delivery(document)]).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Down, "{failure}");
    destination.deliver(&[delivery(document)]).await.unwrap();
    assert_eq!(server.messages(STREAM).await.len(), 1);
}

#[tokio::test]
async fn streams_of_operators_are_used_or_refused_but_never_changed() {
    let server = Server::start(&[]).await;
    let context = server.context().await;
    let create = async |name: &str, subject: &str| {
        let subjects = vec![subject.to_owned()];
        let name = name.to_owned();
        let config = jetstream::stream::Config { name, subjects, ..Default::default() };
        context.create_stream(config).await.unwrap();
    };
    create(STREAM, "other.>").await;
    let failure = destination(&server).deliver(&[delivery("a:1")]).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Down);
    assert!(failure.reason.contains("acme.changes.>"), "{failure}");
    let stream = context.get_stream(STREAM).await.unwrap();
    assert_eq!(stream.cached_info().config.subjects, ["other.>"]);
    context.delete_stream(STREAM).await.unwrap();
    create("partial", "acme.changes.alpha.*").await;
    let failure = destination(&server).deliver(&[delivery("a:1")]).await.unwrap_err();
    assert!(failure.reason.contains("partial"), "{failure}");
    context.delete_stream("partial").await.unwrap();
    create("whole", "acme.>").await;
    destination(&server).deliver(&[delivery("a:1")]).await.unwrap();
    assert_eq!(server.messages("whole").await.len(), 1);
}

#[tokio::test]
async fn credentials_authenticate() {
    let server = Server::start(&["--user", "gateway", "--pass", "pa55"]).await;
    let deliver = async |credentials: Option<&str>| {
        let credentials = credentials.map(str::as_bytes);
        let destination = NatsDestination::new(target(&server), credentials).unwrap();
        destination.deliver(&[delivery("a:1")]).await
    };
    let sealed = SinkCredentials {
        user: Some(SecretText::new("gateway")),
        password: Some(SecretText::new("pa55")),
        ..SinkCredentials::default()
    };
    deliver(Some(std::str::from_utf8(&sealed.encode()).unwrap())).await.unwrap();
    for credentials in [None, Some("{}"), Some(r#"{"user":"gateway","password":"wr0ng"}"#)] {
        let failure = deliver(credentials).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Down, "{failure}");
        assert!(!failure.reason.contains("wr0ng"), "{failure}");
    }
    for credentials in [r#"{"creds":"s3cret"}"#, r#"{"user":"s3cret"}"#, "s3cret"] {
        let built = NatsDestination::new(target(&server), Some(credentials.as_bytes()));
        let reason = built.err().unwrap().to_string();
        assert!(!reason.contains("s3cret"), "{reason}");
    }
}

#[tokio::test]
async fn message_over_the_servers_limit_is_rejected_alone() {
    let server = Server::start(&[]).await;
    let destination = destination(&server);
    let large = Delivery { body: vec![b' '; 2 << 20].into(), ..delivery("a:1") };
    let failure = destination.deliver(&[large]).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Rejected, "{failure}");
    destination.deliver(&[delivery("a:2")]).await.unwrap();
}

#[test]
fn subject_patterns_cover_what_they_take() {
    for (pattern, wanted, covers) in [
        ("acme.changes.>", "acme.changes.>", true),
        ("acme.>", "acme.changes.>", true),
        (">", "acme.changes.>", true),
        ("*.changes.>", "acme.changes.>", true),
        ("acme.*.>", "acme.changes.>", true),
        ("acme.changes.*", "acme.changes.>", false),
        ("acme.changes", "acme.changes.>", false),
        ("acme.other.>", "acme.changes.>", false),
        ("acme.changes.a.>", "acme.changes.>", false),
    ] {
        assert_eq!(subject::covers(pattern, wanted), covers, "{pattern}");
    }
    assert!(subject::check_prefix("a.b-c_d").is_ok());
    for prefix in ["", ".", "a..b", "a.*", "a b", "a.>", "ä"] {
        assert!(subject::check_prefix(prefix).is_err(), "{prefix}");
    }
    assert_eq!(subject::token("ü\n"), "%C3%BC%0A");
}
