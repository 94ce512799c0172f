//! Systems under test that this crate can start itself, with their nemeses.

mod postgres;

pub use postgres::{PostgresCluster, PostgresOptions};
