//! Old events in the shape of today, for projections and subscribers.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use potter_core::testing::TestDatabase;
use potter_core::{Identifier, MemoryTable, Sql, Tx, values};
use potter_eventsourcing::{
    ErrorKind, EventFilter, EventQuery, EventStore, ExpectedVersion, HandlerError,
    InlineEventStore, NewEvent, OnFailure, Projection, QueryItem, Rebuild, Rebuildable,
    RecordedEvent, ShadowTable, StreamId, Subscriber, Upcast, Upcasted, Upcasters, Worker,
    event_store,
};
use serde_json::{Value, json};

use super::model::{admin, quick};

/// The sum of what was placed, by order.
struct Placed {
    table: Identifier,
    filter: EventFilter,
}

struct Sums;

impl MemoryTable for Sums {
    type Key = String;
    type Row = i64;
}

fn placed() -> Placed {
    let filter = EventFilter::all().event_types(["order.placed"]);
    Placed { table: Identifier::new("placed").unwrap(), filter }
}

#[async_trait]
impl Projection for Placed {
    fn name(&self) -> &str {
        "placed"
    }

    fn filter(&self) -> EventFilter {
        self.filter.clone()
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        const ADD: Sql = Sql::same(
            "INSERT INTO {placed} (id, cents) VALUES ($1, $2)
             ON CONFLICT (id) DO UPDATE SET cents = {placed}.cents + excluded.cents",
        );
        assert_eq!((event.event_type.as_str(), event.schema_version), ("order.placed", 2));
        let payload: Value = event.payload.get()?;
        assert_eq!(payload["currency"], "EUR");
        let cents = payload["cents"].as_i64().ok_or("no cents")?;
        let id = event.stream_id.id().to_owned();
        if let Some(memory) = tx.memory() {
            let sum = memory.get::<Sums>(&id).copied().unwrap_or(0);
            memory.put::<Sums>(id, sum + cents);
            return Ok(());
        }
        tx.execute(ADD.with("placed", &self.table), values![id, cents]).await?;
        Ok(())
    }
}

impl Rebuildable for Placed {
    fn tables(&self) -> Vec<ShadowTable> {
        vec![ShadowTable::new("placed").unwrap()]
    }

    fn shadow(&self) -> Arc<dyn Projection> {
        let table = self.tables()[0].next().clone();
        Arc::new(Self { table, filter: self.filter.clone() })
    }
}

fn upcasters() -> Upcasters {
    Upcasters::new()
        .rename(("order.created", 1), ("order.placed", 1))
        .step("order.placed", 1, |mut payload| {
            payload["currency"] = json!("EUR");
            Ok(payload)
        })
        .split("order.placed_and_paid", 1, |payload| {
            let half = json!({ "cents": payload["cents"].as_i64().ok_or("no cents")? / 2 });
            let placed = || Upcast::new("order.placed", 1, half.clone());
            Ok(vec![placed(), Upcast::new("order.paid", 1, json!({})), placed()])
        })
}

fn event(event_type: &str, version: u32, payload: &Value) -> NewEvent {
    let event = NewEvent::new(event_type, payload).unwrap();
    event.with_schema_version(version).with_tags(["shop:1"])
}

/// A log of all times: 1 + 2 + 4 + 8 cents were placed.
async fn log(test: &TestDatabase) -> Arc<dyn EventStore> {
    let store = event_store(test.database()).unwrap();
    store.migrate().await.unwrap();
    if test.database().execute("SELECT 1", &[]).await.is_ok() {
        let table = "CREATE TABLE placed (id TEXT PRIMARY KEY, cents BIGINT NOT NULL)";
        test.database().execute(table, &[]).await.unwrap();
    }
    let events = vec![
        event("order.created", 1, &json!({"cents": 1})),
        event("order.placed", 1, &json!({"cents": 2})),
        event("order.shipped", 1, &json!({"cents": 100})),
        event("order.placed_and_paid", 1, &json!({"cents": 4})),
        event("order.placed", 2, &json!({"cents": 8, "currency": "EUR"})),
    ];
    store.append(&order(), ExpectedVersion::NoStream, events).await.unwrap();
    store
}

fn order() -> StreamId {
    StreamId::new("order", 1).unwrap()
}

async fn sum(test: &TestDatabase) -> i64 {
    let mut tx = test.database().begin().await.unwrap();
    if let Some(memory) = tx.memory() {
        return memory.get::<Sums>(&"1".to_owned()).copied().unwrap_or(0);
    }
    let row = tx.fetch_optional("SELECT cents FROM placed WHERE id = '1'", &[]).await.unwrap();
    row.map_or(0, |row| row.i64("cents").unwrap())
}

async fn a_projection_sees_the_shape_of_today(test: TestDatabase) {
    let store = log(&test).await;
    let worker = Worker::new(Arc::clone(&store), Upcasted::new(placed(), upcasters())).unwrap();
    // Four of five: the one that no step begins with is not even read.
    assert_eq!(worker.options(quick()).catch_up().await.unwrap().handled, 4);
    assert_eq!(sum(&test).await, 15);
    test.close().await;
}

async fn a_query_is_widened_too(test: TestDatabase) {
    let store = log(&test).await;
    let query = EventQuery::new().item(QueryItem::tags(["shop:1"]).event_types(["order.placed"]));
    let of_the_shop = Placed { filter: EventFilter::all().query(query), ..placed() };
    let worker = Worker::new(Arc::clone(&store), Upcasted::new(of_the_shop, upcasters())).unwrap();
    worker.options(quick()).catch_up().await.unwrap();
    assert_eq!(sum(&test).await, 15);
    test.close().await;
}

async fn inline_too(test: TestDatabase) {
    let store = log(&test).await;
    let inline = InlineEventStore::new(store).unwrap();
    let inline = inline.projection(Upcasted::new(placed(), upcasters()));
    let late = vec![event("order.created", 1, &json!({"cents": 16}))];
    inline.append(&order(), ExpectedVersion::Any, late).await.unwrap();
    assert_eq!(sum(&test).await, 16);
    test.close().await;
}

/// A step that fails is a handler that fails: the event is parked, and applied when the step is
/// mended.
async fn a_failing_step_parks_its_event(test: TestDatabase) {
    let store = log(&test).await;
    let broken = vec![event("order.placed_and_paid", 1, &json!({"sum": 32}))];
    store.append(&order(), ExpectedVersion::Any, broken).await.unwrap();
    let worker = Worker::new(Arc::clone(&store), Upcasted::new(placed(), upcasters())).unwrap();
    worker.options(quick().on_failure(OnFailure::Park)).catch_up().await.unwrap();
    assert_eq!(sum(&test).await, 15);
    let admin = admin(&store);
    let parked = admin.parked("placed", 0, 10).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert!(parked[0].error.contains("no cents"), "{}", parked[0].error);
    let again = Upcasted::new(placed(), upcasters());
    let error = admin.retry_parked(&again, &order()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    let mended = upcasters().split("order.placed_and_paid", 1, |payload| {
        Ok(vec![Upcast::new("order.placed", 1, json!({ "cents": payload["sum"] }))])
    });
    let mended = Upcasted::new(placed(), mended);
    assert_eq!(admin.retry_parked(&mended, &order()).await.unwrap(), 1);
    assert_eq!(sum(&test).await, 15 + 32);
    test.close().await;
}

struct Mails(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Subscriber for Mails {
    fn name(&self) -> &str {
        "mails"
    }

    fn filter(&self) -> EventFilter {
        EventFilter::all().event_types(["order.placed", "order.paid"])
    }

    async fn handle(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        let line = format!("{} {}", event.version, event.event_type);
        self.0.lock().unwrap().push(line);
        Ok(())
    }
}

async fn a_subscriber_does_too(test: TestDatabase) {
    let store = log(&test).await;
    let seen = Arc::default();
    let mails = Upcasted::new(Mails(Arc::clone(&seen)), upcasters());
    let worker = Worker::subscriber(Arc::clone(&store), mails).unwrap();
    worker.options(quick()).catch_up().await.unwrap();
    let expected = [
        "1 order.placed",
        "2 order.placed",
        "4 order.placed",
        "4 order.paid",
        "4 order.placed",
        "5 order.placed",
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
    test.close().await;
}

async fn it_is_rebuilt(test: TestDatabase) {
    let store = log(&test).await;
    let upcasted = || Upcasted::new(placed(), upcasters());
    let worker = Worker::new(Arc::clone(&store), upcasted()).unwrap();
    worker.options(quick()).catch_up().await.unwrap();
    test.database().execute("UPDATE placed SET cents = 0", &[]).await.unwrap();
    let rebuild = Rebuild::new(Arc::clone(&store), Arc::new(upcasted())).unwrap();
    rebuild.options(quick()).run().await.unwrap();
    assert_eq!(sum(&test).await, 15);
    test.close().await;
}

potter_core::on_every_engine!(
    a_projection_sees_the_shape_of_today,
    a_query_is_widened_too,
    inline_too,
    a_failing_step_parks_its_event,
    a_subscriber_does_too,
);

mod sql {
    use super::it_is_rebuilt;

    potter_core::on_every_sql_engine!(it_is_rebuilt);
}
