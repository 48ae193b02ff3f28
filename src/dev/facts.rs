//! What is shown: who leads, how far each node is, and how fast changes flow.

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::Value;

use super::setup::ORG;
use crate::cli::{Call, Client};

/// Samples over which rates are averaged: a few seconds, so that numbers can be read.
const SAMPLES_KEPT: usize = 6;

/// One node, as the cluster shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeFacts {
    /// URL of its HTTP API.
    pub(super) address: String,
    /// `leader`, `follower`, …
    pub(super) role: String,
    /// Its term.
    pub(super) term: u64,
    /// What it has applied.
    pub(super) applied_index: u64,
}

/// Totals at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    mesh: u64,
    journal: u64,
    sink: u64,
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// All nodes, as far as any of them answered.
    pub(super) nodes: Vec<NodeFacts>,
    samples: VecDeque<Sample>,
    /// Sequence of the journal's newest event.
    journal: u64,
}

/// Changes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Written by the mesh node.
    pub(super) mesh: f64,
    /// Committed in the journal.
    pub(super) journal: f64,
    /// Written by the sink.
    pub(super) sink: f64,
}

impl Facts {
    /// Asks the cluster; what doesn't answer keeps its last known value. The sink's cursor tells the
    /// journal's end too.
    pub(super) async fn fetch(&mut self, client: &Client, sink: &str) {
        let cursor =
            Call::get(&["orgs", ORG, "sinks", sink, "cursor"]).query("consistency", "stale");
        let (cluster, cursor) =
            tokio::join!(client.call(Call::get(&["cluster"])), client.call(cursor));
        match cluster {
            Ok(answer) => self.nodes = nodes(&answer.body),
            Err(_) => {
                for node in &mut self.nodes {
                    node.role = "?".into();
                }
            }
        }
        if let Ok(answer) = cursor {
            self.journal = answer.body.get("head").and_then(Value::as_u64).unwrap_or(self.journal);
        }
    }

    /// Adds totals of this moment.
    pub(super) fn sample(&mut self, mesh: u64, sink: u64) {
        self.samples.push_back(Sample { at: Instant::now(), mesh, journal: self.journal, sink });
        if self.samples.len() > SAMPLES_KEPT {
            self.samples.pop_front();
        }
    }

    /// Totals: written by the mesh node, journalled, written by the sink.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        self.samples.back().map_or((0, 0, 0), |last| (last.mesh, last.journal, last.sink))
    }

    /// The flow over the last seconds. A total that shrank (a process began anew) counts as none.
    pub(super) fn rates(&self) -> Rates {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Rates::default();
        };
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        Rates {
            mesh: rate(first.mesh, last.mesh),
            journal: rate(first.journal, last.journal),
            sink: rate(first.sink, last.sink),
        }
    }

    /// The node with this address.
    pub(super) fn node(&self, address: &str) -> Option<&NodeFacts> {
        self.nodes.iter().find(|node| node.address == address)
    }

    /// The address of the node that leads.
    pub(super) fn leader(&self) -> Option<&str> {
        self.nodes.iter().find(|node| node.role == "leader").map(|node| node.address.as_str())
    }
}

fn nodes(cluster: &Value) -> Vec<NodeFacts> {
    let text = |node: &Value, field: &str| {
        node.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let number = |node: &Value, field: &str| node.get(field).and_then(Value::as_u64).unwrap_or(0);
    let nodes = cluster.get("nodes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    nodes
        .iter()
        .map(|node| NodeFacts {
            address: text(node, "address"),
            role: text(node, "role"),
            term: number(node, "term"),
            applied_index: number(node, "applied_index"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_over_time_and_never_negative() {
        let mut facts = Facts::default();
        assert_eq!(facts.rates(), Rates::default());
        let now = Instant::now();
        let sample = |seconds, mesh, journal, sink| Sample {
            at: now + Duration::from_secs(seconds),
            mesh,
            journal,
            sink,
        };
        facts.samples.extend([sample(0, 100, 10, 5), sample(2, 140, 30, 0)]);
        assert_eq!(facts.rates(), Rates { mesh: 20.0, journal: 10.0, sink: 0.0 });
    }

    #[test]
    fn the_leader_is_read_from_the_cluster() {
        let cluster = serde_json::json!({"nodes": [
            {"address": "http://a", "role": "follower", "term": 2, "applied_index": 7},
            {"address": "http://b", "role": "leader", "term": 2, "applied_index": 9},
        ]});
        let facts = Facts { nodes: nodes(&cluster), ..Facts::default() };
        assert_eq!(facts.leader(), Some("http://b"));
        assert_eq!(facts.node("http://a").map(|node| node.applied_index), Some(7));
    }
}
