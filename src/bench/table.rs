//! The table: Markdown, printed and put into the documentation.

use std::path::Path;

use anyhow::Context;

use super::report::{OURS, Outcome, Run, Side};

/// Between these two lines the documentation holds the newest table.
const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";

/// Prints the table.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(super) fn print(run: &Run) {
    println!("{}", markdown(run));
}

/// Puts the table between its marks in a document that has them.
///
/// # Errors
/// The document can't be read or written, or has no marks.
pub(super) fn write_readme(file: &Path, run: &Run) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("could not read {}", file.display()))?;
    let replaced = replace(&text, &markdown(run))
        .with_context(|| format!("{} has no lines {BEGIN} and {END}", file.display()))?;
    std::fs::write(file, replaced)
        .with_context(|| format!("could not write {}", file.display()))?;
    eprintln!("wrote {}", file.display());
    Ok(())
}

fn replace(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

fn markdown(run: &Run) -> String {
    let mut text = String::new();
    let commit = run.commit.as_deref().unwrap_or("unknown");
    let opponents =
        if run.opponents.is_empty() { "nobody".to_owned() } else { run.opponents.join(", ") };
    let quick = if run.quick { " A quick run: the numbers mean nothing." } else { "" };
    text.push_str(&format!(
        "Commit `{commit}` beside {opponents}; {} rounds of {} s; {}.{quick}\n\n",
        run.rounds,
        run.seconds,
        run.machine.describe()
    ));
    text.push_str("| what | peat-gateway | beside it | ratio | target | met |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for row in &run.rows {
        text.push_str(&format!(
            "| {} (`{}`), {} | {} | {} | {} | {} | {} |\n",
            row.about,
            row.name,
            row.unit,
            row.sides.iter().find(|side| side.name == OURS).map_or_else(|| "–".to_owned(), numbers),
            others(row),
            ratios(row),
            row.target.as_deref().unwrap_or("–"),
            verdict(row),
        ));
    }
    text.push_str(
        "\nNumbers: median (min–max); latency p50 / p99 in ms; `cpu`: processor time of one request, all servers / \
         the load. In bold: the opponent that counts.\n",
    );
    for row in run.rows.iter().filter(|row| !row.notes.is_empty()) {
        text.push_str(&format!("\n`{}`: {}.\n", row.name, row.notes.join("; ")));
    }
    for failure in &run.failures {
        text.push_str(&format!("\nFailed: {}.\n", failure.replace('\n', " ")));
    }
    text
}

fn numbers(side: &Side) -> String {
    let (Some(median), Some(min), Some(max)) = (side.median, side.min, side.max) else {
        return "–".to_owned();
    };
    let mut text = number(median);
    if side.values.len() > 1 {
        text.push_str(&format!(" ({}–{})", number(min), number(max)));
    }
    if let (Some(p50), Some(p99)) = (side.latency_p50_ms, side.latency_p99_ms) {
        text.push_str(&format!("; {p50:.1} / {p99:.1}"));
    } else if let (Some(p99), true) = (side.p99, side.values.len() > 2) {
        text.push_str(&format!("; p99 {}", number(p99)));
    }
    if let Some(cpu) = side.cpu {
        text.push_str(&format!("; cpu {:.0} / {:.1} µs", cpu.servers_us, cpu.load_us));
    }
    if side.failed > 0 {
        text.push_str(&format!("; {} failed", side.failed));
    }
    text
}

fn others(row: &Outcome) -> String {
    let mut all: Vec<String> = row
        .sides
        .iter()
        .filter(|side| side.name != OURS)
        .map(|side| {
            let counts = row.opponent.as_ref() == Some(&side.name) && row.sides.len() > 2;
            let name = if counts { format!("**{}**", side.name) } else { side.name.clone() };
            format!("{name}: {}", numbers(side))
        })
        .collect();
    all.extend(row.missing.iter().map(|name| format!("{name} is not installed")));
    if all.is_empty() { "–".to_owned() } else { all.join("<br>") }
}

fn ratios(row: &Outcome) -> String {
    let Some(ratio) = row.ratio else { return "–".to_owned() };
    let ours = row.sides.iter().find(|side| side.name == OURS);
    let theirs = row.sides.iter().find(|side| Some(&side.name) == row.opponent.as_ref());
    let p99 = ours.zip(theirs).and_then(|(ours, theirs)| {
        super::report::ratio(ours.latency_p99_ms, theirs.latency_p99_ms)
    });
    let p99 = p99.map(|p99| format!(", p99 {p99:.2}×")).unwrap_or_default();
    format!("{ratio:.2}×{p99}")
}

fn verdict(row: &Outcome) -> String {
    match row.met {
        None => "–".to_owned(),
        Some(true) => "yes".to_owned(),
        Some(false) => {
            let failed: Vec<_> = row
                .checks
                .iter()
                .filter(|check| !check.met)
                .map(|check| match check.value {
                    Some(value) => format!("{}: {}", check.what, number(value)),
                    None => format!("{}: not measured", check.what),
                })
                .collect();
            format!("**no** {}", failed.join(", "))
        }
    }
}

/// A number with as many digits as mean something.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_where_they_are_long() {
        assert_eq!(number(1234567.4), "1,234,567");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(1.234), "1.23");
    }

    #[test]
    fn the_table_replaces_the_one_before_and_nothing_else() {
        let before = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let after = replace(&before, "new").expect("both marks are there");
        assert_eq!(after, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replace("no marks", "new"), None);
    }
}
