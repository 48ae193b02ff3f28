//! `org`: organisations and their quotas.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, json};

use super::output::Column;
use super::{Call, Connection, Failure, output};
use crate::config::Process;

/// Arguments of `org`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Create an organisation
    Create {
        /// Its id: 1-128 letters, digits, '_' and '-'; never changed
        org: String,
        /// Name for people; the id where none is given
        #[arg(long)]
        display_name: Option<String>,
    },
    /// List all organisations
    List,
    /// Show one
    Get {
        /// Its id
        org: String,
    },
    /// Change its name or quotas; what isn't named stays
    Update {
        /// Its id
        org: String,
        /// Name for people
        #[arg(long)]
        display_name: Option<String>,
        #[command(flatten)]
        quotas: Quotas,
        /// Refuse unless this is its revision
        #[arg(long, value_name = "REVISION")]
        if_match: Option<u64>,
    },
    /// Delete it with its formations, sinks, documents and journal
    Delete {
        /// Its id
        org: String,
        /// Refuse unless this is its revision
        #[arg(long, value_name = "REVISION")]
        if_match: Option<u64>,
    },
}

#[derive(Args, Debug)]
struct Quotas {
    /// Most formations
    #[arg(long, value_name = "N")]
    max_formations: Option<u32>,
    /// Most valid certificates in one formation
    #[arg(long, value_name = "N")]
    max_peers_per_formation: Option<u32>,
    /// Most documents in one formation
    #[arg(long, value_name = "N")]
    max_documents_per_formation: Option<u32>,
    /// Most sinks
    #[arg(long, value_name = "N")]
    max_cdc_sinks: Option<u32>,
    /// Most enrolments in one hour
    #[arg(long, value_name = "N")]
    max_enrollments_per_hour: Option<u32>,
    /// Most bytes of undelivered journal
    #[arg(long, value_name = "BYTES")]
    max_journal_bytes: Option<u64>,
}

const COLUMNS: &[Column] = &[
    ("ORG", "/org_id"),
    ("NAME", "/display_name"),
    ("MAX FORMATIONS", "/quotas/max_formations"),
    ("MAX SINKS", "/quotas/max_cdc_sinks"),
    ("CREATED", "/created_at"),
    ("REVISION", "/revision"),
];

/// Runs the verb.
///
/// # Errors
/// What the gateway or the connection refuses.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let session = arguments.connection.open(&Process)?;
    let call = match arguments.verb {
        Verb::List => {
            let orgs = session.client.list(Call::get(&["orgs"])).await?;
            return Ok(output::write(&session.rows(COLUMNS, &orgs))?);
        }
        Verb::Create { org, display_name } => {
            let display_name = display_name.unwrap_or_else(|| org.clone());
            Call::new(Method::POST, &["orgs"])
                .body(json!({"org_id": org, "display_name": display_name}))
        }
        Verb::Get { org } => Call::get(&["orgs", &org]),
        Verb::Update { org, display_name, quotas, if_match } => {
            let mut body = Map::new();
            if let Some(name) = display_name {
                body.insert("display_name".into(), name.into());
            }
            let quotas = quotas.given();
            if !quotas.is_empty() {
                body.insert("quotas".into(), quotas.into());
            }
            Call::new(Method::PATCH, &["orgs", &org]).body(body.into()).revision(if_match)
        }
        Verb::Delete { org, if_match } => {
            let call = Call::new(Method::DELETE, &["orgs", &org]).revision(if_match);
            session.client.call(call).await?;
            return Ok(());
        }
    };
    let org = session.client.call(call).await?.body;
    Ok(output::write(&session.record(COLUMNS, &org))?)
}

impl Quotas {
    fn given(&self) -> Map<String, serde_json::Value> {
        [
            ("max_formations", self.max_formations.map(u64::from)),
            ("max_peers_per_formation", self.max_peers_per_formation.map(u64::from)),
            ("max_documents_per_formation", self.max_documents_per_formation.map(u64::from)),
            ("max_cdc_sinks", self.max_cdc_sinks.map(u64::from)),
            ("max_enrollments_per_hour", self.max_enrollments_per_hour.map(u64::from)),
            ("max_journal_bytes", self.max_journal_bytes),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
        .collect()
    }
}
