//! Closed-loop load: each client sends its next request when the last is answered.
//!
//! ```text
//!   one thread ─┬─ connection to node 1 ── its share of the clients
//!               ├─ connection to node 2 ── …
//!               └─ …                        at most 16 connections, whatever the number of clients
//! ```
//!
//! One task drives a whole connection: what has arrived is read at once, and the next requests of the
//! clients that were answered are written at once. So the load itself costs little of the processors
//! that it shares with the servers.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::http::Connection;
use super::http2::{End, Http2, Method, Request};
use super::protocol::{Protocol, Workload};
use super::sample::Measured;

/// HTTP/2 connections of one load, shared by its clients; etcd's own load tool does the same.
const CONNECTIONS_MAX: usize = 16;
/// How long clients work before the clock starts, if the load itself is no shorter.
const WARM_UP: Duration = Duration::from_millis(500);

/// Pause after a node said that it takes no records now.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// Which records the clients work on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys {
    /// Each client its own.
    Own,
    /// All clients any of `record-0` to `record-(count - 1)`.
    Spread {
        /// How many there are.
        count: usize,
    },
}

impl Keys {
    /// Writes the key of a client's `number`-th request.
    fn write(self, out: &mut String, client: usize, number: u64) {
        use std::fmt::Write as _;
        out.clear();
        let written = match self {
            Keys::Own => write!(out, "register-{client}"),
            Keys::Spread { count } => {
                // Any fixed scattering will do; this is one step of SplitMix64.
                let mut mixed = (client as u64) << 40 ^ number;
                mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^= mixed >> 31;
                write!(out, "record-{}", mixed % count.max(1) as u64)
            }
        };
        written.expect("a string takes what is written");
    }
}

/// A load.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) protocol: Protocol,
    /// `host:port` of the nodes; the clients are spread over all of them.
    pub(super) hosts: Vec<String>,
    pub(super) clients: usize,
    pub(super) workload: Workload,
    pub(super) keys: Keys,
    pub(super) duration: Duration,
    /// One HTTP/1.1 connection for each client instead. The gateway only.
    pub(super) http1: bool,
}

/// Runs a load on a thread of its own, after half a second of warming up.
///
/// A single client works on each node for a third of the time, so that leaders and followers are measured alike.
///
/// # Errors
/// A node doesn't take connections, or breaks one off.
pub(super) async fn run(load: Load) -> anyhow::Result<Measured> {
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut measured = Measured::default();
        if load.clients > 1 {
            measured.add(runtime.block_on(all_clients(&load))?);
        } else {
            for host in &load.hosts {
                let share = Load {
                    hosts: vec![host.clone()],
                    duration: load.duration / load.hosts.len() as u32,
                    ..load.clone()
                };
                measured.add(runtime.block_on(all_clients(&share))?);
            }
        }
        Ok(measured)
    });
    thread.await.context("the load's thread ended")?
}

async fn all_clients(load: &Load) -> anyhow::Result<Measured> {
    let mut tasks = Vec::new();
    let connections = if load.http1 { load.clients } else { load.clients.min(CONNECTIONS_MAX) };
    let start = Instant::now() + WARM_UP.min(load.duration);
    for number in 0..connections {
        let host = load.hosts[number % load.hosts.len()].clone();
        let clients: Vec<_> = (number..load.clients).step_by(connections).collect();
        let mut part = Part { load: load.clone(), start, measured: Measured::default() };
        tasks.push(tokio::spawn(async move {
            let done = if part.load.http1 {
                part.one_by_one(&host, clients[0]).await
            } else {
                part.together(&host, &clients).await
            };
            done.map(|()| part.measured).with_context(|| format!("the load on {host}"))
        }));
    }
    let mut all = Measured::default();
    for task in tasks {
        all.join(task.await.context("a connection's task ended")??);
    }
    all.seconds = load.duration.as_secs_f64();
    Ok(all)
}

/// One connection's part of a load.
struct Part {
    load: Load,
    start: Instant,
    measured: Measured,
}

/// A client whose request is under way.
struct Client {
    number: usize,
    requests: u64,
    stream: u32,
    began: Instant,
}

impl Part {
    /// Drives all clients of one HTTP/2 connection.
    async fn together(&mut self, host: &str, clients: &[usize]) -> io::Result<()> {
        let mut connection = Http2::open(host, false).await?;
        let mut key = String::new();
        let mut busy: Vec<Client> = clients
            .iter()
            .map(|&number| Client { number, requests: 0, stream: 0, began: Instant::now() })
            .collect();
        for client in &mut busy {
            self.load.keys.write(&mut key, client.number, 0);
            client.stream =
                self.load.protocol.send(&mut connection, self.load.workload, &key, 0)?;
        }
        loop {
            while let Some(answer) = connection.next_answer()? {
                let now = Instant::now();
                let Some(place) = busy.iter().position(|client| client.stream == answer.stream)
                else {
                    continue;
                };
                let client = &mut busy[place];
                self.note(client.began, now, answer.is_ok());
                connection.recycle(answer);
                if now >= self.start + self.load.duration {
                    busy.swap_remove(place);
                    continue;
                }
                client.requests += 1;
                client.began = now;
                self.load.keys.write(&mut key, client.number, client.requests);
                client.stream = self.load.protocol.send(
                    &mut connection,
                    self.load.workload,
                    &key,
                    client.requests,
                )?;
            }
            if busy.is_empty() {
                return Ok(());
            }
            connection.flush().await?;
            connection.fill().await?;
        }
    }

    /// One client with an HTTP/1.1 connection.
    async fn one_by_one(&mut self, host: &str, client: usize) -> io::Result<()> {
        let mut connection = Connection::open(host).await?;
        let (mut key, mut number) = (String::new(), 0);
        loop {
            let began = Instant::now();
            if began >= self.start + self.load.duration {
                return Ok(());
            }
            self.load.keys.write(&mut key, client, number);
            let (method, path, body) = Protocol::gateway_request(self.load.workload, &key, number);
            let status = connection.send(method.name(), &path, &body).await?;
            self.note(began, Instant::now(), status == 200);
            number += 1;
        }
    }

    fn note(&mut self, began: Instant, now: Instant, ok: bool) {
        self.measured.requests += 1;
        if !ok {
            self.measured.failed += 1;
        } else if began >= self.start {
            self.measured.latencies.push(now.duration_since(began));
        }
    }
}

/// Creates records by `POST /orgs`, over all nodes, as fast as they are taken.
///
/// # Errors
/// A node refused one for good, or broke a connection off.
pub(super) async fn create_records(
    hosts: &[String],
    name: fn(usize) -> String,
    count: usize,
    value_bytes: usize,
) -> anyhow::Result<()> {
    let mut tasks = Vec::new();
    for number in 0..CONNECTIONS_MAX {
        let records = (number..count).step_by(CONNECTIONS_MAX).collect();
        let host = hosts[number % hosts.len()].clone();
        let mut creator = Creator { records, under_way: Vec::new(), name, value_bytes };
        tasks.push(tokio::spawn(async move { creator.run(&host).await }));
    }
    for task in tasks {
        task.await.context("a loader's task ended")?.context("could not create records")?;
    }
    Ok(())
}

/// One connection's part of the records.
struct Creator {
    /// Those that are not sent yet, or not taken.
    records: VecDeque<usize>,
    /// Streams and their records.
    under_way: Vec<(u32, usize)>,
    name: fn(usize) -> String,
    value_bytes: usize,
}

impl Creator {
    async fn run(&mut self, host: &str) -> anyhow::Result<()> {
        let mut connection = Http2::open(host, true).await?;
        loop {
            while self.under_way.len() < CONNECTIONS_MAX
                && let Some(record) = self.records.pop_front()
            {
                let (name, bytes) = ((self.name)(record), self.value_bytes);
                let body = format!(r#"{{"org_id":"{name}","display_name":"{record:0bytes$}"}}"#);
                let (path, body) = ("/orgs", body.as_bytes());
                let request = Request { method: Method::Post, path, grpc: false, body };
                self.under_way.push((connection.send(request)?, record));
            }
            if self.under_way.is_empty() {
                return Ok(());
            }
            connection.flush().await?;
            connection.fill().await?;
            let mut wait = false;
            while let Some(answer) = connection.next_answer()? {
                let place = self.under_way.iter().position(|sent| sent.0 == answer.stream);
                let Some(place) = place else { continue };
                let (_, record) = self.under_way.swap_remove(place);
                match answer.end {
                    // There already: an earlier try whose outcome wasn't known.
                    End::Answered(Some(201 | 409)) => {}
                    End::Answered(Some(429 | 503 | 504)) => {
                        self.records.push_back(record);
                        wait = true;
                    }
                    other => anyhow::bail!(
                        "POST /orgs ended with {other:?}: {}",
                        String::from_utf8_lossy(&answer.body)
                    ),
                }
                connection.recycle(answer);
            }
            if wait {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}
