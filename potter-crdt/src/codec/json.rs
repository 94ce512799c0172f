//! Canonical JSON: sorted keys, no spaces, large integers as strings.

use serde_json::{Map, Value as Json};

use crate::{ActorId, Error, Result};

/// The largest integer that every JSON reader keeps.
const EXACT_MAX: u64 = (1 << 53) - 1;

/// The canonical text. Keys are sorted by their bytes whatever the features of `serde_json`; a
/// float without a fraction is written as an integer where that is exact (as in RFC 8785).
pub(crate) fn canonical(json: &Json) -> String {
    let mut out = String::new();
    write(json, &mut out);
    out
}

fn write(json: &Json, out: &mut String) {
    match json {
        Json::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Json::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Json::from(key.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
                out.push_str(&format!("{:.0}", if float == 0.0 { 0.0 } else { float }));
            }
            _ => out.push_str(&number.to_string()),
        },
        other => out.push_str(&other.to_string()),
    }
}

pub(crate) fn from_int(value: u64) -> Json {
    if value <= EXACT_MAX { Json::from(value) } else { Json::from(value.to_string()) }
}

pub(crate) fn from_signed(value: i64) -> Json {
    if value.unsigned_abs() <= EXACT_MAX {
        Json::from(value)
    } else {
        Json::from(value.to_string())
    }
}

pub(crate) fn int(json: &Json) -> Result<u64> {
    match json {
        Json::Number(number) => number.as_u64(),
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| Error::malformed(format!("{} is no unsigned integer", shown(json))))
}

pub(crate) fn signed(json: &Json) -> Result<i64> {
    match json {
        Json::Number(number) => number.as_i64(),
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| Error::malformed(format!("{} is no integer", shown(json))))
}

pub(crate) fn text(json: &Json) -> Result<&str> {
    json.as_str().ok_or_else(|| Error::malformed(format!("{} is no text", shown(json))))
}

pub(crate) fn array(json: &Json) -> Result<&[Json]> {
    json.as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| Error::malformed(format!("{} is no array", shown(json))))
}

pub(crate) fn object(json: &Json) -> Result<&Map<String, Json>> {
    json.as_object().ok_or_else(|| Error::malformed(format!("{} is no object", shown(json))))
}

pub(crate) fn field<'a>(object: &'a Map<String, Json>, name: &str) -> Result<&'a Json> {
    object.get(name).ok_or_else(|| Error::malformed(format!("the field {name:?} is missing")))
}

pub(crate) fn actor(json: &Json) -> Result<ActorId> {
    actor_text(text(json)?)
}

pub(crate) fn actor_text(id: &str) -> Result<ActorId> {
    ActorId::new(id).map_err(|error| Error::malformed(error.to_string()))
}

pub(crate) fn make_object(fields: impl IntoIterator<Item = (&'static str, Json)>) -> Json {
    Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn shown(json: &Json) -> String {
    canonical(json).chars().take(40).collect()
}
