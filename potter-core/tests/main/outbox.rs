//! Writing to the outbox, and the order and atomicity of what comes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use potter_core::testing::{RecordingBus, TestDatabase};
use potter_core::{
    Database, Engine, ErrorKind, Lease, MessageBus, Metadata, Outbox, OutboxMessage, Relay,
    RelayOptions, Tx, values,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{LONG, depth, enqueue, message, migrated, ms};

potter_core::on_every_engine!(
    a_message_is_published_if_and_only_if_its_transaction_commits,
    messages_of_an_aggregate_keep_their_order_under_8_writers,
    what_is_delivered_is_what_was_written,
    names_and_sizes_are_limited,
    an_id_is_in_the_outbox_once,
);

async fn relay_all(database: &Database, bus: &Arc<RecordingBus>) {
    let lease = Lease::acquire(database, "test", LONG).await.unwrap().unwrap();
    let relay =
        Relay::new(database.clone(), bus.clone() as Arc<dyn MessageBus>, RelayOptions::default());
    while relay.relay_batch(&lease).await.unwrap().published > 0 {}
    lease.release().await.unwrap();
}

fn number(message: &OutboxMessage) -> usize {
    message.payload.get().unwrap()
}

async fn a_message_is_published_if_and_only_if_its_transaction_commits(test: TestDatabase) {
    let test = migrated(test).await;
    let bus = RecordingBus::new();
    let mut committed = Vec::new();
    for n in 0..30 {
        let mut tx = test.database().begin().await.unwrap();
        Outbox.enqueue(&mut tx, &message("a", n)).await.unwrap();
        match n % 3 {
            0 => {
                tx.commit().await.unwrap();
                committed.push(n);
            }
            1 => tx.rollback().await.unwrap(),
            _ => drop(tx),
        }
        if n % 7 == 0 {
            relay_all(test.database(), &bus).await;
        }
    }
    relay_all(test.database(), &bus).await;
    assert_eq!(bus.delivered().iter().map(number).collect::<Vec<_>>(), committed);
    assert_eq!(depth(test.database()).await, (0, 0));
    test.close().await;
}

/// Writers of one aggregate wait for each other, as they would on its version or row.
async fn serialise(tx: &mut Tx, aggregate: i64) {
    if tx.engine() == Engine::Postgres {
        tx.fetch_all("SELECT pg_advisory_xact_lock($1)", values![aggregate]).await.unwrap();
    }
}

async fn messages_of_an_aggregate_keep_their_order_under_8_writers(test: TestDatabase) {
    const WRITERS: usize = 8;
    const EACH: usize = 30;
    const AGGREGATES: usize = 4;

    let test = migrated(test).await;
    let bus = RecordingBus::new();
    let mut options = RelayOptions::default();
    options.batch_size = 7;
    options.poll_interval = ms(5);
    let relay = Relay::new(test.database().clone(), bus.clone() as Arc<dyn MessageBus>, options);
    let stop = CancellationToken::new();
    let relaying = tokio::spawn({
        let stop = stop.clone();
        async move { relay.run(stop).await }
    });

    let next: Arc<[AtomicUsize; AGGREGATES]> = Arc::default();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (database, next) = (test.database().clone(), next.clone());
        writers.spawn(async move {
            for n in 0..EACH {
                let aggregate = (writer + n) % AGGREGATES;
                let mut tx = database.begin().await.unwrap();
                serialise(&mut tx, i64::try_from(aggregate).unwrap()).await;
                let number = next[aggregate].fetch_add(1, Ordering::SeqCst);
                let message = message(&format!("order-{aggregate}"), number);
                Outbox.enqueue(&mut tx, &message).await.unwrap();
                if n % 5 == 0 {
                    tokio::time::sleep(ms(2)).await;
                }
                tx.commit().await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let begun = Instant::now();
    while bus.delivered().len() < WRITERS * EACH {
        assert!(begun.elapsed() < LONG, "{} of them came", bus.delivered().len());
        tokio::time::sleep(ms(5)).await;
    }
    stop.cancel();
    relaying.await.unwrap();

    let delivered = bus.delivered();
    assert_eq!(delivered.len(), WRITERS * EACH, "each once");
    for aggregate in 0..AGGREGATES {
        let id = format!("order-{aggregate}");
        let numbers: Vec<_> =
            delivered.iter().filter(|one| one.aggregate_id == id).map(number).collect();
        assert_eq!(numbers, (0..WRITERS * EACH / AGGREGATES).collect::<Vec<_>>(), "{id}");
    }
    assert_eq!(depth(test.database()).await, (0, 0));
    test.close().await;
}

/// The one that a cursor loses: it was written first, and commits when a later one is gone already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_seq_that_commits_late_is_delivered() {
    let test = migrated(TestDatabase::postgres().await).await;
    let bus = RecordingBus::new();
    let mut late = test.database().begin().await.unwrap();
    Outbox.enqueue(&mut late, &message("late", 1)).await.unwrap();
    for n in 2..5 {
        enqueue(test.database(), &message("early", n)).await;
    }
    // One relay for all of it, as in a program: whatever it remembers, it remembers.
    let lease = Lease::acquire(test.database(), "test", LONG).await.unwrap().unwrap();
    let relay = Relay::new(
        test.database().clone(),
        bus.clone() as Arc<dyn MessageBus>,
        RelayOptions::default(),
    );
    assert_eq!(relay.relay_batch(&lease).await.unwrap().published, 3);
    late.commit().await.unwrap();
    assert_eq!(relay.relay_batch(&lease).await.unwrap().published, 1);
    assert_eq!(bus.delivered().iter().map(number).collect::<Vec<_>>(), [2, 3, 4, 1]);
    assert_eq!(depth(test.database()).await, (0, 0));
    test.close().await;
}

async fn what_is_delivered_is_what_was_written(test: TestDatabase) {
    let test = migrated(test).await;
    let bus = RecordingBus::new();
    let mut metadata = Metadata::correlated().with_tenant("blue").with_causation_id("cmd-1");
    metadata.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let written = OutboxMessage::new("order", "ördör-1", "order.placed", &["ä", "'; --"])
        .unwrap()
        .with_header("kind", "\"quoted\"")
        .with_metadata(&metadata);
    enqueue(test.database(), &written).await;
    relay_all(test.database(), &bus).await;
    let delivered = bus.delivered();
    assert_eq!(delivered.len(), 1);
    // PostgreSQL's jsonb has its own spacing.
    let value = |message: &OutboxMessage| message.payload.get::<Vec<String>>().unwrap();
    assert_eq!(value(&delivered[0]), value(&written));
    let mut delivered = delivered[0].clone();
    delivered.payload = written.payload.clone();
    assert_eq!(delivered, written);
    test.close().await;
}

async fn names_and_sizes_are_limited(test: TestDatabase) {
    let test = migrated(test).await;
    let refused = async |message: OutboxMessage| {
        let mut tx = test.database().begin().await.unwrap();
        Outbox.enqueue(&mut tx, &message).await.unwrap_err().kind()
    };
    let long = "n".repeat(256);
    for name in ["", &long, "a\0b"] {
        for message in [
            OutboxMessage::new(name, "a", "t", &1).unwrap(),
            OutboxMessage::new("o", name, "t", &1).unwrap(),
            OutboxMessage::new("o", "a", name, &1).unwrap(),
        ] {
            assert_eq!(refused(message).await, ErrorKind::InvalidInput, "{name:?}");
        }
    }
    let sized = |bytes: usize| OutboxMessage::new("o", "a", "t", &"x".repeat(bytes - 2)).unwrap();
    assert_eq!(refused(sized((1 << 20) + 1)).await, ErrorKind::LimitExceeded);
    let headers = sized(10).with_header("big", "x".repeat(64 << 10));
    assert_eq!(refused(headers).await, ErrorKind::LimitExceeded);

    enqueue(test.database(), &sized(1 << 20)).await;
    let name = "n".repeat(255);
    enqueue(test.database(), &OutboxMessage::new(&name, &name, &name, &1).unwrap()).await;
    let bus = RecordingBus::new();
    relay_all(test.database(), &bus).await;
    assert_eq!(bus.delivered().len(), 2);
    test.close().await;
}

async fn an_id_is_in_the_outbox_once(test: TestDatabase) {
    let test = migrated(test).await;
    let first = message("a", 1);
    enqueue(test.database(), &first).await;
    let mut tx = test.database().begin().await.unwrap();
    let again = message("a", 2).with_id(first.id);
    let error = Outbox.enqueue(&mut tx, &again).await.unwrap_err();
    assert!(error.is_conflict(), "{error:?}");
    drop(tx);
    assert_eq!(depth(test.database()).await, (1, 0));
    test.close().await;
}
