//! The testing kit itself.

use std::sync::Arc;
use std::time::Duration;

use potter_core::{Database, Metadata};
use potter_eventsourcing::testing::{FaultyEventStore, Ids, ProjectionSpec};
use potter_eventsourcing::{
    ErrorKind, EventStore, ExpectedVersion, HandlerError, Projection, RecordedEvent, Repository,
    StreamId, event_store,
};

use crate::counter::{Counter, Do};

/// What a seed does is the same in every run, and code that does as it should gets through.
#[tokio::test]
async fn faults_are_the_same_for_the_same_seed() {
    let run = async |seed: u64| {
        let store = event_store(&Database::memory()).unwrap();
        let faulty = FaultyEventStore::new(Arc::clone(&store), seed)
            .conflicts(20)
            .unavailable(20)
            .lost_answers(20)
            .latency(Duration::from_millis(2));
        let (stream, mut ids) = (StreamId::new("order", 1).unwrap(), Ids::new(seed));
        let mut met = Vec::new();
        for _ in 0..40 {
            let event = ids.event("happened", &1).unwrap();
            loop {
                let done = faulty.append(&stream, ExpectedVersion::Any, vec![event.clone()]).await;
                met.push(done.as_ref().map(|done| done.duplicate).map_err(|error| error.kind()));
                if done.is_ok() {
                    break;
                }
            }
        }
        assert_eq!(store.stream_version(&stream).await.unwrap(), 40, "each once");
        met
    };
    let met = run(7).await;
    assert_eq!(run(7).await, met);
    assert_ne!(run(8).await, met);
    for fault in [ErrorKind::Conflict, ErrorKind::Unavailable, ErrorKind::Unknown] {
        assert!(met.contains(&Err(fault)), "{fault:?}");
    }
    assert!(met.contains(&Ok(true)), "what was lost was there");
}

/// A repository decides again after injected conflicts.
#[tokio::test]
async fn a_repository_meets_injected_conflicts() {
    let store = event_store(&Database::memory()).unwrap();
    let faulty = FaultyEventStore::new(store, 3).conflicts(40);
    let counters = Repository::<Counter>::new(Arc::new(faulty));
    for _ in 0..10 {
        counters.execute("a", &Do::Add(1), Metadata::new()).await.unwrap();
    }
    assert_eq!(counters.load("a").await.unwrap().state.value, 10);
}

struct Refuses;

#[async_trait::async_trait]
impl Projection for Refuses {
    fn name(&self) -> &str {
        "refuses"
    }

    async fn handle(
        &self,
        _: &mut potter_core::Tx,
        event: &RecordedEvent,
    ) -> Result<(), HandlerError> {
        if event.event_type == "bad" { Err("not this one".into()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_projection_that_fails_says_why() {
    let (stream, mut ids) = (StreamId::new("order", 1).unwrap(), Ids::new(1));
    let error = ProjectionSpec::new(&Database::memory(), Refuses)
        .await
        .given(&stream, [ids.event("good", &1).unwrap()])
        .await
        .when(&stream, [ids.event("bad", &1).unwrap()])
        .await
        .then_fails();
    assert!(error.to_string().contains("not this one"), "{error}");
}

#[tokio::test]
#[should_panic(expected = "failed on what is given")]
async fn what_is_given_must_be_handled() {
    let (stream, mut ids) = (StreamId::new("order", 1).unwrap(), Ids::new(1));
    let spec = ProjectionSpec::new(&Database::memory(), Refuses).await;
    let _ = spec.given(&stream, [ids.event("bad", &1).unwrap()]).await;
}
