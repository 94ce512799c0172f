//! Projections in the append's transaction.

use std::sync::Arc;

use async_trait::async_trait;
use potter_core::Tx;
use potter_core::testing::TestDatabase;
use potter_eventsourcing::{
    ErrorKind, EventFilter, EventStore, ExpectedVersion, HandlerError, InlineEventStore,
    Projection, RecordedEvent,
};

use super::model::{Counts, counts, event, fold, store, stream};

struct Refuses;

#[async_trait]
impl Projection for Refuses {
    fn name(&self) -> &str {
        "refuses"
    }

    async fn handle(&self, _: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        match event.event_type.as_str() {
            "refused" => Err("not here".into()),
            _ => Ok(()),
        }
    }
}

async fn appended_and_applied_together(test: TestDatabase) {
    let plain = store(&test).await;
    let inline = InlineEventStore::new(Arc::clone(&plain)).unwrap();
    let inline = inline.projection(Counts::new("counts")).projection(Refuses);
    let events: Vec<_> = (0..3).map(|_| event("order.changed")).collect();
    inline.append(&stream(1), ExpectedVersion::NoStream, events.clone()).await.unwrap();
    assert_eq!(counts(test.database()).await.get("order-1"), Some(&(3, 3, 0)));
    let again = inline.append(&stream(1), ExpectedVersion::NoStream, events).await.unwrap();
    assert!(again.duplicate, "a repetition is not applied again");
    assert_eq!(counts(test.database()).await.get("order-1"), Some(&(3, 3, 0)));

    let refused = vec![event("order.changed"), event("refused")];
    let error = inline.append(&stream(2), ExpectedVersion::Any, refused).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(plain.stream_version(&stream(2)).await.unwrap(), 0, "neither is there");
    assert_eq!(counts(test.database()).await.get("order-2"), None);

    let mut tx = test.database().begin().await.unwrap();
    let one = vec![event("order.changed")];
    inline.append_in(&mut tx, &stream(3), ExpectedVersion::Any, one).await.unwrap();
    drop(tx);
    assert_eq!(counts(test.database()).await, fold(&*plain, &EventFilter::all()).await);
    test.close().await;
}

potter_core::on_every_engine!(appended_and_applied_together);
