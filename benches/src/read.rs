//! Reading: all events, and an aggregate of 1,000 events.

use futures::TryStreamExt;
use potter_core::Json;
use potter_eventsourcing::{
    Aggregate, DomainEvent, ExpectedVersion, NewEvent, ReadAllOptions, Repository, StreamId,
    event_store,
};
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use crate::floor::{EVENT_TYPE, PAYLOAD, postgres, sqlite};
use crate::target::{Engine, Target};
use crate::{Prepared, Row};

const EVENTS: u32 = 1000;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "read all (op = event)".to_owned(),
            operations: 40_000,
            floor: read_all_floor,
            potter: read_all_potter,
        },
        Row {
            name: "load an aggregate of 1,000 events (op = load)".to_owned(),
            operations: 40,
            floor: load_floor,
            potter: load_potter,
        },
    ]
}

#[derive(Serialize, Deserialize)]
struct Deposited {
    amount: i64,
}

impl DomainEvent for Deposited {
    fn event_type(&self) -> &'static str {
        EVENT_TYPE
    }
}

#[derive(Default)]
struct Account {
    balance: i64,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = ();
    type Event = Deposited;
    type Error = std::convert::Infallible;

    fn decide(&self, (): &()) -> Result<Vec<Deposited>, Self::Error> {
        Ok(Vec::new())
    }

    fn evolve(&mut self, event: &Deposited) {
        self.balance += event.amount;
    }
}

async fn fill(target: &Target, streams: u32) {
    let store = event_store(&target.database).unwrap();
    let payload = Json::parse(PAYLOAD.to_owned()).unwrap();
    for number in 0..streams {
        let stream = StreamId::new("account", &number.to_string()).unwrap();
        let events =
            (0..EVENTS).map(|_| NewEvent::from_json(EVENT_TYPE, payload.clone())).collect();
        store.append(&stream, ExpectedVersion::NoStream, events).await.unwrap();
    }
}

fn read_all_potter(target: Target, operations: u32) -> Prepared {
    Box::pin(async move {
        fill(&target, operations.div_ceil(EVENTS)).await;
        let store = event_store(&target.database).unwrap();
        Box::pin(async move {
            let mut count = 0;
            let mut events = store.read_all(0, ReadAllOptions::default());
            while let Some(event) = events.try_next().await.unwrap() {
                count += u32::from(!event.payload.as_str().is_empty());
            }
            assert!(count >= operations);
        }) as crate::Work
    })
}

macro_rules! page {
    () => {
        "SELECT global_position, stream_id, version, event_id, event_type, schema_version, payload, metadata,
             recorded_at FROM potter_events WHERE global_position > $1 ORDER BY global_position LIMIT 500"
    };
}

fn read_all_floor(target: Target, operations: u32) -> Prepared {
    Box::pin(async move {
        fill(&target, operations.div_ceil(EVENTS)).await;
        match target.engine() {
            Engine::Sqlite => {
                let connection = sqlite(&target).await;
                Box::pin(async move {
                    let (mut last, mut count) = (0i64, 0);
                    loop {
                        let rows = sqlx::query(page!())
                            .bind(last)
                            .fetch_all(&mut *connection.lock().await)
                            .await;
                        let rows = rows.unwrap();
                        let Some(row) = rows.last() else { break };
                        last = row.get(0);
                        for row in &rows {
                            let event: (String, i64, String, String, i64, String, String, i64) = (
                                row.get(1),
                                row.get(2),
                                row.get(3),
                                row.get(4),
                                row.get(5),
                                row.get(6),
                                row.get(7),
                                row.get(8),
                            );
                            count += u32::from(!event.5.is_empty());
                        }
                    }
                    assert!(count >= operations);
                }) as crate::Work
            }
            Engine::Postgres => {
                let mut connection = postgres(&target, 1).await.remove(0);
                Box::pin(async move {
                    let (mut last, mut count) = (0i64, 0);
                    loop {
                        let rows = sqlx::query(page!())
                            .bind(last)
                            .fetch_all(&mut connection)
                            .await
                            .unwrap();
                        let Some(row) = rows.last() else { break };
                        last = row.get(0);
                        for row in &rows {
                            let payload: sqlx::types::Json<Json> = row.get(6);
                            let metadata: sqlx::types::Json<Json> = row.get(7);
                            let event: (
                                String,
                                i64,
                                uuid::Uuid,
                                String,
                                i32,
                                chrono::DateTime<chrono::Utc>,
                            ) = (
                                row.get(1),
                                row.get(2),
                                row.get(3),
                                row.get(4),
                                row.get(5),
                                row.get(8),
                            );
                            count += u32::from(
                                !payload.as_str().is_empty()
                                    && !metadata.as_str().is_empty()
                                    && event.1 > 0,
                            );
                        }
                    }
                    assert!(count >= operations);
                }) as crate::Work
            }
        }
    })
}

fn load_potter(target: Target, operations: u32) -> Prepared {
    Box::pin(async move {
        fill(&target, 1).await;
        let repository = Repository::<Account>::new(event_store(&target.database).unwrap());
        Box::pin(async move {
            for _ in 0..operations {
                let loaded = repository.load("0").await.unwrap();
                assert_eq!(loaded.state.balance, 1250 * i64::from(EVENTS));
            }
        }) as crate::Work
    })
}

fn load_floor(target: Target, operations: u32) -> Prepared {
    const STREAM: &str =
        "SELECT payload FROM potter_events WHERE stream_id = 'account-0' ORDER BY version";
    Box::pin(async move {
        fill(&target, 1).await;
        match target.engine() {
            Engine::Sqlite => {
                let connection = sqlite(&target).await;
                Box::pin(async move {
                    for _ in 0..operations {
                        let rows = sqlx::query(STREAM)
                            .fetch_all(&mut *connection.lock().await)
                            .await
                            .unwrap();
                        let all = rows.iter().map(|row| row.get::<String, _>(0));
                        let sum: i64 = all
                            .map(|text| serde_json::from_str::<Deposited>(&text).unwrap().amount)
                            .sum();
                        assert_eq!(sum, 1250 * i64::from(EVENTS));
                    }
                }) as crate::Work
            }
            Engine::Postgres => {
                let mut connection = postgres(&target, 1).await.remove(0);
                Box::pin(async move {
                    for _ in 0..operations {
                        let rows = sqlx::query(STREAM).fetch_all(&mut connection).await.unwrap();
                        let all =
                            rows.iter().map(|row| row.get::<sqlx::types::Json<Deposited>, _>(0));
                        assert_eq!(
                            all.map(|event| event.0.amount).sum::<i64>(),
                            1250 * i64::from(EVENTS)
                        );
                    }
                }) as crate::Work
            }
        }
    })
}
