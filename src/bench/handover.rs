//! What clients behind a proxy notice when the leader is told to end (SIGTERM).
//!
//! ```text
//!   clients ──► proxy ──► nodes whose /readyz was 200 a few ms ago
//!                 └─ asks every node for /readyz, again and again
//! ```
//!
//! The proxy is a part of this process: it chooses the node of each request. As proxies do, it sends a
//! request elsewhere if the node did nothing with it (it refused the stream, said before that it takes no
//! more, or can't be connected to). Everything else that isn't a success is a failed request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::cluster::Cluster;
use super::http2::{Answer, End, Http2, Method, Request};
use super::protocol::{Protocol, Workload};

/// Clients under load.
const CLIENTS: usize = 32;
/// Pause between two questions for `/readyz` to one node.
const READY_INTERVAL: Duration = Duration::from_millis(5);
/// How long a node may take to answer `/readyz`.
const READY_TIMEOUT: Duration = Duration::from_millis(100);
/// Pause after a node could not be connected to.
const RETRY_DELAY: Duration = Duration::from_millis(1);
/// How long a request may take, all tries together.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long clients work before the signal, and after the node's end.
const STEADY: Duration = Duration::from_secs(1);

/// What the changes gave.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// The longest time without an acknowledged write, of each change, ms.
    pub(super) gaps_ms: Vec<f64>,
    /// The slowest request of each change, ms.
    pub(super) slowest_ms: Vec<f64>,
    /// Requests that failed.
    pub(super) failed: u64,
    /// All requests.
    pub(super) requests: u64,
}

/// Changes the leader `changes` times under load.
///
/// # Errors
/// The cluster doesn't come back.
pub(super) async fn measure(cluster: &mut Cluster, changes: usize) -> anyhow::Result<Handover> {
    let mut result = Handover::default();
    for _ in 0..changes {
        let leader = cluster.leader().await?;
        let proxy = Arc::new(Proxy::new(cluster.hosts.clone()));
        let begin = Instant::now();
        let watchers: Vec<_> =
            (0..proxy.hosts.len()).map(|node| tokio::spawn(watch(proxy.clone(), node))).collect();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| tokio::spawn(Client::new(proxy.clone(), number).run(begin)))
            .collect();
        tokio::time::sleep(STEADY).await;
        let signalled = begin.elapsed();
        cluster.servers.terminate(leader)?;
        let ended = cluster.servers.ended(leader).await;
        tokio::time::sleep(STEADY).await;
        proxy.stop.store(true, Ordering::Relaxed);
        let mut acks = Vec::new();
        let mut slowest = Duration::ZERO;
        for client in clients {
            let client = client.await.context("a client ended")?;
            slowest = slowest.max(client.slowest);
            acks.extend(client.acks);
        }
        for watcher in watchers {
            watcher.await.context("the proxy's watcher ended")?;
        }
        ended?;
        acks.sort_unstable();
        let gaps = acks.windows(2).filter(|pair| pair[1] > signalled);
        let gap = gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        result.gaps_ms.push(gap.as_secs_f64() * 1e3);
        result.slowest_ms.push(slowest.as_secs_f64() * 1e3);
        result.failed += proxy.failed.load(Ordering::Relaxed);
        result.requests += proxy.requests.load(Ordering::Relaxed);
        cluster.start().await?;
    }
    Ok(result)
}

/// Which nodes are ready, and what is counted.
struct Proxy {
    hosts: Vec<String>,
    ready: Vec<AtomicBool>,
    next: AtomicUsize,
    stop: AtomicBool,
    failed: AtomicU64,
    requests: AtomicU64,
}

impl Proxy {
    fn new(hosts: Vec<String>) -> Self {
        Self {
            ready: hosts.iter().map(|_| AtomicBool::new(true)).collect(),
            hosts,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            failed: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    /// The next node that is ready; any where none is.
    fn node(&self) -> usize {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.hosts.len();
        let nodes = (0..count).map(|step| (turn + step) % count);
        let mut ready = nodes.filter(|node| self.ready[*node].load(Ordering::Relaxed));
        ready.next().unwrap_or(turn % count)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Asks a node for `/readyz` until the proxy ends.
async fn watch(proxy: Arc<Proxy>, node: usize) {
    let mut connection: Option<Http2> = None;
    while !proxy.stopped() {
        let asked = tokio::time::timeout(READY_TIMEOUT, async {
            let connection = match &mut connection {
                Some(connection) => connection,
                none => none.insert(Http2::open(&proxy.hosts[node], false).await?),
            };
            let path = "/readyz";
            connection.exchange(Request { method: Method::Get, path, grpc: false, body: &[] }).await
        });
        let answer = asked.await.ok().and_then(Result::ok);
        let ready = answer.is_some_and(|answer| answer.is_ok());
        proxy.ready[node].store(ready, Ordering::Relaxed);
        if !ready {
            connection = None;
        }
        tokio::time::sleep(READY_INTERVAL).await;
    }
}

/// A client with its connections through the proxy.
struct Client {
    proxy: Arc<Proxy>,
    key: String,
    connections: Vec<Option<Http2>>,
    /// When its writes were acknowledged, since the beginning.
    acks: Vec<Duration>,
    slowest: Duration,
}

impl Client {
    fn new(proxy: Arc<Proxy>, number: usize) -> Self {
        let connections = proxy.hosts.iter().map(|_| None).collect();
        let key = format!("register-{number}");
        Self { proxy, key, connections, acks: Vec::new(), slowest: Duration::ZERO }
    }

    async fn run(mut self, begin: Instant) -> Self {
        let mut number = 0;
        while !self.proxy.stopped() {
            let began = Instant::now();
            let done = tokio::time::timeout(REQUEST_TIMEOUT, self.write(number)).await;
            number += 1;
            self.proxy.requests.fetch_add(1, Ordering::Relaxed);
            self.slowest = self.slowest.max(began.elapsed());
            match done {
                Ok(Ok(answer)) if answer.is_ok() => self.acks.push(begin.elapsed()),
                failure => {
                    // The first few say enough.
                    if self.proxy.failed.fetch_add(1, Ordering::Relaxed) < 3 {
                        let body = |answer: Answer| {
                            let text = String::from_utf8_lossy(&answer.body).into_owned();
                            (answer.end, text)
                        };
                        let failure = failure.map(|done| done.map(body));
                        eprintln!("a request failed during the leader's change: {failure:?}");
                    }
                    self.connections.iter_mut().for_each(|connection| *connection = None);
                }
            }
        }
        self
    }

    /// Writes through whichever node takes it.
    async fn write(&mut self, number: u64) -> io::Result<Answer> {
        loop {
            let node = self.proxy.node();
            let slot = &mut self.connections[node];
            if slot.as_mut().is_some_and(|connection| !connection.is_open()) {
                *slot = None;
            }
            let connection = match slot {
                Some(connection) => connection,
                None => match Http2::open(&self.proxy.hosts[node], false).await {
                    Ok(connection) => slot.insert(connection),
                    Err(_) => {
                        // The proxy learns what its watcher would tell it in a moment.
                        self.proxy.ready[node].store(false, Ordering::Relaxed);
                        tokio::time::sleep(RETRY_DELAY).await;
                        continue;
                    }
                },
            };
            let sent = Protocol::Gateway.send(connection, Workload::Write, &self.key, number);
            let answer = match sent {
                Ok(stream) => connection.answer(stream).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(Answer { end: End::Refused, .. }) => *slot = None,
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    *slot = None;
                    return Err(error);
                }
            }
        }
    }
}
