//! The crate's behaviour on real databases.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod analytics;
mod clickhouse;
mod conformance;
mod counter;
mod erasure;
mod history;
mod kit;
mod partitions;
mod postgres;
mod projection;
mod repository;
mod snapshots;
mod sqlite;
mod support;
mod tenants;
