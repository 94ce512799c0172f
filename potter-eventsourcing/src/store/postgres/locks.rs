//! How appends and readers of all events find each other: by advisory locks, or, on servers
//! without them, by locks on rows.
//!
//! # Invariant
//! All who append and all who read all events go by the same: a reader that looks for advisory
//! locks does not see an append that locked a row. So the choice is kept in the database, in
//! `potter_append_settings`, and a store compares it with its options before it does anything.

use potter_core::{Database, values};
use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};

/// By what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locks {
    Advisory,
    Rows,
}

impl Locks {
    /// As in `potter_append_settings`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Advisory => "advisory",
            Self::Rows => "rows",
        }
    }
}

/// The choice of a store, compared once with the database's.
#[derive(Debug)]
pub(super) struct Choice {
    database: Database,
    wanted: Locks,
    agreed: OnceCell<()>,
}

const SETTING: &str = "SELECT locks FROM potter_append_settings";
// Nobody has appended, so nobody goes by anything yet.
const CHOOSE: &str = "UPDATE potter_append_settings SET locks = $1
     WHERE NOT (SELECT is_called FROM potter_events_global_position_seq)";

impl Choice {
    pub(super) fn new(database: Database, wanted: Locks) -> Self {
        Self { database, wanted, agreed: OnceCell::new() }
    }

    /// Chooses for a database without events.
    pub(super) async fn choose(&self) -> Result<()> {
        if self.found().await? != self.wanted.name() {
            self.database.execute(CHOOSE, values![self.wanted.name()]).await?;
        }
        self.locks().await.map(|_| ())
    }

    /// The choice, if it is the database's too.
    pub(super) async fn locks(&self) -> Result<Locks> {
        self.agreed.get_or_try_init(|| self.compare()).await?;
        Ok(self.wanted)
    }

    async fn compare(&self) -> Result<()> {
        let (found, wanted) = (self.found().await?, self.wanted.name());
        if found == wanted {
            return Ok(());
        }
        let message = format!(
            "this event store was opened with StoreOptions::advisory_locks({}), but the database \
             goes by \"{found}\" locks: open it the other way, or stop all programs that use it \
             and UPDATE potter_append_settings SET locks = '{wanted}'",
            self.wanted == Locks::Advisory
        );
        Err(Error::new(ErrorKind::Config, message))
    }

    async fn found(&self) -> Result<String> {
        let rows = self.database.read(SETTING, &[]).await?;
        let none = || Error::new(ErrorKind::Corrupt, "potter_append_settings has no row");
        Ok(rows.first().ok_or_else(none)?.text("locks")?)
    }
}
