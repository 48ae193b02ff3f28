//! What changed in a document, as JSON.
//!
//! ```json
//! [
//!   {"action": "put", "path": ["a", 0], "value": 1},
//!   {"action": "delete", "path": ["b"]},
//!   {"action": "delete", "path": ["list", 3], "length": 2},
//!   {"action": "insert", "path": ["list", 0], "values": ["x", {}]},
//!   {"action": "splice_text", "path": ["note", 5], "value": "hello"},
//!   {"action": "increment", "path": ["count"], "value": 2},
//!   {"action": "conflict", "path": ["a"]},
//!   {"action": "mark", "path": ["note"], "marks": [{"name": "bold", "start": 0, "end": 5, "value": true}]}
//! ]
//! ```
//!
//! Applied in order they turn the old document into the new one. New objects appear empty (`{}`, `[]`,
//! `""`); what is in them follows as patches of its own. Text indexes count Unicode code points.

use automerge::{ObjType, Patch, PatchAction, Prop, ScalarValueRef};
use serde_json::{Value, json};

use crate::json::scalar;

/// Returns patches as a JSON array, in the same order.
#[must_use]
pub fn to_json(patches: &[Patch]) -> Value {
    Value::Array(patches.iter().map(patch_to_json).collect())
}

fn patch_to_json(patch: &Patch) -> Value {
    let object: Vec<Value> = patch.path.iter().map(|(_, prop)| prop_to_json(prop)).collect();
    let at = |step: Value| {
        let mut path = object.clone();
        path.push(step);
        path
    };
    match &patch.action {
        PatchAction::PutMap { key, value, .. } => {
            json!({"action": "put", "path": at(key.as_str().into()), "value": value_to_json(&value.0)})
        }
        PatchAction::PutSeq { index, value, .. } => {
            json!({"action": "put", "path": at((*index).into()), "value": value_to_json(&value.0)})
        }
        PatchAction::Insert { index, values } => {
            let values: Vec<Value> =
                values.iter().map(|(value, _, _)| value_to_json(value)).collect();
            json!({"action": "insert", "path": at((*index).into()), "values": values})
        }
        PatchAction::SpliceText { index, value, .. } => {
            json!({
                "action": "splice_text",
                "path": at((*index).into()),
                "value": value.make_string(),
            })
        }
        PatchAction::Increment { prop, value } => {
            json!({"action": "increment", "path": at(prop_to_json(prop)), "value": value})
        }
        PatchAction::Conflict { prop } => {
            json!({"action": "conflict", "path": at(prop_to_json(prop))})
        }
        PatchAction::DeleteMap { key } => {
            json!({"action": "delete", "path": at(key.as_str().into())})
        }
        PatchAction::DeleteSeq { index, length } => {
            json!({"action": "delete", "path": at((*index).into()), "length": length})
        }
        PatchAction::Mark { marks } => {
            let marks: Vec<Value> = marks
                .iter()
                .map(|mark| {
                    json!({
                        "name": mark.name(),
                        "start": mark.start,
                        "end": mark.end,
                        "value": scalar(&ScalarValueRef::from(mark.value().clone())),
                    })
                })
                .collect();
            json!({"action": "mark", "path": object, "marks": marks})
        }
    }
}

fn prop_to_json(prop: &Prop) -> Value {
    match prop {
        Prop::Map(key) => key.as_str().into(),
        Prop::Seq(index) => (*index).into(),
    }
}

fn value_to_json(value: &automerge::Value<'_>) -> Value {
    match value {
        automerge::Value::Object(ObjType::Map | ObjType::Table) => json!({}),
        automerge::Value::Object(ObjType::List) => json!([]),
        automerge::Value::Object(ObjType::Text) => json!(""),
        automerge::Value::Scalar(value) => scalar(&ScalarValueRef::from(value.as_ref().clone())),
    }
}

#[cfg(test)]
mod tests {
    use automerge::marks::{ExpandMark, Mark};
    use automerge::transaction::Transactable as _;
    use automerge::{AutoCommit, ROOT, ScalarValue};

    use super::*;

    /// Returns the patches of what `change` does to `doc`.
    fn patches(doc: &mut AutoCommit, change: impl FnOnce(&mut AutoCommit)) -> Value {
        let before = doc.get_heads();
        change(doc);
        let after = doc.get_heads();
        to_json(&doc.diff(&before, &after))
    }

    #[test]
    fn every_kind_of_change_has_its_patch() {
        let mut doc = AutoCommit::new();
        let (mut list, mut text) = (ROOT, ROOT);
        let made = patches(&mut doc, |doc| {
            doc.put(ROOT, "count", ScalarValue::counter(1)).unwrap();
            list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
            doc.insert(&list, 0, "x").unwrap();
            doc.insert_object(&list, 1, ObjType::Map).unwrap();
            text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
            doc.splice_text(&text, 0, 0, "hello").unwrap();
        });
        assert_eq!(
            made,
            json!([
                {"action": "put", "path": ["count"], "value": 1},
                {"action": "put", "path": ["list"], "value": []},
                {"action": "put", "path": ["text"], "value": ""},
                {"action": "insert", "path": ["list", 0], "values": ["x", {}]},
                {"action": "splice_text", "path": ["text", 0], "value": "hello"},
            ])
        );
        let changed = patches(&mut doc, |doc| {
            doc.increment(ROOT, "count", 2).unwrap();
            doc.put(&list, 0, true).unwrap();
            doc.delete(&list, 1).unwrap();
            let bold = Mark::new("bold".to_owned(), true, 0, 5);
            doc.mark(&text, bold, ExpandMark::None).unwrap();
        });
        assert_eq!(
            changed,
            json!([
                {"action": "increment", "path": ["count"], "value": 2},
                {"action": "put", "path": ["list", 0], "value": true},
                {"action": "delete", "path": ["list", 1], "length": 1},
                {"action": "mark", "path": ["text"], "marks": [
                    {"name": "bold", "start": 0, "end": 5, "value": true},
                ]},
            ])
        );
        let deleted = patches(&mut doc, |doc| doc.delete(ROOT, "list").unwrap());
        assert_eq!(deleted, json!([{"action": "delete", "path": ["list"]}]));
    }

    #[test]
    fn concurrent_values_show_as_a_conflict() {
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "a", 1_i64).unwrap();
        let mut other = doc.fork();
        other.put(ROOT, "a", 2_i64).unwrap();
        doc.put(ROOT, "a", 3_i64).unwrap();
        let merged = patches(&mut doc, |doc| drop(doc.merge(&mut other).unwrap()));
        let actions: Vec<&Value> =
            merged.as_array().unwrap().iter().map(|patch| &patch["action"]).collect();
        assert!(actions == ["put"] || actions == ["conflict"], "{merged}");
    }
}
