//! `cluster`: the gateway's own nodes.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::output::{Column, Format};
use super::{Call, Connection, Exit, Failure, Session, output, recover, upgrade};
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
    /// Show the nodes, who leads and what an upgrade waits for; fails with code 6 where nobody leads
    Status,
    /// Make a new cluster of what a stopped node has, where the quorum is lost for good; offline
    Recover(recover::Arguments),
    /// Finish an upgrade: from then on no older build can come back
    Upgrade {
        /// Although this member is down: it is lost for good, or comes back with a newer build; may be
        /// given several times
        #[arg(long, value_name = "NODE")]
        without: Vec<String>,
    },
    /// Show the settings that all nodes share, or change those that are named
    Settings(upgrade::Changes),
    /// Make the cluster that a waiting node's configuration describes (PEAT_BOOTSTRAP=wait)
    Init,
    /// Have a waiting node join the cluster of the members at these addresses (PEAT_BOOTSTRAP=wait)
    Join {
        /// host:port of members' peer listeners
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<String>,
    },
    /// Take the node that waits at an address in; it gets a vote when it has caught up
    Add {
        /// host:port of its peer listener
        #[arg(value_name = "ADDRESS")]
        peer_address: String,
        /// Leave it without a vote until `cluster promote`
        #[arg(long)]
        learner_only: bool,
        #[command(flatten)]
        expected: Expected,
    },
    /// Give a node that has caught up a vote
    Promote {
        /// Its id or its name, as `cluster status` shows them
        node: String,
        /// Remove this member in the same change: the new node takes its place
        #[arg(long, value_name = "NODE")]
        replaces: Option<String>,
        #[command(flatten)]
        expected: Expected,
    },
    /// Remove a node for good: its process ends, its id never comes back
    Remove {
        /// Its id or its name, as `cluster status` shows them
        node: String,
        /// Remove it although the voters that answer are too few without it
        #[arg(long, requires = "reason")]
        force: bool,
        /// Why it is forced; stands in the audit log
        #[arg(long, requires = "force", value_name = "WHY")]
        reason: Option<String>,
        #[command(flatten)]
        expected: Expected,
    },
    /// Hand leadership on
    Transfer {
        /// To this node; without it: to whoever is closest to the leader
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        #[command(flatten)]
        expected: Expected,
    },
}

#[derive(Args, Debug)]
struct Expected {
    /// Refuse unless this is the membership, as `cluster status` shows it
    #[arg(long, value_name = "MEMBERSHIP")]
    expect: Option<u64>,
}

const COLUMNS: &[Column] = &[
    ("NODE", "/node_id"),
    ("NAME", "/name"),
    ("ADDRESS", "/address"),
    ("PEER", "/peer_address"),
    ("ROLE", "/role"),
    ("VOTER", "/voter"),
    ("LAG", "/lag"),
    ("MATCHED", "/matched_index"),
    ("CONTACT MS", "/last_contact_ms"),
    ("REACHABLE", "/reachable"),
    ("TERM", "/term"),
    ("APPLIED", "/applied_index"),
    ("BUILD", "/build_version"),
    ("SUPPORTS", "/supports"),
    ("STATE HASH", "/state_hash"),
    ("ALARMS", "/alarm_codes"),
];

const CHANGED: &[Column] = &[("NODE", "/node_id"), ("MEMBERSHIP", "/membership")];

/// Runs the verb.
///
/// # Errors
/// What the gateway or the connection refuses.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { connection, verb } = arguments;
    if let Verb::Recover(recover) = verb {
        // The one verb that asks no node.
        return recover::run(recover, connection.format());
    }
    let session = connection.open(&Process)?;
    let members = &["cluster", "members"];
    let call = match verb {
        Verb::Recover(_) => return Ok(()),
        Verb::Status => return status(&session).await,
        Verb::Upgrade { without } => {
            let mut ids = Vec::new();
            for node in &without {
                ids.push(node_id(&session, node).await?);
            }
            return upgrade::upgrade(&session, &ids).await;
        }
        Verb::Settings(changes) => return upgrade::settings(&session, changes).await,
        Verb::Init => Call::new(Method::POST, &["cluster", "init"]),
        Verb::Join { addresses } => {
            Call::new(Method::POST, &["cluster", "join"]).body(json!({ "addresses": addresses }))
        }
        Verb::Add { peer_address, learner_only, expected } => Call::new(Method::POST, members)
            .body(json!({ "peer_address": peer_address, "learner_only": learner_only }))
            .revision(expected.expect),
        Verb::Promote { node, replaces, expected } => {
            let node = node_id(&session, &node).await?;
            let replaces = match replaces {
                Some(old) => Some(node_id(&session, &old).await?),
                None => None,
            };
            Call::new(Method::POST, &["cluster", "members", &node, "promote"])
                .body(json!({ "replaces": replaces }))
                .revision(expected.expect)
        }
        Verb::Remove { node, force, reason, expected } => {
            let node = node_id(&session, &node).await?;
            Call::new(Method::DELETE, &["cluster", "members", &node])
                .body(json!({ "force": force, "reason": reason }))
                .revision(expected.expect)
        }
        Verb::Transfer { to, expected } => {
            let to = match to {
                Some(node) => Some(node_id(&session, &node).await?),
                None => None,
            };
            Call::new(Method::POST, &["cluster", "transfer"])
                .body(json!({ "to": to }))
                .revision(expected.expect)
        }
    };
    let changed = session.client.call(call).await?.body;
    if changed.is_null() {
        return Ok(());
    }
    Ok(output::write(&session.record(CHANGED, &changed))?)
}

/// The id of the node that is meant by its id or by its name.
async fn node_id(session: &Session, meant: &str) -> Result<String, Failure> {
    if meant.len() == 16 && meant.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(meant.to_owned());
    }
    let cluster = session.client.call(Call::get(&["cluster"])).await?.body;
    let nodes = cluster.get("nodes").and_then(Value::as_array).cloned().unwrap_or_default();
    let ids: Vec<String> = nodes
        .iter()
        .filter(|node| node.get("name").and_then(Value::as_str) == Some(meant))
        .filter_map(|node| node.get("node_id").and_then(Value::as_str).map(str::to_owned))
        .collect();
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::new(
            Exit::NotFound,
            format!("no member has the name {meant:?}; look: peat-gateway cluster status"),
        )),
        several => Err(Failure::new(
            Exit::Refused,
            format!("several members have the name {meant:?}, say which: {}", several.join(", ")),
        )),
    }
}

async fn status(session: &Session) -> Result<(), Failure> {
    let cluster = session.client.call(Call::get(&["cluster"])).await?.body;
    let text = match (session.format, cluster.get("nodes").and_then(Value::as_array)) {
        (Format::Table, Some(nodes)) => {
            let about: &[Column] = &[
                ("cluster", "/cluster_id"),
                ("leader", "/leader"),
                ("membership", "/membership"),
                ("joint", "/joint"),
                ("version", "/version"),
            ];
            let mut text = session.record(about, &cluster);
            text.push_str(&cluster.get("upgrade").map(upgrade::waits_for).unwrap_or_default());
            text.push('\n');
            let rows: Vec<Value> = nodes.iter().map(with_alarm_codes).collect();
            text.push_str(&session.rows(COLUMNS, &rows));
            text.push_str(&alarms(nodes));
            text.push_str(&problems(nodes));
            text.push_str(&removed(session, &cluster));
            text
        }
        _ => output::json(&cluster),
    };
    output::write(&text)?;
    match cluster.get("leader") {
        Some(Value::String(_)) => Ok(()),
        _ => Err(Failure::new(Exit::Unavailable, "no node leads")),
    }
}

/// What is wrong with nodes, a line each.
fn problems(nodes: &[Value]) -> String {
    let wrong = nodes.iter().filter(|node| node["problem"].is_string()).map(|node| {
        let text = |field: &str| output::cell_whole(node.get(field));
        format!("node {}: {}\n", text("node_id"), text("problem"))
    });
    let lines: String = wrong.collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

fn removed(session: &Session, cluster: &Value) -> String {
    const REMOVED: &[Column] = &[
        ("REMOVED NODE", "/node_id"),
        ("NAME", "/name"),
        ("PEER", "/peer_address"),
        ("REMOVED AT", "/removed_at"),
    ];
    match cluster.get("removed").and_then(Value::as_array) {
        Some(nodes) if !nodes.is_empty() => format!("\n{}", session.rows(REMOVED, nodes)),
        _ => String::new(),
    }
}

/// A node with the codes of its alarms in one field, for the table.
fn with_alarm_codes(node: &Value) -> Value {
    let mut node = node.clone();
    let alarms = node["alarms"].as_array();
    let codes: Vec<&str> =
        alarms.into_iter().flatten().filter_map(|alarm| alarm["code"].as_str()).collect();
    node["alarm_codes"] =
        Value::from(if codes.is_empty() { "-".to_owned() } else { codes.join(",") });
    node
}

/// What the alarms say, a line each, under the table.
fn alarms(nodes: &[Value]) -> String {
    let mut lines = String::new();
    for node in nodes {
        for alarm in node["alarms"].as_array().into_iter().flatten() {
            let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (name, code, detail) =
                (field(&node["name"]), field(&alarm["code"]), field(&alarm["detail"]));
            lines.push_str(&format!("{name}: {code}: {detail}\n"));
        }
    }
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}
