//! The load generator behind `peat-gateway bench`.
//!
//! ```text
//!   rounds ── for each row: ours, theirs, theirs, ours, … ── median, min, max ── table, JSON
//!                             │        │
//!              three gateway nodes   three etcd nodes (if `etcd` is installed)
//! ```
//!
//! Everything runs on this machine: servers and load share its processors, so only the ratios of one
//! run mean anything. Both sides get the same number of connections, the same value size, and sync
//! before they acknowledge. Only one side's servers run at a time.

mod clients;
mod etcd;
mod gateway;
mod http;
mod pipeline;
mod report;
mod servers;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::clients::Workload;
use self::report::{Report, Row, Sample};

/// What `peat-gateway bench` is told.
#[derive(Args, Clone, Debug)]
pub struct BenchArguments {
    /// Rounds; the sides alternate, and each row shows median, minimum and maximum.
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Writes all rows to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Measures only rows whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// The etcd binary to compare with; without it, and without one on the PATH, only our side is measured.
    #[arg(long, value_name = "PATH")]
    pub etcd: Option<PathBuf>,
    /// Where the servers keep their data; a temporary directory on the same disk by default.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Value size of writes, bytes.
const VALUE_BYTES: usize = 256;

/// One row of the benchmark.
struct Measurement {
    name: &'static str,
    clients: usize,
    workload: Workload,
}

/// The rows in the order in which they are measured.
const MEASUREMENTS: [Measurement; 7] = [
    Measurement { name: "write/1-client", clients: 1, workload: Workload::Write },
    Measurement { name: "write/64-clients", clients: 64, workload: Workload::Write },
    Measurement { name: "write/256-clients", clients: 256, workload: Workload::Write },
    Measurement { name: "read/linearizable/64-clients", clients: 64, workload: Workload::Read },
    Measurement { name: "read/linearizable/256-clients", clients: 256, workload: Workload::Read },
    Measurement { name: "read/stale/64-clients", clients: 64, workload: Workload::StaleRead },
    Measurement { name: "read/stale/256-clients", clients: 256, workload: Workload::StaleRead },
];

/// Runs the benchmark and prints the table.
///
/// # Errors
/// A server didn't start or didn't answer; the message says which.
pub async fn run(arguments: BenchArguments) -> anyhow::Result<()> {
    let data = match &arguments.data {
        Some(directory) => directory.clone(),
        None => std::env::temp_dir().join(format!("peat-bench-{}", std::process::id())),
    };
    std::fs::create_dir_all(&data)?;
    let etcd = servers::find_etcd(arguments.etcd.as_deref());
    if etcd.is_none() {
        eprintln!("etcd is not installed: measuring this gateway only");
    }
    let load = Duration::from_secs(arguments.seconds);
    let mut report = Report::default();
    for round in 1..=arguments.rounds {
        // Who begins alternates, so that a machine that gets slower hurts both sides alike.
        let mut sides = vec![Side::Ours];
        sides.extend(etcd.is_some().then_some(Side::Theirs));
        if round % 2 == 0 {
            sides.reverse();
        }
        for side in sides {
            eprintln!("round {round} of {}: {}", arguments.rounds, side.name());
            let directory = data.join(format!("{}-{round}", side.name()));
            let samples = match (side, &etcd) {
                (Side::Theirs, Some(binary)) => {
                    etcd::measure(binary, &directory, load, &arguments).await?
                }
                _ => gateway::measure(&directory, load, &arguments).await?,
            };
            for (name, unit, sample) in samples {
                report.add(&name, unit, side == Side::Ours, sample);
            }
            std::fs::remove_dir_all(&directory).ok();
        }
    }
    report.print();
    if let Some(file) = &arguments.json {
        std::fs::write(file, report.json()?)?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

/// Which servers are measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Ours => "peat-gateway",
            Side::Theirs => "etcd",
        }
    }
}

/// What one side measured: row, unit, numbers.
type Samples = Vec<(String, &'static str, Sample)>;

/// Whether a row is asked for.
fn wanted(arguments: &BenchArguments, name: &str) -> bool {
    arguments.only.as_ref().is_none_or(|text| name.contains(text.as_str()))
}

/// Keeps rows in the order in which they were first measured.
fn row_mut<'r>(rows: &'r mut Vec<Row>, name: &str, unit: &'static str) -> &'r mut Row {
    let place = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
        rows.push(Row::new(name, unit));
        rows.len() - 1
    });
    &mut rows[place]
}
