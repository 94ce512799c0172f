//! Finding marked objects in JSON text, so that everything else stays bit for bit as it was.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};
pub(super) use crate::personal::CLEAR;

/// What a sealed field looks like: `{"$sealed":{"subject":…,"data":…}}`.
pub(super) const SEALED: &str = "\"$sealed\"";

/// An object whose only key is a marker.
#[derive(Debug)]
pub(super) struct Marked<'a> {
    /// The whole object.
    pub(super) span: Range<usize>,
    /// The value of the marker.
    value: &'a str,
}

#[derive(Deserialize)]
pub(super) struct Clear {
    pub(super) subject: String,
    pub(super) value: Box<RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Sealed {
    pub(super) subject: String,
    pub(super) data: String,
}

impl Marked<'_> {
    pub(super) fn clear(&self) -> Result<Clear> {
        serde_json::from_str(self.value).map_err(|source| {
            let message = "\"$personal\" is reserved for personal data, and this is none";
            Error::with_source(ErrorKind::InvalidInput, message, source)
        })
    }

    pub(super) fn sealed(&self) -> Result<Sealed> {
        serde_json::from_str(self.value).map_err(|source| {
            let message = "\"$sealed\" is reserved for sealed personal data, and this is none";
            Error::with_source(ErrorKind::Corrupt, message, source)
        })
    }
}

pub(super) fn sealed_text(subject: &str, data: &str) -> Result<String> {
    Ok(format!(r#"{{{SEALED}:{{"subject":{},"data":"{data}"}}}}"#, text(subject)?))
}

pub(super) fn clear_text(subject: &str, value: &str) -> Result<String> {
    Ok(format!(r#"{{{CLEAR}:{{"subject":{},"value":{value}}}}}"#, text(subject)?))
}

pub(super) fn erased_text(subject: &str) -> Result<String> {
    Ok(format!(r#"{{"$erased":{{"subject":{}}}}}"#, text(subject)?))
}

fn text<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    Ok(potter_core::Json::of(value)?.as_str().to_owned())
}

/// The outermost objects with this marker, in order. `text` is valid JSON.
pub(super) fn find<'a>(text: &'a str, marker: &str) -> Vec<Marked<'a>> {
    let mut found = Vec::new();
    if !text.contains(marker) {
        return found;
    }
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => string_end(bytes, at),
            b'{' => match marked(text, at, marker) {
                Some(one) => {
                    let end = one.span.end;
                    found.push(one);
                    end
                }
                None => at + 1,
            },
            _ => at + 1,
        };
    }
    found
}

fn marked<'a>(text: &'a str, start: usize, marker: &str) -> Option<Marked<'a>> {
    let bytes = text.as_bytes();
    let key = skip_space(bytes, start + 1);
    if !bytes.get(key..)?.starts_with(marker.as_bytes()) {
        return None;
    }
    let colon = skip_space(bytes, key + marker.len());
    if *bytes.get(colon)? != b':' {
        return None;
    }
    let value = skip_space(bytes, colon + 1);
    let value_end = value_end(bytes, value);
    let close = skip_space(bytes, value_end);
    if *bytes.get(close)? != b'}' {
        return None;
    }
    Some(Marked { span: start..close + 1, value: text.get(value..value_end)? })
}

fn skip_space(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Behind the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Behind the value that begins at `at`.
fn value_end(bytes: &[u8], at: usize) -> usize {
    let (mut at, mut depth) = (at, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' if depth == 0 => return at,
            byte if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(text: &str) -> Vec<&str> {
        find(text, CLEAR).iter().map(|one| &text[one.span.clone()]).collect()
    }

    #[test]
    fn marked_objects_are_found_and_nothing_else() {
        let one = r#"{"$personal":{"subject":"a","value":{"x":["}",{"y":"\"{"}]}}}"#;
        assert_eq!(spans(one), [one]);
        assert_eq!(spans(&format!(r#"{{"a":[1,{one},{{ "b" : {one} }}],"c":"x"}}"#)), [one, one]);
        let spaced = "{ \"$personal\" :\n{\"subject\":\"a\",\"value\":1.50} }";
        assert_eq!(spans(spaced), [spaced]);
        let nested = format!(r#"{{"$personal":{{"subject":"b","value":{one}}}}}"#);
        assert_eq!(spans(&nested), [nested.as_str()], "the outermost");
        for none in [
            r#""{\"$personal\":{}}""#,
            r#"["$personal",1]"#,
            r#"{"a":"$personal"}"#,
            r#"{"$personal":{"subject":"a"},"more":1}"#,
            r#"{"first":1,"$personal":{}}"#,
            "1",
        ] {
            assert!(spans(none).is_empty(), "{none}");
        }
        assert_eq!(find(one, CLEAR)[0].clear().unwrap().value.get(), r#"{"x":["}",{"y":"\"{"}]}"#);
    }
}
