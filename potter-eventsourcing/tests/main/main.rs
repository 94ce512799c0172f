//! The crate's behaviour on real databases.

mod conformance;
mod postgres;
mod repository;
mod sqlite;
mod support;
