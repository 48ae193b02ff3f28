//! The OpenAPI 3.1 document: what the routes say of themselves, and what is the same for all.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

use super::auth::PUBLIC;
use super::problem::{self, Problem};

/// What stands in the document besides the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "peat-gateway",
        description = "The office of peer-to-peer Peat meshes. Any node answers; reads are \
                       linearizable unless a stale one is asked for.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem)),
    tags(
        (name = "health", description = "What probes and scrapers ask of a node"),
        (name = "cluster", description = "Nodes and settings"),
        (name = "organizations", description = "Tenants"),
        (name = "formations", description = "Meshes, one per formation"),
        (name = "documents", description = "What meshes share"),
        (name = "sinks", description = "Where events go"),
        (name = "journal", description = "Events in sequence"),
        (name = "audit", description = "Who did what, in hash chains"),
    ),
)]
struct Base;

/// The document without routes.
pub(super) fn base() -> Document {
    Base::openapi()
}

/// What each `{name}` in a path is.
const PATH_PARAMETERS: &[(&str, &str)] = &[
    ("org_id", "The organisation"),
    ("app_id", "The formation"),
    ("sink_id", "The sink"),
    ("document_id", "The document's key, percent-encoded"),
];

/// Returns the document as JSON text, completed by what all routes have in common.
pub(super) fn render(document: &Document) -> String {
    let mut value = serde_json::to_value(document).expect("the document is JSON under text keys");
    value["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "The administrator's token" }
    });
    let paths = value["paths"].as_object_mut().map(std::mem::take).unwrap_or_default();
    let completed = paths.into_iter().map(|(path, mut item)| {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                complete(&path, method, operation);
            }
        }
        (path, item)
    });
    value["paths"] = Value::Object(completed.collect());
    let mut text = serde_json::to_string_pretty(&value).expect("a value is JSON");
    text.push('\n');
    text
}

/// Adds parameters, headers, security and failures.
fn complete(path: &str, method: &str, operation: &mut Map<String, Value>) {
    let public = PUBLIC.contains(&path);
    let mut parameters: Vec<Value> = PATH_PARAMETERS
        .iter()
        .filter(|(name, _)| path.contains(&format!("{{{name}}}")))
        .map(|(name, text)| parameter("path", name, text, json!({ "type": "string" })))
        .collect();
    if let Some(Value::Array(own)) = operation.remove("parameters") {
        parameters.extend(own);
    }
    let number = || json!({ "type": "integer", "format": "int64", "minimum": 0 });
    let reads = method == "get";
    if !public && path != "/openapi.json" {
        let min_index = "Answer only from this log index on: a header x-peat-index seen before";
        parameters.push(parameter("query", "min_index", min_index, number()));
        if reads {
            let kinds = json!({ "type": "string", "enum": ["linearizable", "stale"] });
            let text = "stale reads what this node has, without asking the leader";
            parameters.push(parameter("query", "consistency", text, kinds));
            let text = "With stale: refuse where the leader was last heard of longer ago";
            parameters.push(parameter("query", "max_staleness_ms", text, number()));
        } else {
            let text = "Makes a retry the same request: 1 to 255 printable ASCII characters";
            let key = json!({ "type": "string", "minLength": 1, "maxLength": 255 });
            parameters.push(parameter("header", "Idempotency-Key", text, key));
            if method == "delete" || path.matches('{').count() > usize::from(method == "post") {
                let text = "Do it only to the version with this entity tag";
                let tag = json!({ "type": "string" });
                parameters.push(parameter("header", "If-Match", text, tag));
            }
        }
        operation.insert("security".to_owned(), json!([{ "bearer": [] }]));
    }
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), parameters.into());
    }
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        for response in responses.values_mut() {
            response["headers"] = json!({
                "x-request-id": { "schema": { "type": "string" } },
                "x-peat-index": { "schema": number() },
            });
        }
        let content = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
        responses.insert(
            "default".to_owned(),
            json!({ "description": "What went wrong", "content": { problem::CONTENT_TYPE: content } }),
        );
    }
}

fn parameter(place: &str, name: &str, text: &str, schema: Value) -> Value {
    json!({
        "name": name,
        "in": place,
        "required": place == "path",
        "description": text,
        "schema": schema,
    })
}
