//! ClickHouse: a mirror of the log for historic analytics.
//!
//! # What is promised
//! Whoever reads the view (`potter_events`) sees each event of the log once, as far as
//! [`MirrorStatus::position`] and perhaps some further: **effectively once for readers of the view**,
//! at any moment, also in the middle of a resend. Nothing is skipped.
//!
//! # How
//! ClickHouse has no transaction over an insert and a checkpoint. So a block is made repeatable:
//!
//! 1. Positions up to `through` of a page are final, so the events in (`done`, `through`] are the
//!    same for ever, and so is the block of rows made of them.
//! 2. Before a block is sent, its bounds are written down in ClickHouse (`done`, `sending`). After it
//!    is acknowledged, the next bounds say that it is done. `done` only ever says what was
//!    acknowledged.
//! 3. Whoever finds bounds that are open (a crash, a lost answer) sends exactly that block again,
//!    under the same `insert_deduplication_token`: ClickHouse drops it if it has it.
//! 4. A block that ClickHouse does not remember (more than 1000 came between), or two mirrors of
//!    one name at once, can make a second row of an event. The table is a `ReplacingMergeTree` by
//!    position, and the view reads it with `FINAL`: there is one row of each position, before a
//!    merge as after it.
//!
//! The interleavings that could break it, and why they don't: a kill between (2) and the insert, or
//! between the insert and the next bounds, ends in (3). An insert that timed out and lands later
//! writes what was sent again: (4). A mirror that was paused while another went on writes lower
//! bounds: the highest `done` counts, which was acknowledged to whoever wrote it. A power cut:
//! blocks are synced before they are acknowledged (`fsync_after_insert`).
//!
//! Not tested here: `ReplicatedMergeTree` (make the table yourself, under the same names and
//! columns, before [`migrate`](ClickHouse::migrate); replicas that lag show the past).

mod analytics;
mod block;
mod mirror;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use potter_core::Identifier;
use serde::de::DeserializeOwned;

pub use mirror::{ClickHouseMirror, MirrorHandle, MirrorStatus};

use crate::analytics::EventAnalytics;
use crate::error::{Error, ErrorKind, Result};

const SCHEMA: &str = include_str!("../migrations/clickhouse/0001_mirror.sql");
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A ClickHouse server (23 or later), by its HTTP interface. Cheap to clone.
#[derive(Clone)]
pub struct ClickHouse {
    client: clickhouse::Client,
    /// Where, without the password.
    shown: Arc<str>,
    tables: Arc<Tables>,
    timeout: Duration,
}

/// The names of what is in ClickHouse.
struct Tables {
    events: Identifier,
    raw: Identifier,
    mirror: Identifier,
}

impl Tables {
    fn new(events: &str) -> Result<Self> {
        Ok(Self {
            events: Identifier::new(events)?,
            raw: Identifier::new(format!("{events}_raw"))?,
            mirror: Identifier::new(format!("{events}_mirror"))?,
        })
    }
}

impl fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickHouse").field("url", &self.shown).finish_non_exhaustive()
    }
}

impl ClickHouse {
    /// Connects to `http://user:password@host:8123/database` (or https). The user, the password and
    /// the database (`default`) may be left out.
    ///
    /// # Errors
    /// `Config` for a URL that can't be used, a database that is not there, or credentials that are
    /// refused; `Unavailable` when the server can't be reached (the host is named).
    pub async fn connect(url: &str) -> Result<Self> {
        let address = url::Address::parse(url)?;
        let mut client = clickhouse::Client::default()
            .with_url(&address.origin)
            .with_database(&address.database)
            .with_compression(clickhouse::Compression::None)
            // Errors come as such, and not behind half an answer.
            .with_setting("wait_end_of_query", "1")
            .with_setting("output_format_json_quote_64bit_integers", "0");
        if let Some(user) = &address.user {
            client = client.with_user(user);
        }
        if let Some(password) = &address.password {
            client = client.with_password(password);
        }
        let clickhouse = Self {
            client,
            shown: address.shown.into(),
            tables: Arc::new(Tables::new("potter_events")?),
            timeout: REQUEST_TIMEOUT,
        };
        clickhouse.ping().await?;
        Ok(clickhouse)
    }

    /// Sets the name of the view that has the events (`potter_events`); with `_raw` and `_mirror`
    /// behind it, it names the tables.
    ///
    /// # Errors
    /// `InvalidInput` when it is no name, or too long.
    pub fn table(mut self, events: &str) -> Result<Self> {
        self.tables = Arc::new(Tables::new(events)?);
        Ok(self)
    }

    /// How long the server may take for one request (30 s).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where it is, without the password: `http://host:8123/database`.
    pub fn url_shown(&self) -> &str {
        &self.shown
    }

    /// Does it answer? For health checks.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn ping(&self) -> Result<()> {
        self.execute("SELECT 1").await
    }

    /// Creates the tables and the view, if they are not there. Safe at every start.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn migrate(&self) -> Result<()> {
        for statement in self.schema().split(";\n") {
            if !statement.trim().is_empty() {
                self.execute(statement).await?;
            }
        }
        Ok(())
    }

    /// The statements of [`migrate`](Self::migrate), for those who run them by a tool of their own.
    pub fn schema(&self) -> String {
        self.named(SCHEMA)
    }

    /// Answers questions about the history from the mirror, as far as that is.
    pub fn analytics(&self) -> impl EventAnalytics + Clone + use<> {
        analytics::ClickHouseAnalytics::new(self.clone())
    }

    /// The driver, for questions of one's own: read the view.
    pub fn client(&self) -> &clickhouse::Client {
        &self.client
    }

    /// A statement with the names of the tables in it.
    fn named(&self, statement: &str) -> String {
        let tables = &self.tables;
        let name = |table: &Identifier| format!("`{table}`");
        statement
            .replace("{events}", &name(&tables.events))
            .replace("{events_raw}", &name(&tables.raw))
            .replace("{events_mirror}", &name(&tables.mirror))
    }

    async fn execute(&self, statement: &str) -> Result<()> {
        self.within(self.client.query_raw(statement).execute()).await
    }

    /// The rows of a question, each as a `T`. The question bounds them.
    async fn read<T: DeserializeOwned>(
        &self,
        statement: &str,
        parameters: &[(&str, String)],
    ) -> Result<Vec<T>> {
        let mut query = self.client.query_raw(&self.named(statement));
        for (name, value) in parameters {
            query = query.param(name, value);
        }
        let lines = self.within(async {
            let mut cursor = query.fetch_bytes("JSONEachRow")?;
            cursor.collect().await
        });
        let lines = lines.await?;
        let rows = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        rows.map(|line| {
            serde_json::from_slice(line).map_err(|source| {
                let message = format!("{} answered what can't be read", self.shown);
                Error::with_source(ErrorKind::Corrupt, message, source)
            })
        })
        .collect()
    }

    /// A request, with its time-out and its errors.
    async fn within<T>(
        &self,
        request: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.error(error)),
            Err(_) => {
                let message = format!("{} did not answer in {:?}", self.shown, self.timeout);
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    fn error(&self, error: clickhouse::error::Error) -> Error {
        use clickhouse::error::Error as E;
        let place = &self.shown;
        match error {
            E::Network(source) => {
                let message = format!("{place} can't be reached: {}", innermost(&*source));
                Error::new(ErrorKind::Unavailable, message)
            }
            E::TimedOut => {
                Error::new(ErrorKind::Unavailable, format!("{place} did not answer in time"))
            }
            E::BadResponse(text) => refused(place, &text),
            E::Unsupported(_) | E::InvalidParams(_) => {
                Error::with_source(ErrorKind::Config, format!("{place} can't be asked"), error)
            }
            other => {
                Error::with_source(ErrorKind::Corrupt, format!("{place} can't be read"), other)
            }
        }
    }
}

/// What the server said: its code and the code's name. The rest may have SQL in it.
fn refused(place: &str, text: &str) -> Error {
    let code = text.split("Code: ").nth(1).map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse::<u32>().unwrap_or(0)
    });
    let is_name = |word: &&str| {
        word.len() > 2
            && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
    };
    let words = text.rsplit(['(', ')']).map(str::trim);
    let name = words.clone().find(|word| is_name(word) && word.contains('_')).unwrap_or("no name");
    let (kind, hint) = match code {
        Some(81) => (ErrorKind::Config, ": create the database"),
        Some(60) => (ErrorKind::Config, ": call migrate"),
        Some(164 | 192..=194 | 497 | 516) => {
            (ErrorKind::Config, ": look at the user, its password and its grants")
        }
        // Too much at once, a node that is starting or read only for now, a network below it.
        Some(159 | 160 | 202 | 203 | 209 | 210 | 241..=243 | 252 | 279 | 319 | 999 | 1000) => {
            (ErrorKind::Unavailable, "")
        }
        Some(_) => (ErrorKind::Internal, ""),
        // Not ClickHouse, but something in front of it.
        None => (ErrorKind::Unavailable, ": is that ClickHouse's HTTP interface?"),
    };
    let code = code.map_or_else(|| "no code".to_owned(), |code| format!("code {code}, {name}"));
    Error::new(kind, format!("{place} refused ({code}){hint}"))
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_without_their_sql() {
        let text = "Code: 60. DB::Exception: Unknown table expression identifier 'secret'. In scope SELECT * FROM secret. (UNKNOWN_TABLE)";
        let error = refused("http://h:8123/d", text);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("60, UNKNOWN_TABLE"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        let text = "Code: 516. DB::Exception: potter: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED) (version 24.8.1)";
        let error = refused("x", text);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("AUTHENTICATION_FAILED"), "{error}");
        assert_eq!(refused("x", "<html>502</html>").kind(), ErrorKind::Unavailable);
    }
}
