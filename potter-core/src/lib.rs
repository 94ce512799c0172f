//! The ground that every Potter crate stands on.

mod backoff;
pub mod bus;
mod clock;
mod error;
mod id;
mod json;
mod metadata;
#[cfg(feature = "telemetry")]
pub mod telemetry;
mod trace_context;

pub use backoff::{Backoff, jitter};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use id::{derived_id, new_id};
pub use json::Json;
pub use metadata::Metadata;
pub use trace_context::TraceContext;
