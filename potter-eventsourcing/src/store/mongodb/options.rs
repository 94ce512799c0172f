//! Settings of a store on MongoDB.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::store::StoreOptions;

/// How a store uses its MongoDB database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MongoOptions {
    pub(super) store: StoreOptions,
    pub(super) database: Option<String>,
    pub(super) prefix: String,
    pub(crate) timeout: Duration,
    pub(super) queryable: bool,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            store: StoreOptions::default(),
            database: None,
            prefix: "potter_".to_owned(),
            timeout: Duration::from_secs(10),
            queryable: true,
        }
    }
}

impl MongoOptions {
    /// The defaults: the database that the URL names, collections whose names begin with
    /// `potter_`, 10 s for an operation, payloads that can be queried.
    pub fn new() -> Self {
        Self::default()
    }

    /// The limits of the store. Whatever they say, an append has at most 16 MiB: it is one
    /// document.
    #[must_use]
    pub fn store(mut self, options: StoreOptions) -> Self {
        self.store = options;
        self
    }

    /// The database, in the place of the one that the URL names.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = Some(name.into());
        self
    }

    /// What the names of the collections begin with, in the place of `potter_`: several stores in
    /// one database. Lower case letters, digits and underscores, 20 at most.
    #[must_use]
    pub fn collection_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long an operation may take before it counts as unanswered.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Without it, payloads and metadata are kept as text only: half the space, and no queries
    /// into them.
    #[must_use]
    pub fn queryable_payloads(mut self, queryable: bool) -> Self {
        self.queryable = queryable;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let prefix = &self.prefix;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if prefix.len() > 20 || !prefix.bytes().all(plain) {
            let message = format!(
                "{prefix:?} is no prefix for collections: lower case letters, digits and \
                 underscores, 20 at most"
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(())
    }

    /// The name of one of the library's collections.
    pub(super) fn collection(&self, potter_name: &str) -> String {
        let rest = potter_name.strip_prefix("potter_").unwrap_or(potter_name);
        format!("{}{rest}", self.prefix)
    }
}
