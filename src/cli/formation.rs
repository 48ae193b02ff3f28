//! `formation`: one mesh each.

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::output::Column;
use super::{Call, Connection, Failure, output};
use crate::config::Process;

/// Arguments of `formation`.
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    Open,
    Controlled,
    Strict,
}

impl Policy {
    fn wire(self) -> &'static str {
        match self {
            Policy::Open => "Open",
            Policy::Controlled => "Controlled",
            Policy::Strict => "Strict",
        }
    }
}

#[derive(Args, Debug)]
struct Target {
    /// The formation's id
    app: String,
    /// Refuse unless this is its revision
    #[arg(long, value_name = "REVISION")]
    if_match: Option<u64>,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Create a formation with its root of trust
    Create {
        /// Its id: 1-128 letters, digits, '_' and '-'; never changed
        app: String,
        /// Who may enrol
        #[arg(long, value_enum, default_value = "controlled")]
        policy: Policy,
        /// Mesh nodes to dial: `host:port` or `name@host:port`; may be given several times
        #[arg(long = "peer", value_name = "ADDRESS")]
        peers: Vec<String>,
    },
    /// List the organisation's formations
    List,
    /// Show one
    Get {
        /// Its id
        app: String,
    },
    /// Change it; what isn't named stays
    Update {
        #[command(flatten)]
        target: Target,
        /// Who may enrol
        #[arg(long, value_enum)]
        policy: Option<Policy>,
        /// Mesh nodes to dial instead of the present ones
        #[arg(long = "peer", value_name = "ADDRESS")]
        peers: Option<Vec<String>>,
    },
    /// Stop observing its mesh
    Suspend(Target),
    /// Observe its mesh again
    Resume(Target),
    /// Delete it with its root of trust, peers and documents
    Delete(Target),
    /// List the mesh nodes that were met
    Peers {
        /// Its id
        app: String,
    },
    /// Print what admits a node to its mesh, for `mesh-node --credentials`. Secret
    Credentials {
        /// Its id
        app: String,
    },
}

const COLUMNS: &[Column] = &[
    ("FORMATION", "/app_id"),
    ("MESH", "/mesh_id"),
    ("POLICY", "/enrollment_policy"),
    ("STATUS", "/status"),
    ("DOCUMENTS", "/documents"),
    ("PEERS TO DIAL", "/static_peers"),
    ("CREATED", "/created_at"),
    ("REVISION", "/revision"),
];

const PEER_COLUMNS: &[Column] =
    &[("PEER", "/peer_id"), ("ADDRESSES", "/addresses"), ("LAST SEEN", "/last_seen")];

/// Runs the verb.
///
/// # Errors
/// What the gateway or the connection refuses.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let session = arguments.connection.open(&Process)?;
    let org = super::required_org(arguments.org.as_deref())?;
    let all = ["orgs", org, "formations"];
    let patch = |target: &Target, body: Value| {
        Call::new(Method::PATCH, &["orgs", org, "formations", &target.app])
            .body(body)
            .revision(target.if_match)
    };
    let order = |target: &Target, verb: &str| {
        Call::new(Method::POST, &["orgs", org, "formations", &target.app, verb])
            .revision(target.if_match)
    };
    let call = match arguments.verb {
        Verb::List => {
            let formations = session.client.list(Call::get(&all)).await?;
            return Ok(output::write(&session.rows(COLUMNS, &formations))?);
        }
        Verb::Peers { app } => {
            let call = Call::get(&["orgs", org, "formations", &app, "peers"]);
            let peers = session.client.list(call).await?;
            return Ok(output::write(&session.rows(PEER_COLUMNS, &peers))?);
        }
        Verb::Credentials { app } => {
            let call = Call::get(&["orgs", org, "formations", &app, "credentials"]);
            let body = session.client.call(call).await?.body;
            let text = match (session.format, body.get("credentials").and_then(Value::as_str)) {
                (output::Format::Table, Some(credentials)) => format!("{credentials}\n"),
                _ => output::json(&body),
            };
            return Ok(output::write(&text)?);
        }
        Verb::Delete(target) => {
            let call = Call::new(Method::DELETE, &["orgs", org, "formations", &target.app])
                .revision(target.if_match);
            session.client.call(call).await?;
            return Ok(());
        }
        Verb::Create { app, policy, peers } => {
            let mut body = json!({"app_id": app, "enrollment_policy": policy.wire()});
            if !peers.is_empty() {
                body["static_peers"] = peers.into();
            }
            Call::new(Method::POST, &all).body(body)
        }
        Verb::Get { app } => Call::get(&["orgs", org, "formations", &app]),
        Verb::Update { target, policy, peers } => {
            let mut body = Map::new();
            if let Some(policy) = policy {
                body.insert("enrollment_policy".into(), policy.wire().into());
            }
            if let Some(peers) = peers {
                body.insert("static_peers".into(), peers.into());
            }
            patch(&target, body.into())
        }
        Verb::Suspend(target) => order(&target, "suspend"),
        Verb::Resume(target) => order(&target, "resume"),
    };
    let formation = session.client.call(call).await?.body;
    Ok(output::write(&session.record(COLUMNS, &formation))?)
}
