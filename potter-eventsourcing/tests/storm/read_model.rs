//! Two read models: one counts event by event, one sums in batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::TryStreamExt;
use potter_core::{Database, Json, Row, Tx, values};
use potter_eventsourcing::{EventStore, HandlerError, Projection, ReadAllOptions, RecordedEvent};

/// Events of a stream, the last version, how many came out of order.
pub(crate) struct Counts;

/// Events of a stream, and the sum of their payloads.
pub(crate) struct Sums;

const COUNT: &str = "INSERT INTO counts AS c (stream, events, last, disorder)
     VALUES ($1, 1, $2, ($2::bigint <> 1)::int)
     ON CONFLICT (stream) DO UPDATE SET events = c.events + 1, last = $2,
         disorder = c.disorder + ($2 <> c.last + 1)::int";

const SUM: &str = "INSERT INTO sums AS s (stream, events, total)
     SELECT one ->> 0, count(*), sum((one ->> 1)::bigint)::bigint FROM json_array_elements($1::json) AS one
     GROUP BY one ->> 0 ORDER BY 1
     ON CONFLICT (stream) DO UPDATE SET events = s.events + excluded.events,
         total = s.total + excluded.total";

pub(crate) async fn create(database: &Database) {
    for table in [
        "CREATE TABLE counts (stream text PRIMARY KEY, events bigint NOT NULL, last bigint NOT NULL,
             disorder bigint NOT NULL)",
        "CREATE TABLE sums (stream text PRIMARY KEY, events bigint NOT NULL, total bigint NOT NULL)",
    ] {
        database.execute(table, &[]).await.unwrap();
    }
}

#[async_trait]
impl Projection for Counts {
    fn name(&self) -> &str {
        "counts"
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        let version = i64::try_from(event.version)?;
        tx.execute(COUNT, values![event.stream_id.as_str(), version]).await?;
        Ok(())
    }
}

#[async_trait]
impl Projection for Sums {
    fn name(&self) -> &str {
        "sums"
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.handle_batch(tx, std::slice::from_ref(event)).await
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        let rows: Vec<_> = events
            .iter()
            .map(|event| Ok((event.stream_id.as_str(), event.payload.get::<u64>()?)))
            .collect::<potter_core::Result<_>>()?;
        tx.execute(SUM, values![Json::of(&rows)?]).await?;
        Ok(())
    }
}

type Folded = BTreeMap<String, (u64, u64, u64)>;

/// Waits until both read models are the fold over the log; answers how many events that are.
pub(crate) async fn is_the_fold(store: &Arc<dyn EventStore>) -> u64 {
    let (mut counts, mut sums) = (Folded::new(), Folded::new());
    let mut events = store.read_all(0, ReadAllOptions::new());
    while let Some(event) = events.try_next().await.unwrap() {
        let stream = event.stream_id.as_str().to_owned();
        let count = counts.entry(stream.clone()).or_default();
        *count = (count.0 + 1, event.version, 0);
        let sum = sums.entry(stream).or_default();
        *sum = (sum.0 + 1, sum.1 + event.payload.get::<u64>().unwrap(), 0);
    }
    drop(events);
    let database = store.database().unwrap();
    let began = Instant::now();
    for (name, statement, should) in [
        ("counts", "SELECT stream, events, last AS second, disorder AS third FROM counts", &counts),
        ("sums", "SELECT stream, events, total AS second, 0::bigint AS third FROM sums", &sums),
    ] {
        loop {
            let is = rows(&database.read(statement, &[]).await.unwrap());
            if is == *should {
                break;
            }
            if began.elapsed() > Duration::from_secs(120) {
                let differ = should.iter().find(|(stream, count)| is.get(*stream) != Some(count));
                panic!("{name} is not the fold over the log: {differ:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    counts.values().map(|count| count.0).sum()
}

fn rows(rows: &[Row]) -> Folded {
    let number = |row: &Row, name| row.i64(name).unwrap().unsigned_abs();
    rows.iter()
        .map(|row| {
            let values = (number(row, "events"), number(row, "second"), number(row, "third"));
            (row.text("stream").unwrap(), values)
        })
        .collect()
}
