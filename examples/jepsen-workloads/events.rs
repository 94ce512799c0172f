//! The event store: versions without gaps, nothing lost, and readers of everything that skip nothing.
//!
//! Half of the appends are made in transactions that stay open for a while, so positions become
//! visible in another order than they were handed out. A reader that only remembers the highest
//! position it saw ([`Reader::Naive`]) skips events then; that of the store must not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use potter_core::{Database, DatabaseOptions, Sql, values};
use potter_eventsourcing::{
    Error, ErrorKind, EventFilter, EventStore, ExpectedVersion, NewEvent, ReadOptions,
    RecordedEvent, StreamId, event_store,
};
use potter_jepsen::checkers::EventStore as EventStoreChecker;
use potter_jepsen::generator::{self, Generator};
use potter_jepsen::runner::{Client, Completion, Failure, Node, Op, Session, Workload};
use potter_jepsen::{Checker, Value};
use serde_json::json;
use std::sync::Arc;

use crate::Primary;

/// Events of a stream before a new stream takes its place.
const STREAM_LENGTH: i64 = 40;
const STREAMS: i64 = 4;
/// Events that a poll takes at most.
const PAGE: u64 = 200;

/// How readers of everything go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reader {
    /// By the store's pages, which end where an open transaction may still put an event.
    #[default]
    Safe,
    /// By the highest position seen, as many do it: the positive control, which must be caught.
    Naive,
}

/// Appends to a few streams, reads of them, and two clients that poll all events.
#[derive(Debug)]
pub struct EventStoreWorkload {
    reader: Reader,
    /// The streams' type, so that runs on one database do not see each other.
    run: String,
    pauses: AtomicU64,
    primary: Primary,
}

/// The clients that only poll.
const READERS: usize = 2;

impl EventStoreWorkload {
    /// A run with streams of its own.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            run: crate::new_run("jepsen"),
            pauses: AtomicU64::new(0),
            primary: Primary::default(),
        }
    }
}

fn options() -> DatabaseOptions {
    DatabaseOptions::new().max_connections(2).application_name("jepsen-events")
}

#[async_trait]
impl Workload for EventStoreWorkload {
    fn name(&self) -> String {
        match self.reader {
            Reader::Safe => "event-store".into(),
            Reader::Naive => "event-store-naive".into(),
        }
    }

    async fn setup(&self, nodes: &[Node]) -> Result<(), Failure> {
        let database = options().connect(self.primary.set(nodes)?).await?;
        event_store(&database)?.migrate().await?;
        database.close().await;
        Ok(())
    }

    async fn open(&self, _: &Session) -> Result<Box<dyn Client>, Failure> {
        // A database for each client, as for processes of their own.
        let database = options().connect(self.primary.url()?).await?;
        let store = event_store(&database)?;
        // A new reader begins where everything is final.
        let after = store.safe_position().await?;
        let seed = self.pauses.fetch_add(1, Ordering::Relaxed);
        let (reader, run) = (self.reader, self.run.clone());
        Ok(Box::new(EventClient { database, store, reader, run, after, seed }))
    }

    fn generator(&self) -> Box<dyn Generator> {
        let poll = generator::repeat(Op::new("poll")).delay(Duration::from_millis(2));
        generator::reserve([(READERS, poll.boxed())], appends()).boxed()
    }

    fn final_generator(&self) -> Option<Box<dyn Generator>> {
        // Every reader catches up with everything.
        let empty =
            |event: &potter_jepsen::Event| event.value.as_items().is_some_and(<[Value]>::is_empty);
        let polls = move || generator::repeat(Op::new("poll")).until(empty).limit(1000).boxed();
        let none = generator::ops([]).boxed();
        Some(generator::reserve((0..READERS).map(|_| (1, polls())), none).boxed())
    }

    fn checker(&self) -> Box<dyn Checker + Send> {
        Box::new(EventStoreChecker::new())
    }
}

/// Appends of one to three events, and reads of a stream.
fn appends() -> Box<dyn Generator> {
    let mut streams: BTreeMap<i64, i64> = (0..STREAMS).map(|stream| (stream, 0)).collect();
    let (mut next_stream, mut next_event) = (STREAMS, 0);
    let load = generator::from_fn(move |random| {
        let keys: Vec<i64> = streams.keys().copied().collect();
        let stream = random.pick(&keys).copied().unwrap_or(0);
        if random.chance(250) {
            return Op::new("read-stream").value(vec![Value::Int(stream), Value::Nil]);
        }
        let count = random.between(1, 3);
        let events: Vec<Value> = (0..count).map(|n| Value::Int(next_event + n)).collect();
        next_event += count;
        let length = streams.entry(stream).or_default();
        *length += count;
        if *length >= STREAM_LENGTH {
            streams.remove(&stream);
            streams.insert(next_stream, 0);
            next_stream += 1;
        }
        Op::new("append").value(vec![Value::Int(stream), Value::from(events)])
    });
    load.boxed()
}

struct EventClient {
    database: Database,
    store: Arc<dyn EventStore>,
    reader: Reader,
    run: String,
    after: u64,
    seed: u64,
}

/// The store says that nothing was written.
fn certainly_not(error: &Error) -> bool {
    use ErrorKind::{Conflict, DuplicateEventId, InvalidInput, LimitExceeded};
    matches!(error.kind(), Conflict | DuplicateEventId | InvalidInput | LimitExceeded)
}

/// Whoever polls again and again must not do so when there is nobody to answer.
fn not_read(error: &Failure) -> Completion {
    let of_store = error.downcast_ref::<Error>().map(Error::kind);
    let of_database = error.downcast_ref::<potter_core::Error>().map(potter_core::Error::kind);
    let unavailable = of_store == Some(ErrorKind::Unavailable)
        || of_database == Some(potter_core::ErrorKind::Unavailable);
    match unavailable {
        true => Completion::Unreachable(error.to_string()),
        false => Completion::Fail(error.to_string()),
    }
}

fn number(n: u64) -> Value {
    i64::try_from(n).map_or(Value::Nil, Value::Int)
}

impl EventClient {
    fn stream(&self, value: &Value) -> Result<StreamId, Failure> {
        Ok(StreamId::new(&self.run, value)?)
    }

    /// A transaction that stays open for up to 12 ms, every other time.
    fn pause(&mut self) -> Option<Duration> {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        let lot = self.seed >> 40;
        lot.is_multiple_of(2).then(|| Duration::from_millis(lot % 13))
    }

    async fn append(&mut self, op: &Op) -> Result<Completion, Failure> {
        let Some([name, events]) = op.value.as_items() else {
            return Ok(Completion::Fail(format!("{} is no append", op.value)));
        };
        let stream = self.stream(name)?;
        let events = events.as_items().unwrap_or_default();
        let new: Result<Vec<NewEvent>, Error> =
            events.iter().map(|e| NewEvent::new("happened", &json!({"n": e.as_int()}))).collect();
        let new = new?;
        let appended = match self.pause() {
            None => self.store.append(&stream, ExpectedVersion::Any, new).await,
            Some(pause) => {
                let mut tx = self.database.begin().await?;
                let any = ExpectedVersion::Any;
                match self.store.append_in(&mut tx, &stream, any, new).await {
                    Ok(appended) => {
                        tokio::time::sleep(pause).await;
                        tx.commit().await.map(|()| appended).map_err(Error::from)
                    }
                    // COMMIT was not sent.
                    Err(error) => return Ok(Completion::Fail(error.to_string())),
                }
            }
        };
        let appended = match appended {
            Ok(appended) => appended,
            Err(error) if certainly_not(&error) => return Ok(Completion::Fail(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let first = appended.last_version + 1 - events.len() as u64;
        let rows = events
            .iter()
            .zip(first..)
            .map(|(event, version)| Value::from(vec![number(version), event.clone()]));
        let rows: Vec<Value> = rows.collect();
        Ok(Completion::Ok(Value::from(vec![name.clone(), Value::from(rows)])))
    }

    async fn read_stream(&self, op: &Op) -> Result<Value, Failure> {
        let name = op.value.as_items().and_then(|parts| parts.first()).cloned().unwrap_or_default();
        let stream = self.stream(&name)?;
        let events: Vec<RecordedEvent> =
            self.store.read_stream(&stream, ReadOptions::forwards()).try_collect().await?;
        let rows: Result<Vec<Value>, Failure> = events
            .iter()
            .map(|event| Ok(Value::from(vec![number(event.version), payload(event)?])))
            .collect();
        Ok(Value::from(vec![name, Value::from(rows?)]))
    }

    async fn poll(&mut self) -> Result<Value, Failure> {
        match self.reader {
            Reader::Safe => self.poll_safe().await,
            Reader::Naive => self.poll_naive().await,
        }
    }

    async fn poll_safe(&mut self) -> Result<Value, Failure> {
        let filter = EventFilter::all().stream_types([self.run.clone()]);
        let page = self.store.read_page(self.after, &filter, PAGE).await?;
        let rows: Result<Vec<Value>, Failure> = page
            .events
            .iter()
            .map(|event| Ok(Value::from(vec![number(event.global_position), payload(event)?])))
            .collect();
        let rows = rows?;
        self.after = page.through;
        Ok(Value::from(rows))
    }

    /// What many write who have not met a gap yet.
    async fn poll_naive(&mut self) -> Result<Value, Failure> {
        const NEXT: Sql = Sql::same(
            "SELECT global_position, payload ->> 'n' AS n FROM potter_events
             WHERE global_position > $1 AND starts_with(stream_id, $2)
             ORDER BY global_position LIMIT 200",
        );
        let after = i64::try_from(self.after)?;
        let rows = self.database.read(NEXT, values![after, format!("{}-", self.run)]).await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let position = row.i64("global_position")?;
            let event: i64 = row.text("n")?.parse()?;
            self.after = u64::try_from(position)?;
            all.push(Value::from(vec![Value::Int(position), Value::Int(event)]));
        }
        Ok(Value::from(all))
    }
}

fn payload(event: &RecordedEvent) -> Result<Value, Failure> {
    #[derive(serde::Deserialize)]
    struct Happened {
        n: i64,
    }
    Ok(Value::Int(event.payload.get::<Happened>()?.n))
}

#[async_trait]
impl Client for EventClient {
    async fn invoke(&mut self, op: &Op) -> Result<Completion, Failure> {
        let read = match &*op.f {
            "append" => return self.append(op).await,
            "read-stream" => self.read_stream(op).await,
            "poll" => self.poll().await,
            other => return Ok(Completion::Fail(format!("there is no operation {other}"))),
        };
        // A read that failed changed nothing, and the reader did not move.
        Ok(read.map_or_else(|error| not_read(&error), Completion::Ok))
    }

    async fn close(&mut self) {
        self.database.close().await;
    }
}
