//! `document`: what a formation's mesh holds.

use clap::{Args, Subcommand};

use super::output::Column;
use super::{Call, Connection, Failure, output};
use crate::config::Process;

/// Arguments of `document`.
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
    /// List a formation's documents
    List {
        /// The formation
        app: String,
    },
    /// Show one with its content
    Get {
        /// The formation
        app: String,
        /// Its key, as `units:alpha-1`
        document: String,
    },
}

const COLUMNS: &[Column] =
    &[("DOCUMENT", "/doc_id"), ("CHANGED", "/last_modified"), ("DELETED", "/deleted")];

/// Runs the verb. A document is shown as JSON in every form.
///
/// # Errors
/// What the gateway or the connection refuses.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let session = arguments.connection.open(&Process)?;
    let org = super::required_org(arguments.org.as_deref())?;
    let text = match arguments.verb {
        Verb::List { app } => {
            let call = Call::get(&["orgs", org, "formations", &app, "documents"]);
            session.rows(COLUMNS, &session.client.list(call).await?)
        }
        Verb::Get { app, document } => {
            let call = Call::get(&["orgs", org, "formations", &app, "documents", &document]);
            output::json(&session.client.call(call).await?.body)
        }
    };
    Ok(output::write(&text)?)
}
