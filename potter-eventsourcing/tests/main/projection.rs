//! Projections and their workers, on every engine.

mod admin;
mod failures;
mod inline;
mod model;
mod promises;
mod rebuild;
mod upcasted;
mod workers;
