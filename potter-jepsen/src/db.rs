//! Systems that a test can start by itself.

mod postgres;

pub use postgres::PostgresCluster;
