//! To come.

mod aggregate;
mod domain_event;
mod error;
mod event;
mod repository;
mod schema;
mod store;
mod stream_id;
#[cfg(feature = "testing")]
pub mod testing;

pub use aggregate::Aggregate;
pub use domain_event::DomainEvent;
pub use error::{Error, ErrorKind, Result};
pub use event::{Appended, NewEvent, RecordedEvent};
pub use repository::{ExecuteError, Executed, Loaded, Repository};
pub use schema::MIGRATIONS;
pub use store::{
    Direction, EventStore, ExpectedVersion, MemoryEventStore, PostgresEventStore, ReadAllOptions,
    ReadOptions, SqliteEventStore, StoreOptions, event_store, event_store_with,
};
pub use stream_id::{SEGMENTS, StreamId};

#[doc(hidden)]
pub mod __private {
    pub use potter_core::Json;
    pub use serde;

    /// The payload of an event that has none.
    #[derive(serde::Serialize)]
    pub struct Empty {}

    /// The error for an event that the code does not know.
    pub fn unknown_event(of: &str, event_type: &str, schema_version: u32) -> crate::Error {
        let message =
            format!("{of} has no event \"{event_type}\" of schema version {schema_version}");
        crate::Error::new(crate::ErrorKind::Corrupt, message)
    }
}
