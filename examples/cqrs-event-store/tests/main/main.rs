//! The program through its port and its terminal, on SQLite and PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg_attr(feature = "clickhouse", expect(clippy::panic, reason = "a test fails by panicking"))]

#[cfg(feature = "clickhouse")]
mod clickhouse;
mod commands;
mod demo;
mod place;
mod projections;
mod reading;
mod stream;
