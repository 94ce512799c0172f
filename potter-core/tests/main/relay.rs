//! The relay when things fail: the bus, the relay itself, its lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use potter_core::testing::{RecordingBus, TestDatabase};
use potter_core::{
    Backoff, Database, ErrorKind, Lease, MessageBus, Outbox, OutboxMessage, Relay, RelayOptions,
    Relayed,
};
use tokio_util::sync::CancellationToken;

use crate::{LONG, depth, enqueue, message, migrated, ms};

potter_core::on_every_engine!(
    a_failing_aggregate_blocks_only_itself,
    a_message_that_fails_too_often_is_dead_until_revived,
    a_fenced_relay_deletes_nothing,
    a_crash_between_publish_and_delete_redelivers_the_same_id,
    a_thousand_blocked_rows_do_not_starve_others,
    a_thousand_blocked_aggregates_do_not_starve_others,
    a_batch_may_take_longer_than_the_lease,
    a_message_that_the_bus_hangs_on_blocks_only_its_aggregate,
    a_stopped_relay_hands_over_at_once,
    an_error_with_any_text_is_stored,
    a_bus_that_answers_too_few_deletes_nothing,
);

fn relay(
    database: &Database,
    bus: &Arc<impl MessageBus + 'static>,
    options: RelayOptions,
) -> Relay {
    Relay::new(database.clone(), bus.clone() as Arc<dyn MessageBus>, options)
}

fn options(backoff: Backoff) -> RelayOptions {
    let mut options = RelayOptions::default();
    options.backoff = backoff;
    options.poll_interval = ms(10);
    options
}

async fn lease(database: &Database) -> Lease {
    Lease::acquire(database, "test", LONG).await.unwrap().unwrap()
}

fn aggregates(bus: &RecordingBus) -> Vec<String> {
    bus.delivered().into_iter().map(|message| message.aggregate_id).collect()
}

type Answer = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn a_failing_aggregate_blocks_only_itself(test: TestDatabase) {
    let test = migrated(test).await;
    let bus = RecordingBus::new();
    bus.refuse(|message| (message.aggregate_id == "bad").then(|| "no route".to_owned()));
    for (aggregate, n) in [("bad", 0), ("good", 1), ("bad", 2), ("good", 3)] {
        enqueue(test.database(), &message(aggregate, n)).await;
    }
    let lease = lease(test.database()).await;
    let relay = relay(test.database(), &bus, options(Backoff::fixed(ms(2000))));
    let first = relay.relay_batch(&lease).await.unwrap();
    assert_eq!(first, Relayed { published: 2, failed: 1 });
    assert_eq!(aggregates(&bus), ["good", "good"]);

    // The bus is well again, but its time has not come; a new one of that aggregate waits too.
    bus.accept();
    enqueue(test.database(), &message("bad", 4)).await;
    enqueue(test.database(), &message("good", 5)).await;
    let second = relay.relay_batch(&lease).await.unwrap();
    assert_eq!(second, Relayed { published: 1, failed: 0 });
    assert_eq!(depth(test.database()).await, (3, 0));

    test.pass(ms(2100)).await;
    assert_eq!(relay.relay_batch(&lease).await.unwrap().published, 3);
    let numbers: Vec<usize> =
        bus.delivered().iter().map(|one| one.payload.get().unwrap()).collect();
    assert_eq!(numbers, [1, 3, 5, 0, 2, 4]);
    test.close().await;
}

async fn a_message_that_fails_too_often_is_dead_until_revived(test: TestDatabase) {
    let test = migrated(test).await;
    let bus = RecordingBus::new();
    let poison = message("a", 1);
    let id = poison.id;
    bus.refuse(move |message| (message.id == id).then(|| "schema unknown".to_owned()));
    enqueue(test.database(), &poison).await;
    enqueue(test.database(), &message("a", 2)).await;
    let lease = lease(test.database()).await;
    let relay = relay(test.database(), &bus, options(Backoff::fixed(ms(10)).max_attempts(3)));
    for attempt in 1..=3 {
        let done = relay.relay_batch(&lease).await.unwrap();
        assert_eq!(done, Relayed { published: 0, failed: 1 }, "attempt {attempt}");
        test.pass(ms(30)).await;
    }
    assert_eq!(depth(test.database()).await, (1, 1));
    assert_eq!(relay.relay_batch(&lease).await.unwrap().published, 1, "the next one goes on");

    let mut tx = test.database().begin().await.unwrap();
    let dead = Outbox.dead(&mut tx, 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].0.id, dead[0].1.as_str()), (id, "schema unknown"));
    assert!(Outbox.dead(&mut tx, 0).await.unwrap().is_empty());
    assert!(Outbox.revive(&mut tx, id).await.unwrap());
    assert!(!Outbox.revive(&mut tx, id).await.unwrap(), "it is dead no more");
    tx.commit().await.unwrap();

    // It has all its attempts again.
    assert_eq!(relay.relay_batch(&lease).await.unwrap().failed, 1);
    assert_eq!(depth(test.database()).await, (1, 0));
    bus.accept();
    test.pass(ms(30)).await;
    assert_eq!(relay.relay_batch(&lease).await.unwrap().published, 1);
    assert_eq!(depth(test.database()).await, (0, 0));
    assert_eq!(bus.delivered().last().unwrap().id, id);
    test.close().await;
}

/// While it delivers, another relay takes the lease over.
struct Overtaken {
    test: TestDatabase,
    inner: Arc<RecordingBus>,
    next: std::sync::Mutex<Option<Lease>>,
}

#[async_trait]
impl MessageBus for Overtaken {
    async fn publish(&self, message: &OutboxMessage) -> Answer {
        self.inner.publish(message).await?;
        self.test.pass(ms(40)).await;
        let taken = Lease::acquire(self.test.database(), "test", LONG).await?;
        if taken.is_some() {
            *self.next.lock().unwrap() = taken;
        }
        Ok(())
    }
}

async fn a_fenced_relay_deletes_nothing(test: TestDatabase) {
    let test = migrated(test).await;
    let database = test.database().clone();
    let inner = RecordingBus::new();
    let bus = Arc::new(Overtaken { test, inner: inner.clone(), next: Default::default() });
    enqueue(&database, &message("a", 1)).await;
    let former = Lease::acquire(&database, "test", ms(20)).await.unwrap().unwrap();
    let error =
        relay(&database, &bus, options(Backoff::default())).relay_batch(&former).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(depth(&database).await, (1, 0));

    let holder = bus.next.lock().unwrap().take().unwrap();
    let done = relay(&database, &inner, RelayOptions::default()).relay_batch(&holder).await;
    assert_eq!(done.unwrap().published, 1);
    assert_eq!(depth(&database).await, (0, 0));
    let delivered = inner.delivered();
    assert_eq!(delivered.len(), 2);
    assert_eq!(delivered[0], delivered[1], "the same id and content");
    Arc::into_inner(bus).unwrap().test.close().await;
}

/// Delivers, and never comes back.
struct Hangs {
    inner: Arc<RecordingBus>,
    hangs: Box<dyn Fn(&OutboxMessage) -> bool + Send + Sync>,
}

#[async_trait]
impl MessageBus for Hangs {
    async fn publish(&self, message: &OutboxMessage) -> Answer {
        self.inner.publish(message).await?;
        if (self.hangs)(message) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

async fn a_crash_between_publish_and_delete_redelivers_the_same_id(test: TestDatabase) {
    let test = migrated(test).await;
    let database = test.database().clone();
    let inner = RecordingBus::new();
    let bus = Arc::new(Hangs { inner: inner.clone(), hangs: Box::new(|_| true) });
    let sent = message("a", 1);
    enqueue(&database, &sent).await;
    let lease = lease(&database).await;
    let crash = tokio::spawn({
        let relay = relay(&database, &bus, RelayOptions::default());
        let lease = lease.clone();
        async move { relay.relay_batch(&lease).await }
    });
    let begun = Instant::now();
    while inner.delivered().is_empty() {
        assert!(begun.elapsed() < LONG, "nothing was published");
        tokio::time::sleep(ms(2)).await;
    }
    crash.abort();
    assert!(crash.await.unwrap_err().is_cancelled());

    relay(&database, &inner, RelayOptions::default()).relay_batch(&lease).await.unwrap();
    let ids: Vec<_> = inner.delivered().iter().map(|one| one.id).collect();
    assert_eq!(ids, [sent.id, sent.id]);
    assert_eq!(depth(&database).await, (0, 0));
    test.close().await;
}

async fn a_thousand_blocked_rows_do_not_starve_others(test: TestDatabase) {
    let test = migrated(test).await;
    let tried = Arc::new(AtomicUsize::new(0));
    let bus = RecordingBus::new();
    let count = tried.clone();
    bus.refuse(move |message| {
        (message.aggregate_id == "bad").then(|| {
            count.fetch_add(1, Ordering::SeqCst);
            "no".to_owned()
        })
    });
    let mut tx = test.database().begin().await.unwrap();
    for n in 0..1000 {
        Outbox.enqueue(&mut tx, &message("bad", n)).await.unwrap();
    }
    for n in 0..5 {
        Outbox.enqueue(&mut tx, &message("good", n)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let lease = lease(test.database()).await;
    let relay = relay(test.database(), &bus, options(Backoff::fixed(LONG)));
    assert_eq!(relay.relay_batch(&lease).await.unwrap(), Relayed { published: 0, failed: 1 });
    assert_eq!(relay.relay_batch(&lease).await.unwrap(), Relayed { published: 5, failed: 0 });
    assert_eq!(tried.load(Ordering::SeqCst), 1, "those behind it were not tried");
    assert_eq!(depth(test.database()).await, (1000, 0));
    test.close().await;
}

async fn a_thousand_blocked_aggregates_do_not_starve_others(test: TestDatabase) {
    let test = migrated(test).await;
    let bus = RecordingBus::new();
    bus.refuse(|message| message.aggregate_id.starts_with("bad").then(|| "no".to_owned()));
    let mut tx = test.database().begin().await.unwrap();
    for n in 0..1000 {
        Outbox.enqueue(&mut tx, &message(&format!("bad-{n}"), n)).await.unwrap();
    }
    Outbox.enqueue(&mut tx, &message("good", 0)).await.unwrap();
    tx.commit().await.unwrap();
    let lease = lease(test.database()).await;
    let relay = relay(test.database(), &bus, options(Backoff::fixed(LONG)));
    let mut rounds = 0;
    while relay.relay_batch(&lease).await.unwrap().published == 0 {
        rounds += 1;
        assert!(rounds <= 10, "1000 failures are ten batches");
    }
    assert_eq!(aggregates(&bus), ["good"]);
    test.close().await;
}

/// Takes its time for every message.
struct Slow(Arc<RecordingBus>, Duration);

#[async_trait]
impl MessageBus for Slow {
    async fn publish(&self, message: &OutboxMessage) -> Answer {
        tokio::time::sleep(self.1).await;
        self.0.publish(message).await
    }
}

/// Without renewal during the batch, two relays take over from each other for ever.
async fn a_batch_may_take_longer_than_the_lease(test: TestDatabase) {
    let test = migrated(test).await;
    let inner = RecordingBus::new();
    let bus = Arc::new(Slow(inner.clone(), ms(60)));
    for n in 0..30 {
        enqueue(test.database(), &message("a", n)).await;
    }
    let stop = CancellationToken::new();
    let mut relays = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut options = options(Backoff::default());
        options.lease_ttl = ms(600);
        let relay = relay(test.database(), &bus, options);
        let stop = stop.clone();
        relays.spawn(async move { relay.run(stop).await });
    }
    // Time passes on the memory clock too: in real time, in small steps.
    let begun = Instant::now();
    while depth(test.database()).await != (0, 0) {
        assert!(begun.elapsed() < LONG, "nothing gets through");
        test.pass(ms(20)).await;
        tokio::time::sleep(ms(20)).await;
    }
    stop.cancel();
    relays.join_all().await;
    assert_eq!(inner.delivered().len(), 30, "each once");
    test.close().await;
}

async fn a_message_that_the_bus_hangs_on_blocks_only_its_aggregate(test: TestDatabase) {
    let test = migrated(test).await;
    let inner = RecordingBus::new();
    let hangs = Box::new(|message: &OutboxMessage| message.aggregate_id == "bad");
    let bus = Arc::new(Hangs { inner: inner.clone(), hangs });
    for (n, aggregate) in ["a", "bad", "b", "bad", "c"].into_iter().enumerate() {
        enqueue(test.database(), &message(aggregate, n)).await;
    }
    let lease = lease(test.database()).await;
    let mut options = options(Backoff::fixed(LONG));
    options.publish_timeout = ms(300);
    let relay = relay(test.database(), &bus, options);
    assert_eq!(relay.relay_batch(&lease).await.unwrap(), Relayed { published: 1, failed: 1 });
    assert_eq!(relay.relay_batch(&lease).await.unwrap(), Relayed { published: 2, failed: 0 });
    assert_eq!(depth(test.database()).await, (2, 0));
    test.close().await;
}

async fn a_stopped_relay_hands_over_at_once(test: TestDatabase) {
    let test = migrated(test).await;
    let bus = RecordingBus::new();
    let start = |stop: &CancellationToken| {
        let mut options = options(Backoff::default());
        options.lease_ttl = LONG;
        let relay = relay(test.database(), &bus, options);
        let stop = stop.clone();
        tokio::spawn(async move { relay.run(stop).await })
    };
    let (first_stop, second_stop) = (CancellationToken::new(), CancellationToken::new());
    let first = start(&first_stop);
    enqueue(test.database(), &message("a", 0)).await;
    let begun = Instant::now();
    while bus.delivered().is_empty() {
        assert!(begun.elapsed() < LONG, "nothing was published");
        tokio::time::sleep(ms(5)).await;
    }
    let second = start(&second_stop);
    first_stop.cancel();
    first.await.unwrap();
    enqueue(test.database(), &message("a", 1)).await;
    let begun = Instant::now();
    while bus.delivered().len() < 2 {
        assert!(begun.elapsed() < LONG / 2, "the lease was not released");
        tokio::time::sleep(ms(5)).await;
    }
    second_stop.cancel();
    second.await.unwrap();
    test.close().await;
}

async fn an_error_with_any_text_is_stored(test: TestDatabase) {
    let test = migrated(test).await;
    let bus = RecordingBus::new();
    bus.refuse(|_| Some(format!("nul \0 ' \" {}", "ü".repeat(5000))));
    enqueue(test.database(), &message("a", 0)).await;
    let lease = lease(test.database()).await;
    let relay = relay(test.database(), &bus, options(Backoff::never()));
    assert_eq!(relay.relay_batch(&lease).await.unwrap().failed, 1);
    let mut tx = test.database().begin().await.unwrap();
    let dead = Outbox.dead(&mut tx, 1).await.unwrap();
    drop(tx);
    assert!(dead[0].1.starts_with("nul  ' \" ü"), "{}", dead[0].1);
    assert_eq!(dead[0].1.chars().count(), 1000);
    test.close().await;
}

struct Forgetful;

#[async_trait]
impl MessageBus for Forgetful {
    async fn publish(&self, _: &OutboxMessage) -> Answer {
        Ok(())
    }

    async fn publish_batch(&self, messages: &[&OutboxMessage]) -> Vec<Answer> {
        messages.iter().skip(1).map(|_| Ok(())).collect()
    }
}

async fn a_bus_that_answers_too_few_deletes_nothing(test: TestDatabase) {
    let test = migrated(test).await;
    for n in 0..3 {
        enqueue(test.database(), &message("a", n)).await;
    }
    let lease = lease(test.database()).await;
    let relay = relay(test.database(), &Arc::new(Forgetful), RelayOptions::default());
    assert_eq!(relay.relay_batch(&lease).await.unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(depth(test.database()).await, (3, 0));
    test.close().await;
}
