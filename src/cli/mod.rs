//! The commands of the binary.
//!
//! ```text
//!   main ──► Cli (arguments) ─┬─► serve, dev, mesh-node     run until a signal
//!                             ├─► org, formation, sink, …   one request each, over HTTP, to any node
//!                             └─► config check, completions
//! ```
//!
//! Results go to stdout, everything else to stderr. How a command ended is its exit code ([`Exit`]).

mod audit;
mod client;
mod cluster;
mod connection;
mod document;
mod exit;
mod formation;
mod journal;
mod mesh_node;
mod org;
pub(crate) mod output;
mod progress;
mod recover;
mod sink;
mod snapshot;
#[cfg(test)]
mod tests;
mod upgrade;

use std::error::Error;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use peat_gateway_cluster::StartError;
use peat_gateway_cluster::backup::SnapshotError;
use tracing::error;

pub use client::{Answer, Call, CallError, Client, STREAM_STALL_TIMEOUT, Streamed};
pub use connection::{Connection, Session};
pub use exit::Exit;
pub use output::Format;

use crate::bench;
use crate::config::{Config, Flags, Process};
use crate::dev;
use crate::leader::LeaderWork;
use crate::serve::{self, ServeError};
use crate::telemetry;

/// The office of peer-to-peer Peat meshes. Without a command: `serve` with what the environment says.
#[derive(Parser, Debug)]
#[command(name = "peat-gateway", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a gateway node; with nothing set, a cluster of one on ./data
    Serve(Box<Flags>),
    /// Run three nodes, a mesh node that writes documents, and a file sink, in this terminal
    Dev(dev::Arguments),
    /// Run a mesh node that writes documents into a formation
    MeshNode(mesh_node::Arguments),
    /// Organisations
    Org(org::Arguments),
    /// Formations: one mesh each
    Formation(formation::Arguments),
    /// Sinks: where changes are delivered
    Sink(sink::Arguments),
    /// Documents of a formation
    Document(document::Arguments),
    /// The journal of changes
    Journal(journal::Arguments),
    /// The audit log
    Audit(audit::Arguments),
    /// The gateway's own nodes
    Cluster(cluster::Arguments),
    /// Backups: save the whole state, look into a snapshot, make a new cluster of it
    Snapshot(snapshot::Arguments),
    /// Measure this gateway, beside etcd where it is installed
    Bench(Box<bench::BenchArguments>),
    /// A node that `bench` makes append to the journal
    #[command(hide = true)]
    BenchJournalNode(bench::JournalNodeArguments),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: Shell,
    },
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Check everything that `serve` would read, and start nothing
    Check(Box<Flags>),
}

/// Why a command failed: what to print, and how to end.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// Any failure with a code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::new(error.exit(), error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        let exit = match &error {
            SnapshotError::Refused(_) => Exit::Refused,
            SnapshotError::Failed(_) => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let exit = match &error {
            ServeError::Node(StartError::Removed { .. }) => Exit::Configuration,
            ServeError::Start { .. } | ServeError::Node(_) => Exit::Failed,
            ServeError::KeyFile(_) | ServeError::WrongKey(_) => Exit::Configuration,
            ServeError::Failed(_) => Exit::NodeFailed,
            ServeError::LeaderWorkStuck => Exit::LeaderWorkStuck,
        };
        Self::new(exit, chain(&error))
    }
}

/// An error with all its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The organisation that a verb needs; a global option can't be demanded by the parser.
fn required_org(org: Option<&str>) -> Result<&str, Failure> {
    org.ok_or_else(|| Failure::new(Exit::Usage, "say which organisation: --org ORG"))
}

/// The whole program.
pub fn main() -> ExitCode {
    if let Err(error) = dev::die_with_parent() {
        return report(&Failure::new(Exit::Failed, error.to_string()));
    }
    // One provider for HTTP clients, peers and sinks; a second installation can't happen here.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    match run(cli) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    // Nobody is left to tell where stderr is closed.
    drop(writeln!(std::io::stderr(), "peat-gateway: {}", failure.message));
    failure.exit.into()
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        None => run_node(&Flags::default(), |_| std::future::ready(())),
        Some(Command::Serve(flags)) => run_node(&flags, |_| std::future::ready(())),
        Some(Command::Dev(arguments)) => {
            let end = on_this_thread(dev::run(arguments))?;
            end.map_err(|error| Failure::new(error.exit(), chain(&error)))
        }
        Some(Command::MeshNode(arguments)) => on_all_cores(mesh_node::run(arguments))?,
        Some(Command::Org(arguments)) => on_this_thread(org::run(arguments))?,
        Some(Command::Formation(arguments)) => on_this_thread(formation::run(arguments))?,
        Some(Command::Sink(arguments)) => on_this_thread(sink::run(arguments))?,
        Some(Command::Document(arguments)) => on_this_thread(document::run(arguments))?,
        Some(Command::Journal(arguments)) => on_this_thread(journal::run(arguments))?,
        Some(Command::Audit(arguments)) => on_this_thread(audit::run(arguments))?,
        Some(Command::Cluster(arguments)) => on_this_thread(cluster::run(arguments))?,
        Some(Command::Snapshot(arguments)) => on_this_thread(snapshot::run(arguments))?,
        Some(Command::Bench(arguments)) => on_all_cores(bench::run(*arguments))?
            .map_err(|error| Failure::new(Exit::Failed, format!("{error:#}"))),
        Some(Command::BenchJournalNode(arguments)) => run_node(&Flags::default(), move |work| {
            bench::drive_journal(work, arguments.orders.clone())
        }),
        Some(Command::Config(ConfigCommand::Check(flags))) => {
            load(&flags)?;
            Ok(output::write("the configuration is valid\n")?)
        }
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "peat-gateway", &mut script);
            Ok(output::write(&String::from_utf8_lossy(&script))?)
        }
    }
}

fn load(flags: &Flags) -> Result<Config, Failure> {
    Config::load(flags, &Process)
        .map_err(|problems| Failure::new(Exit::Configuration, problems.to_string()))
}

/// Runs a node; a leading one does `more` beside its own work.
fn run_node<W, F>(flags: &Flags, more: W) -> Result<(), Failure>
where
    W: Fn(LeaderWork) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let config = load(flags)?;
    telemetry::start(&config.log).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let ended = on_all_cores(async move {
        let shutdown = serve::shutdown_on_signals()?;
        serve::run(config, shutdown, more).await.map_err(|end| {
            let failure = Failure::from(end);
            error!(reason = %failure.message, code = failure.exit as u8, "the process ends");
            failure
        })
    });
    ended?
}

/// For work that fills a machine.
fn on_all_cores<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // Tasks may hold the store: it must be closed before the process takes RocksDB's own threads down.
    runtime.shutdown_timeout(TASKS_END_LIMIT);
    Ok(result)
}

/// How long tasks may take to end once the work is done; what still blocks then is left behind.
const TASKS_END_LIMIT: Duration = Duration::from_secs(5);

/// For work that waits; `dev` must start its children on the main thread.
fn on_this_thread<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(result)
}
