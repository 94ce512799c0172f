//! The tables of this crate: outbox, idempotency keys, leases.

use crate::database::{Database, Migration, Migrations};
use crate::error::Result;

/// The schema of this crate's tables, to apply or to print.
pub const MIGRATIONS: Migrations = Migrations {
    owner: "potter-core",
    list: &[Migration {
        version: 1,
        name: "outbox_idempotency_leases",
        sqlite: include_str!("../migrations/sqlite/0001_outbox_idempotency_leases.sql"),
        postgres: include_str!("../migrations/postgres/0001_outbox_idempotency_leases.sql"),
    }],
};

/// Creates or updates the tables of this crate. Safe at every start, from many processes.
///
/// # Errors
/// See [`Migrations::apply`].
pub async fn migrate(database: &Database) -> Result<()> {
    MIGRATIONS.apply(database).await
}
