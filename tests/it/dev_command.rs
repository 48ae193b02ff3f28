//! README command one: three processes, a mesh node and a sink, driven as a person would.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::cluster::command;
use crate::support::{self, ports};

/// `dev --plain` with its lines.
struct Dev {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Dev {
    fn start(data: &Path, port: u16, more: &[&str]) -> Self {
        let mut child = dev_command(data, port)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("dev starts");
        let stdin = child.stdin.take().expect("its stdin");
        let stdout = child.stdout.take().expect("its stdout");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, stdin, lines, seen: Vec::new() }
    }

    /// Reads lines until one satisfies `wanted`.
    fn wait_line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let limit = Instant::now() + Duration::from_secs(120);
        loop {
            let left = limit.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line for {what}; so far:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if wanted(&line) {
                return line;
            }
        }
    }

    fn say(&mut self, key: &str) {
        writeln!(self.stdin, "{key}").expect("dev reads its stdin");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("dev can be signalled");
    }

    fn wait_exit(&mut self) -> std::process::ExitStatus {
        let limit = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().expect("dev can be asked") {
                return status;
            }
            assert!(Instant::now() < limit, "dev doesn't end:\n{}", self.seen.join("\n"));
            std::thread::sleep(support::POLL_INTERVAL);
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn dev_command(data: &Path, port: u16) -> Command {
    let mut command = command();
    command.args(["dev", "--plain", "--rate", "50", "--port"]).arg(port.to_string());
    command.arg("--data").arg(data);
    command
}

/// Three free ports in a row.
fn three_ports() -> u16 {
    loop {
        let first = ports::free();
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(first + 1) && free(first + 2) {
            return first;
        }
    }
}

/// Lines in the sink's files.
fn delivered(sink: &Path) -> usize {
    let mut total = 0;
    let mut open = vec![sink.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                total += text.lines().count();
            }
        }
    }
    total
}

fn wait_delivered(sink: &Path, goal: usize) -> usize {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let now = delivered(sink);
        if now >= goal {
            return now;
        }
        assert!(Instant::now() < limit, "{now} of {goal} events in {}", sink.display());
        std::thread::sleep(support::POLL_INTERVAL);
    }
}

/// The node's process id; `None` while it has no pid file.
fn pid_of(data: &Path, node: usize) -> Option<i32> {
    std::fs::read_to_string(data.join(format!("node-{node}/pid"))).ok()?.trim().parse().ok()
}

fn runs(data: &Path, node: usize) -> bool {
    pid_of(data, node).is_some_and(alive)
}

fn alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}/stat")).exists()
}

#[test]
fn dev_runs_three_processes_survives_the_leader_and_continues_on_the_same_directory() {
    let _alone = support::alone();
    let root = tempfile::tempdir().expect("a temporary directory");
    let data = root.path().join("dev");
    let port = three_ports();
    let mut dev = Dev::start(&data, port, &[]);
    let ready = dev.wait_line("readiness", |line| line.starts_with("ready "));
    assert!(ready.starts_with(&format!("ready http://127.0.0.1:{port}")), "{ready}");
    let pids: Vec<_> = (1..=3).filter_map(|node| pid_of(&data, node)).collect();
    assert_eq!(pids.iter().filter(|pid| alive(**pid)).count(), 3);
    (1..=3).for_each(|node| assert!(data.join(format!("node-{node}/log")).is_file()));
    let sink = data.join("sink");
    let before = wait_delivered(&sink, 50);

    dev.say("k");
    let limit = Instant::now() + Duration::from_secs(20);
    while pids.iter().all(|pid| alive(*pid)) {
        assert!(Instant::now() < limit, "k killed no node");
        std::thread::sleep(support::POLL_INTERVAL);
    }
    let after = wait_delivered(&sink, delivered(&sink).max(before) + 50);
    dev.say("r");
    let limit = Instant::now() + Duration::from_secs(30);
    while !(1..=3).all(|node| runs(&data, node)) {
        assert!(Instant::now() < limit, "r restarted no node");
        std::thread::sleep(support::POLL_INTERVAL);
    }
    let pids: Vec<_> = (1..=3).filter_map(|node| pid_of(&data, node)).collect();
    dev.signal(Signal::INT);
    assert!(dev.wait_exit().success());
    assert!(!pids.into_iter().any(alive), "a node outlived dev");

    let mut again = Dev::start(&data, port, &[]);
    again.wait_line("readiness", |line| line.starts_with("ready "));
    wait_delivered(&sink, after + 50);
    let second = dev_command(&data, three_ports()).output().expect("a second dev runs");
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("in use"), "{text}");
    again.say("q");
    assert!(again.wait_exit().success());
}

#[test]
fn dev_says_plainly_that_a_port_is_taken() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let port = three_ports();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port + 1)).expect("the port");
    let output = dev_command(&root.path().join("dev"), port).output().expect("dev runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&(port + 1).to_string()), "{text}");
}
