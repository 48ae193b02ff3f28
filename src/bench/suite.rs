//! The rows of the suite `core`, and what each must reach.

use super::protocol::Workload;

/// Whom a row is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opponent {
    /// Nobody: the target is a number.
    Nobody,
    /// Three etcd nodes, of the better version.
    Etcd,
    /// Three NATS servers with JetStream.
    JetStream,
    /// The same gateway with less to hold.
    Smaller,
}

/// One demand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// Ours over theirs, medians.
    RatioAtLeast(f64),
    /// Our 99th percentile of the latency over theirs, medians over the rounds.
    LatencyRatioAtMost(f64),
    /// Our median is better than theirs.
    MedianBelowTheirs,
    /// Our 99th percentile of the row's values is better than theirs.
    P99BelowTheirs,
    /// Our median, in the row's unit.
    MedianAtMost(f64, &'static str),
    /// Our 99th percentile of the row's values.
    P99AtMost(f64, &'static str),
    /// The worst of ours.
    MaxAtMost(f64, &'static str),
    /// No request fails.
    NothingFails,
}

impl Check {
    /// For people.
    pub(super) fn words(&self) -> String {
        match self {
            Check::RatioAtLeast(limit) => format!("≥ {limit}×"),
            Check::LatencyRatioAtMost(limit) => format!("p99 ≤ {limit}×"),
            Check::MedianBelowTheirs => "p50 below theirs".to_owned(),
            Check::P99BelowTheirs => "p99 below theirs".to_owned(),
            Check::MedianAtMost(limit, unit) => format!("p50 ≤ {limit} {unit}"),
            Check::P99AtMost(limit, unit) => format!("p99 ≤ {limit} {unit}"),
            Check::MaxAtMost(limit, unit) => format!("max ≤ {limit} {unit}"),
            Check::NothingFails => "0 failed requests".to_owned(),
        }
    }

    /// What the value is compared with.
    pub(super) fn limit(&self) -> f64 {
        match self {
            Check::RatioAtLeast(limit) | Check::LatencyRatioAtMost(limit) => *limit,
            Check::MedianAtMost(limit, _)
            | Check::P99AtMost(limit, _)
            | Check::MaxAtMost(limit, _) => *limit,
            Check::MedianBelowTheirs | Check::P99BelowTheirs => 1.0,
            Check::NothingFails => 0.0,
        }
    }
}

/// A row.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// For people.
    pub(super) about: &'static str,
    pub(super) unit: &'static str,
    pub(super) more_is_better: bool,
    pub(super) opponent: Opponent,
    pub(super) checks: &'static [Check],
}

/// A row of closed-loop clients.
pub(super) struct Throughput {
    pub(super) name: &'static str,
    pub(super) clients: usize,
    pub(super) workload: Workload,
    /// One HTTP/1.1 connection for each client.
    pub(super) http1: bool,
}

const fn throughput(name: &'static str, clients: usize, workload: Workload) -> Throughput {
    Throughput { name, clients, workload, http1: false }
}

const fn http1(name: &'static str, clients: usize, workload: Workload) -> Throughput {
    Throughput { name, clients, workload, http1: true }
}

/// The rows of closed-loop clients, in the order in which they are measured.
pub(super) const THROUGHPUT: [Throughput; 11] = [
    throughput("write/1-client", 1, Workload::Write),
    throughput("write/64-clients", 64, Workload::Write),
    throughput("write/256-clients", 256, Workload::Write),
    throughput("read/linearizable/64-clients", 64, Workload::Read),
    throughput("read/linearizable/256-clients", 256, Workload::Read),
    throughput("read/stale/64-clients", 64, Workload::StaleRead),
    throughput("read/stale/256-clients", 256, Workload::StaleRead),
    http1("http1/write/1-client", 1, Workload::Write),
    http1("http1/write/256-clients", 256, Workload::Write),
    http1("http1/read/linearizable/256-clients", 256, Workload::Read),
    http1("http1/read/stale/256-clients", 256, Workload::StaleRead),
];

/// How the names of rows begin that use HTTP/1.1.
pub(super) const HTTP1: &str = "http1/";
/// Rows of other kinds, by name.
pub(super) const FAILOVER: &str = "failover";
/// See [`FAILOVER`].
pub(super) const HANDOVER: &str = "planned-leader-change";
/// See [`FAILOVER`].
pub(super) const JOURNAL: [(&str, usize); 2] =
    [("journal/4x50-in-flight", 50), ("journal/4x500-in-flight", 500)];
/// See [`FAILOVER`].
pub(super) const MESH: &str = "mesh-to-file-sink";
/// See [`FAILOVER`].
pub(super) const RESTART: &str = "large-state/restart";
/// See [`FAILOVER`].
pub(super) const RESTART_KILLED: &str = "large-state/restart-after-kill";
/// See [`FAILOVER`].
pub(super) const MEMORY: &str = "large-state/memory";
/// See [`FAILOVER`].
pub(super) const GROWTH: &str = "large-state/writes";

const RATE: &str = "op/s";

const fn against_etcd(name: &'static str, about: &'static str, checks: &'static [Check]) -> Spec {
    Spec { name, about, unit: RATE, more_is_better: true, opponent: Opponent::Etcd, checks }
}

const READS: &[Check] = &[Check::RatioAtLeast(3.0)];
const APPENDS: &[Check] = &[Check::RatioAtLeast(2.0), Check::LatencyRatioAtMost(0.5)];

const fn journal(name: &'static str, about: &'static str) -> Spec {
    let opponent = Opponent::JetStream;
    Spec { name, about, unit: "changes/s", more_is_better: true, opponent, checks: APPENDS }
}

const fn number(
    name: &'static str,
    about: &'static str,
    unit: &'static str,
    checks: &'static [Check],
) -> Spec {
    Spec { name, about, unit, more_is_better: false, opponent: Opponent::Nobody, checks }
}

const fn http1_row(name: &'static str, about: &'static str) -> Spec {
    let opponent = Opponent::Nobody;
    Spec { name, about, unit: RATE, more_is_better: true, opponent, checks: &[] }
}

/// All rows, in the order of the table.
pub(super) const ROWS: [Spec; 20] = [
    against_etcd(
        "write/256-clients",
        "replicated, audited writes of 256 bytes, 256 clients, any node",
        &[Check::RatioAtLeast(2.0), Check::LatencyRatioAtMost(0.5)],
    ),
    against_etcd("write/64-clients", "the same, 64 clients", &[]),
    against_etcd(
        "write/1-client",
        "the same, one client, on each node for a third of the time",
        &[Check::RatioAtLeast(1.2)],
    ),
    against_etcd("read/linearizable/256-clients", "linearizable reads, 256 clients", READS),
    against_etcd("read/linearizable/64-clients", "linearizable reads, 64 clients", READS),
    against_etcd("read/stale/256-clients", "stale reads, 256 clients", READS),
    against_etcd("read/stale/64-clients", "stale reads, 64 clients", READS),
    Spec {
        name: FAILOVER,
        about: "kill -9 of the leader → next acknowledged write",
        unit: "ms",
        more_is_better: false,
        opponent: Opponent::Etcd,
        checks: &[
            Check::MedianAtMost(600.0, "ms"),
            Check::P99AtMost(1200.0, "ms"),
            Check::MedianBelowTheirs,
            Check::P99BelowTheirs,
        ],
    },
    number(
        HANDOVER,
        "SIGTERM of the leader, 32 writing clients behind a proxy that follows /readyz: longest time without \
         an acknowledged write",
        "ms",
        &[Check::MaxAtMost(50.0, "ms"), Check::NothingFails],
    ),
    journal(
        "journal/4x50-in-flight",
        "journal appends of 512 B, 4 producers with 50 in flight each",
    ),
    journal(
        "journal/4x500-in-flight",
        "journal appends of 512 B, 4 producers with 500 in flight each",
    ),
    number(
        RESTART,
        "a node with 1 M records, stopped and started → ready",
        "s",
        &[Check::MedianAtMost(2.0, "s")],
    ),
    number(RESTART_KILLED, "the same after kill -9", "s", &[Check::MedianAtMost(2.0, "s")]),
    number(
        MEMORY,
        "resident memory of a node with 1 M records of 256 B, after writes, at rest: the largest of three",
        "MiB",
        &[Check::MaxAtMost(300.0, "MiB")],
    ),
    Spec {
        name: GROWTH,
        about: "writes on 1 M records against the same on 10 k",
        unit: RATE,
        more_is_better: true,
        opponent: Opponent::Smaller,
        checks: &[Check::RatioAtLeast(0.9)],
    },
    Spec {
        name: MESH,
        about: "one mesh node's changes of 512 B → journal on a quorum → synced line in a file sink",
        unit: "changes/s",
        more_is_better: true,
        opponent: Opponent::Nobody,
        checks: &[],
    },
    http1_row("http1/write/256-clients", "writes, a HTTP/1.1 connection for each of 256 clients"),
    http1_row("http1/write/1-client", "writes, one client, HTTP/1.1"),
    http1_row(
        "http1/read/linearizable/256-clients",
        "linearizable reads, 256 HTTP/1.1 connections",
    ),
    http1_row("http1/read/stale/256-clients", "stale reads, 256 HTTP/1.1 connections"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measured_row_is_in_the_table_once() {
        let mut measured: Vec<&str> = THROUGHPUT.iter().map(|row| row.name).collect();
        measured.extend(JOURNAL.map(|(name, _)| name));
        measured.extend([FAILOVER, HANDOVER, MESH, RESTART, RESTART_KILLED, MEMORY, GROWTH]);
        let mut table: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        measured.sort_unstable();
        table.sort_unstable();
        assert_eq!(measured, table);
    }
}
