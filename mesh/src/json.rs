//! Automerge documents as JSON that people and sinks can use.
//!
//! | Automerge | JSON |
//! |---|---|
//! | map, table | object |
//! | list | array |
//! | text, string | string |
//! | integers, counter, timestamp (ms) | number |
//! | float | number; null if it is not finite, which JSON cannot say |
//! | bytes, and values of kinds not known yet | standard base64 string |
//! | boolean, null | themselves |

use automerge::{ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValueRef, ValueRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

/// How deep objects may nest, the root included; deeper ones become null. Common JSON parsers refuse
/// deeper documents, and a hostile one must not exhaust the stack.
pub const JSON_DEPTH_MAX: usize = 100;

/// Returns a document as a JSON object. Of conflicting values it shows Automerge's winner.
#[must_use]
pub fn document<D: ReadDoc>(document: &D) -> Value {
    View { document, heads: None }.object(&ROOT, ObjType::Map, JSON_DEPTH_MAX)
}

/// Returns a document as it was at these heads.
#[must_use]
pub fn document_at<D: ReadDoc>(document: &D, heads: &[ChangeHash]) -> Value {
    View { document, heads: Some(heads) }.object(&ROOT, ObjType::Map, JSON_DEPTH_MAX)
}

/// Returns a scalar value.
#[must_use]
pub fn scalar(value: &ScalarValueRef<'_>) -> Value {
    match value {
        ScalarValueRef::Bytes(bytes) | ScalarValueRef::Unknown { bytes, .. } => {
            Value::String(STANDARD.encode(bytes))
        }
        ScalarValueRef::Str(text) => Value::String(text.clone().into_owned()),
        ScalarValueRef::Int(number)
        | ScalarValueRef::Counter(number)
        | ScalarValueRef::Timestamp(number) => (*number).into(),
        ScalarValueRef::Uint(number) => (*number).into(),
        ScalarValueRef::F64(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        ScalarValueRef::Boolean(boolean) => (*boolean).into(),
        ScalarValueRef::Null => Value::Null,
    }
}

/// A document, now or at some heads.
struct View<'a, D> {
    document: &'a D,
    heads: Option<&'a [ChangeHash]>,
}

impl<D: ReadDoc> View<'_, D> {
    fn object(&self, object: &ObjId, kind: ObjType, depth_left: usize) -> Value {
        let Some(depth_left) = depth_left.checked_sub(1) else { return Value::Null };
        match kind {
            ObjType::Map | ObjType::Table => self.map(object, depth_left),
            ObjType::List => self.list(object, depth_left),
            ObjType::Text => self.text(object),
        }
    }

    fn map(&self, object: &ObjId, depth_left: usize) -> Value {
        let items = match self.heads {
            None => self.document.map_range(object, ..),
            Some(heads) => self.document.map_range_at(object, .., heads),
        };
        let pairs = items.map(|item| {
            let value = self.value(&item.value, || item.id(), depth_left);
            (item.key.into_owned(), value)
        });
        Value::Object(pairs.collect::<Map<_, _>>())
    }

    fn list(&self, object: &ObjId, depth_left: usize) -> Value {
        let items = match self.heads {
            None => self.document.list_range(object, ..),
            Some(heads) => self.document.list_range_at(object, .., heads),
        };
        Value::Array(items.map(|item| self.value(&item.value, || item.id(), depth_left)).collect())
    }

    fn text(&self, object: &ObjId) -> Value {
        let text = match self.heads {
            None => self.document.text(object),
            Some(heads) => self.document.text_at(object, heads),
        };
        // It fails for objects that are no text only; the document itself named this one as text.
        text.map_or(Value::Null, Value::String)
    }

    fn value(
        &self,
        value: &ValueRef<'_>,
        object: impl FnOnce() -> ObjId,
        depth_left: usize,
    ) -> Value {
        match value {
            ValueRef::Object(kind) => self.object(&object(), *kind, depth_left),
            ValueRef::Scalar(value) => scalar(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable as _;
    use automerge::{AutoCommit, ScalarValue};
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_value_has_its_json() {
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "null", ()).unwrap();
        doc.put(ROOT, "bool", true).unwrap();
        doc.put(ROOT, "int", -5_i64).unwrap();
        doc.put(ROOT, "uint", u64::MAX).unwrap();
        doc.put(ROOT, "float", 1.5).unwrap();
        doc.put(ROOT, "not a number", f64::NAN).unwrap();
        doc.put(ROOT, "counter", ScalarValue::counter(3)).unwrap();
        doc.increment(ROOT, "counter", 4).unwrap();
        doc.put(ROOT, "timestamp", ScalarValue::Timestamp(1_700_000_000_000)).unwrap();
        doc.put(ROOT, "bytes", ScalarValue::Bytes(vec![0, 255])).unwrap();
        let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
        doc.splice_text(&text, 0, 0, "grüße").unwrap();
        let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
        doc.insert(&list, 0, "a").unwrap();
        let map = doc.insert_object(&list, 1, ObjType::Map).unwrap();
        doc.put(&map, "x", 1_i64).unwrap();
        assert_eq!(
            document(&doc),
            json!({
                "null": null, "bool": true, "int": -5, "uint": u64::MAX, "float": 1.5,
                "not a number": null, "counter": 7, "timestamp": 1_700_000_000_000_i64,
                "bytes": "AP8=", "text": "grüße", "list": ["a", {"x": 1}],
            })
        );
    }

    #[test]
    fn a_document_can_be_seen_as_it_was() {
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "n", 1_i64).unwrap();
        let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
        doc.insert(&list, 0, 1_i64).unwrap();
        let heads = doc.get_heads();
        doc.put(ROOT, "n", 2_i64).unwrap();
        doc.delete(&list, 0).unwrap();
        assert_eq!(document_at(&doc, &heads), json!({"n": 1, "list": [1]}));
        assert_eq!(document(&doc), json!({"n": 2, "list": []}));
    }

    #[test]
    fn what_nests_too_deep_becomes_null() {
        let mut doc = AutoCommit::new();
        let mut object = ROOT;
        for _ in 0..JSON_DEPTH_MAX + 10 {
            object = doc.put_object(&object, "o", ObjType::Map).unwrap();
        }
        let mut value = &document(&doc);
        for _ in 1..JSON_DEPTH_MAX {
            value = &value["o"];
        }
        assert_eq!(*value, json!({ "o": null }));
    }
}
