//! A table beside a table: where a read model is built anew while the old one serves.

use potter_core::{Engine, Identifier, Sql, Tx, values};

use crate::error::{Error, ErrorKind, Result};

/// A table of a read model, and the names of its shadow (`balances_next`) and of the one that was
/// live before (`balances_prev`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowTable {
    live: Identifier,
    next: Identifier,
    prev: Identifier,
}

impl ShadowTable {
    /// For the table `live`.
    ///
    /// # Errors
    /// `InvalidInput` when it is no name for a table, or too long for one with `_next` behind it.
    pub fn new(live: &str) -> Result<Self> {
        Ok(Self {
            live: Identifier::new(live)?,
            next: Identifier::new(format!("{live}_next"))?,
            prev: Identifier::new(format!("{live}_prev"))?,
        })
    }

    /// The table that queries read.
    pub fn live(&self) -> &Identifier {
        &self.live
    }

    /// The table that a rebuild writes: put it into statements with [`Sql::with`].
    pub fn next(&self) -> &Identifier {
        &self.next
    }

    /// The table that was live before the last rebuild; kept until the next one.
    pub fn prev(&self) -> &Identifier {
        &self.prev
    }

    /// Makes the shadow table anew: empty, with the columns, constraints and indexes of the live
    /// one. For a new version with other columns, make it yourself instead.
    ///
    /// # Errors
    /// `NotFound` when there is no live table.
    pub async fn create_next(&self, tx: &mut Tx) -> Result<()> {
        const DROP: Sql = Sql::same("DROP TABLE IF EXISTS {next}");
        const LIKE: Sql = Sql::same("CREATE TABLE {next} (LIKE {live} INCLUDING ALL)");
        tx.execute(DROP.with("next", &self.next), &[]).await?;
        if tx.engine() == Engine::Sqlite {
            return self.create_next_sqlite(tx).await;
        }
        tx.execute(LIKE.with("next", &self.next).with("live", &self.live), &[]).await?;
        Ok(())
    }

    /// SQLite keeps the text of each definition: it is used again under the other name.
    async fn create_next_sqlite(&self, tx: &mut Tx) -> Result<()> {
        const DEFINITIONS: &str = "SELECT type, sql FROM sqlite_master
             WHERE tbl_name = $1 AND type IN ('table', 'index') AND sql IS NOT NULL
             ORDER BY type DESC";
        let rows = tx.fetch_all(DEFINITIONS, values![self.live.as_str()]).await?;
        if rows.is_empty() {
            let message = format!("there is no table {}", self.live);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        for row in rows {
            let sql = row.text("sql")?;
            let body = sql.find('(').map(|at| &sql[at..]).unwrap_or_default();
            let statement = if row.text("type")? == "table" {
                format!("CREATE TABLE {} {body}", self.next.quoted())
            } else {
                let unique = if sql.to_ascii_uppercase().starts_with("CREATE UNIQUE") {
                    "UNIQUE"
                } else {
                    ""
                };
                // Names of indexes are unique in the file, and stay when tables are renamed.
                let name = format!("{}_{}", self.live, potter_core::new_id().simple());
                format!("CREATE {unique} INDEX \"{name}\" ON {} {body}", self.next.quoted())
            };
            tx.execute(Sql::checked(statement), &[]).await?;
        }
        Ok(())
    }

    /// The shadow becomes the live table, the live one the previous one.
    ///
    /// # Errors
    /// `Internal` when a table is missing.
    pub async fn swap(&self, tx: &mut Tx) -> Result<()> {
        const DROP: Sql = Sql::same("DROP TABLE IF EXISTS {prev}");
        const RENAME: Sql = Sql::same("ALTER TABLE {from} RENAME TO {to}");
        let rename = |from: &Identifier, to: &Identifier| RENAME.with("from", from).with("to", to);
        tx.execute(DROP.with("prev", &self.prev), &[]).await?;
        tx.execute(rename(&self.live, &self.prev), &[]).await?;
        tx.execute(rename(&self.next, &self.live), &[]).await?;
        Ok(())
    }
}
