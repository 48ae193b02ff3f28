//! `journal tail`: the organisation's changes, as sinks get them.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::{Column, Format};
use super::{Call, CallError, Connection, Failure, Session, output};
use crate::config::Process;

/// Pause between questions while following: short against a person's patience, long against a request.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);
/// Events asked for at once.
const PAGE_EVENTS: u64 = 500;

/// Arguments of `journal`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The organisation
    #[arg(long, global = true)]
    org: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Print the newest changes, one a line
    Tail {
        /// Go on with what comes next
        #[arg(short, long)]
        follow: bool,
        /// Begin above this sequence instead
        #[arg(long, value_name = "SEQUENCE")]
        after: Option<u64>,
        /// How many of the newest
        #[arg(short = 'n', long, default_value_t = 10, conflicts_with = "after")]
        lines: u64,
    },
}

const COLUMNS: &[Column] = &[
    ("SEQUENCE", "/sequence"),
    ("FORMATION", "/app_id"),
    ("DOCUMENT", "/document_id"),
    ("KIND", "/kind"),
    ("PATCHES", "/patches"),
];

/// Runs the verb. `-o json` prints one object a line (NDJSON), so that it can be followed too.
///
/// # Errors
/// What the gateway or the connection refuses.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let session = arguments.connection.open(&Process)?;
    let org = super::required_org(arguments.org.as_deref())?;
    let Verb::Tail { follow, after, lines } = arguments.verb;
    let mut after = match after {
        Some(after) => after,
        None => newest(&session, org).await?.saturating_sub(lines),
    };
    loop {
        let events = page(&session, org, after, PAGE_EVENTS).await?;
        for event in &events {
            after = event.get("sequence").and_then(Value::as_u64).unwrap_or(after);
            output::write(&line(session.format, event))?;
        }
        if !events.is_empty() {
            continue;
        }
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

async fn page(
    session: &Session,
    org: &str,
    after: u64,
    limit: u64,
) -> Result<Vec<Value>, CallError> {
    let call = Call::get(&["orgs", org, "journal"]).query("after", after).query("limit", limit);
    session.client.page(call).await
}

/// Returns the newest event's sequence, 0 where there is none.
///
/// Sequences have no gaps, so whether one is above a number tells where the end lies: by doubling, then
/// by halving, in about 2·log₂ short reads.
async fn newest(session: &Session, org: &str) -> Result<u64, CallError> {
    let (mut below, mut above) = (0, 1);
    while let Some(event) = page(session, org, above, 1).await?.first() {
        below = event.get("sequence").and_then(Value::as_u64).unwrap_or(above);
        above = below.saturating_mul(2);
    }
    while below < above {
        let middle = below + (above - below) / 2;
        match page(session, org, middle, 1).await?.first() {
            Some(event) => {
                let sequence = event.get("sequence").and_then(Value::as_u64);
                below = sequence.unwrap_or(middle + 1).max(middle + 1);
            }
            None => above = middle,
        }
    }
    Ok(below)
}

fn line(format: Format, event: &Value) -> String {
    match format {
        Format::Json => format!("{event}\n"),
        Format::Table => {
            let cells: Vec<String> =
                COLUMNS.iter().map(|(_, pointer)| output::cell(event.pointer(pointer))).collect();
            format!("{}\n", cells.join("  "))
        }
    }
}
