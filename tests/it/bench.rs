//! `peat-gateway bench`: the whole suite, small, so that it can't rot unseen.

use serde_json::Value;

use super::support::{alone, cluster::command};

/// Every row that a run without options has.
const ROWS: [&str; 16] = [
    "write/256-clients",
    "write/64-clients",
    "write/1-client",
    "read/linearizable/256-clients",
    "read/linearizable/64-clients",
    "read/stale/256-clients",
    "read/stale/64-clients",
    "failover",
    "planned-leader-change",
    "journal/4x50-in-flight",
    "journal/4x500-in-flight",
    "large-state/restart",
    "large-state/restart-after-kill",
    "large-state/memory",
    "large-state/writes",
    "mesh-to-file-sink",
];

#[test]
fn a_quick_benchmark_measures_every_row_and_meets_none_without_its_opponent() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let docs = directory.path().join("docs");
    std::fs::create_dir(&docs).expect("a directory");
    let readme = docs.join("README.md");
    std::fs::write(&readme, "before\n<!-- bench: begin -->\n<!-- bench: end -->\nafter\n")
        .expect("a document");
    let json = directory.path().join("rows.json");
    let output = command()
        .args(["bench", "--suite", "core", "--quick", "--alone", "--http1", "--commit", "abc123"])
        .args(["--data".as_ref(), directory.path().join("data").as_os_str()])
        .args(["--json".as_ref(), json.as_os_str(), "--docs".as_ref(), docs.as_os_str()])
        .output()
        .expect("the benchmark starts");
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "the benchmark failed: {said}");

    let text = std::fs::read_to_string(&json).expect("the file of rows");
    let run: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(run["commit"], "abc123");
    let rows = run["rows"].as_array().expect("rows");
    let of = |name: &str| rows.iter().find(|row| row["name"] == name);
    for name in ROWS {
        let row = of(name).unwrap_or_else(|| panic!("no row {name}"));
        assert!(row["unit"].is_string(), "{row}");
        assert!(row["ours"].as_f64().is_some_and(|ours| ours > 0.0), "{name}: {row}");
        for field in ["theirs", "ratio", "target", "met", "missing", "checks", "sides"] {
            assert!(row.get(field).is_some(), "{name} has no {field}: {row}");
        }
        let alone = ["write/", "read/", "failover", "journal/"];
        if alone.iter().any(|beginning| name.starts_with(beginning)) {
            assert_ne!(row["met"], true, "{name} has nobody to be compared with: {row}");
            assert_ne!(row["missing"].as_array().map(Vec::len), Some(0), "{row}");
        }
    }
    assert!(of("http1/write/256-clients").is_some_and(|row| row["ours"].is_number()));

    let table = std::fs::read_to_string(&readme).expect("the document");
    assert!(table.starts_with("before\n") && table.ends_with("after\n"), "{table}");
    assert!(table.contains("`failover`") && table.contains("abc123"), "{table}");
    for plot in ["bars.svg", "latency.svg", "gaps.svg"] {
        let text = std::fs::read_to_string(docs.join(plot)).expect("the plot");
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{plot}");
        assert!(!text.contains("NaN") && !text.contains("=\"inf"), "{plot}: {text}");
    }
    assert!(docs.join("core.json").is_file());
}
