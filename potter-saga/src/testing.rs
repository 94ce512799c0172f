//! Help for tests, under the feature `testing`: a crash at every store call of a saga
//! ([`CrashMatrix`]), and the suite that every [`SagaStore`](crate::SagaStore) must pass
//! ([`conformance`]).

mod conformance;
mod crash;
mod crash_store;

pub use conformance::conformance;
pub use crash::{CrashMatrix, CrashReport};
pub use crash_store::{CrashPoint, CrashingStore};
