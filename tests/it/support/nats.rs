//! A real `nats-server` with JetStream, started for one test.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;

use super::{ports, wait_for};

/// A running server.
pub struct Nats {
    /// `nats://127.0.0.1:port`
    pub url: String,
    child: Child,
    _data: tempfile::TempDir,
}

impl Nats {
    /// Starts it and waits until it answers.
    pub async fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let port = ports::free();
        let child = Command::new("nats-server")
            .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
            .arg(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed (apt-get install nats-server)");
        let url = format!("nats://127.0.0.1:{port}");
        wait_for("nats-server", Duration::from_secs(20), || async {
            async_nats::connect(&url).await.map(|_| ()).map_err(|error| error.to_string())
        })
        .await;
        Self { url, child, _data: data }
    }

    /// Every message of every stream: its `Nats-Msg-Id` and payload, in stream order.
    pub async fn messages(&self) -> Vec<(String, Vec<u8>)> {
        let client = async_nats::connect(&self.url).await.expect("nats-server answers");
        let context = async_nats::jetstream::new(client);
        let mut names = context.stream_names();
        let mut found = Vec::new();
        while let Some(name) = names.next().await {
            let mut stream = context.get_stream(name.expect("a name")).await.expect("a stream");
            let count = stream.info().await.expect("its size").state.messages;
            let consumer = stream
                .create_consumer(async_nats::jetstream::consumer::pull::Config {
                    ack_policy: async_nats::jetstream::consumer::AckPolicy::None,
                    ..Default::default()
                })
                .await
                .expect("a consumer");
            let mut messages = consumer.messages().await.expect("messages");
            for _ in 0..count {
                let message = messages.next().await.expect("a message").expect("readable");
                let id = message
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get("Nats-Msg-Id"))
                    .map(|value| value.as_str().to_owned())
                    .expect("a message id");
                found.push((id, message.payload.to_vec()));
            }
        }
        found
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
