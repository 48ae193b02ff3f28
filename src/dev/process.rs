//! A child process: started, watched, ended.
//!
//! Every child is a process group of its own, so that a Ctrl-C in the terminal reaches only `dev`, which
//! then ends them in order. Should `dev` itself be killed, the kernel kills the children
//! ([`die_with_parent`]).

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use super::DevError;
use super::directory::write_private;

/// Set for children: the process id of the `dev` that they must not outlive.
pub const DIE_WITH_PARENT: &str = "PEAT_DIE_WITH_PARENT";

/// How long a child may take to end after SIGTERM, before SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of a dead child's log that are shown.
const LOG_LINES_SHOWN: usize = 12;
/// Bytes of a log's end that are searched for them.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// In a child of `dev`: has the kernel kill this process when its parent ends. Called before any thread
/// starts; does nothing elsewhere.
///
/// # Errors
/// The kernel refuses, or the parent is gone already: the process should end.
pub fn die_with_parent() -> io::Result<()> {
    let Some(parent) = std::env::var_os(DIE_WITH_PARENT) else {
        return Ok(());
    };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the line above.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if now.map(OsString::from).as_ref() != Some(&parent) {
        return Err(io::Error::other("the process that started this one has ended"));
    }
    Ok(())
}

/// A child process and what is needed to start it again.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    directory: PathBuf,
    state: State,
    /// Whether [`Process::kill`] asked for its end.
    killed: bool,
}

#[derive(Debug)]
enum State {
    /// Not started yet, or ended and reported.
    Down,
    Running(Child),
}

impl Process {
    /// Describes a child of this executable; `directory` gets its `pid` and `log`.
    pub(super) fn new(
        name: String,
        arguments: Vec<OsString>,
        environment: Vec<(&'static str, OsString)>,
        directory: PathBuf,
    ) -> Self {
        Self { name, arguments, environment, directory, state: State::Down, killed: false }
    }

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.state {
            State::Running(child) => child.id(),
            State::Down => None,
        }
    }

    /// Where its output goes.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Starts it. Must be called on the main thread: the kernel takes the end of the starting *thread*
    /// for the end of the parent.
    ///
    /// # Errors
    /// The executable or its log can't be opened.
    pub(super) fn start(&mut self) -> Result<(), DevError> {
        let child =
            self.spawn().map_err(|source| DevError::Spawn { name: self.name.clone(), source })?;
        let pid = child.id().map(|id| format!("{id}\n")).unwrap_or_default();
        self.state = State::Running(child);
        self.killed = false;
        write_private(&self.directory.join("pid"), pid.as_bytes())
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        // Settings of the user's shell are for the user's own nodes.
        for (name, _) in std::env::vars_os() {
            let inherited = name.to_string_lossy();
            if inherited.starts_with("PEAT_") && !inherited.starts_with("PEAT_LOG") {
                command.env_remove(&name);
            }
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command.env(DIE_WITH_PARENT, std::process::id().to_string());
        command.spawn()
    }

    /// Whether it has ended since the last call: how, for people. Reported once.
    pub(super) fn died(&mut self) -> Option<String> {
        let State::Running(child) = &mut self.state else { return None };
        let status = match child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => describe(status),
            Err(error) => format!("could not be watched: {error}"),
        };
        self.state = State::Down;
        // The id may soon belong to another process.
        drop(std::fs::remove_file(self.directory.join("pid")));
        Some(status)
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        tail_of(&self.log()).unwrap_or_default()
    }

    /// Kills it with SIGKILL, as a power cut would; [`Process::died`] reports the end.
    ///
    /// Returns whether it ran.
    pub(super) fn kill(&mut self) -> bool {
        self.killed = self.signal(Signal::KILL);
        self.killed
    }

    /// Whether its end was asked for by [`Process::kill`], so that it needs no explanation.
    pub(super) fn was_killed(&self) -> bool {
        self.killed
    }

    /// Asks it to end.
    pub(super) fn terminate(&mut self) -> bool {
        self.signal(Signal::TERM)
    }

    fn signal(&mut self, signal: Signal) -> bool {
        let pid = self.pid().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
    }

    /// Waits for its end after [`Process::terminate`]; kills it when that takes too long.
    ///
    /// Returns what was wrong with its end, if anything.
    pub(super) async fn wait(&mut self) -> Option<String> {
        let State::Running(child) = &mut self.state else { return None };
        let ended = tokio::time::timeout(STOP_TIMEOUT, child.wait()).await;
        let wrong = match ended {
            Ok(Ok(status)) if status.success() => None,
            Ok(Ok(status)) => Some(describe(status)),
            Ok(Err(error)) => Some(format!("could not be waited for: {error}")),
            Err(_) => {
                let killed = child.kill().await;
                let reason = killed.err().map(|error| format!(" ({error})")).unwrap_or_default();
                Some(format!(
                    "didn't end within {} s and was killed{reason}",
                    STOP_TIMEOUT.as_secs()
                ))
            }
        };
        self.state = State::Down;
        drop(std::fs::remove_file(self.directory.join("pid")));
        wrong
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "was killed (SIGKILL)".to_owned(),
        (Some(signal), _) => format!("ended by signal {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The last lines of a file, from its last kilobytes.
pub(super) fn tail_of(path: &Path) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut content = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut content)?;
    let text = String::from_utf8_lossy(&content);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES_SHOWN);
    Ok(lines[first..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_its_last_lines() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        let lines: Vec<String> = (0..5000).map(|i| format!("line {i}")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let tail = tail_of(&path).unwrap();
        assert_eq!(tail.lines().count(), LOG_LINES_SHOWN);
        assert!(tail.ends_with("line 4999"));
    }

    #[test]
    fn the_end_of_a_process_is_said_in_words() {
        assert_eq!(describe(ExitStatus::from_raw(9)), "was killed (SIGKILL)");
        assert_eq!(describe(ExitStatus::from_raw(78 << 8)), "ended with exit code 78");
    }
}
