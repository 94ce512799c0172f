//! Snapshots in MongoDB.

use std::sync::Arc;

use potter_core::{Json, Metadata, new_id};
use potter_eventsourcing::{Frequency, NewSnapshot, Repository, Snapshots, StreamId};

use crate::counter::{Counter, Do};
use crate::support::MongoDatabase;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_keeps_the_newest() {
    let test = MongoDatabase::new().await;
    let snapshots = test.store().await.snapshot_store();
    let (stream, other) = (StreamId::new("a", 1).unwrap(), StreamId::new("a", 2).unwrap());
    let new = |stream: &StreamId, version, schema| {
        let state = Json::parse(format!("{{ \"v\":{version}.0 }}")).unwrap();
        NewSnapshot::new(stream.clone(), version, new_id(), schema, state)
    };
    assert_eq!(snapshots.latest(&stream, 1, u64::MAX).await.unwrap(), None);
    for version in [2, 4, 6, 8] {
        snapshots.save(new(&stream, version, 1), 3).await.unwrap();
        snapshots.save(new(&other, version, 1), 3).await.unwrap();
    }
    snapshots.save(new(&stream, 5, 2), 3).await.unwrap();
    let versions = async |stream: Option<&StreamId>, offset, limit| {
        let list = snapshots.list(stream, offset, limit).await.unwrap();
        list.iter().map(|one| (one.stream_id.clone(), one.version)).collect::<Vec<_>>()
    };
    let of = |stream: &StreamId, versions: &[u64]| {
        versions.iter().map(|version| (stream.clone(), *version)).collect::<Vec<_>>()
    };
    assert_eq!(versions(Some(&stream), 0, 10).await, of(&stream, &[8, 6, 5, 4]));
    assert_eq!(versions(None, 3, 2).await, [of(&stream, &[4]), of(&other, &[8])].concat());
    let latest = snapshots.latest(&stream, 1, 7).await.unwrap().unwrap();
    assert_eq!((latest.version, latest.state.as_str()), (6, "{ \"v\":6.0 }"));
    assert_eq!(snapshots.latest(&stream, 1, 3).await.unwrap(), None);

    // In the place of one at the same version.
    let again = new(&stream, 6, 1);
    snapshots.save(again.clone(), 3).await.unwrap();
    let latest = snapshots.latest(&stream, 1, 7).await.unwrap().unwrap();
    assert_eq!(latest.event_id, again.event_id);
    assert_eq!(versions(Some(&stream), 0, 10).await, of(&stream, &[8, 6, 5, 4]));

    assert!(snapshots.delete(latest.id).await.unwrap());
    assert!(!snapshots.delete(latest.id).await.unwrap());
    assert_eq!(snapshots.delete_before(&stream, 8).await.unwrap(), 2);
    assert_eq!(versions(Some(&stream), 0, 10).await, of(&stream, &[8]));
    assert_eq!(versions(Some(&other), 0, 10).await, of(&other, &[8, 6, 4]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_uses_them() {
    let test = MongoDatabase::new().await;
    let store = test.store().await;
    let kept = store.snapshot_store();
    let snapshots = Snapshots::new(Arc::clone(&kept), Frequency(3));
    let counters = Repository::<Counter>::new(Arc::new(store)).with_snapshots(snapshots.clone());
    for _ in 0..7 {
        counters.execute("a", &Do::Add(1), Metadata::new()).await.unwrap();
        snapshots.flush().await;
    }
    let stream = counters.stream_id("a").unwrap();
    let latest = kept.latest(&stream, 2, u64::MAX).await.unwrap().unwrap();
    assert_eq!(latest.version, 6);
    // It really is used: a wrong one is believed, as its event is the right one.
    let state = Json::parse(r#"{"value":100,"resets":0}"#.to_owned()).unwrap();
    kept.save(NewSnapshot::new(stream, 6, latest.event_id, 2, state), 3).await.unwrap();
    assert_eq!(counters.load("a").await.unwrap().state.value, 101);
}
