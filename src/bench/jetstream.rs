//! Three NATS servers with a replicated JetStream file stream that syncs before it acknowledges.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, StorageType};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::cluster::fresh;
use super::journal::PRODUCERS;
use super::journal_driver::CHANGE_BYTES;
use super::sample::{Measured, Sample};
use super::servers::{Servers, foreign, free_ports, wait_until};

/// Publishing before the clock starts.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Measures each number of messages in flight, one after the other, each with a stream of its own.
///
/// # Errors
/// The servers don't start, or a message isn't acknowledged.
pub(super) async fn measure(
    binary: &Path,
    directory: &Path,
    in_flight: &[usize],
    load: Duration,
) -> anyhow::Result<Vec<Sample>> {
    fresh(directory)?;
    let ports = free_ports(6)?;
    let routes: Vec<_> = ports[3..].iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let mut servers = Servers::default();
    for node in 0..3 {
        let file = directory.join(format!("n{node}.conf"));
        let text = format!(
            "server_name: n{node}\nlisten: \"127.0.0.1:{}\"\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n\
             cluster {{ name: bench, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
            ports[node],
            directory.join(format!("n{node}")).display(),
            ports[node + 3],
            routes.join(", "),
        );
        std::fs::write(&file, text)?;
        let mut command = foreign(binary);
        command.arg("-c").arg(&file);
        servers.add(command, directory.join(format!("n{node}.log")))?;
    }
    servers.start_all()?;
    let mut samples = Vec::new();
    for (number, in_flight) in in_flight.iter().enumerate() {
        let name = format!("bench-{number}");
        let url = format!("nats://127.0.0.1:{}", ports[0]);
        wait_until(&mut servers, "a replicated stream", || create_stream(&url, &name)).await?;
        let start = Instant::now() + WARM_UP;
        let mut tasks = Vec::new();
        for producer in 0..PRODUCERS {
            let url = format!("nats://127.0.0.1:{}", ports[producer % 3]);
            let subject = format!("{name}.{producer}");
            tasks.push(tokio::spawn(publish(url, subject, *in_flight, start, load)));
        }
        let mut all = Measured { seconds: load.as_secs_f64(), ..Measured::default() };
        for task in tasks {
            all.join(task.await.context("a publisher ended")??);
        }
        samples.push(all.sample());
        servers.check()?;
    }
    Ok(samples)
}

/// Creates a stream with three replicas; `None` while the servers aren't ready for it.
async fn create_stream(url: &str, name: &str) -> Option<()> {
    let client = async_nats::connect(url).await.ok()?;
    let context = async_nats::jetstream::new(client);
    let config = Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        storage: StorageType::File,
        num_replicas: 3,
        ..Config::default()
    };
    context.create_stream(config).await.ok().map(drop)
}

/// Publishes with a number of messages in flight until the time is over.
async fn publish(
    url: String,
    subject: String,
    in_flight: usize,
    start: Instant,
    load: Duration,
) -> anyhow::Result<Measured> {
    let client = async_nats::connect(&url).await.context("could not connect to NATS")?;
    let context = ContextBuilder::new()
        .timeout(ANSWER_TIMEOUT)
        .ack_timeout(ANSWER_TIMEOUT)
        .max_ack_inflight(in_flight * 2)
        .build(client);
    let mut measured = Measured::default();
    let mut under_way = FuturesUnordered::new();
    let mut payload = vec![0; CHANGE_BYTES];
    getrandom::fill(&mut payload).context("could not make a payload")?;
    let mut number = 0u64;
    loop {
        while under_way.len() < in_flight && start.elapsed() < load {
            number += 1;
            payload[..8].copy_from_slice(&number.to_be_bytes());
            let began = Instant::now();
            let sent = context.publish(subject.clone(), payload.clone().into());
            let ack = sent.await.context("could not publish")?;
            under_way.push(async move { (began, ack.await, Instant::now()) });
        }
        let Some((began, ack, now)) = under_way.next().await else { return Ok(measured) };
        ack.context("a message was not acknowledged")?;
        measured.requests += 1;
        if began >= start {
            measured.latencies.push(now.duration_since(began));
        }
    }
}
