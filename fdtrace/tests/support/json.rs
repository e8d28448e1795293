//! Looking into reports.

use serde_json::Value;

/// The number at a JSON pointer.
#[track_caller]
pub(crate) fn number(value: &Value, pointer: &str) -> u64 {
    let found = value.pointer(pointer).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number at {pointer} in {value}"))
}

/// Whether every field of `wanted` is in `value`, with the same value.
pub(crate) fn same(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| value.get(key).is_some_and(|value| same(value, wanted))),
        (value, wanted) => value == wanted,
    }
}
