//! A device that goes offline. What it does is `example_sync_service::client`; here are its file, its
//! way to the server, and its command line.

mod cli;
mod file;
mod http;

pub use cli::run;
