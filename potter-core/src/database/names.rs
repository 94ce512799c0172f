//! Names of tables that are chosen at run time: checked, and quoted where they go into SQL.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// What the names of the library's own tables begin with, unless it was chosen otherwise.
const DEFAULT_PREFIX: &str = "potter_";
/// PostgreSQL cuts names off at 63 bytes; the longest of ours needs 40 after the prefix.
const PREFIX_BYTES_MAX: usize = 20;
const NAME_BYTES_MAX: usize = 63;

/// The name of a table, schema, column or index: a letter or underscore, then letters, digits and
/// underscores; 63 bytes at most.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identifier(Arc<str>);

impl Identifier {
    /// Takes a name.
    ///
    /// # Errors
    /// `InvalidInput` when it is not of this form.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if is_name(&name) && name.len() <= NAME_BYTES_MAX {
            return Ok(Self(name.into()));
        }
        let message = format!(
            "{name:?} is no name for a table: letters, digits and underscores, not beginning \
             with a digit, at most {NAME_BYTES_MAX} bytes"
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it goes into SQL.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What stands in the place of `potter_` in the names of the library's tables, functions,
/// indexes and channels.
///
/// Every statement of the library writes its names with `potter_` in front. The text is changed
/// on its way to the driver, so that there is one place that knows about it. Values are bound and
/// never touched.
#[derive(Clone, Default)]
pub(crate) struct TablePrefix(Option<Arc<str>>);

impl TablePrefix {
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        if prefix == DEFAULT_PREFIX {
            return Ok(Self(None));
        }
        let lower = prefix.bytes().all(|byte| !byte.is_ascii_uppercase());
        if is_name(prefix) && lower && prefix.len() <= PREFIX_BYTES_MAX {
            return Ok(Self(Some(prefix.into())));
        }
        let message = format!(
            "{prefix:?} is no prefix for tables: lower-case letters, digits and underscores, not \
             beginning with a digit, at most {PREFIX_BYTES_MAX} bytes"
        );
        Err(Error::new(ErrorKind::Config, message))
    }

    pub(crate) fn apply(&self, text: Cow<'static, str>) -> Cow<'static, str> {
        match &self.0 {
            Some(prefix) if text.contains(DEFAULT_PREFIX) => {
                text.replace(DEFAULT_PREFIX, prefix).into()
            }
            _ => text,
        }
    }
}

impl fmt::Debug for TablePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or(DEFAULT_PREFIX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "_a1", "Orders_2", &"a".repeat(63)] {
            assert!(Identifier::new(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "a-b", "a\"b", "a b", "ä", "a;--", &"a".repeat(64)] {
            assert!(Identifier::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_takes_the_place_of_ours() {
        let prefix = TablePrefix::new("shop_").unwrap();
        let text = "SELECT 1 FROM potter_events, potter_streams";
        assert_eq!(prefix.apply(text.into()), "SELECT 1 FROM shop_events, shop_streams");
        assert_eq!(TablePrefix::new("potter_").unwrap().apply(text.into()), text);
        for bad in ["", "1", "Shop_", "a\"", &"a".repeat(21)] {
            assert!(TablePrefix::new(bad).is_err(), "{bad}");
        }
    }
}
