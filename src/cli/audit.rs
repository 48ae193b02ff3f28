//! `audit`: who did what, in a chain that shows tampering.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::Column;
use super::{Call, Connection, Exit, Failure, output};
use crate::config::Process;

/// Arguments of `audit`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The organisation; without it, `list` shows the cluster's own chain
    #[arg(long, global = true)]
    org: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List the newest entries
    List {
        /// Only those of this formation
        #[arg(long, value_name = "APP")]
        formation: Option<String>,
        /// How many
        #[arg(short = 'n', long, default_value_t = 50)]
        lines: u32,
    },
    /// Compute the whole chain again, and fail where an entry isn't as it must be
    Verify,
}

const COLUMNS: &[Column] = &[
    ("NUMBER", "/number"),
    ("TIME", "/timestamp_ms"),
    ("WHO", "/actor/principal"),
    ("FROM", "/actor/source"),
    ("WHAT", "/action"),
    ("ON", "/target"),
    ("RESULT", "/result"),
    ("COUNT", "/count"),
];

const REPORT_COLUMNS: &[Column] = &[
    ("INTACT", "/intact"),
    ("ENTRIES", "/entries"),
    ("HEAD", "/head"),
    ("BROKEN AT", "/broken_at"),
    ("FAULT", "/fault"),
];

/// Runs the verb.
///
/// # Errors
/// What the gateway or the connection refuses; a broken chain.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let session = arguments.connection.open(&Process)?;
    let org = arguments.org.as_deref();
    match arguments.verb {
        Verb::List { formation, lines } => {
            let chain = match org {
                None if formation.is_none() => Call::get(&["cluster", "audit"]),
                org => Call::get(&["orgs", super::required_org(org)?, "audit"]),
            };
            let mut call = chain.query("limit", lines);
            if let Some(app) = formation {
                call = call.query("app_id", app);
            }
            let entries = session.client.page(call).await?;
            Ok(output::write(&session.rows(COLUMNS, &entries))?)
        }
        Verb::Verify => {
            let org = super::required_org(org)?;
            let call = Call::get(&["orgs", org, "audit", "verify"]);
            let report = session.client.call(call).await?.body;
            output::write(&session.record(REPORT_COLUMNS, &report))?;
            match report.get("intact").and_then(Value::as_bool) {
                Some(true) => Ok(()),
                _ => Err(Failure::new(Exit::Failed, format!("the audit chain of {org} is broken"))),
            }
        }
    }
}
