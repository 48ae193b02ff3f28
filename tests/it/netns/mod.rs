//! Gateways in network namespaces: links are cut, nodes freeze, lose their disks, come and go, and clients go on.
//!
//! Every scenario runs clients on all nodes all the time, and asks at its end that one order explains
//! everything they saw, that all nodes have the same state, and that writes go on (INV-1, INV-2, INV-10).

mod cuts;
mod first_start;
mod full_disk;
mod growth;
mod install;
mod restarts;
mod zombie;

use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::history::Totals;
use crate::support::net::{Network, scenario};
use crate::support::random::Random;
use crate::support::registers::Registers;
use crate::support::{POLL_INTERVAL, wait_for};

/// How long the cluster may take to make progress again, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Election timeouts of scenarios that judge elections, ms: a machine that is busy for half a second
/// must not depose a leader.
const CALM: (u64, u64) = (1_000, 2_000);
/// How long a fault lasts in which nothing may happen: some election timeouts.
const HOLD: Duration = Duration::from_millis(3 * CALM.1);

/// Starts a node at each address of the network.
async fn start(network: &Network, change: impl FnOnce(&mut Cluster)) -> Cluster {
    let mut cluster = Cluster::prepare_in(network);
    change(&mut cluster);
    cluster.start_all();
    cluster.wait_ready().await;
    cluster
}

/// Leaders that aren't deposed by a busy machine.
fn calm(cluster: &mut Cluster) {
    cluster.set("PEAT_ELECTION_TIMEOUT_MS_MIN", &CALM.0.to_string());
    cluster.set("PEAT_ELECTION_TIMEOUT_MS_MAX", &CALM.1.to_string());
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    role: String,
    term: u64,
    applied: u64,
    id: String,
    leader: Option<String>,
}

/// Asks a node, by its number from 1, what it says of itself.
async fn own(cluster: &Cluster, node: usize) -> Result<Own, String> {
    let url = cluster.nodes[node - 1].url();
    let seen = cluster.api(node - 1).get_json("/cluster").await?;
    let nodes = seen["nodes"].as_array().ok_or("no nodes")?;
    let row = nodes.iter().find(|row| row["address"] == url).ok_or("it isn't a member")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Own {
        role: text(&row["role"]),
        term: row["term"].as_u64().ok_or("no term")?,
        applied: row["applied_index"].as_u64().ok_or("no index")?,
        id: text(&row["node_id"]),
        leader: seen["leader"].as_str().map(str::to_owned),
    })
}

/// Waits for a leader that all of these nodes follow; returns its number and term.
async fn leader_of(cluster: &Cluster, nodes: &[usize]) -> (usize, u64) {
    wait_for(&format!("a leader of {nodes:?}"), LIMIT, || async {
        let mut seen = Vec::new();
        for node in nodes {
            seen.push((*node, own(cluster, *node).await?));
        }
        let leads = seen.iter().find(|(_, own)| own.role == "leader");
        let agreed = leads.filter(|(_, leader)| {
            seen.iter()
                .all(|(_, own)| own.leader.as_ref() == Some(&leader.id) && own.term == leader.term)
        });
        agreed.map(|(node, own)| (*node, own.term)).ok_or_else(|| format!("{seen:?}"))
    })
    .await
}

/// Looks at something again and again for as long as a fault lasts.
async fn hold<F: Future<Output = ()>>(mut look: impl FnMut() -> F) {
    let start = std::time::Instant::now();
    while start.elapsed() < HOLD {
        look().await;
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The end of every scenario: progress, one order, equal state.
async fn finish(cluster: &Cluster, registers: Registers) -> Totals {
    registers.progress(50, LIMIT).await;
    let totals = registers.finish().await;
    cluster.wait_equal().await;
    totals
}

/// The number of another node than this one.
fn other(network: &Network, node: usize, random: &mut Random) -> usize {
    let step = random.between(1, network.nodes() as u64) as usize;
    1 + (node - 1 + step) % network.nodes()
}
