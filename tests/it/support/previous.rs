//! The build before the last change of a stored or wire format, from this repository's history.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `.ci/previous` ends with where the history isn't here.
const NO_HISTORY: i32 = 3;

/// The commit, as `tests/fixtures/compat/previous` names it.
pub fn commit() -> String {
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compat/previous");
    std::fs::read_to_string(pinned).expect("the pinned commit").trim().to_owned()
}

/// The previous build's binary, built now where the cache doesn't have it; else says why there is none.
///
/// # Panics
/// The history is here and doesn't build.
pub fn binary() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The test itself stands in `<target>/debug/deps`: what both builds share is compiled there.
    let own = std::env::current_exe().expect("the test's own path");
    let target = own.ancestors().nth(3).expect("a target directory").to_owned();
    println!("the previous build: commit {}; compiling it takes minutes, once", commit());
    let output = Command::new(root.join(".ci/previous"))
        .env("CARGO_TARGET_DIR", target)
        .stderr(Stdio::inherit())
        .output()
        .expect(".ci/previous runs");
    match output.status.code() {
        Some(0) => {
            let text = String::from_utf8(output.stdout).expect("a path");
            Ok(PathBuf::from(text.lines().last().expect("a path").trim()))
        }
        Some(NO_HISTORY) => {
            Err(format!("commit {} is not in this clone: git fetch --unshallow", commit()))
        }
        _ => panic!(".ci/previous failed: {}", output.status),
    }
}
