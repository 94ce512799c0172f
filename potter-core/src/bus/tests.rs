//! The buses' promises, each with a test that a wrong bus fails.

mod events;
#[cfg(feature = "telemetry")]
mod measured;
mod requests;
