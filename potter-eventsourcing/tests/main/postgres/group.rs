//! Groups of appends.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use potter_core::new_id;
use potter_eventsourcing::{
    ErrorKind, EventStore, ExpectedVersion, ReadAllOptions, RecordedEvent, StoreOptions, StreamId,
    event_store_with,
};
use sqlx::{AssertSqlSafe, Executor};

use super::{event, stream};
use crate::support;

/// Appends of all kinds in one group: each keeps its own answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_answers_each_append() {
    use ExpectedVersion::{Any, Exact, NoStream, StreamExists};

    let postgres = support::postgres().await;
    let options = StoreOptions::new().committers_max(1);
    let store = event_store_with(&postgres.database, &options).unwrap();
    let old = stream();
    let used = event();
    store.append(&old, NoStream, vec![used.clone(), event()]).await.unwrap();
    for unusual in [false, true] {
        // The first one commits alone and is held up; the others come together behind it.
        let mut connection = postgres.connection().await;
        connection.execute("BEGIN; LOCK TABLE potter_streams IN EXCLUSIVE MODE").await.unwrap();
        let mut cases = vec![
            (stream(), Any, vec![event()], Ok((1, 1))),
            (stream(), NoStream, vec![event(), event().with_tags(["t"])], Ok((1, 2))),
            (stream(), Exact(0), vec![event()], Ok((1, 1))),
            (stream(), Exact(3), vec![event()], Err(ErrorKind::Conflict)),
            (stream(), StreamExists, vec![event()], Err(ErrorKind::Conflict)),
        ];
        for (expected, answer) in [
            (Exact(2), Ok((3, 3))),
            (NoStream, Err(ErrorKind::Conflict)),
            (StreamExists, Ok((3, 3))),
            (Exact(1), Err(ErrorKind::Conflict)),
        ] {
            let grown = stream();
            store_two(&grown, &mut connection).await;
            cases.push((grown, expected, vec![event()], answer));
        }
        if unusual {
            cases.push((old.clone(), Any, vec![used.clone()], Ok((1, 1))));
            cases.push((stream(), Any, vec![used.clone()], Err(ErrorKind::DuplicateEventId)));
            let twice = stream();
            cases.push((twice.clone(), NoStream, vec![event()], Ok((1, 1))));
            cases.push((twice, Exact(1), vec![event()], Ok((2, 2))));
        }
        let blocked = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.append(&stream(), Any, vec![event()]).await })
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (appends, answers): (Vec<_>, Vec<_>) = cases
            .into_iter()
            .map(|(stream, expected, events, answer)| {
                let store = Arc::clone(&store);
                (async move { store.append(&stream, expected, events).await }, answer)
            })
            .unzip();
        // One task, so that they come in this order.
        let appends = tokio::spawn(futures::future::join_all(appends));
        tokio::time::sleep(Duration::from_millis(200)).await;
        connection.execute("COMMIT").await.unwrap();
        blocked.await.unwrap().unwrap();
        for (n, (got, answer)) in appends.await.unwrap().into_iter().zip(answers).enumerate() {
            let got = got.map(|done| (done.first_version, done.last_version));
            assert_eq!(got.map_err(|error| error.kind()), answer, "{n}");
        }
    }
    let all: Vec<RecordedEvent> =
        store.read_all(0, ReadAllOptions::new()).try_collect().await.unwrap();
    let heads = "SELECT coalesce(sum(version), 0)::bigint AS n FROM potter_streams";
    let heads = postgres.database.read(heads, &[]).await.unwrap()[0].i64("n").unwrap();
    assert_eq!(heads.unsigned_abs(), all.len() as u64, "no head without its events");
}

/// Two events, by the connection that holds the table.
async fn store_two(stream: &StreamId, connection: &mut sqlx::PgConnection) {
    let (a, b) = (new_id(), new_id());
    let append = format!(
        "SELECT * FROM potter_append('{{{stream}}}', '{{-1}}', '{{2}}', '{{0}}', '{{{a},{b}}}', \
         '{{t,t}}', '{{1,1}}', '{{1,1}}', '{{\"{{}}\",\"{{}}\"}}')"
    );
    connection.execute(AssertSqlSafe(append)).await.unwrap();
}
