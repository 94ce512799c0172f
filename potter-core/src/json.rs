//! JSON text that is kept as it was written.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};

/// One JSON value as text: valid, and bit for bit what was given. Keys keep their order, numbers
/// their digits; nothing is normalised on the way through a database.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Writes `value` as JSON.
    ///
    /// # Errors
    /// `InvalidInput` when the type can't be JSON (a map with keys that are no strings, a
    /// `Serialize` that fails).
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        serde_json::value::to_raw_value(value).map(Self).map_err(|source| {
            let name = std::any::type_name::<T>();
            Error::with_source(
                ErrorKind::InvalidInput,
                format!("{name} can't be written as JSON: {source}"),
                source,
            )
        })
    }

    /// Takes text that must be one JSON value.
    ///
    /// # Errors
    /// `InvalidInput` when it is not, with line and column.
    pub fn parse(text: String) -> Result<Self> {
        RawValue::from_string(text).map(Self).map_err(|source| {
            Error::with_source(ErrorKind::InvalidInput, format!("not valid JSON: {source}"), source)
        })
    }

    /// `null`.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// Reads it as a `T`.
    ///
    /// # Errors
    /// `Corrupt` when the text is not a `T`, with what was missing or wrong.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.0.get()).map_err(|source| {
            let name = std::any::type_name::<T>();
            Error::with_source(
                ErrorKind::Corrupt,
                format!("stored JSON is not a {name}: {source}"),
                source,
            )
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Equal when the text is equal: `{"a":1}` and `{ "a": 1 }` are not.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_as_it_was_written() {
        let text = r#"{"z":1e400,"a":12345678901234567890123,"z":"\u0000"}"#;
        assert_eq!(Json::parse(text.to_owned()).unwrap().as_str(), text);
        assert_eq!(Json::parse("{,}".to_owned()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
