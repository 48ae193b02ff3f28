//! The house rules that a tool can check: dependency edges, file sizes, documents that cite tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Longest source file, lines. Generated code doesn't count.
const FILE_LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file under `directory` with this extension, generated code left out.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                let name = entry.file_name();
                if name != "gen" && name != "target" && name != ".git" && name != "node_modules" {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let normal = |package: &str| -> BTreeSet<String> {
        metadata["packages"]
            .as_array()
            .expect("packages")
            .iter()
            .find(|found| found["name"] == package)
            .expect("the package exists")["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let ours = |package: &str| -> BTreeSet<String> {
        normal(package).into_iter().filter(|name| name.starts_with("peat-gateway")).collect()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(ours("peat-gateway-state"), BTreeSet::new());
    assert_eq!(ours("peat-gateway-proto"), BTreeSet::new());
    assert_eq!(ours("peat-gateway-mesh"), BTreeSet::new());
    let below: BTreeSet<String> = set(&["peat-gateway-proto", "peat-gateway-state"]);
    assert_eq!(ours("peat-gateway-cluster"), below);
    for package in ["peat-gateway", "peat-gateway-state", "peat-gateway-mesh"] {
        for only_cluster in ["openraft", "rocksdb"] {
            assert!(!normal(package).contains(only_cluster), "{package} names {only_cluster}");
        }
    }
    for impure in ["tokio", "rand", "getrandom", "tonic", "prost"] {
        assert!(!normal("peat-gateway-state").contains(impure), "the state machine sees {impure}");
    }
}

#[test]
fn no_source_file_is_longer_than_five_hundred_lines() {
    let long: Vec<_> = ["src", "cluster", "mesh", "proto", "tests"]
        .iter()
        .flat_map(|directory| files(&root().join(directory), "rs"))
        .filter_map(|path| {
            let lines = std::fs::read_to_string(&path).expect("readable").lines().count();
            (lines > FILE_LINES_MAX).then(|| format!("{}: {lines}", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "split these:\n{}", long.join("\n"));
}

#[test]
fn every_test_that_the_guarantees_cite_exists() {
    let text = std::fs::read_to_string(root().join("docs/guarantees.md")).expect("the document");
    let sources: String = ["src", "cluster", "mesh", "proto", "tests"]
        .iter()
        .flat_map(|directory| files(&root().join(directory), "rs"))
        .map(|path| std::fs::read_to_string(path).expect("readable"))
        .collect();
    let cited: Vec<_> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.matches('_').count() >= 2 && !word.contains(['/', '.', ' ', '-', '<']))
        .collect();
    assert!(cited.len() >= 11, "each promise cites a test; found only {}", cited.len());
    for name in cited {
        assert!(sources.contains(&format!("fn {name}(")), "there is no test `{name}`");
    }
}
