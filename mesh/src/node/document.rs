//! JSON into Automerge, as published nodes do it.

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{AutoCommit, AutomergeError, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue};
use serde_json::{Map, Number, Value};

/// A document was not written; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The key has no collection.
    #[error("write document {key:?}: its key is not <collection>:<id>")]
    InvalidKey {
        /// The key.
        key: String,
    },
    /// The document has a tombstone; peers would refuse it.
    #[error("write document {key}: it was deleted; use another id")]
    Deleted {
        /// The key.
        key: String,
    },
    /// There is nothing to delete.
    #[error("delete document {key}: it does not exist")]
    Missing {
        /// The key.
        key: String,
    },
    /// Automerge refused.
    #[error("write document {key}: Automerge refused")]
    Automerge {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: Box<AutomergeError>,
    },
}

/// Returns the document with these fields as its root. Like published nodes it forks, so that each
/// update has a new random actor, sets every field, and leaves commit time and message empty.
///
/// # Errors
/// Automerge refuses a value, which no JSON value should cause.
pub fn with_fields(
    document: &mut AutoCommit,
    fields: &Map<String, Value>,
) -> Result<AutoCommit, AutomergeError> {
    let mut updated = document.fork();
    let missing: Vec<String> = updated.keys(ROOT).filter(|key| !fields.contains_key(key)).collect();
    for key in missing {
        updated.delete(ROOT, key)?;
    }
    for (key, value) in fields {
        put(&mut updated, &ROOT, key, value)?;
    }
    updated.commit_with(CommitOptions::default().with_time(0));
    Ok(updated)
}

fn put(
    document: &mut AutoCommit,
    object: &ObjId,
    key: &str,
    value: &Value,
) -> Result<(), AutomergeError> {
    match value {
        Value::Object(fields) => {
            let map = document.put_object(object, key, ObjType::Map)?;
            fields.iter().try_for_each(|(key, value)| put(document, &map, key, value))
        }
        Value::Array(items) => {
            let list = document.put_object(object, key, ObjType::List)?;
            append_all(document, &list, items)
        }
        value => document.put(object, key, scalar(value)),
    }
}

fn append_all(
    document: &mut AutoCommit,
    list: &ObjId,
    items: &[Value],
) -> Result<(), AutomergeError> {
    for (index, item) in items.iter().enumerate() {
        match item {
            Value::Object(fields) => {
                let map = document.insert_object(list, index, ObjType::Map)?;
                fields.iter().try_for_each(|(key, value)| put(document, &map, key, value))?;
            }
            Value::Array(items) => {
                let inner = document.insert_object(list, index, ObjType::List)?;
                append_all(document, &inner, items)?;
            }
            value => document.insert(list, index, scalar(value))?,
        }
    }
    Ok(())
}

/// Numbers above the largest signed one become floats and lose precision, as on published nodes.
fn scalar(value: &Value) -> ScalarValue {
    match value {
        Value::Bool(boolean) => ScalarValue::Boolean(*boolean),
        Value::String(text) => ScalarValue::Str(text.as_str().into()),
        Value::Number(number) => number_scalar(number),
        Value::Null | Value::Array(_) | Value::Object(_) => ScalarValue::Null,
    }
}

fn number_scalar(number: &Number) -> ScalarValue {
    match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) => ScalarValue::Int(integer),
        (None, Some(float)) => ScalarValue::F64(float),
        (None, None) => ScalarValue::Null,
    }
}
