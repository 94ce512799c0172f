//! Given, when, then: projections.

use std::sync::Arc;

use potter_core::{Database, Tx};

use crate::error::{Error, Result};
use crate::event::NewEvent;
use crate::projection::{InlineEventStore, Projection};
use crate::store::{EventStore, ExpectedVersion, event_store};
use crate::stream_id::StreamId;

/// A projection under test, on a database of its own: what has happened, what happens now, what
/// the read model says.
///
/// The events are appended to a real store, and go to the projection as they come back from it, in
/// the append's transaction: those of one `given` or `when` together, by `handle_batch`.
///
/// ```
/// use async_trait::async_trait;
/// use potter_core::{Database, MemoryTable, Tx};
/// use potter_eventsourcing::testing::ProjectionSpec;
/// use potter_eventsourcing::{HandlerError, NewEvent, Projection, RecordedEvent, StreamId};
///
/// struct Deposits;
///
/// impl MemoryTable for Deposits {
///     type Key = String;
///     type Row = u64;
/// }
///
/// #[async_trait]
/// impl Projection for Deposits {
///     fn name(&self) -> &str {
///         "deposits"
///     }
///
///     async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
///         let cents: u64 = event.payload.get()?;
///         let memory = tx.memory().ok_or("in memory")?;
///         let sum = memory.get::<Deposits>(&event.stream_id.id().to_owned()).copied().unwrap_or(0);
///         memory.put::<Deposits>(event.stream_id.id().to_owned(), sum + cents);
///         Ok(())
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let alice = StreamId::new("account", "alice")?;
/// let deposited = |cents: u64| NewEvent::new("account.deposited", &cents);
/// ProjectionSpec::new(&Database::memory(), Deposits)
///     .await
///     .given(&alice, [deposited(200)?])
///     .await
///     .when(&alice, [deposited(300)?, deposited(50)?])
///     .await
///     .then(async |tx: &mut Tx| {
///         let sum = tx.memory().unwrap().get::<Deposits>(&"alice".to_owned()).copied();
///         assert_eq!(sum, Some(550));
///     })
///     .await;
/// # Ok(())
/// # }
/// ```
pub struct ProjectionSpec {
    database: Database,
    store: InlineEventStore,
    outcome: Result<()>,
}

impl ProjectionSpec {
    /// On `database`, which should be empty: in memory, or an SQLite file for a projection that
    /// uses SQL. Its read model's tables must be there.
    ///
    /// # Panics
    /// When there is no event store for the database.
    pub async fn new(database: &Database, projection: impl Projection) -> Self {
        let store: Arc<dyn EventStore> = event_store(database).unwrap();
        store.migrate().await.unwrap();
        let store = InlineEventStore::new(store).unwrap().projection(projection);
        Self { database: database.clone(), store, outcome: Ok(()) }
    }

    /// These events have happened in `stream`.
    ///
    /// # Panics
    /// When the projection can't handle them.
    #[must_use]
    pub async fn given(
        self,
        stream: &StreamId,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        let spec = self.when(stream, events).await;
        if let Err(error) = &spec.outcome {
            panic!("the projection failed on what is given: {error}");
        }
        spec
    }

    /// These events happen now. A projection that fails on them leaves its read model as it was.
    #[must_use]
    pub async fn when(
        mut self,
        stream: &StreamId,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        let events = events.into_iter().collect();
        let appended = self.store.append(stream, ExpectedVersion::Any, events).await;
        self.outcome = appended.map(|_| ());
        self
    }

    /// Looks at the read model.
    ///
    /// # Panics
    /// When the projection failed.
    pub async fn then(self, check: impl AsyncFnOnce(&mut Tx)) -> Self {
        if let Err(error) = &self.outcome {
            panic!("the projection failed: {error}");
        }
        let mut tx = self.database.begin().await.unwrap();
        check(&mut tx).await;
        tx.rollback().await.unwrap();
        self
    }

    /// The projection fails; answers why.
    ///
    /// # Panics
    /// When it does not.
    pub fn then_fails(self) -> Error {
        self.outcome.expect_err("the projection did not fail")
    }
}

impl std::fmt::Debug for ProjectionSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProjectionSpec").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}
