//! The values of a history: what EDN and JSON can both say.

use std::fmt::{self, Write as _};

use arcstr::ArcStr;
use thin_vec::ThinVec;

/// A value that an operation wrote, read or was keyed by.
///
/// It has 16 bytes, because histories consist of little else: lists and texts are behind one
/// pointer, and texts are shared when they are cloned.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Value {
    /// `nil`, `null`: nothing, or not known.
    #[default]
    Nil,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number, as it was written: floats, ratios, numbers beyond 64 bits.
    Number(ArcStr),
    /// A string.
    Str(ArcStr),
    /// An EDN keyword or symbol, without the colon.
    Keyword(ArcStr),
    /// A list or vector.
    List(ThinVec<Value>),
    /// An EDN set, in the order in which it was written.
    Set(ThinVec<Value>),
    /// A map, in the order in which it was written.
    Map(ThinVec<(Value, Value)>),
}

impl Value {
    /// The number, if it is a whole one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            // "1" is how JSON has to write an account number that is a key of a map.
            Self::Str(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The text of a string, keyword or symbol.
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Keyword(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list, vector or set.
    pub fn as_items(&self) -> Option<&[Value]> {
        match self {
            Self::List(items) | Self::Set(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a map.
    pub fn as_entries(&self) -> Option<&[(Value, Value)]> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// What a map has under a name, whether written as a keyword or as a string.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.as_entries()?.iter().find(|(key, _)| key.as_name() == Some(name)).map(|(_, v)| v)
    }

    /// `Nil`?
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The same value as JSON text.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    pub(crate) fn write_json(&self, out: &mut String) {
        match self {
            Self::Nil => out.push_str("null"),
            Self::Bool(value) => _ = write!(out, "{value}"),
            Self::Int(number) => _ = write!(out, "{number}"),
            Self::Number(text) if json_number(text) => out.push_str(text),
            Self::Number(text) | Self::Str(text) | Self::Keyword(text) => json_string(out, text),
            Self::List(items) | Self::Set(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    item.write_json(out);
                }
                out.push(']');
            }
            Self::Map(entries) => {
                out.push('{');
                for (n, (key, value)) in entries.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    match key.as_name() {
                        Some(name) => json_string(out, name),
                        None => json_string(out, &key.to_json()),
                    }
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }
}

fn json_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-'))
}

/// Appends `text` as a JSON string; safe inside an HTML script element too.
pub(crate) fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => _ = write!(out, "\\u{:04x}", c as u32),
            c if (c as u32) < 0x20 => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// States of models are shown by `Debug`, to people.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Value {
    /// As EDN.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn items(
            f: &mut fmt::Formatter<'_>,
            open: &str,
            all: &[Value],
            close: &str,
        ) -> fmt::Result {
            f.write_str(open)?;
            for (n, item) in all.iter().enumerate() {
                if n > 0 {
                    f.write_str(" ")?;
                }
                write!(f, "{item}")?;
            }
            f.write_str(close)
        }
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Number(text) => f.write_str(text),
            Self::Str(text) => {
                f.write_str("\"")?;
                for c in text.chars() {
                    match c {
                        '"' => f.write_str("\\\"")?,
                        '\\' => f.write_str("\\\\")?,
                        '\n' => f.write_str("\\n")?,
                        '\r' => f.write_str("\\r")?,
                        '\t' => f.write_str("\\t")?,
                        c => f.write_char(c)?,
                    }
                }
                f.write_str("\"")
            }
            Self::Keyword(name) => write!(f, ":{name}"),
            Self::List(all) => items(f, "[", all, "]"),
            Self::Set(all) => items(f, "#{", all, "}"),
            Self::Map(entries) => {
                f.write_str("{")?;
                for (n, (key, value)) in entries.iter().enumerate() {
                    if n > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{key} {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::List(items.into())
    }
}

impl FromIterator<Value> for Value {
    /// A list.
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Self {
        Self::List(items.into_iter().collect())
    }
}

const _: () = assert!(size_of::<Value>() == 16);
