//! A process must not claim a saga that it is running itself: starts go on while a claim is on its
//! way. And one that is alive keeps its sagas, also while its connections are all taken.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Database, Tx};
use potter_saga::{
    Advance, Advanced, ClaimRequest, Claimed, Inserted, LogRecord, NewSaga, Orchestrator, Result,
    SagaFilter, SagaRecord, SagaStatus, SagaStore,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::engines::{Fresh, on_every_engine};
use crate::script::{Act, Gate, Script, Three, ended, store};

/// Keeps a request on its way until it is let through.
struct SlowClaims {
    inner: Arc<dyn SagaStore>,
    asked: Semaphore,
    go: Semaphore,
}

#[async_trait]
impl SagaStore for SlowClaims {
    async fn migrate(&self) -> Result<()> {
        self.inner.migrate().await
    }
    fn database(&self) -> &Database {
        self.inner.database()
    }
    async fn insert(&self, tx: Option<&mut Tx>, saga: &NewSaga) -> Result<Inserted> {
        self.inner.insert(tx, saga).await
    }
    async fn due(&self, request: &ClaimRequest) -> Result<u32> {
        self.asked.add_permits(1);
        self.go.acquire().await.unwrap().forget();
        self.inner.due(request).await
    }
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>> {
        self.inner.claim(request).await
    }
    async fn advance(&self, tx: Option<Tx>, advance: &Advance) -> Result<Advanced> {
        self.inner.advance(tx, advance).await
    }
    async fn heartbeat(&self, node: Uuid, ttl: Duration) -> Result<()> {
        self.inner.heartbeat(node, ttl).await
    }
    async fn retire(&self, node: Uuid, clean: bool) -> Result<()> {
        self.inner.retire(node, clean).await
    }
    async fn park_unknown(&self, known: &[(&'static str, u32)], grace: Duration) -> Result<u64> {
        self.inner.park_unknown(known, grace).await
    }
    async fn request_cancel(&self, id: Uuid) -> Result<()> {
        self.inner.request_cancel(id).await
    }
    async fn resume(&self, id: Uuid) -> Result<()> {
        self.inner.resume(id).await
    }
    async fn get(&self, id: Uuid) -> Result<Option<SagaRecord>> {
        self.inner.get(id).await
    }
    async fn log(&self, id: Uuid) -> Result<Vec<LogRecord>> {
        self.inner.log(id).await
    }
    async fn list(&self, filter: &SagaFilter) -> Result<(Vec<SagaRecord>, u64)> {
        self.inner.list(filter).await
    }
    async fn purge(&self, before: DateTime<Utc>, limit: u32) -> Result<u64> {
        self.inner.purge(before, limit).await
    }
}

async fn a_saga_begun_while_a_claim_is_on_its_way_is_not_claimed(fresh: Fresh) {
    let slow = Arc::new(SlowClaims {
        inner: store(&fresh).await,
        asked: Semaphore::new(0),
        go: Semaphore::new(0),
    });
    let gate = Gate::new();
    let script = Script::default().on("run a", [Act::Gate(gate.clone())]);
    let orchestrator = Orchestrator::builder(Arc::clone(&slow) as Arc<_>)
        .poll_interval(Duration::from_millis(10))
        .register(&Three::new(&script))
        .unwrap()
        .build();
    let running = orchestrator.spawn().await.unwrap();
    // The request is made, and held back; then a saga begins.
    slow.asked.acquire().await.unwrap().forget();
    let started = orchestrator.start::<Three>(&1).await.unwrap();
    gate.entered().await;
    slow.go.add_permits(1000);
    slow.asked.acquire_many(3).await.unwrap().forget();
    assert_eq!(orchestrator.get(started.id).await.unwrap().fence, 1, "nobody claimed it");
    gate.leave.add_permits(1);
    let limit = Duration::from_secs(20);
    ended(&orchestrator.wait(started.id, limit).await.unwrap(), SagaStatus::Completed);
    running.shutdown().await.unwrap();
    assert_eq!(script.journal(), ["run a", "run b", "run c"]);
}

on_every_engine! {
    a_saga_begun_while_a_claim_is_on_its_way_is_not_claimed;
}

/// Steps that all wait at one row take every connection; the lease is renewed all the same.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_a_free_connection_keeps_its_sagas() {
    const LEASE: Duration = Duration::from_secs(2);
    let (few, other) = crate::engines::postgres_twice(2).await;
    let (gate, script) = (Gate::new(), Script::default());
    let script = script.on("run a", [Act::Gate(gate.clone())]);
    let node = |store| {
        let builder = Orchestrator::builder(store).lease_ttl(LEASE);
        builder.register(&Three::new(&script)).unwrap().build()
    };
    let (busy, other) = (node(store(&few).await), node(store(&other).await));
    let running = busy.spawn().await.unwrap();
    let started = busy.start::<Three>(&1).await.unwrap();
    gate.entered().await;

    let mut held = Vec::new();
    while let Ok(tx) = few.database.begin().await {
        held.push(tx);
    }
    assert_eq!(held.len(), 2, "all of them, and the step holds none");
    let watching = other.spawn().await.unwrap();
    tokio::time::sleep(3 * LEASE).await;
    assert_eq!(other.get(started.id).await.unwrap().fence, 1, "nobody took it over");

    drop(held);
    gate.leave.add_permits(1);
    let limit = Duration::from_secs(20);
    ended(&other.wait(started.id, limit).await.unwrap(), SagaStatus::Completed);
    assert_eq!(script.journal(), ["run a", "run b", "run c"]);
    running.shutdown().await.unwrap();
    watching.shutdown().await.unwrap();
}
