//! Plots of a run: bars of what is compared, latencies, gaps.

use std::path::Path;

use anyhow::Context;

use super::report::{OURS, Outcome, Run, Side};
use super::suite;
use super::svg::{Anchor, Drawing};
use super::table::number;

const WIDTH: f64 = 980.0;
const MARGIN: f64 = 24.0;
const GRID: &str = "#ddd";
const TARGET: &str = "#c0392b";

/// Writes `bars.svg`, `latency.svg` and `gaps.svg`.
///
/// # Errors
/// A file can't be written.
pub(super) fn write(directory: &Path, run: &Run) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    for (name, text) in [("bars", bars(run)), ("latency", latency(run)), ("gaps", gaps(run))] {
        let file = directory.join(format!("{name}.svg"));
        std::fs::write(&file, text)
            .with_context(|| format!("could not write {}", file.display()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

fn colour(side: &str) -> &'static str {
    match side {
        OURS => "#1f6fb2",
        name if name.starts_with("etcd 3.4") => "#e0a458",
        name if name.starts_with("etcd") => "#b5651d",
        name if name.starts_with("JetStream") => "#5b8c3e",
        _ => "#8a8a8a",
    }
}

fn title(drawing: &mut Drawing, run: &Run, text: &str) {
    drawing.text((MARGIN, 32.0), 18.0, Anchor::Start, text);
    let commit = run.commit.as_deref().unwrap_or("unknown commit");
    let below = format!("{commit} · {} rounds · {}", run.rounds, run.machine.describe());
    drawing.styled((MARGIN, 50.0), 11.0, Anchor::Start, "#777", &below);
}

/// A bar for each side of each row of rates, with whiskers from the slowest to the fastest round.
fn bars(run: &Run) -> String {
    const LABEL: f64 = 270.0;
    const BAR: f64 = 17.0;
    const GAP: f64 = 18.0;
    const TEXT: f64 = 190.0;
    let rows: Vec<&Outcome> = run
        .rows
        .iter()
        .filter(|row| row.unit.ends_with("/s") && row.sides.iter().any(|side| side.max.is_some()))
        .collect();
    let lines: usize = rows.iter().map(|row| row.sides.len()).sum();
    let height = 90.0 + lines as f64 * BAR + rows.len() as f64 * GAP;
    let mut drawing = Drawing::new(WIDTH, height);
    title(&mut drawing, run, "Operations per second: median, whiskers from min to max");
    drawing.dashed((WIDTH - 220.0, 28.0), (WIDTH - 196.0, 28.0), TARGET);
    drawing.text((WIDTH - 190.0, 32.0), 12.0, Anchor::Start, "what the target asks for");
    let mut y = 74.0;
    for row in rows {
        let wanted = row.theirs.zip(least_ratio(row)).map(|(theirs, ratio)| theirs * ratio);
        let most = row.sides.iter().filter_map(|side| side.max).chain(wanted).fold(0.0, f64::max);
        let room = WIDTH - LABEL - TEXT - MARGIN;
        let x = |value: f64| LABEL + room * value / most.max(f64::MIN_POSITIVE);
        let top = y;
        drawing.text((MARGIN, y + BAR - 4.0), 13.0, Anchor::Start, row.name);
        if let Some(ratio) = row.ratio {
            let text = format!("{ratio:.2}× {}", verdict(row));
            drawing.styled((MARGIN, y + 2.0 * BAR - 3.0), 12.0, Anchor::Start, "#777", &text);
        }
        for side in &row.sides {
            let (Some(median), Some(min), Some(max)) = (side.median, side.min, side.max) else {
                continue;
            };
            drawing.rect((LABEL, y + 2.0), (x(median) - LABEL, BAR - 4.0), colour(&side.name));
            let middle = y + BAR / 2.0;
            drawing.line((x(min), middle), (x(max), middle), "#222", 1.5);
            for end in [min, max] {
                drawing.line((x(end), middle - 4.0), (x(end), middle + 4.0), "#222", 1.5);
            }
            let text = format!("{} {}", number(median), side.name);
            drawing.text((x(max) + 6.0, y + BAR - 4.0), 11.0, Anchor::Start, &text);
            y += BAR;
        }
        if let Some(wanted) = wanted {
            drawing.dashed((x(wanted), top - 2.0), (x(wanted), y + 2.0), TARGET);
        }
        y += GAP;
    }
    drawing.finish()
}

fn least_ratio(row: &Outcome) -> Option<f64> {
    let spec = suite::ROWS.iter().find(|spec| spec.name == row.name)?;
    spec.checks.iter().find_map(|check| match check {
        suite::Check::RatioAtLeast(ratio) => Some(*ratio),
        _ => None,
    })
}

fn verdict(row: &Outcome) -> &'static str {
    match row.met {
        Some(true) => "(met)",
        Some(false) => "(not met)",
        None => "",
    }
}

/// A panel for each row with latencies: percentile to the right, milliseconds upwards, logarithmic.
fn latency(run: &Run) -> String {
    const COLUMNS: usize = 3;
    const PANEL: (f64, f64) = (310.0, 220.0);
    const INSIDE: (f64, f64) = (230.0, 140.0);
    let rows: Vec<&Outcome> = run
        .rows
        .iter()
        .filter(|row| row.sides.iter().any(|side| !side.latency.is_empty()))
        .collect();
    let height = 90.0 + rows.len().div_ceil(COLUMNS) as f64 * PANEL.1;
    let mut drawing = Drawing::new(WIDTH, height);
    title(&mut drawing, run, "Latency in ms by percentile: medians of the rounds, logarithmic");
    for (place, row) in rows.into_iter().enumerate() {
        let left = MARGIN + 40.0 + (place % COLUMNS) as f64 * PANEL.0;
        let top = 90.0 + (place / COLUMNS) as f64 * PANEL.1;
        let all = row.sides.iter().flat_map(|side| curve(side).map(|point| point.1));
        let (least, most) =
            all.fold((f64::MAX, 0.0_f64), |(least, most), ms| (least.min(ms), most.max(ms)));
        let (low, high) =
            (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
        let y = |ms: f64| top + INSIDE.1 * (1.0 - (ms.log10() - low) / (high - low));
        let x = |percent: f64| left + INSIDE.0 * nines(percent) / nines(99.9);
        drawing.text((left - 36.0, top - 12.0), 12.0, Anchor::Start, row.name);
        for decade in low as i32..=high as i32 {
            let ms = 10_f64.powi(decade);
            drawing.line((left, y(ms)), (left + INSIDE.0, y(ms)), GRID, 1.0);
            drawing.text((left - 5.0, y(ms) + 4.0), 10.0, Anchor::End, &format!("{ms}"));
        }
        for percent in [50.0, 90.0, 99.0, 99.9] {
            drawing.line((x(percent), top), (x(percent), top + INSIDE.1), GRID, 1.0);
            let at = (x(percent), top + INSIDE.1 + 14.0);
            drawing.text(at, 10.0, Anchor::Middle, &format!("p{percent}"));
        }
        for (number, side) in row.sides.iter().enumerate() {
            let points: Vec<_> = curve(side).map(|(percent, ms)| (x(percent), y(ms))).collect();
            drawing.path(&points, colour(&side.name));
            let at = (left + number as f64 * 88.0 - 30.0, top + INSIDE.1 + 32.0);
            drawing.styled(at, 11.0, Anchor::Start, colour(&side.name), &side.name);
        }
    }
    drawing.finish()
}

/// What of a side's latencies is drawn.
fn curve(side: &Side) -> impl Iterator<Item = (f64, f64)> + '_ {
    let shown = side.latency.iter().copied();
    shown.filter(|(percent, ms)| (10.0..=99.9).contains(percent) && *ms > 0.0)
}

/// Spreads the percentiles near 100: 90 is 1, 99 is 2, 99.9 is 3.
fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

/// A dot for each event of the rows that count time: kills, planned changes, restarts.
fn gaps(run: &Run) -> String {
    const LABEL: f64 = 150.0;
    const LINE: f64 = 40.0;
    const PANEL: f64 = 74.0;
    let rows: Vec<&Outcome> = run
        .rows
        .iter()
        .filter(|row| {
            matches!(row.unit, "ms" | "s") && row.sides.iter().any(|side| side.max.is_some())
        })
        .collect();
    let lines: usize = rows.iter().map(|row| row.sides.len()).sum();
    let height = 80.0 + rows.len() as f64 * PANEL + lines as f64 * LINE;
    let mut drawing = Drawing::new(WIDTH, height);
    title(&mut drawing, run, "Gaps and starts: a dot for each, a bar at the median, limits dashed");
    let mut top = 90.0;
    for row in rows {
        let limits = limits(row);
        let most = row.sides.iter().filter_map(|side| side.max);
        let most = most.chain(limits.iter().map(|limit| limit.0)).fold(0.0, f64::max) * 1.08;
        let room = WIDTH - LABEL - MARGIN - 20.0;
        let x = |value: f64| LABEL + room * value / most.max(f64::MIN_POSITIVE);
        let bottom = top + 12.0 + row.sides.len() as f64 * LINE;
        drawing.text((MARGIN, top), 13.0, Anchor::Start, &format!("{} [{}]", row.name, row.unit));
        let step = round_step(most);
        for value in (0..).map(|count| f64::from(count) * step).take_while(|value| *value <= most) {
            drawing.line((x(value), top + 12.0), (x(value), bottom), GRID, 1.0);
            let text = format!("{}", (value * 1e6).round() / 1e6);
            drawing.text((x(value), bottom + 14.0), 10.0, Anchor::Middle, &text);
        }
        for (value, words) in &limits {
            drawing.dashed((x(*value), top + 8.0), (x(*value), bottom), TARGET);
            drawing.styled((x(*value), top + 4.0), 10.0, Anchor::Middle, TARGET, words);
        }
        for (place, side) in row.sides.iter().enumerate() {
            let middle = top + 12.0 + (place as f64 + 0.5) * LINE;
            let colour = colour(&side.name);
            drawing.styled((LABEL - 10.0, middle + 4.0), 12.0, Anchor::End, colour, &side.name);
            for (number, value) in side.values.iter().enumerate() {
                // Spread a little, so that equal values are seen.
                let shift = (number % 5) as f64 * 4.0 - 8.0;
                drawing.dot((x(*value), middle + shift), 4.0, colour);
            }
            if let Some(median) = side.median {
                drawing.line((x(median), middle - 15.0), (x(median), middle + 15.0), "#222", 2.5);
            }
        }
        top = bottom + PANEL - 12.0;
    }
    drawing.finish()
}

/// A step of 1, 2 or 5 of some power of ten that gives at most ten lines up to `most`.
fn round_step(most: f64) -> f64 {
    let power = 10_f64.powf((most / 10.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    steps.into_iter().find(|step| most / step <= 10.0).unwrap_or(most)
}

fn limits(row: &Outcome) -> Vec<(f64, String)> {
    let spec = suite::ROWS.iter().find(|spec| spec.name == row.name);
    let checks = spec.map_or(&[][..], |spec| spec.checks);
    checks
        .iter()
        .filter(|check| {
            matches!(
                check,
                suite::Check::MedianAtMost(..)
                    | suite::Check::P99AtMost(..)
                    | suite::Check::MaxAtMost(..)
            )
        })
        .map(|check| (check.limit(), check.words()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        assert_eq!(round_step(1573.0), 200.0);
        assert_eq!(round_step(2.16), 0.5);
        assert_eq!(round_step(100.0), 10.0);
    }
}
