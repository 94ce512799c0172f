//! Sagas on memory, SQLite and PostgreSQL.

mod crash;
mod effects;
mod engines;
mod flows;
mod operations;
mod script;
mod stores;
