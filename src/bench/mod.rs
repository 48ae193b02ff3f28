//! The benchmarks behind `peat-gateway bench`.
//!
//! ```text
//!   rounds ─► three gateway nodes ─► clients · kills · planned changes ─┐
//!             three etcd nodes (each version) ─► the same ──────────────┼─► report ─► table, JSON, plots
//!             journal: leader's appends · JetStream's publishes ────────┤
//!   once   ─► a large state: restarts, memory, writes ──────────────────┘
//! ```
//!
//! * [`suite`]: the rows and their targets. * [`opponents`]: what is compared with.
//! * [`servers`], [`cluster`], [`gateway`], [`etcd`]: processes. * [`machine`]: what the kernel says of them.
//! * [`load`] over [`http2`] ([`hpack`]) or [`http`], in [`protocol`]: clients.
//! * [`failover`], [`handover`], [`journal`] ([`journal_driver`], [`jetstream`]), [`growth`], [`pipeline`]: other rows.
//! * [`sample`], [`report`], [`table`], [`plots`] ([`svg`]): numbers.
//!
//! Everything runs on this machine: servers and load share its processors, so only the ratios of one
//! run mean anything. Both sides get the same client, the same number of connections, the same value
//! size, no TLS, and sync before they acknowledge. Only one side's servers run at a time.

mod cluster;
mod etcd;
mod failover;
mod gateway;
mod growth;
mod handover;
mod hpack;
mod http;
mod http2;
#[cfg(feature = "nats")]
mod jetstream;
mod journal;
mod journal_driver;
mod load;
mod machine;
mod opponents;
mod pipeline;
mod plots;
mod protocol;
mod report;
mod run;
mod sample;
mod servers;
mod suite;
mod svg;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub(crate) use journal_driver::drive as drive_journal;
pub use run::run;

/// What `peat-gateway bench` is told.
#[derive(Args, Clone, Debug)]
pub struct BenchArguments {
    /// Which rows
    #[arg(long, value_enum, default_value_t)]
    pub suite: Suite,
    /// Rounds; the sides alternate, and each row shows median, minimum and maximum
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Seconds of load per measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Times that each side's leader is killed, over all rounds
    #[arg(long, default_value_t = 30)]
    pub kills: u32,
    /// Times that our leader is told to end under load, over all rounds
    #[arg(long, default_value_t = 10)]
    pub changes: u32,
    /// Records of the large state; its rows mean what they say with a million
    #[arg(long, default_value_t = 1_000_000)]
    pub records: usize,
    /// A fraction of a second and one round for each row, on a small state: whether it works, not how fast
    #[arg(long)]
    pub quick: bool,
    /// Measure our side with one HTTP/1.1 connection per client too
    #[arg(long)]
    pub http1: bool,
    /// Only rows whose name contains this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    /// Write all rows to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write plots into this directory
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
    /// Write core.json and the plots into this directory, and the table into its README.md
    #[arg(long, value_name = "DIR")]
    pub docs: Option<PathBuf>,
    /// What is measured, for the record
    #[arg(long, value_name = "HASH")]
    pub commit: Option<String>,
    /// An etcd binary to compare with, instead of those that .ci/bench installs; may be given several times
    #[arg(long, value_name = "PATH")]
    pub etcd: Vec<PathBuf>,
    /// The nats-server binary to compare with, instead of the one that .ci/bench installs
    #[arg(long, value_name = "PATH")]
    pub nats_server: Option<PathBuf>,
    /// Compare with nobody
    #[arg(long, conflicts_with_all = ["etcd", "nats_server"])]
    pub alone: bool,
    /// Where the servers keep their data; a temporary directory by default
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// A set of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Writes, reads, failover, journal, large state
    #[default]
    Core,
}

/// What the nodes of the row `journal` are told.
#[derive(Args, Clone, Debug)]
pub struct JournalNodeArguments {
    /// Directory of orders and results
    #[arg(long)]
    pub orders: PathBuf,
}

/// How much is done, as the arguments say.
#[derive(Clone, Copy, Debug)]
struct Amounts {
    rounds: usize,
    load: Duration,
    kills: usize,
    changes: usize,
    sizes: growth::Sizes,
}

/// Records of the smaller state in the row about growth.
const FEW_RECORDS: usize = 10_000;
/// How long nodes rest before their memory is read.
const REST: Duration = Duration::from_secs(10);

impl BenchArguments {
    fn amounts(&self) -> Amounts {
        if self.quick {
            let sizes = growth::Sizes { few: 20, many: 200, rest: Duration::ZERO };
            let load = Duration::from_millis(200);
            return Amounts { rounds: 1, load, kills: 1, changes: 1, sizes };
        }
        let rounds = self.rounds as usize;
        let few = FEW_RECORDS.min(self.records);
        Amounts {
            rounds,
            load: Duration::from_secs(self.seconds),
            kills: (self.kills as usize).div_ceil(rounds),
            changes: (self.changes as usize).div_ceil(rounds),
            sizes: growth::Sizes { few, many: self.records, rest: REST },
        }
    }

    /// Whether a row is asked for.
    fn wants(&self, name: &str) -> bool {
        let http1 = self.http1 || !name.starts_with(suite::HTTP1);
        http1 && (self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str())))
    }
}
