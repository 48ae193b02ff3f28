//! Rows, medians, the table and the JSON.

use std::time::Duration;

use serde::Serialize;

/// One measurement of one side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Operations per second.
    pub per_second: f64,
    /// Median latency, ms.
    pub p50_ms: f64,
    /// 99th percentile of the latency, ms.
    pub p99_ms: f64,
    /// Requests that failed.
    pub failed: u64,
}

impl Sample {
    /// Builds it from the latencies of all requests that succeeded.
    pub(super) fn from_latencies(mut all: Vec<Duration>, elapsed: Duration, failed: u64) -> Self {
        all.sort_unstable();
        let at = |share: f64| {
            let place = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
            all.get(place).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
        };
        Self {
            per_second: all.len() as f64 / elapsed.as_secs_f64(),
            p50_ms: at(0.50),
            p99_ms: at(0.99),
            failed,
        }
    }
}

/// Median, minimum and maximum over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        Some(Self { median: middle, min, max })
    }
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    unit: &'static str,
    ours: Vec<Sample>,
    theirs: Vec<Sample>,
}

impl Row {
    pub(super) fn new(name: &str, unit: &'static str) -> Self {
        Self { name: name.to_owned(), unit, ours: Vec::new(), theirs: Vec::new() }
    }
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

/// One side of a row in the JSON.
#[derive(Serialize)]
struct SideOut {
    per_second: Spread,
    p50_ms: Spread,
    p99_ms: Spread,
    failed: u64,
}

/// A row in the JSON.
#[derive(Serialize)]
struct RowOut<'r> {
    name: &'r str,
    unit: &'r str,
    rounds: usize,
    ours: Option<SideOut>,
    theirs: Option<SideOut>,
    /// Ours over theirs, operations per second, medians.
    ratio: Option<f64>,
    /// Ours over theirs, p99, medians: below 1 is better.
    p99_ratio: Option<f64>,
}

impl Report {
    /// Adds a measurement.
    pub(super) fn add(&mut self, name: &str, unit: &'static str, ours: bool, sample: Sample) {
        let row = super::row_mut(&mut self.rows, name, unit);
        if ours { &mut row.ours } else { &mut row.theirs }.push(sample);
    }

    fn out(&self) -> Vec<RowOut<'_>> {
        let side = |samples: &[Sample]| {
            Some(SideOut {
                per_second: Spread::of(samples.iter().map(|sample| sample.per_second))?,
                p50_ms: Spread::of(samples.iter().map(|sample| sample.p50_ms))?,
                p99_ms: Spread::of(samples.iter().map(|sample| sample.p99_ms))?,
                failed: samples.iter().map(|sample| sample.failed).sum(),
            })
        };
        self.rows
            .iter()
            .map(|row| {
                let (ours, theirs) = (side(&row.ours), side(&row.theirs));
                let ratio =
                    |pick: fn(&SideOut) -> f64| Some(pick(ours.as_ref()?) / pick(theirs.as_ref()?));
                RowOut {
                    name: &row.name,
                    unit: row.unit,
                    rounds: row.ours.len(),
                    ratio: ratio(|side| side.per_second.median),
                    p99_ratio: ratio(|side| side.p99_ms.median),
                    ours,
                    theirs,
                }
            })
            .collect()
    }

    /// The rows as a JSON array.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&self.out())
    }

    /// Prints the table: Markdown, so that it can be pasted.
    #[expect(clippy::print_stdout, reason = "the table is what the command is for")]
    pub(super) fn print(&self) {
        println!(
            "| what | ours: per s (min–max), p50, p99 ms | etcd: per s (min–max), p50, p99 ms | ratio | p99 ratio |"
        );
        println!("|---|---|---|---|---|");
        for row in self.out() {
            let side = |side: &Option<SideOut>| match side {
                None => "–".to_owned(),
                Some(side) => format!(
                    "{:.0} ({:.0}–{:.0}), {:.2}, {:.2}{}",
                    side.per_second.median,
                    side.per_second.min,
                    side.per_second.max,
                    side.p50_ms.median,
                    side.p99_ms.median,
                    if side.failed > 0 {
                        format!(", {} failed", side.failed)
                    } else {
                        String::new()
                    },
                ),
            };
            let ratio =
                |ratio: Option<f64>| ratio.map_or_else(|| "–".to_owned(), |r| format!("{r:.2}×"));
            println!(
                "| {} [{}] | {} | {} | {} | {} |",
                row.name,
                row.unit,
                side(&row.ours),
                side(&row.theirs),
                ratio(row.ratio),
                ratio(row.p99_ratio)
            );
        }
    }
}
