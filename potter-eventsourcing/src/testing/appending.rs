//! Expected versions, order, exactness, limits.

use std::sync::Arc;

use futures::future::join_all;
use potter_core::Metadata;

use super::{append, assert_kind, event, json, number, read, read_all, read_versions, stream};
use crate::error::ErrorKind;
use crate::event::NewEvent;
use crate::store::{EventStore, ExpectedVersion, ReadAllOptions, ReadOptions};
use crate::stream_id::StreamId;

type Store = Arc<dyn EventStore>;

pub(super) async fn every_expected_version(store: Store) {
    use ExpectedVersion::{Any, Exact, NoStream, StreamExists};

    for expected in [Any, NoStream, Exact(0)] {
        let stream = stream();
        let appended = append(&store, &stream, expected, 2).await.unwrap();
        assert_eq!((appended.first_version, appended.last_version), (1, 2), "{expected:?}");
        assert!(!appended.duplicate);
    }
    for expected in [StreamExists, Exact(1)] {
        let stream = stream();
        let error = assert_kind(append(&store, &stream, expected, 1).await, ErrorKind::Conflict);
        assert!(error.is_conflict() && error.to_string().contains(stream.as_str()), "{error}");
        assert_eq!(store.stream_version(&stream).await.unwrap(), 0);
    }
    let stream = stream();
    append(&store, &stream, NoStream, 2).await.unwrap();
    for expected in [NoStream, Exact(0), Exact(1), Exact(3), Exact(u64::MAX)] {
        let error = assert_kind(append(&store, &stream, expected, 1).await, ErrorKind::Conflict);
        assert!(error.to_string().contains("version 2"), "{error}");
    }
    for (expected, version) in [(Any, 3), (StreamExists, 4), (Exact(4), 5)] {
        let appended = append(&store, &stream, expected, 1).await.unwrap();
        assert_eq!((appended.first_version, appended.last_version), (version, version));
    }
    assert_eq!(store.stream_version(&stream).await.unwrap(), 5);
    assert_eq!(read_versions(&store, &stream, ReadOptions::forwards()).await, [1, 2, 3, 4, 5]);
}

pub(super) async fn twenty_parallel_any_appends_store_twenty_batches(store: Store) {
    let stream = stream();
    let appends = (0..20).map(|_| {
        let (store, stream) = (Arc::clone(&store), stream.clone());
        tokio::spawn(async move { append(&store, &stream, ExpectedVersion::Any, 3).await })
    });
    let mut firsts = Vec::new();
    for done in join_all(appends).await {
        let appended = done.unwrap().unwrap();
        assert_eq!(appended.last_version, appended.first_version + 2);
        firsts.push(appended.first_version);
    }
    firsts.sort_unstable();
    assert_eq!(firsts, (0..20).map(|n| 3 * n + 1).collect::<Vec<_>>());
    let stored = read(&store, &stream, ReadOptions::forwards()).await;
    assert_eq!(stored.iter().map(number).collect::<Vec<_>>(), [1, 2, 3].repeat(20));
    let versions: Vec<_> = stored.iter().map(|event| event.version).collect();
    assert_eq!(versions, (1..=60).collect::<Vec<_>>());
}

pub(super) async fn of_parallel_exact_appends_one_wins(store: Store) {
    let stream = stream();
    append(&store, &stream, ExpectedVersion::NoStream, 1).await.unwrap();
    for expected in [ExpectedVersion::Exact(1), ExpectedVersion::NoStream] {
        let fresh =
            if expected == ExpectedVersion::NoStream { super::stream() } else { stream.clone() };
        let appends = (0..20).map(|_| {
            let (store, stream) = (Arc::clone(&store), fresh.clone());
            tokio::spawn(async move { append(&store, &stream, expected, 1).await })
        });
        let (mut won, mut lost) = (0, 0);
        for done in join_all(appends).await {
            match done.unwrap() {
                Ok(_) => won += 1,
                Err(error) => {
                    assert!(error.is_conflict(), "{error}");
                    lost += 1;
                }
            }
        }
        assert_eq!((won, lost), (1, 19), "{expected:?}");
    }
    assert_eq!(store.stream_version(&stream).await.unwrap(), 2);
}

pub(super) async fn batch_order_equals_version_order(store: Store) {
    let stream = stream();
    let before = store.safe_position().await.unwrap();
    // Ids in falling order: neither ids nor anything else but the place in the batch counts.
    let mut ids: Vec<_> = (0..1000).map(|_| potter_core::new_id()).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let batch = ids.iter().zip(1..).map(|(id, n)| event(n).with_id(*id)).collect();
    let appended = store.append(&stream, ExpectedVersion::NoStream, batch).await.unwrap();
    assert_eq!((appended.first_version, appended.last_version), (1, 1000));
    let all = read_all(&store, before, ReadAllOptions::new()).await;
    assert_eq!(all.len(), 1000);
    for (recorded, n) in all.iter().zip(1..) {
        assert_eq!((recorded.version, number(recorded)), (n, n));
        assert_eq!(recorded.event_id, ids[usize::try_from(n).unwrap() - 1]);
    }
    assert_eq!(all.last().unwrap().global_position, appended.last_position);
}

pub(super) async fn payload_is_bit_exact(store: Store) {
    let texts = [
        r#"{"z":1e400,"a":12345678901234567890123456789,"z":1.10,"a":-0.0}"#,
        r#"{ "spaced" : [ 1 , 2 ] }"#,
        r#""\u0000 \ud800 \u00e9 é \" \\ \/ {},\n""#,
        "1E+2",
        "null",
        "\"\"",
        "\"'; DROP TABLE potter_events; --\"",
        "{\"a\":\n\t[]}",
    ];
    let stream = stream();
    let batch: Vec<_> = texts.iter().map(|text| NewEvent::from_json("exact", json(text))).collect();
    store.append(&stream, ExpectedVersion::Any, batch.clone()).await.unwrap();
    // Alone, too: stores may treat one event differently from many.
    for text in texts {
        let one = NewEvent::from_json("exact", json(text));
        store.append(&stream, ExpectedVersion::Any, vec![one]).await.unwrap();
    }
    let stored = read(&store, &stream, ReadOptions::forwards()).await;
    for (recorded, text) in stored.iter().zip(texts.iter().chain(&texts)) {
        assert_eq!(recorded.payload.as_str(), *text);
    }
    let again = store.append(&stream, ExpectedVersion::Any, batch).await.unwrap();
    assert!(again.duplicate);
}

pub(super) async fn what_was_appended_is_read_back(store: Store) {
    let stream = StreamId::new("konto", format!("ü\"\\',{{}}-{}", potter_core::new_id())).unwrap();
    let metadata = Metadata::correlated()
        .with_causation_id("cause")
        .with_tenant("tenant")
        .with("key \u{0} \"", "value \\ ✓");
    let mut new = event(7).with_metadata(metadata).with_schema_version(3);
    new.event_type = "konto.eröffnet \"\\'".to_owned();
    let appended =
        store.append(&stream, ExpectedVersion::NoStream, vec![new.clone()]).await.unwrap();
    let [recorded] = &read(&store, &stream, ReadOptions::forwards()).await[..] else {
        panic!("one event");
    };
    assert_eq!(recorded.event_id, new.event_id);
    assert_eq!((&recorded.stream_id, recorded.stream_type()), (&stream, "konto"));
    assert_eq!(recorded.event_type, new.event_type);
    assert_eq!(recorded.schema_version, 3);
    assert_eq!((&recorded.payload, &recorded.metadata), (&new.payload, &new.metadata));
    assert_eq!((recorded.version, recorded.global_position), (1, appended.last_position));
    // A store without a database handle: this machine's clock is near enough.
    let now = match store.database() {
        Some(database) => database.now().await.unwrap(),
        None => chrono::Utc::now(),
    };
    let age = now - recorded.recorded_at;
    assert!(age.num_seconds().abs() < 60, "recorded at {}", recorded.recorded_at);
}

pub(super) async fn malformed_appends_are_refused(store: Store) {
    let stream = stream();
    let one = event(1);
    let mut untyped = event(2);
    untyped.event_type = String::new();
    let mut long = event(3);
    long.event_type = "x".repeat(256);
    let mut nul = event(4);
    nul.event_type = "a\0b".to_owned();
    let batches = [
        vec![],
        vec![one.clone(), one],
        vec![untyped],
        vec![long],
        vec![nul],
        vec![event(5).with_schema_version(0)],
    ];
    for batch in batches {
        let result = store.append(&stream, ExpectedVersion::Any, batch).await;
        assert_kind(result, ErrorKind::InvalidInput);
    }
    assert_eq!(store.stream_version(&stream).await.unwrap(), 0);
}

pub(super) async fn limits_are_kept(store: Store) {
    let stream = stream();
    let large = |bytes: usize| NewEvent::new("large", &"x".repeat(bytes - 2)).unwrap();
    let fits = store.append(&stream, ExpectedVersion::Any, vec![large(1 << 20)]).await;
    assert_eq!(fits.unwrap().last_version, 1);
    let too_large = store.append(&stream, ExpectedVersion::Any, vec![large((1 << 20) + 1)]).await;
    assert_kind(too_large, ErrorKind::LimitExceeded);
    let together = (0..33).map(|_| large(1 << 20)).collect();
    let too_large = store.append(&stream, ExpectedVersion::Any, together).await;
    assert_kind(too_large, ErrorKind::LimitExceeded);
    let too_many = append(&store, &stream, ExpectedVersion::Any, 10_001).await;
    assert_kind(too_many, ErrorKind::LimitExceeded);
    let as_many = append(&store, &stream, ExpectedVersion::Exact(1), 10_000).await.unwrap();
    assert_eq!((as_many.first_version, as_many.last_version), (2, 10_001));
}

pub(super) async fn a_dropped_caller_harms_nobody(store: Store) {
    let stream = stream();
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let (store, stream) = (Arc::clone(&store), stream.clone());
            tokio::spawn(async move {
                let append = append(&store, &stream, ExpectedVersion::Any, 1);
                if n % 2 == 0 {
                    // Dropped when it has begun.
                    let _ = tokio::time::timeout(std::time::Duration::ZERO, append).await;
                    None
                } else {
                    Some(append.await.unwrap().last_version)
                }
            })
        })
        .collect();
    let mut answered = Vec::new();
    for task in tasks {
        answered.extend(task.await.unwrap());
    }
    assert_eq!(answered.len(), 20);
    answered.sort_unstable();
    answered.dedup();
    assert_eq!(answered.len(), 20, "each has a version of its own");
    append(&store, &stream, ExpectedVersion::StreamExists, 1).await.unwrap();
    let versions = read_versions(&store, &stream, ReadOptions::forwards()).await;
    assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());
}
