//! What commands print: a table for people, JSON for programs.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde_json::Value;

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// The API's own JSON.
    Json,
}

/// A column: heading and JSON pointer into the row.
pub(crate) type Column = (&'static str, &'static str);

/// Widest cell, as wide as a hash; longer text is cut in tables, never in JSON.
const CELL_CHARACTERS_MAX: usize = 64;

/// Writes to stdout. A reader that went away (`| head`) ends the output quietly.
///
/// # Errors
/// Stdout can't be written for another reason.
pub(crate) fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Renders rows.
pub(crate) fn rows(format: Format, columns: &[Column], rows: &[Value]) -> String {
    match format {
        Format::Json => json(&Value::Array(rows.to_vec())),
        Format::Table => table(columns, rows),
    }
}

/// Renders one record: a line per column in a table.
pub(crate) fn record(format: Format, columns: &[Column], record: &Value) -> String {
    match format {
        Format::Json => json(record),
        Format::Table => {
            let width = columns.iter().map(|(heading, _)| heading.len()).max().unwrap_or(0);
            columns
                .iter()
                .map(|(heading, pointer)| {
                    format!("{heading:<width$}  {}\n", cell_whole(record.pointer(pointer)))
                })
                .collect()
        }
    }
}

/// Renders JSON for people to read.
pub(crate) fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

fn table(columns: &[Column], rows: &[Value]) -> String {
    let mut lines = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()];
    for row in rows {
        let cells: Vec<String> =
            columns.iter().map(|(_, pointer)| cell(row.pointer(pointer))).collect();
        lines.push(cells);
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Renders one value, cut where it is long.
pub(crate) fn cell(value: Option<&Value>) -> String {
    let text = cell_whole(value);
    if text.chars().count() <= CELL_CHARACTERS_MAX {
        return text;
    }
    text.chars().take(CELL_CHARACTERS_MAX - 1).chain(['…']).collect()
}

/// Text that came from the network never reaches a terminal with control characters in it.
pub(crate) fn cell_whole(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_align_and_show_missing_values_and_no_control_characters() {
        let rows = [json!({"a": "one", "b": {"c": 5}}), json!({"a": "three\u{1b}[2J"})];
        let text = table(&[("A", "/a"), ("C", "/b/c")], &rows);
        assert_eq!(text, "A          C\none        5\nthree\u{fffd}[2J  -\n");
    }
}
