//! A store that fails now and then, always in the same way for the same seed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use potter_core::{Database, Tx, Waiter};
use serde::Serialize;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::query::EventQuery;
use crate::store::{
    AppendCondition, EventFilter, EventStore, ExpectedVersion, Matching, Page, ReadAllOptions,
    ReadOptions, StreamAppend,
};
use crate::stream_id::StreamId;

/// An event store around another one, whose appends meet faults: how code behaves when somebody
/// was faster, when the database is away, when an answer is lost, when everything is slow.
///
/// Which append meets which fault follows from the seed and the order of the calls. With a
/// [`ManualClock`](potter_core::ManualClock) below
/// ([`Database::memory_with_clock`]) and [`Ids`] a test is the same every time.
///
/// ```
/// use potter_core::Database;
/// use potter_eventsourcing::testing::{FaultyEventStore, Ids};
/// use potter_eventsourcing::{EventStore, ExpectedVersion, StreamId, event_store};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = event_store(&Database::memory())?;
/// let faulty = FaultyEventStore::new(store, 7).lost_answers(100);
/// let stream = StreamId::new("order", 1)?;
/// let placed = Ids::new(7).event("order.placed", &1)?;
/// // It took effect, and nobody was told.
/// let lost = faulty.append(&stream, ExpectedVersion::NoStream, vec![placed.clone()]).await;
/// assert!(lost.is_err());
/// // The same again, without faults, is answered as the first time.
/// let faulty = faulty.lost_answers(0);
/// let again = faulty.append(&stream, ExpectedVersion::NoStream, vec![placed]).await?;
/// assert!(again.duplicate);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FaultyEventStore {
    store: Arc<dyn EventStore>,
    random: Arc<Mutex<u64>>,
    conflicts: u8,
    unavailable: u8,
    lost_answers: u8,
    latency: Duration,
}

/// What happens to an append.
enum Fault {
    None,
    Conflict,
    Unavailable,
    LostAnswer,
}

impl FaultyEventStore {
    /// Around `store`, without faults.
    pub fn new(store: Arc<dyn EventStore>, seed: u64) -> Self {
        Self {
            store,
            random: Arc::new(Mutex::new(seed)),
            conflicts: 0,
            unavailable: 0,
            lost_answers: 0,
            latency: Duration::ZERO,
        }
    }

    /// Of 100 appends, so many are refused with `Conflict`, as if somebody had been faster.
    #[must_use]
    pub fn conflicts(mut self, percent: u8) -> Self {
        self.conflicts = percent;
        self
    }

    /// So many are refused with `Unavailable`: nothing was appended.
    #[must_use]
    pub fn unavailable(mut self, percent: u8) -> Self {
        self.unavailable = percent;
        self
    }

    /// So many take effect and are answered with `Unknown`. Not those in a transaction of the
    /// caller's: there nothing has taken effect yet.
    #[must_use]
    pub fn lost_answers(mut self, percent: u8) -> Self {
        self.lost_answers = percent;
        self
    }

    /// Every append and read takes up to so much longer, on Tokio's clock.
    #[must_use]
    pub fn latency(mut self, at_most: Duration) -> Self {
        self.latency = at_most;
        self
    }

    /// Splitmix64: the next number below `below`.
    fn random(&self, below: u64) -> u64 {
        let mut state = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    async fn fault(&self) -> Fault {
        let drawn = self.random(100);
        self.wait().await;
        let conflicts = u64::from(self.conflicts);
        let unavailable = conflicts + u64::from(self.unavailable);
        match drawn {
            drawn if drawn < conflicts => Fault::Conflict,
            drawn if drawn < unavailable => Fault::Unavailable,
            drawn if drawn < unavailable + u64::from(self.lost_answers) => Fault::LostAnswer,
            _ => Fault::None,
        }
    }

    async fn wait(&self) {
        let micros = u64::try_from(self.latency.as_micros()).unwrap_or(u64::MAX);
        if micros > 0 {
            tokio::time::sleep(Duration::from_micros(self.random(micros))).await;
        }
    }

    /// An append that meets a fault.
    async fn meet<T>(
        &self,
        append: impl Future<Output = Result<T>> + Send,
        alone: bool,
    ) -> Result<T> {
        match self.fault().await {
            Fault::Conflict => {
                Err(Error::new(ErrorKind::Conflict, "injected: somebody else was faster"))
            }
            Fault::Unavailable => {
                Err(Error::new(ErrorKind::Unavailable, "injected: the database is away"))
            }
            Fault::LostAnswer if alone => {
                append.await?;
                Err(Error::new(ErrorKind::Unknown, "injected: the answer was lost"))
            }
            Fault::LostAnswer | Fault::None => append.await,
        }
    }
}

impl std::fmt::Debug for FaultyEventStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyEventStore")
            .field("conflicts", &self.conflicts)
            .field("unavailable", &self.unavailable)
            .field("lost_answers", &self.lost_answers)
            .field("latency", &self.latency)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for FaultyEventStore {
    fn database(&self) -> Option<&Database> {
        self.store.database()
    }

    async fn migrate(&self) -> Result<()> {
        self.store.migrate().await
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        self.meet(self.store.append(stream, expected, events), true).await
    }

    async fn append_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        self.meet(self.store.append_in(tx, stream, expected, events), false).await
    }

    async fn append_if(
        &self,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        self.meet(self.store.append_if(appends, condition), true).await
    }

    async fn append_if_in(
        &self,
        tx: &mut Tx,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        self.meet(self.store.append_if_in(tx, appends, condition), false).await
    }

    async fn read_matching(&self, query: &EventQuery, after: u64) -> Result<Matching> {
        self.wait().await;
        self.store.read_matching(query, after).await
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        self.store.read_stream(stream, options)
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        self.store.read_stream_in(tx, stream, options).await
    }

    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        self.store.read_all(after, options)
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        self.wait().await;
        self.store.read_page(after, filter, limit).await
    }

    fn changes(&self) -> Option<Waiter> {
        self.store.changes()
    }

    async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        self.store.event(event_id).await
    }

    async fn count(&self, after: u64, until: u64, filter: &EventFilter) -> Result<u64> {
        self.store.count(after, until, filter).await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<u64> {
        self.store.position_at(time).await
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        self.store.stream_version(stream).await
    }

    async fn head_position(&self) -> Result<u64> {
        self.store.head_position().await
    }

    async fn safe_position(&self) -> Result<u64> {
        self.store.safe_position().await
    }
}

/// Event ids that are the same in every run.
#[derive(Debug)]
pub struct Ids {
    seed: String,
    given: u64,
}

impl Ids {
    /// A sequence of ids; another seed is another one.
    pub fn new(seed: u64) -> Self {
        Self { seed: seed.to_string(), given: 0 }
    }

    /// The next one.
    pub fn next_id(&mut self) -> Uuid {
        self.given += 1;
        potter_core::derived_id(&["potter testing", &self.seed, &self.given.to_string()])
    }

    /// An event with the next id.
    ///
    /// # Errors
    /// As [`NewEvent::new`].
    pub fn event<T: Serialize + ?Sized>(
        &mut self,
        event_type: &str,
        payload: &T,
    ) -> Result<NewEvent> {
        Ok(NewEvent::new(event_type, payload)?.with_id(self.next_id()))
    }
}
