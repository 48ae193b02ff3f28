//! `cluster`: the gateway's own nodes.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::{Column, Format};
use super::{Call, Connection, Failure, output};
use crate::config::Process;

/// Arguments of `cluster`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Show the nodes and who leads
    Status,
}

const COLUMNS: &[Column] = &[
    ("NODE", "/node_id"),
    ("NAME", "/name"),
    ("ADDRESS", "/address"),
    ("ROLE", "/role"),
    ("TERM", "/term"),
    ("APPLIED", "/applied_index"),
    ("STATE HASH", "/state_hash"),
];

/// Runs the verb.
///
/// # Errors
/// What the gateway or the connection refuses.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let session = arguments.connection.open(&Process)?;
    let Verb::Status = arguments.verb;
    let cluster = session.client.call(Call::get(&["cluster"])).await?.body;
    let text = match (session.format, cluster.get("nodes").and_then(Value::as_array)) {
        (Format::Table, Some(nodes)) => {
            let head: Column = ("cluster", "/cluster_id");
            let leader: Column = ("leader", "/leader");
            let about = session.record(&[head, leader], &cluster);
            format!("{about}\n{}", session.rows(COLUMNS, nodes))
        }
        _ => output::json(&cluster),
    };
    Ok(output::write(&text)?)
}
