//! Many tenants in one store, on every engine.

use std::sync::Arc;

use futures::TryStreamExt;
use potter_core::testing::TestDatabase;
use potter_core::{Metadata, new_id};
use potter_eventsourcing::{
    AppendCondition, ErasableEventStore, ErrorKind, EventFilter, EventQuery, EventStore,
    ExpectedVersion, MemoryKeys, NewEvent, Personal, QueryItem, ReadAllOptions, ReadOptions,
    RecordedEvent, SegmentSet, StreamAppend, StreamId, TenantEventStore, Vault, event_store,
};

/// The part of one tenant, through a vault.
struct Tenant {
    own: TenantEventStore,
    store: Arc<ErasableEventStore>,
}

impl Tenant {
    fn stream(&self, id: impl std::fmt::Display) -> StreamId {
        self.own.stream("order", id).unwrap()
    }

    fn tenant(&self) -> &str {
        self.own.tenant()
    }
}

impl std::ops::Deref for Tenant {
    type Target = ErasableEventStore;

    fn deref(&self) -> &ErasableEventStore {
        &self.store
    }
}

const ANY: ExpectedVersion = ExpectedVersion::Any;

async fn all(store: &dyn EventStore, options: ReadAllOptions) -> Vec<RecordedEvent> {
    store.read_all(0, options).try_collect().await.unwrap()
}

fn event(payload: &str) -> NewEvent {
    NewEvent::new("order.placed", payload).unwrap().with_tags(["order:1"])
}

async fn position_or_mask_operations_scoped_by_tenant(test: TestDatabase) {
    let plain = event_store(test.database()).unwrap();
    plain.migrate().await.unwrap();
    let vault = Vault::new(Arc::new(MemoryKeys::new()));
    let of = |tenant: &str| {
        let own = TenantEventStore::new(Arc::clone(&plain), tenant).unwrap();
        let store = vault.of_tenant(tenant).events(Arc::new(own.clone()));
        Tenant { own, store }
    };
    // One name is the beginning of the other.
    let (acme, acme2) = (of("acme"), of("acme2"));
    for _ in 0..3 {
        for store in [&acme, &acme2] {
            // The same stream, tag and subject for both.
            let stream = store.stream(1);
            let whose = Personal::new("user:1", format!("of {}", store.tenant()));
            let event = NewEvent::new("order.placed", &whose).unwrap().with_tags(["order:1"]);
            store.append(&stream, ANY, vec![event]).await.unwrap();
        }
        plain
            .append(&StreamId::new("order", 1).unwrap(), ANY, vec![event("of nobody")])
            .await
            .unwrap();
    }

    // Positions: everything that reads by them.
    for store in [&acme, &acme2] {
        let own = |events: &[RecordedEvent]| {
            events.iter().all(|event| {
                event.stream_id == store.stream(1)
                    && event.metadata.tenant.as_deref() == Some(store.tenant())
                    && event.tags.contains("order:1")
                    && event.payload.get::<Personal<String>>().unwrap().known().unwrap()
                        == &format!("of {}", store.tenant())
            })
        };
        let read = all(&*store.store, ReadAllOptions::new()).await;
        assert!(read.len() == 3 && own(&read));
        assert_eq!(all(&*store.store, ReadAllOptions::new().limit(2)).await.len(), 2);
        let after = store.read_all(read[0].global_position, ReadAllOptions::new());
        assert_eq!(after.try_collect::<Vec<_>>().await.unwrap()[..], read[1..]);
        let mut paged = Vec::new();
        for segment in 0..4 {
            let filter = EventFilter::all().segments(SegmentSet::new(4, [segment]).unwrap());
            paged.extend(store.read_page(0, &filter, 10).await.unwrap().events);
        }
        assert_eq!(paged, read);
        let query = EventQuery::tags(["order:1"]);
        assert_eq!(store.read_matching(&query, 0).await.unwrap().events, read);
        let filter = EventFilter::all().query(query);
        assert_eq!(store.read_page(0, &filter, 10).await.unwrap().events, read);
        assert_eq!(store.count(0, u64::MAX >> 1, &EventFilter::all()).await.unwrap(), 3);
    }

    // What is another's is not there, or refused.
    let theirs = acme2.stream(1);
    let their_event = all(&*acme2.store, ReadAllOptions::new()).await[0].clone();
    assert_eq!(acme.event(their_event.event_id).await.unwrap(), None);
    let refused = [
        acme.stream_version(&theirs).await.map(|_| ()),
        acme.append(&theirs, ANY, vec![event("x")]).await.map(|_| ()),
        acme.append_streams(vec![StreamAppend::new(theirs.clone(), ANY, vec![event("x")])])
            .await
            .map(|_| ()),
        acme.read_stream(&theirs, ReadOptions::forwards()).try_next().await.map(|_| ()),
        acme.read_page(0, &EventFilter::all().tenant("acme2"), 1).await.map(|_| ()),
        acme.append(
            &acme.stream(1),
            ANY,
            vec![event("x").with_metadata(Metadata::new().with_tenant("acme2"))],
        )
        .await
        .map(|_| ()),
        acme.stream_version(&StreamId::new("order", 1).unwrap()).await.map(|_| ()),
    ];
    for result in refused {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let by_type = EventQuery::from(QueryItem::types(["order.placed"]));
    let refused = acme.read_matching(&by_type, 0).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);

    // Conditions: what another appends under the same tag is no conflict.
    let query = EventQuery::tags(["order:1"]);
    let found = acme.read_matching(&query, 0).await.unwrap();
    acme2.append(&acme2.stream(2), ANY, vec![event("x")]).await.unwrap();
    let more =
        |store: &Tenant| vec![StreamAppend::new(store.stream(new_id()), ANY, vec![event("x")])];
    acme.append_if(more(&acme), found.condition()).await.unwrap();
    let refused = acme.append_if(more(&acme), found.condition()).await.unwrap_err();
    assert!(refused.is_conflict());
    let mut tx = test.database().begin().await.unwrap();
    let condition = AppendCondition::no_event(EventQuery::tags(["order:9"]));
    acme.append_if_in(&mut tx, more(&acme), condition).await.unwrap();
    let own = acme.stream(1);
    let page = acme.read_stream_in(&mut tx, &own, ReadOptions::forwards()).await.unwrap();
    assert_eq!(page.len(), 3);
    tx.commit().await.unwrap();

    // Masking: one tenant's subject is forgotten, the other's of the same name is not.
    assert!(vault.of_tenant("acme").forget("user:1").await.unwrap());
    let names = async |store: &Tenant| {
        let stream = store.stream(1);
        let events: Vec<_> =
            store.read_stream(&stream, ReadOptions::forwards()).try_collect().await.unwrap();
        let erased = events
            .iter()
            .filter(|event| event.payload.get::<Personal<String>>().unwrap().is_erased());
        (events.len(), erased.count())
    };
    assert_eq!(names(&acme).await, (3, 3));
    assert_eq!(names(&acme2).await, (3, 0));
    for bad in ["", "a:b", "a|b", "a-b", &"x".repeat(65)] {
        assert!(TenantEventStore::new(Arc::clone(&plain), bad).is_err(), "{bad}");
    }
    test.close().await;
}

potter_core::on_every_engine!(position_or_mask_operations_scoped_by_tenant);
