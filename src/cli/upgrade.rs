//! `cluster upgrade` and `cluster settings`: what all nodes share, and when a newer build's commands may be used.

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::output::{Column, Format};
use super::{Call, Failure, Session, output};

#[derive(Args, Debug)]
pub(super) struct Changes {
    /// Who finishes an upgrade: the leader by itself, or an operator; needs cluster version 2
    #[arg(long, value_parser = ["auto", "manual"])]
    upgrade: Option<String>,
    /// How long answers are kept for retries, ms
    #[arg(long, value_name = "MS")]
    idempotency_retention_ms: Option<u64>,
    /// How long delivered journal rows are kept, ms
    #[arg(long, value_name = "MS")]
    journal_retention_ms: Option<u64>,
}

const SETTINGS: &[Column] = &[
    ("version", "/version"),
    ("upgrade", "/upgrade"),
    ("idempotency_retention_ms", "/idempotency_retention_ms"),
    ("journal_retention_ms", "/journal_retention_ms"),
];

/// Finishes an upgrade.
///
/// # Errors
/// What the gateway or the connection refuses.
pub(super) async fn upgrade(session: &Session, without: &[String]) -> Result<(), Failure> {
    let call = Call::new(Method::POST, &["cluster", "upgrade"]);
    let call = call.body(json!({ "without": without }));
    let raised = session.client.call(call).await?.body;
    let text = match session.format {
        Format::Json => output::json(&raised),
        Format::Table if raised.get("from") == raised.get("to") => format!(
            "nothing to finish: the cluster has version {}, the newest that every member supports\n",
            output::cell(raised.get("to"))
        ),
        Format::Table => format!(
            "the cluster's version is {} now, it was {}\n",
            output::cell(raised.get("to")),
            output::cell(raised.get("from"))
        ),
    };
    Ok(output::write(&text)?)
}

/// Shows or changes the settings.
pub(super) async fn settings(session: &Session, changes: Changes) -> Result<(), Failure> {
    let body: Map<String, Value> = [
        ("upgrade", changes.upgrade.map(Value::from)),
        ("idempotency_retention_ms", changes.idempotency_retention_ms.map(Value::from)),
        ("journal_retention_ms", changes.journal_retention_ms.map(Value::from)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect();
    let path = ["cluster", "settings"];
    let call = match body.is_empty() {
        true => Call::get(&path),
        false => Call::new(Method::PATCH, &path).body(Value::Object(body)),
    };
    let settings = session.client.call(call).await?.body;
    Ok(output::write(&session.record(SETTINGS, &settings))?)
}

/// What an upgrade waits for, a line each.
pub(super) fn waits_for(upgrade: &Value) -> String {
    let Some(to) = upgrade.get("to") else {
        return String::new();
    };
    let to = output::cell(Some(to));
    let held_back = upgrade.get("held_back_by").and_then(Value::as_array);
    let held_back: Vec<String> =
        held_back.into_iter().flatten().map(|reason| output::cell_whole(Some(reason))).collect();
    if !held_back.is_empty() {
        let lines: String = held_back.iter().map(|reason| format!("  {reason}\n")).collect();
        return format!("upgrade to version {to} is held back by\n{lines}");
    }
    match upgrade.get("automatic_in_ms").and_then(Value::as_u64) {
        Some(wait_ms) => format!(
            "upgrade to version {to} is finished in {} s, or now by `peat-gateway cluster upgrade`\n",
            wait_ms.div_ceil(1000)
        ),
        None => format!("upgrade to version {to} waits for `peat-gateway cluster upgrade`\n"),
    }
}
