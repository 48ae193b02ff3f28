//! The binary's other commands: what they print and how they end.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::cluster::{ADMIN_TOKEN, command};

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said beside that.
    pub stderr: String,
}

impl Ended {
    /// What it printed, as JSON.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Checks the exit code, and returns what was said on stderr.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.stderr
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs the binary with these arguments and the admin token; waits for its end.
pub fn run(arguments: &[&str]) -> Ended {
    let mut command = command();
    command.args(arguments).env("PEAT_ADMIN_TOKEN", ADMIN_TOKEN);
    finish(command)
}

/// Runs a command to its end.
pub fn finish(mut command: Command) -> Ended {
    command.output().expect("the command runs").into()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}
