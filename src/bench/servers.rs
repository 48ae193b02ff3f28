//! Server processes of the benchmark: started on free loopback ports, ended by their id.

use std::ffi::OsStr;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::machine;
use crate::dev::DIE_WITH_PARENT;

/// How long servers may take to answer, and to end.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Pause between two looks at something that is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Processes that end with the benchmark.
#[derive(Default)]
pub(super) struct Servers {
    processes: Vec<Process>,
}

struct Process {
    command: Command,
    child: Option<Child>,
    log: PathBuf,
    /// Processor seconds of the runs that have ended.
    spent: f64,
}

/// Begins the command of a server that is not ours. The kernel ends it if this process is killed, where
/// `setpriv` is installed.
pub(super) fn foreign(binary: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.is_file() {
        return Command::new(binary);
    }
    let mut command = Command::new(setpriv);
    command.args([OsStr::new("--pdeathsig"), OsStr::new("KILL"), binary.as_os_str()]);
    command
}

/// Begins the command of this program, with no setting of ours in its environment.
///
/// # Errors
/// This program's file can't be found.
pub(super) fn this_program() -> anyhow::Result<Command> {
    let binary = std::env::current_exe().context("could not find this program's file")?;
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PEAT_") {
            command.env_remove(name);
        }
    }
    command.env(DIE_WITH_PARENT, std::process::id().to_string());
    Ok(command)
}

impl Servers {
    /// Adds one, without starting it; its output is added to `log`.
    ///
    /// # Errors
    /// The log can't be written.
    pub(super) fn add(&mut self, mut command: Command, log: PathBuf) -> anyhow::Result<()> {
        let file = std::fs::File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("could not open the log {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        self.processes.push(Process { command, child: None, log, spent: 0.0 });
        Ok(())
    }

    /// Starts one that doesn't run.
    ///
    /// # Errors
    /// The program can't be started.
    pub(super) fn start(&mut self, number: usize) -> anyhow::Result<()> {
        let process = &mut self.processes[number];
        if process.child.is_none() {
            let child = process.command.spawn();
            let program = process.command.get_program().to_owned();
            process.child = Some(child.with_context(|| format!("could not start {program:?}"))?);
        }
        Ok(())
    }

    /// Starts all.
    ///
    /// # Errors
    /// As [`Servers::start`].
    pub(super) fn start_all(&mut self) -> anyhow::Result<()> {
        (0..self.processes.len()).try_for_each(|number| self.start(number))
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// It could not be ended.
    pub(super) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let process = &mut self.processes[number];
        if let Some(mut child) = process.child.take() {
            process.spent += machine::cpu_seconds(child.id());
            child.kill().context("could not kill a server")?;
            child.wait().context("could not wait for a server's end")?;
        }
        Ok(())
    }

    /// SIGTERM.
    ///
    /// # Errors
    /// It could not be signalled.
    pub(super) fn terminate(&mut self, number: usize) -> anyhow::Result<()> {
        if let Some(pid) = self.pid(number).and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            kill_process(pid, Signal::TERM).context("could not signal a server")?;
        }
        Ok(())
    }

    /// Waits for the end of one that was told to end.
    ///
    /// # Errors
    /// It goes on.
    pub(super) async fn ended(&mut self, number: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        let process = &mut self.processes[number];
        while let Some(child) = &mut process.child {
            let seconds = machine::cpu_seconds(child.id());
            if child.try_wait()?.is_some() {
                process.child = None;
                process.spent += seconds;
            } else if start.elapsed() > START_LIMIT {
                bail!("a server goes on after SIGTERM; its log: {}", process.log.display());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Process id of one that runs.
    pub(super) fn pid(&self, number: usize) -> Option<u32> {
        self.processes[number].child.as_ref().map(Child::id)
    }

    /// Processor seconds of all until now.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let running = |process: &Process| {
            process.child.as_ref().map_or(0.0, |child| machine::cpu_seconds(child.id()))
        };
        self.processes.iter().map(|process| process.spent + running(process)).sum()
    }

    /// Fails if one has ended that should run.
    ///
    /// # Errors
    /// It says which, with the end of its log.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            let ended = process.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                process.child = None;
                let log = std::fs::read_to_string(&process.log).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(8).collect();
                let tail: Vec<_> = lines.into_iter().rev().collect();
                bail!("a server ended early ({status}); the end of its log:\n{}", tail.join("\n"));
            }
        }
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // All at once, so that no one spends its last moments on electing a leader.
        let processes = self.processes.iter_mut();
        let mut children: Vec<_> = processes.filter_map(|process| process.child.as_mut()).collect();
        children.iter_mut().for_each(|child| drop(child.kill()));
        children.iter_mut().for_each(|child| drop(child.wait()));
    }
}

/// Returns `count` free loopback ports.
///
/// # Errors
/// There are none.
pub(super) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("could not find free ports")?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Calls `probe` until it gives `Some`.
///
/// # Errors
/// The time is over, or a server has ended.
pub(super) async fn wait_until<T, F, Fut>(
    servers: &mut Servers,
    what: &str,
    mut probe: F,
) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        servers.check()?;
        if let Some(value) = probe().await {
            return Ok(value);
        }
        if start.elapsed() > START_LIMIT {
            bail!("waited {START_LIMIT:?} for {what}");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
