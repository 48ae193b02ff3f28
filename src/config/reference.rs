//! The page `docs/reference/configuration.md`, from the same rows as flags and variables.

use super::{Kind, SECTIONS, Setting};

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from src/config/components.rs by the test `the_reference_page_is_up_to_date`; \
run it with UPDATE=1 to write this file again. -->

A node reads a TOML file (`--config FILE` or `PEAT_CONFIG`), then the environment, then flags; the later one wins.
Unknown keys and unknown `PEAT_*` variables are refused, all problems are reported at once, and the exit code is 78.
`peat-gateway config check` does the same and starts nothing. Lists are arrays in the file, separated by commas
elsewhere. A secret may also be read from a file: variable and key with `_FILE` / `_file` added; as a flag
there is only the file.

Variables that Kubernetes sets for a Service named `peat-…` are not settings and are passed over.
";

/// Returns the page.
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in SECTIONS {
        page.push_str(&format!("\n## `[{}]`\n\n{}\n\n", section.name, text(section.doc)));
        page.push_str("| key | variable | flag | default | meaning |\n|---|---|---|---|---|\n");
        for setting in section.settings {
            page.push_str(&row(setting));
        }
    }
    page
}

fn row(setting: &Setting) -> String {
    let field = setting.key.split_once('.').map_or(setting.key, |(_, field)| field);
    let flag = match setting.kind {
        Kind::Secret => format!("--{}", setting.file_flag),
        _ => format!("--{}", setting.flag),
    };
    let default = match setting.default {
        "" => "–".to_owned(),
        default => format!("`{default}`"),
    };
    let meaning = text(setting.doc);
    format!("| `{field}` | `{}` | `{flag}` | {default} | {meaning} |\n", setting.environment)
}

/// A doc comment as one line.
fn text(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}
