//! Personal data inside payloads and states: fields that can be erased later.

use std::fmt;

use potter_core::Json;
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// What a field in clear looks like: `{"$personal":{"subject":…,"value":…}}`.
pub(crate) const CLEAR: &str = "\"$personal\"";

/// Refuses a text with personal data in clear.
pub(crate) fn refuse_clear(json: &Json) -> Result<()> {
    if !json.as_str().contains(CLEAR) {
        return Ok(());
    }
    let message = "personal data would be stored in clear: use the store of a Vault";
    Err(Error::new(ErrorKind::InvalidInput, message))
}

/// A value about a subject that can be forgotten: a name, an address, a whole struct of them.
///
/// Use it in events and in states that have snapshots. A store from
/// `Vault::events` (feature `erasure`) keeps it encrypted with a key of the subject's own; after
/// `Vault::forget` it reads as [`Erased`](Self::Erased), in every copy of the event. Stores without
/// a vault refuse it, so that it is never kept in clear by mistake.
///
/// The subject is kept in clear: name it by an id that says nothing. `Debug` shows the subject and not
/// the value, as states end up in logs.
///
/// ```
/// use potter_eventsourcing::Personal;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Registered {
///     name: Personal<String>,
///     plan: String,
/// }
///
/// let registered =
///     Registered { name: Personal::new("user:7", "Ada".to_owned()), plan: "free".to_owned() };
/// assert_eq!(registered.name.known().map(String::as_str), Some("Ada"));
/// assert!(!format!("{:?}", registered.name).contains("Ada"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Personal<T> {
    /// It can be read.
    Known {
        /// Whose it is.
        subject: String,
        /// What it is.
        value: T,
    },
    /// Its subject was forgotten.
    Erased {
        /// Whose it was.
        subject: String,
    },
}

impl<T> Personal<T> {
    /// `value`, about `subject`.
    pub fn new(subject: impl Into<String>, value: T) -> Self {
        Self::Known { subject: subject.into(), value }
    }

    /// Whose it is.
    pub fn subject(&self) -> &str {
        match self {
            Self::Known { subject, .. } | Self::Erased { subject } => subject,
        }
    }

    /// The value, if it was not erased.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Erased { .. } => None,
        }
    }

    /// Was it erased?
    pub fn is_erased(&self) -> bool {
        matches!(self, Self::Erased { .. })
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known { subject, .. } => {
                f.debug_struct("Known").field("subject", subject).finish_non_exhaustive()
            }
            Self::Erased { subject } => f.debug_struct("Erased").field("subject", subject).finish(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Clear<T> {
    subject: String,
    value: T,
}

#[derive(Serialize, Deserialize)]
struct Erased {
    subject: String,
}

impl<T: Serialize> Serialize for Personal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct ClearRef<'a, T> {
            subject: &'a str,
            value: &'a T,
        }
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Known { subject, value } => {
                map.serialize_entry("$personal", &ClearRef { subject, value })?;
            }
            Self::Erased { subject } => {
                map.serialize_entry("$erased", &Erased { subject: subject.clone() })?;
            }
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Personal<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        enum Field<T> {
            #[serde(rename = "$personal")]
            Clear(Clear<T>),
            #[serde(rename = "$erased")]
            Erased(Erased),
            #[serde(rename = "$sealed")]
            Sealed(serde::de::IgnoredAny),
        }
        match Field::deserialize(deserializer)? {
            Field::Clear(Clear { subject, value }) => Ok(Self::Known { subject, value }),
            Field::Erased(Erased { subject }) => Ok(Self::Erased { subject }),
            Field::Sealed(_) => {
                Err(D::Error::custom("personal data is sealed: read it through a Vault"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_stored_form_is_frozen() {
        let known = Personal::new("user:7", vec![1, 2]);
        let text = r#"{"$personal":{"subject":"user:7","value":[1,2]}}"#;
        assert_eq!(serde_json::to_string(&known).unwrap(), text);
        assert!(text.contains(CLEAR));
        assert_eq!(serde_json::from_str::<Personal<Vec<u8>>>(text).unwrap(), known);
        let erased = Personal::<String>::Erased { subject: "user:7".to_owned() };
        let text = r#"{"$erased":{"subject":"user:7"}}"#;
        assert_eq!(serde_json::to_string(&erased).unwrap(), text);
        assert_eq!(serde_json::from_str::<Personal<String>>(text).unwrap(), erased);
        let sealed = r#"{"$sealed":{"subject":"user:7","data":"AA"}}"#;
        let error = serde_json::from_str::<Personal<String>>(sealed).unwrap_err();
        assert!(error.to_string().contains("Vault"), "{error}");
    }
}
