//! Server processes of the benchmark: started on free loopback ports, ended by their id.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long servers may take to answer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Processes that end with the benchmark.
#[derive(Default)]
pub(super) struct Servers {
    children: Vec<Child>,
}

impl Servers {
    /// Starts one; its output goes to `log`.
    pub(super) fn spawn(&mut self, command: &mut Command, log: &Path) -> anyhow::Result<()> {
        let log = std::fs::File::create(log).context("could not create a server's log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("could not start {:?}", command.get_program()))?;
        self.children.push(child);
        Ok(())
    }

    /// Fails if one of them has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            if let Some(status) = child.try_wait()? {
                bail!("a server ended early ({status}); its log is in the data directory");
            }
        }
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Returns `count` free loopback ports.
pub(super) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("could not find free ports")?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Finds etcd: the path that was given, or `etcd` on the PATH.
pub(super) fn find_etcd(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = given {
        return Some(path.to_path_buf());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join("etcd")).find(|place| place.is_file())
}

/// Calls `probe` until it gives `Some`; fails after a minute, and at once if a server has ended.
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
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
