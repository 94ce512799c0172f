//! Sagas on memory, SQLite and PostgreSQL.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod claims;
mod crash;
mod effects;
mod engines;
mod flows;
mod operations;
mod script;
mod stores;
