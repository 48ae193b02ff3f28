//! Reads recorded vectors.

use std::path::Path;

use serde_json::Value;

/// Returns `tests/vectors/<name>.json`.
pub fn vector_file(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    optional_text(value, field).unwrap_or_else(|| panic!("no text {field} in {value}"))
}

pub fn optional_text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value[field].as_str()
}

pub fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {value}"))
}

pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("no list {field} in {value}"))
}

pub fn array(value: &Value, field: &str) -> Vec<String> {
    list(value, field).iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

pub fn bytes(value: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(value, field)).unwrap()
}

pub fn hex32(value: &Value, field: &str) -> [u8; 32] {
    bytes(value, field).try_into().unwrap()
}
