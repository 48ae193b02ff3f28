//! A load balancer as operators have one: it asks every node's `/readyz`, and sends new connections to
//! nodes that are ready. Connections that are open it leaves alone, as a TCP balancer does.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Between two probes of a node; one failure takes it out.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The balancer; it ends when it is dropped.
pub struct Proxy {
    /// Where clients connect.
    pub url: String,
    _tasks: JoinSet<()>,
}

struct Backend {
    port: u16,
    ready: AtomicBool,
}

impl Proxy {
    /// Starts a balancer before nodes with these HTTP ports.
    pub async fn start(ports: &[u16]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let backends: Arc<Vec<Backend>> = Arc::new(
            ports.iter().map(|&port| Backend { port, ready: AtomicBool::new(false) }).collect(),
        );
        let mut tasks = JoinSet::new();
        for number in 0..backends.len() {
            tasks.spawn(probe(backends.clone(), number));
        }
        tasks.spawn(balance(listener, backends));
        Self { url, _tasks: tasks }
    }
}

async fn probe(backends: Arc<Vec<Backend>>, number: usize) {
    let backend = &backends[number];
    let client = reqwest::Client::builder()
        .timeout(PROBE_TIMEOUT)
        .pool_max_idle_per_host(0)
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!("http://127.0.0.1:{}/readyz", backend.port);
    loop {
        let ready = client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200);
        backend.ready.store(ready, Ordering::SeqCst);
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

async fn balance(listener: TcpListener, backends: Arc<Vec<Backend>>) {
    let next = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let ready: Vec<u16> = backends
            .iter()
            .filter(|backend| backend.ready.load(Ordering::SeqCst))
            .map(|backend| backend.port)
            .collect();
        if ready.is_empty() {
            continue;
        }
        let port = ready[next.fetch_add(1, Ordering::SeqCst) % ready.len()];
        connections.spawn(async move {
            let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                return;
            };
            client.set_nodelay(true).ok();
            server.set_nodelay(true).ok();
            tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}
