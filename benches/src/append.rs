//! Appending: one event by one and by 32 writers, batches of 100.

use std::sync::Arc;

use potter_core::Json;
use potter_eventsourcing::{ExpectedVersion, NewEvent, StreamId, event_store};
use sqlx::Connection;

use crate::floor::{EVENT_TYPE, PAYLOAD, event_id, postgres, sqlite, together};
use crate::target::{Engine, Target};
use crate::{Prepared, Row, Work};

const BATCH: u32 = 100;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "append one event, 1 writer".to_owned(),
            operations: 2000,
            floor: |target, n| floor(target, n, 1, 1),
            potter: |target, n| potter(target, n, 1, 1),
        },
        Row {
            name: "append one event, 32 writers".to_owned(),
            operations: 16_000,
            floor: |target, n| floor(target, n, 32, 1),
            potter: |target, n| potter(target, n, 32, 1),
        },
        Row {
            name: "append batches of 100, 1 writer (op = batch)".to_owned(),
            operations: 200,
            floor: |target, n| floor(target, n, 1, BATCH),
            potter: |target, n| potter(target, n, 1, BATCH),
        },
    ]
}

fn potter(target: Target, operations: u32, writers: u32, batch: u32) -> Prepared {
    Box::pin(async move {
        let store = event_store(&target.database).unwrap();
        let payload = Json::parse(PAYLOAD.to_owned()).unwrap();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let (store, payload) = (Arc::clone(&store), payload.clone());
                async move {
                    let stream = StreamId::new("account", writer.to_string()).unwrap();
                    let mut version = 0;
                    for _ in 0..operations / writers {
                        let events = (0..batch)
                            .map(|_| NewEvent::from_json(EVENT_TYPE, payload.clone()))
                            .collect();
                        let done = store
                            .append(&stream, ExpectedVersion::Exact(version), events)
                            .await
                            .unwrap();
                        version = done.last_version;
                    }
                }
            })
            .collect();
        Work::new(together(tasks))
    })
}

fn floor(target: Target, operations: u32, writers: u32, batch: u32) -> Prepared {
    Box::pin(async move {
        match target.engine() {
            Engine::Sqlite => {
                let connection = sqlite(&target).await;
                let tasks: Vec<_> = (0..writers)
                    .map(|writer| {
                        let connection = Arc::clone(&connection);
                        async move {
                            for number in 0..operations / writers {
                                let mut connection = connection.lock().await;
                                on_sqlite(&mut connection, writer, number * batch, batch).await;
                            }
                        }
                    })
                    .collect();
                Work::new(together(tasks))
            }
            Engine::Postgres => {
                let connections = postgres(&target, writers).await;
                let tasks: Vec<_> = (0..writers)
                    .zip(connections)
                    .map(|(writer, mut connection)| async move {
                        for number in 0..operations / writers {
                            on_postgres(&mut connection, writer, number * batch, batch).await;
                        }
                    })
                    .collect();
                Work::new(together(tasks))
            }
        }
    })
}

async fn on_sqlite(connection: &mut sqlx::SqliteConnection, writer: u32, before: u32, batch: u32) {
    let stream = format!("account-{writer}");
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    for offset in 1..=batch {
        sqlx::query(
            "INSERT INTO potter_events
                 (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
             VALUES ($1, $2, $3, $4, 1, $5, '{}', 7)",
        )
        .bind(&stream)
        .bind(before + offset)
        .bind(event_id().to_string())
        .bind(EVENT_TYPE)
        .bind(PAYLOAD)
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

/// The best that plain SQL can do: both tables in one statement, one round trip, one commit.
async fn on_postgres(connection: &mut sqlx::PgConnection, writer: u32, before: u32, batch: u32) {
    let ids: Vec<_> = (0..batch).map(|_| event_id()).collect();
    sqlx::query(
        "WITH head AS (
             INSERT INTO potter_streams (stream_id, version) VALUES ($1, $2::bigint + $3)
             ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version)
         INSERT INTO potter_events
             (stream_id, version, event_id, event_type, schema_version, payload, metadata, segment)
         SELECT $1, $2::bigint + n.ordinal, n.id, n.type, 1, n.payload::json, n.metadata::json, 7
         FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[])
             WITH ORDINALITY AS n (id, type, payload, metadata, ordinal)",
    )
    .bind(format!("account-{writer}"))
    .bind(i64::from(before))
    .bind(i64::from(batch))
    .bind(ids)
    .bind(vec![EVENT_TYPE; batch as usize])
    .bind(vec![PAYLOAD; batch as usize])
    .bind(vec!["{}"; batch as usize])
    .execute(connection)
    .await
    .unwrap();
}
