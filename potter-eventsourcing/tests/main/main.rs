//! The crate's behaviour on real databases.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod conformance;
mod postgres;
mod projection;
mod repository;
mod sqlite;
mod support;
