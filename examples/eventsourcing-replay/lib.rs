//! History read again: read models built anew, one order's life, a part of the log.

mod cli;
mod order;
mod progress;
mod read_models;
mod seed;

pub use cli::{Cli, run};
