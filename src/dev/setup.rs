//! From processes to a stream of documents: an organisation, a formation, a sink, a mesh node.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::DevError;
use super::directory::write_private;
use super::stage::Stage;
use crate::cli::{Call, CallError};

/// The organisation.
pub(super) const ORG: &str = "demo";
/// The formation.
const FORMATION: &str = "field";
/// The file sink's directory name.
const SINK: &str = "stream";
/// The mesh node's name in the mesh; its endpoint id is derived from it.
pub(super) const MESH_NODE: &str = "unit-1";

/// Longest time for one step, on a slow machine too.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Starts everything and returns when documents can flow.
///
/// # Errors
/// A process died, or a step was refused or took too long.
pub(super) async fn run(stage: &mut Stage) -> Result<(), DevError> {
    stage.say(&format!("starting {} nodes in {}", stage.nodes.len(), stage.directory.display()));
    for node in &mut stage.nodes {
        node.start()?;
    }
    for node in 0..stage.nodes.len() {
        ready(stage, node).await?;
        let (name, url) = (stage.nodes[node].name().to_owned(), stage.urls()[node].clone());
        stage.say(&format!("{name} is ready on {url}"));
    }
    let org = Call::new(Method::POST, &["orgs"])
        .body(json!({"org_id": ORG, "display_name": "Demonstration"}));
    ensure(stage, "create the organisation", &["orgs", ORG], org).await?;
    stage.say(&format!("organisation {ORG}"));
    formation(stage).await?;
    stage.say(&format!("formation {FORMATION}"));
    sink(stage).await?;
    stage.say(&format!("file sink below {}", stage.directory.join("sink").display()));
    if let Some(rate) = stage.rate {
        mesh_node(stage, rate).await?;
        stage.say(&format!("mesh node {MESH_NODE}, {rate} changes/s"));
    }
    Ok(())
}

async fn ready(stage: &mut Stage, node: usize) -> Result<(), DevError> {
    let begin = Instant::now();
    let client =
        stage.client_of(node).map_err(|source| DevError::Step { step: "make a client", source })?;
    while client.call(Call::get(&["readyz"])).await.is_err() {
        stage.nothing_died()?;
        if begin.elapsed() > STEP_TIMEOUT {
            return Err(DevError::TooSlow {
                waiting_for: format!("readiness of {}", stage.nodes[node].name()),
                after: STEP_TIMEOUT,
                path: stage.directory.clone(),
            });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Does a step, again while the cluster isn't ready for it.
async fn step(stage: &mut Stage, name: &'static str, call: Call) -> Result<Value, DevError> {
    let begin = Instant::now();
    loop {
        match stage.client.call(call.clone()).await {
            Ok(answer) => return Ok(answer.body),
            Err(error) if can_wait(&error) && begin.elapsed() < STEP_TIMEOUT => {
                stage.nothing_died()?;
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            Err(source) => return Err(DevError::Step { step: name, source }),
        }
    }
}

/// Before the first leader works, nodes answer that they aren't ready. Every step may be done twice.
fn can_wait(error: &CallError) -> bool {
    match error {
        CallError::Problem { status, .. } => matches!(status, 429 | 503 | 504),
        CallError::Unreachable { .. } | CallError::Lost { .. } => true,
        CallError::Usage(_) | CallError::Unexpected { .. } => false,
    }
}

/// Returns something that an earlier run has created, or creates it.
async fn ensure(
    stage: &mut Stage,
    name: &'static str,
    path: &[&str],
    create: Call,
) -> Result<Value, DevError> {
    match step(stage, name, Call::get(path)).await {
        Err(DevError::Step { source: CallError::Problem { status: 404, .. }, .. }) => {
            step(stage, name, create).await
        }
        found => found,
    }
}

async fn formation(stage: &mut Stage) -> Result<(), DevError> {
    let peers = json!([format!("{MESH_NODE}@127.0.0.1:{}", stage.mesh_node_port)]);
    let call = Call::new(Method::POST, &["orgs", ORG, "formations"]).body(json!({
        "app_id": FORMATION,
        "enrollment_policy": "Open",
        "static_peers": peers,
    }));
    let path = ["orgs", ORG, "formations", FORMATION];
    let formation = ensure(stage, "create the formation", &path, call).await?;
    // The directory may come from a run whose mesh node had another port.
    if formation.get("static_peers") != Some(&peers) {
        let call = Call::new(Method::PATCH, &path).body(json!({"static_peers": peers}));
        step(stage, "name the mesh node to the formation", call).await?;
    }
    Ok(())
}

async fn sink(stage: &mut Stage) -> Result<(), DevError> {
    let path = ["orgs", ORG, "sinks"];
    let sinks = stage
        .client
        .list(Call::get(&path))
        .await
        .map_err(|source| DevError::Step { step: "list the sinks", source })?;
    let ours = |sink: &&Value| sink.pointer("/sink_type/File/name") == Some(&SINK.into());
    let sink = match sinks.iter().find(ours) {
        Some(sink) => sink.clone(),
        None => {
            let call = Call::new(Method::POST, &path)
                .body(json!({"sink_type": {"File": {"name": SINK}}, "start": "earliest"}));
            step(stage, "create the sink", call).await?
        }
    };
    let id = sink.get("sink_id").and_then(Value::as_str).unwrap_or_default();
    stage.sink_id = id.to_owned();
    Ok(())
}

async fn mesh_node(stage: &mut Stage, rate: u32) -> Result<(), DevError> {
    let path = ["orgs", ORG, "formations", FORMATION, "credentials"];
    let body = step(stage, "fetch the mesh node's credentials", Call::get(&path)).await?;
    let credentials =
        body.get("credentials").and_then(Value::as_str).ok_or_else(|| DevError::Step {
            step: "fetch the mesh node's credentials",
            source: CallError::Unexpected {
                url: stage.urls()[0].clone(),
                reason: "there are no credentials in it".into(),
            },
        })?;
    let home = stage.directory.join("mesh-node");
    std::fs::create_dir_all(&home).map_err(|source| DevError::Directory {
        path: home.clone(),
        action: "create".into(),
        source,
    })?;
    write_private(&home.join("credentials"), credentials.as_bytes())?;
    let mut process = stage.describe_mesh_node(home, rate);
    process.start()?;
    stage.mesh_node = Some(process);
    Ok(())
}
