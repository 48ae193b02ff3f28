//! `sink`: where an organisation's changes are delivered.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::output::Column;
use super::{Call, Connection, Exit, Failure, output};
use crate::config::{Environment, Process};

/// Arguments of `sink`.
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

#[derive(Args, Debug)]
struct Target {
    /// The sink's id
    sink: String,
    /// Refuse unless this is its revision
    #[arg(long, value_name = "REVISION")]
    if_match: Option<u64>,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("kind").args(["file", "webhook", "nats"])))]
struct Destination {
    /// NDJSON files in the directory of this name below the node's sink directory
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
    /// HTTP POST to this URL, signed as Standard Webhooks says
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// NATS JetStream under this subject prefix
    #[arg(long, value_name = "PREFIX")]
    nats: Option<String>,
    /// NATS server; without it the one of PEAT_CDC_NATS_URL
    #[arg(long, value_name = "URL", requires = "nats")]
    nats_url: Option<String>,
    /// Only events of these formations; may be given several times
    #[arg(long = "formation", value_name = "APP")]
    formations: Vec<String>,
    /// Only documents of these collections; may be given several times
    #[arg(long = "collection", value_name = "NAME")]
    collections: Vec<String>,
    /// File with the sink's credentials, as JSON
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Create a sink
    Create {
        #[command(flatten)]
        destination: Destination,
        /// Begin with the oldest change that the journal holds, instead of the next one
        #[arg(long)]
        from_earliest: bool,
    },
    /// List the organisation's sinks
    List,
    /// Show one
    Get {
        /// Its id
        sink: String,
    },
    /// Change it; what isn't named stays
    Update {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        destination: Destination,
    },
    /// Stop delivering; the cursor stays
    Pause(Target),
    /// Go on from the cursor
    Resume(Target),
    /// Delete it with its credentials and cursor
    Delete(Target),
    /// Show how far it has got
    Cursor {
        /// Its id
        sink: String,
    },
}

const COLUMNS: &[Column] = &[
    ("SINK", "/sink_id"),
    ("TO", "/sink_type"),
    ("ENABLED", "/enabled"),
    ("FILTER", "/filter"),
    ("CREATED", "/created_at"),
    ("REVISION", "/revision"),
];

const CURSOR_COLUMNS: &[Column] = &[
    ("ACKNOWLEDGED", "/acknowledged"),
    ("AHEAD", "/ahead"),
    ("JOURNAL", "/head"),
    ("LAG", "/lag"),
    ("EPOCH", "/epoch"),
    ("UPDATED", "/updated_at"),
];

/// Runs the verb.
///
/// # Errors
/// What the gateway or the connection refuses.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let session = arguments.connection.open(&Process)?;
    let org = super::required_org(arguments.org.as_deref())?;
    let all = ["orgs", org, "sinks"];
    let patch = |target: &Target, body: Value| {
        Call::new(Method::PATCH, &["orgs", org, "sinks", &target.sink])
            .body(body)
            .revision(target.if_match)
    };
    let order = |target: &Target, verb: &str| {
        Call::new(Method::POST, &["orgs", org, "sinks", &target.sink, verb])
            .revision(target.if_match)
    };
    let call = match arguments.verb {
        Verb::List => {
            let sinks = session.client.list(Call::get(&all)).await?;
            return Ok(output::write(&session.rows(COLUMNS, &sinks))?);
        }
        Verb::Cursor { sink } => {
            let call = Call::get(&["orgs", org, "sinks", &sink, "cursor"]);
            let cursor = session.client.call(call).await?.body;
            return Ok(output::write(&session.record(CURSOR_COLUMNS, &cursor))?);
        }
        Verb::Delete(target) => {
            let call = Call::new(Method::DELETE, &["orgs", org, "sinks", &target.sink])
                .revision(target.if_match);
            session.client.call(call).await?;
            return Ok(());
        }
        Verb::Create { destination, from_earliest } => {
            let mut body = destination.body(&Process)?;
            if !body.contains_key("sink_type") {
                return Err(Failure::new(Exit::Usage, "say --file, --webhook or --nats"));
            }
            if from_earliest {
                body.insert("start".into(), "earliest".into());
            }
            Call::new(Method::POST, &all).body(body.into())
        }
        Verb::Get { sink } => Call::get(&["orgs", org, "sinks", &sink]),
        Verb::Update { target, destination } => patch(&target, destination.body(&Process)?.into()),
        Verb::Pause(target) => order(&target, "pause"),
        Verb::Resume(target) => order(&target, "resume"),
    };
    let sink = session.client.call(call).await?.body;
    let mut columns = COLUMNS.to_vec();
    if sink.get("signing_secret").is_some() {
        // The gateway made it and never shows it again.
        columns.push(("SIGNING SECRET", "/signing_secret"));
    }
    Ok(output::write(&session.record(&columns, &sink))?)
}

impl Destination {
    fn body(&self, environment: &dyn Environment) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        let kind = match (&self.file, &self.webhook, &self.nats) {
            (Some(name), _, _) => Some(json!({"File": {"name": name}})),
            (_, Some(url), _) => Some(json!({"Webhook": {"url": url}})),
            (_, _, Some(prefix)) => {
                let url = self.nats_url.as_deref().unwrap_or_default();
                Some(json!({"Nats": {"url": url, "subject_prefix": prefix}}))
            }
            _ => None,
        };
        if let Some(kind) = kind {
            body.insert("sink_type".into(), kind);
        }
        if !self.formations.is_empty() || !self.collections.is_empty() {
            let filter = json!({"app_ids": self.formations, "collections": self.collections});
            body.insert("filter".into(), filter);
        }
        if let Some(path) = &self.credentials_file {
            let unusable = |reason: String| {
                Failure::new(Exit::Usage, format!("could not use {}: {reason}", path.display()))
            };
            let text = environment.read_file(path).map_err(|error| unusable(error.to_string()))?;
            // The parser's own message might show a part of the secret.
            let credentials =
                serde_json::from_str(&text).map_err(|_| unusable("it is not JSON".into()))?;
            body.insert("credentials".into(), credentials);
        }
        Ok(body)
    }
}
