//! What differs between two states, field by field.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a field differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not there before.
    Added,
    /// It had another value before.
    Modified,
    /// It is not there any more.
    Removed,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Difference {
    /// Where: the names of fields and the numbers of items, joined by dots. Empty for the whole.
    pub field: String,
    /// How.
    #[serde(rename = "type")]
    pub change: Change,
    /// What was there before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub old_value: Option<Value>,
    /// What is there now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new_value: Option<Value>,
}

/// What differs from `before` to `after`, in the order of the fields' names. Objects and arrays
/// are compared item by item.
///
/// ```
/// use potter_eventsourcing::{Change, differences};
/// use serde_json::json;
///
/// let found = differences(&json!({"a": 1, "b": [1, 2]}), &json!({"a": 2, "b": [1]}));
/// assert_eq!((found[0].field.as_str(), found[0].change), ("a", Change::Modified));
/// assert_eq!((found[1].field.as_str(), found[1].change), ("b.1", Change::Removed));
/// ```
pub fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", Some(before), Some(after), &mut found);
    found
}

fn compare(
    field: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    let below = |name: &str| match field {
        "" => name.to_owned(),
        _ => format!("{field}.{name}"),
    };
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for name in names {
                compare(&below(name), old.get(name), new.get(name), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for at in 0..old.len().max(new.len()) {
                compare(&below(&at.to_string()), old.get(at), new.get(at), found);
            }
        }
        (old, new) if old == new => {}
        (old, new) => found.push(Difference {
            field: field.to_owned(),
            change: match (old, new) {
                (None, _) => Change::Added,
                (_, None) => Change::Removed,
                _ => Change::Modified,
            },
            old_value: old.cloned(),
            new_value: new.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_change_is_found() {
        let before = json!({"same": 1, "gone": null, "deep": {"list": [1, {"x": 1}]}, "kind": 1});
        let after = json!({"same": 1, "new": [], "deep": {"list": [1, {"x": 2}, 3]}, "kind": "1"});
        let found: Vec<_> = differences(&before, &after)
            .into_iter()
            .map(|one| (one.field, one.change, one.old_value, one.new_value))
            .collect();
        let expected = [
            ("deep.list.1.x", Change::Modified, Some(json!(1)), Some(json!(2))),
            ("deep.list.2", Change::Added, None, Some(json!(3))),
            ("gone", Change::Removed, Some(json!(null)), None),
            ("kind", Change::Modified, Some(json!(1)), Some(json!("1"))),
            ("new", Change::Added, None, Some(json!([]))),
        ];
        assert_eq!(
            found,
            expected.map(|(field, change, old, new)| (field.to_owned(), change, old, new))
        );
        assert_eq!(differences(&json!(1), &json!(1)), []);
        assert_eq!(differences(&json!(1), &json!(2))[0].field, "");
    }
}
