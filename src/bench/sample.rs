//! What one measurement of one side gave.

use std::time::Duration;

use serde::Serialize;

/// The percentiles that are kept of a distribution.
pub(super) const PERCENTILES: [f64; 12] =
    [0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0];

/// All that a load has seen.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Of requests that succeeded and began after warming up.
    pub(super) latencies: Vec<Duration>,
    /// Requests that failed.
    pub(super) failed: u64,
    /// All requests, warming up included.
    pub(super) requests: u64,
    /// How long the clock ran.
    pub(super) seconds: f64,
}

impl Measured {
    /// Adds what was measured at the same time.
    pub(super) fn join(&mut self, other: Measured) {
        let seconds = self.seconds;
        self.add(other);
        self.seconds = seconds;
    }

    /// Adds what was measured after it.
    pub(super) fn add(&mut self, other: Measured) {
        self.latencies.extend(other.latencies);
        self.failed += other.failed;
        self.requests += other.requests;
        self.seconds += other.seconds;
    }

    /// The numbers that are kept.
    pub(super) fn sample(self) -> Sample {
        let mut ms: Vec<f64> =
            self.latencies.iter().map(|latency| latency.as_secs_f64() * 1e3).collect();
        ms.sort_unstable_by(f64::total_cmp);
        Sample {
            value: ms.len() as f64 / self.seconds,
            latency_ms: PERCENTILES.map(|percent| percentile(&ms, percent)).to_vec(),
            failed: self.failed,
            cpu: None,
        }
    }
}

/// One measurement of one side.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// What the row is about, in its unit.
    pub(super) value: f64,
    /// Latencies at [`PERCENTILES`]; empty where the row has none.
    pub(super) latency_ms: Vec<f64>,
    /// Requests that failed.
    pub(super) failed: u64,
    /// What a request cost of the processors.
    pub(super) cpu: Option<Cpu>,
}

impl Sample {
    /// A single number.
    pub(super) fn of(value: f64) -> Self {
        Self { value, latency_ms: Vec::new(), failed: 0, cpu: None }
    }

    /// The latency at a percentile that is kept.
    pub(super) fn latency(&self, percent: f64) -> Option<f64> {
        let place = PERCENTILES.iter().position(|kept| *kept == percent)?;
        self.latency_ms.get(place).copied().filter(|latency| latency.is_finite())
    }
}

/// Processor time of one request, µs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Cpu {
    /// Of all servers together.
    pub(super) servers_us: f64,
    /// Of the load.
    pub(super) load_us: f64,
}

/// Nearest-rank percentile of sorted numbers; not a number where there are none.
pub(super) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// Median of numbers in any order; `None` of none.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let numbers: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(percentile(&numbers, 50.0), 15.0);
        assert_eq!(percentile(&numbers, 99.0), 30.0);
        assert_eq!(percentile(&numbers, 0.0), 1.0);
        assert!(percentile(&[], 50.0).is_nan());
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
