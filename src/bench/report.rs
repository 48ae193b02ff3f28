//! Rows: what was measured, what must be reached, and whether it was.

use std::collections::BTreeMap;

use serde::Serialize;

use super::machine::Machine;
use super::sample::{Cpu, PERCENTILES, Sample, median, percentile};
use super::suite::{Check, Opponent, Spec};

/// Our side's name.
pub(super) const OURS: &str = "peat-gateway";

/// All that was measured, by row and side.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: BTreeMap<&'static str, Row>,
    /// Opponents that rows need and that aren't here.
    missing: Vec<(Opponent, String)>,
}

#[derive(Debug, Default)]
struct Row {
    sides: BTreeMap<String, Vec<Sample>>,
    notes: Vec<String>,
}

/// The whole run, as it is written to the file.
#[derive(Serialize)]
pub(super) struct Run {
    pub(super) commit: Option<String>,
    pub(super) machine: Machine,
    pub(super) opponents: Vec<String>,
    pub(super) rounds: u32,
    pub(super) seconds: f64,
    pub(super) quick: bool,
    pub(super) rows: Vec<Outcome>,
    /// Measurements that failed.
    pub(super) failures: Vec<String>,
}

/// A row with its verdict.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) unit: &'static str,
    /// Our median.
    pub(super) ours: Option<f64>,
    /// The opponent's median, of the one that counts.
    pub(super) theirs: Option<f64>,
    /// Ours over theirs.
    pub(super) ratio: Option<f64>,
    /// What must be reached, in words; rows without a target are there to be seen.
    pub(super) target: Option<String>,
    /// Whether all of it is reached; none where there is no target.
    pub(super) met: Option<bool>,
    /// The opponent that counts: the better one of this row.
    pub(super) opponent: Option<String>,
    /// Opponents that this row needs and that weren't there: it can't be met without them.
    pub(super) missing: Vec<String>,
    pub(super) checks: Vec<Verdict>,
    pub(super) sides: Vec<Side>,
    pub(super) notes: Vec<String>,
}

/// One demand of a target.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) what: String,
    /// The number that is compared.
    pub(super) value: Option<f64>,
    pub(super) met: bool,
}

/// One side's numbers.
#[derive(Debug, Serialize)]
pub(super) struct Side {
    pub(super) name: String,
    pub(super) median: Option<f64>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    /// Nearest-rank 99th percentile of `values`.
    pub(super) p99: Option<f64>,
    /// Medians over the rounds.
    pub(super) latency_p50_ms: Option<f64>,
    pub(super) latency_p99_ms: Option<f64>,
    /// Pairs of percentile and latency in ms: medians over the rounds.
    pub(super) latency: Vec<(f64, f64)>,
    pub(super) failed: u64,
    pub(super) cpu: Option<Cpu>,
    /// Of each round, or of each event.
    pub(super) values: Vec<f64>,
}

impl Report {
    /// An empty one; rows that need somebody who is missing can't be met.
    pub(super) fn new(missing: Vec<(Opponent, String)>) -> Self {
        Self { rows: BTreeMap::new(), missing }
    }

    /// Adds a measurement of one side.
    pub(super) fn add(&mut self, row: &'static str, side: &str, sample: Sample) {
        let row = self.rows.entry(row).or_default();
        row.sides.entry(side.to_owned()).or_default().push(sample);
    }

    /// Adds a sentence to a row.
    pub(super) fn note(&mut self, row: &'static str, note: impl Into<String>) {
        self.rows.entry(row).or_default().notes.push(note.into());
    }

    /// The verdicts of all rows that are wanted, in the suite's order; one that could not be measured
    /// has no numbers.
    pub(super) fn outcomes(
        &self,
        specs: &[Spec],
        wanted: impl Fn(&'static str) -> bool,
    ) -> Vec<Outcome> {
        let empty = Row::default();
        let specs = specs.iter().filter(|spec| wanted(spec.name));
        let row = |spec: &Spec| self.rows.get(spec.name).unwrap_or(&empty);
        specs.map(|spec| self.outcome(spec, row(spec))).collect()
    }

    fn outcome(&self, spec: &Spec, row: &Row) -> Outcome {
        let mut sides: Vec<Side> =
            row.sides.iter().map(|(name, samples)| Side::of(name, samples)).collect();
        // Ours first; the others keep the order of their names.
        sides.sort_by_key(|side| side.name != OURS);
        let ours = sides.iter().find(|side| side.name == OURS);
        let better = |a: &&Side, b: &&Side| {
            let order = a.median.unwrap_or(f64::NAN).total_cmp(&b.median.unwrap_or(f64::NAN));
            if spec.more_is_better { order } else { order.reverse() }
        };
        let theirs = sides.iter().filter(|side| side.name != OURS).max_by(better);
        let missing: Vec<String> = self
            .missing
            .iter()
            .filter(|(opponent, _)| *opponent == spec.opponent)
            .map(|(_, name)| name.clone())
            .collect();
        let checks: Vec<Verdict> =
            spec.checks.iter().map(|check| check.verdict(ours, theirs)).collect();
        let target = (!spec.checks.is_empty())
            .then(|| spec.checks.iter().map(Check::words).collect::<Vec<_>>().join(", "));
        let met =
            target.is_some().then(|| missing.is_empty() && checks.iter().all(|check| check.met));
        let value = |side: Option<&Side>| side.and_then(|side| side.median);
        Outcome {
            name: spec.name,
            about: spec.about,
            unit: spec.unit,
            ours: value(ours),
            theirs: value(theirs),
            ratio: ratio(value(ours), value(theirs)),
            target,
            met,
            opponent: theirs.map(|side| side.name.clone()),
            missing,
            checks,
            sides,
            notes: row.notes.clone(),
        }
    }
}

/// Ours over theirs.
pub(super) fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    Some(ours? / theirs?).filter(|ratio| ratio.is_finite())
}

impl Side {
    fn of(name: &str, samples: &[Sample]) -> Self {
        let mut values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let middle = median(&values);
        let raw = values.clone();
        values.sort_unstable_by(f64::total_cmp);
        let over_rounds = |pick: &dyn Fn(&Sample) -> Option<f64>| {
            median(&samples.iter().filter_map(pick).collect::<Vec<_>>())
        };
        let latency = PERCENTILES
            .iter()
            .filter_map(|percent| {
                Some((*percent, over_rounds(&|sample| sample.latency(*percent))?))
            })
            .collect();
        let cpu = |pick: fn(&Cpu) -> f64| over_rounds(&|sample| sample.cpu.as_ref().map(pick));
        Self {
            name: name.to_owned(),
            median: middle,
            min: values.first().copied(),
            max: values.last().copied(),
            p99: Some(percentile(&values, 99.0)).filter(|value| value.is_finite()),
            latency_p50_ms: over_rounds(&|sample| sample.latency(50.0)),
            latency_p99_ms: over_rounds(&|sample| sample.latency(99.0)),
            latency,
            failed: samples.iter().map(|sample| sample.failed).sum(),
            cpu: cpu(|cpu| cpu.servers_us)
                .zip(cpu(|cpu| cpu.load_us))
                .map(|(servers_us, load_us)| Cpu { servers_us, load_us }),
            values: raw,
        }
    }
}

impl Check {
    fn verdict(&self, ours: Option<&Side>, theirs: Option<&Side>) -> Verdict {
        let of = |side: Option<&Side>, pick: fn(&Side) -> Option<f64>| side.and_then(pick);
        let both = |pick: fn(&Side) -> Option<f64>| ratio(of(ours, pick), of(theirs, pick));
        let (value, met): (_, fn(f64, f64) -> bool) = match self {
            Check::RatioAtLeast(_) => (both(|side| side.median), |value, limit| value >= limit),
            Check::LatencyRatioAtMost(_) => {
                (both(|side| side.latency_p99_ms), |value, limit| value <= limit)
            }
            Check::MedianBelowTheirs => (both(|side| side.median), |value, limit| value < limit),
            Check::P99BelowTheirs => (both(|side| side.p99), |value, limit| value < limit),
            Check::MedianAtMost(..) => {
                (of(ours, |side| side.median), |value, limit| value <= limit)
            }
            Check::P99AtMost(..) => (of(ours, |side| side.p99), |value, limit| value <= limit),
            Check::MaxAtMost(..) => (of(ours, |side| side.max), |value, limit| value <= limit),
            Check::NothingFails => {
                (ours.map(|side| side.failed as f64), |value, limit| value <= limit)
            }
        };
        Verdict {
            what: self.words(),
            value,
            met: value.is_some_and(|value| met(value, self.limit())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::ROWS;
    use super::*;

    fn sample(value: f64, p99: f64) -> Sample {
        Sample { latency_ms: vec![p99; PERCENTILES.len()], ..Sample::of(value) }
    }

    fn outcome(report: &Report, name: &str) -> Outcome {
        let mut all = report.outcomes(&ROWS, |row| row == name);
        all.pop().expect("the row is in the suite")
    }

    #[test]
    fn the_faster_opponent_counts_and_every_demand_must_be_reached() {
        let row = "write/256-clients";
        let mut report = Report::default();
        report.add(row, OURS, sample(1000.0, 10.0));
        report.add(row, "etcd 3.4.23", sample(400.0, 30.0));
        report.add(row, "etcd 3.7.3", sample(450.0, 19.0));
        let found = outcome(&report, row);
        assert_eq!(found.opponent.as_deref(), Some("etcd 3.7.3"));
        assert_eq!(found.ratio, Some(1000.0 / 450.0));
        // Fast enough, but the p99 is more than half of the opponent's.
        assert_eq!(found.met, Some(false));
        assert_eq!(found.checks.iter().map(|check| check.met).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_row_without_its_opponent_is_not_met() {
        let row = "write/256-clients";
        let mut report = Report::default();
        report.add(row, OURS, sample(1e9, 0.1));
        assert_eq!(outcome(&report, row).met, Some(false));
        report.add(row, "etcd 3.4.23", sample(1.0, 99.0));
        assert_eq!(outcome(&report, row).met, Some(true));
        report.missing.push((Opponent::Etcd, "etcd 3.7.3".to_owned()));
        let found = outcome(&report, row);
        assert_eq!((found.met, found.missing.len()), (Some(false), 1));
    }

    #[test]
    fn shorter_gaps_are_better() {
        let mut report = Report::default();
        for gap in [400.0, 500.0, 700.0] {
            report.add("failover", OURS, Sample::of(gap));
            report.add("failover", "etcd 3.4.23", Sample::of(gap * 3.0));
            report.add("failover", "etcd 3.7.3", Sample::of(gap * 2.0));
        }
        let found = outcome(&report, "failover");
        assert_eq!(found.opponent.as_deref(), Some("etcd 3.7.3"));
        assert_eq!(found.met, Some(true));
    }
}
