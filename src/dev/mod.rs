//! `peat-gateway dev`: three nodes, a mesh node and a sink in one terminal.
//!
//! ```text
//!   dev (this process) ── starts, watches, ends ──► serve × N    on 127.0.0.1, peers with mTLS
//!        │                                          mesh-node    writes documents
//!        ├── HTTP, as any client: organisation, formation, sink, who leads, how far
//!        └── DIR/sink: what was delivered
//! ```
//!
//! Nodes are processes of their own, as in production, and know nothing of `dev`. Whatever happens to
//! this process, its children end with it ([`die_with_parent`]).

mod certificates;
mod directory;
mod facts;
mod input;
mod plan;
mod process;
mod screen;
mod setup;
mod sink_tail;
mod stage;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::{CallError, Exit};
use directory::Directory;
use input::{Input, Request};
use plan::Plan;
pub use process::{DIE_WITH_PARENT, die_with_parent};
use screen::Screen;
use stage::Stage;

/// How often facts are fetched and shown.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `dev`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Gateway nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(plan::NODES_MAX)))]
    nodes: u16,
    /// Directory of everything; a second run goes on where the first one stopped
    #[arg(long, value_name = "DIR", default_value = "./peat-dev")]
    data: PathBuf,
    /// HTTP port of the first node; the others take the next ones
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Changes that the mesh node writes each second
    #[arg(long, value_name = "CHANGES_PER_S", default_value_t = 20)]
    rate: u32,
    /// Begin anew: delete everything in the directory
    #[arg(long)]
    fresh: bool,
    /// Start no mesh node
    #[arg(long)]
    no_mesh: bool,
    /// Print lines instead of a screen; also where stdout is no terminal
    #[arg(long)]
    plain: bool,
}

/// Why `dev` could not go on. Every message says what to do, or shows what the node said.
#[derive(Debug, Error)]
pub enum DevError {
    /// The arguments don't fit.
    #[error("{0}")]
    Usage(String),
    /// Another process works here.
    #[error("{} is in use by another `peat-gateway dev`; end it, or choose another --data", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} is not empty and was not made by `peat-gateway dev`; choose another --data", path.display())]
    NotOurs {
        /// Where.
        path: PathBuf,
    },
    /// The directory has another number of nodes.
    #[error("{} holds a cluster of {held} nodes, not {asked}: say --nodes {held}, or --fresh to begin anew", path.display())]
    OtherNodes {
        /// Where.
        path: PathBuf,
        /// What it has.
        held: usize,
        /// What was asked for.
        asked: u16,
    },
    /// A port is taken.
    #[error(
        "port {port} on 127.0.0.1 can't be used; free it, or choose others with --port (HTTP) or --fresh (peers)"
    )]
    Port {
        /// Which.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file system refuses.
    #[error("could not {action} {}", path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// What was attempted.
        action: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Certificates or secrets can't be made.
    #[error("could not make certificates and secrets: {0}")]
    Certificates(String),
    /// A child can't be started.
    #[error("could not start {name}")]
    Spawn {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A child died before everything ran.
    #[error("{name} {how}; the end of {} says:\n{tail}", log.display())]
    Died {
        /// Which.
        name: String,
        /// How.
        how: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// Setup took too long.
    #[error("{waiting_for} did not come about within {} s; see the logs in {}", after.as_secs(), path.display())]
    TooSlow {
        /// What was waited for.
        waiting_for: String,
        /// How long.
        after: Duration,
        /// The directory.
        path: PathBuf,
    },
    /// The gateway refused a step of the setup.
    #[error("could not {step}")]
    Step {
        /// Which.
        step: &'static str,
        /// Why.
        #[source]
        source: CallError,
    },
    /// The terminal can't be used.
    #[error("could not use the terminal")]
    Terminal(#[from] io::Error),
    /// Ended by a signal before everything ran.
    #[error("ended during setup")]
    Interrupted,
}

impl DevError {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            DevError::Usage(_) => Exit::Usage,
            DevError::Died { .. } => Exit::NodeFailed,
            DevError::Interrupted => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }
}

/// Runs everything until the user ends it. Must be polled on the main thread (see [`process::Process::start`]).
///
/// # Errors
/// See [`DevError`]. All children have ended when this returns.
pub async fn run(arguments: Arguments) -> Result<(), DevError> {
    // Ports first: with a taken one, --fresh must not delete anything.
    let http_ports = plan::http_ports(arguments.port, arguments.nodes)?;
    let directory = Directory::open(&arguments.data, arguments.fresh)?;
    let plan = Plan::load_or_make(directory.path(), arguments.nodes)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stage = Stage::new(&directory, &plan, http_ports, &arguments)?;
    let set_up = tokio::select! {
        done = setup::run(&mut stage) => done,
        _ = terminate.recv() => Err(DevError::Interrupted),
        _ = interrupt.recv() => Err(DevError::Interrupted),
    };
    let ended = match set_up {
        Err(error) => Err(error),
        Ok(()) => {
            let plain = arguments.plain || !io::stdout().is_terminal();
            let mut signalled = Box::pin(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            });
            attend(&mut stage, plain, &mut signalled).await
        }
    };
    stage.say("stopping");
    stage.stop().await;
    match ended {
        Ok(()) => stage.say("stopped"),
        Err(_) => stage.say("stopped after a failure"),
    }
    ended
}

/// Shows facts and does what the user asks, until the end is asked for.
async fn attend(
    stage: &mut Stage,
    plain: bool,
    signalled: &mut (impl Future<Output = ()> + Unpin),
) -> Result<(), DevError> {
    let mut screen = if plain {
        stage.say(&format!("ready {}", stage.urls().join(" ")));
        None
    } else {
        Some(Screen::open()?)
    };
    let mut input = if plain { Input::lines() } else { Input::keys() };
    let mut refresh = interval(REFRESH_INTERVAL);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = refresh.tick() => stage.refresh().await,
            request = input.next() => match request {
                Request::Kill => stage.kill_leader(),
                Request::Restart => stage.restart_dead(),
                Request::Redraw => {}
                Request::Quit => break,
            },
            () = &mut *signalled => break,
        }
        match &mut screen {
            Some(screen) => screen.draw(stage)?,
            None => stage.print_facts()?,
        }
    }
    // Restores the terminal before anything is printed.
    drop(screen);
    stage.leave_screen();
    Ok(())
}
