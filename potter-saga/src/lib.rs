#![doc = include_str!("../README.md")]

mod decide;
mod definition;
mod error;
mod executor;
mod flow;
mod history;
mod orchestrator;
mod outcome;
mod progress;
mod status;
mod step;
mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use definition::{Definition, Saga};
pub use error::{Error, ErrorKind, Result};
pub use flow::{AfterPivot, BeforePivot, Finished, Flow, IntoValue, Value};
pub use history::{StepHistory, step_history};
pub use orchestrator::{Orchestrator, OrchestratorBuilder, Running, Start, Started};
pub use outcome::{Probe, StepError};
pub use progress::{EntryKind, LogEntry};
pub use status::{SagaStatus, StepStatus};
pub use step::{Compensate, Direction, Step, StepContext, StepOptions};
pub use store::{
    Advance, Advanced, ClaimRequest, Claimed, Inserted, LogRecord, MIGRATIONS, MemorySagaStore,
    NewSaga, SagaFilter, SagaRecord, SagaStore, SqlSagaStore, UNNOTICED, saga_store,
};
