//! The example programs as their users meet them: started as processes, asked over their ports.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod http;
mod program;
mod readme;

pub use http::{Answer, exchange};
pub use program::{Program, program};
pub use readme::{Command, commands};
