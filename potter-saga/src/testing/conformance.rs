//! What every store of sagas must do.

use std::sync::Arc;
use std::time::Duration;

use potter_core::{Json, Metadata, new_id};
use uuid::Uuid;

use crate::error::ErrorKind;
use crate::progress::{EntryKind, LogEntry};
use crate::status::SagaStatus;
use crate::store::{Advance, ClaimRequest, Inserted, NewSaga, SagaFilter, SagaStore};

const TTL: Duration = Duration::from_secs(60);

/// Runs the suite on an empty store.
///
/// # Panics
/// When the store breaks a promise of [`SagaStore`]; the message says which.
#[expect(clippy::unwrap_used, reason = "a test suite")]
pub async fn conformance(store: Arc<dyn SagaStore>) {
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    keys(&*store).await;
    concurrent_starts(Arc::clone(&store)).await;
    claims_and_fences(&*store).await;
    lost_sagas(&*store).await;
    transactions(&*store).await;
    deadlines(&*store).await;
    by_hand(&*store).await;
    versions(&*store).await;
    lists(&*store).await;
    exact_payloads(&*store).await;
}

fn saga(name: &'static str, key: &str) -> NewSaga {
    NewSaga {
        id: new_id(),
        name,
        version: 1,
        definition_hash: "hash".to_owned(),
        key: key.to_owned(),
        input_hash: "input".to_owned(),
        input: Json::null(),
        metadata: Metadata::new().with_correlation_id(key),
        steps_total: 3,
        timeout: None,
        owner: None,
    }
}

fn request(node: Uuid, name: &'static str) -> ClaimRequest {
    ClaimRequest {
        node,
        registered: vec![(name, 1)],
        lost: Vec::new(),
        running: Vec::new(),
        limit: 10,
    }
}

fn entry(kind: EntryKind, step: usize) -> LogEntry {
    LogEntry {
        kind,
        step,
        step_name: Some(format!("step-{step}")),
        attempt: 1,
        uncertain: false,
        output: (kind == EntryKind::Completed).then(Json::null),
        error: None,
        duration_us: 1500,
    }
}

fn advance(id: Uuid, fence: i64, seq: i64, status: SagaStatus) -> Advance {
    Advance {
        saga_id: id,
        fence,
        seq,
        entries: vec![entry(EntryKind::Completed, 0)],
        status,
        step: 1,
        attempt: 0,
        past_pivot: false,
        compensating: false,
        parked: None,
        error: None,
        release_after: None,
    }
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn keys(store: &dyn SagaStore) {
    let first = saga("keys", "one");
    assert_eq!(store.insert(None, &first).await.unwrap(), Inserted::Created);
    let again = saga("keys", "one");
    assert_eq!(
        store.insert(None, &again).await.unwrap(),
        Inserted::Existing(first.id),
        "the same start"
    );
    let other = NewSaga { input_hash: "other".to_owned(), ..saga("keys", "one") };
    let refused = store.insert(None, &other).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyReused, "the same key, another input");
    let elsewhere = saga("keys-of-another-saga", "one");
    assert_eq!(
        store.insert(None, &elsewhere).await.unwrap(),
        Inserted::Created,
        "keys are by saga name"
    );
    assert!(store.get(new_id()).await.unwrap().is_none());
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn concurrent_starts(store: Arc<dyn SagaStore>) {
    let starts = (0..64).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.insert(None, &saga("starts", "same")).await.unwrap() })
    });
    let answers: Vec<_> =
        futures::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
    let created = answers.iter().filter(|answer| **answer == Inserted::Created).count();
    assert_eq!(created, 1, "64 starts with one key make one saga");
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn claims_and_fences(store: &dyn SagaStore) {
    let (a, b) = (new_id(), new_id());
    store.heartbeat(a, TTL).await.unwrap();
    store.heartbeat(b, TTL).await.unwrap();
    let new = saga("fences", "one");
    store.insert(None, &new).await.unwrap();
    assert!(
        store.claim(&request(a, "unregistered")).await.unwrap().is_empty(),
        "only what is registered"
    );

    assert_eq!(store.due(&request(a, "fences")).await.unwrap(), 1);
    let claimed = store.claim(&request(a, "fences")).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(store.due(&request(a, "fences")).await.unwrap(), 0, "it is being run");
    assert_eq!(store.due(&request(b, "fences")).await.unwrap(), 0);
    assert!(!claimed[0].taken_over);
    let fence = claimed[0].record.fence;
    assert!(store.claim(&request(b, "fences")).await.unwrap().is_empty(), "its owner lives");

    store.retire(a, false).await.unwrap();
    let taken = store.claim(&request(b, "fences")).await.unwrap();
    assert_eq!(taken.len(), 1, "its owner is gone");
    assert!(taken[0].taken_over);
    assert!(taken[0].record.fence > fence, "the token grows");

    let late =
        store.advance(None, &advance(new.id, fence, 0, SagaStatus::Running)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Fenced);
    assert!(store.log(new.id).await.unwrap().is_empty(), "a fenced write leaves nothing");

    let fence = taken[0].record.fence;
    store.advance(None, &advance(new.id, fence, 0, SagaStatus::Running)).await.unwrap();
    let done = Advance { step: 3, ..advance(new.id, fence, 1, SagaStatus::Completed) };
    store.advance(None, &done).await.unwrap();
    let record = store.get(new.id).await.unwrap().unwrap();
    assert_eq!((record.status, record.owner), (SagaStatus::Completed, None));
    assert!(record.finished_at.is_some());
    assert_eq!(store.log(new.id).await.unwrap().len(), 2);
    let after_end = store.advance(None, &done).await.unwrap_err();
    assert_eq!(after_end.kind(), ErrorKind::Fenced, "nothing is written to a finished saga");
    store.retire(b, true).await.unwrap();
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn lost_sagas(store: &dyn SagaStore) {
    let node = new_id();
    store.heartbeat(node, TTL).await.unwrap();
    let own = NewSaga { owner: Some(node), ..saga("lost", "own") };
    store.insert(None, &own).await.unwrap();
    // The request may have been made just before the saga was begun: it is not in its lists.
    let taken = store.claim(&request(node, "lost")).await.unwrap();
    assert!(taken.is_empty(), "a process does not take what it is running");
    let lost = ClaimRequest { lost: vec![own.id], ..request(node, "lost") };
    let claimed = store.claim(&lost).await.unwrap();
    assert_eq!(claimed.len(), 1, "but it takes what it has lost");
    assert!(claimed[0].taken_over, "which may have been under way");
    store.retire(node, true).await.unwrap();

    let next = new_id();
    store.heartbeat(next, TTL).await.unwrap();
    let claimed = store.claim(&request(next, "lost")).await.unwrap();
    assert!(!claimed[0].taken_over, "what was given back was not under way");
    let fence = claimed[0].record.fence;
    let wait = Advance {
        entries: vec![entry(EntryKind::Retry, 0)],
        release_after: Some(Duration::from_secs(3600)),
        ..advance(own.id, fence, 0, SagaStatus::Running)
    };
    store.advance(None, &wait).await.unwrap();
    assert!(
        store.claim(&request(next, "lost")).await.unwrap().is_empty(),
        "it waits for its next attempt"
    );
    store.resume(own.id).await.unwrap();
    let claimed = store.claim(&request(next, "lost")).await.unwrap();
    assert_eq!(claimed.len(), 1, "resumed, it goes on now");
    assert_eq!(claimed[0].log.len(), 1, "with its log");
    store.retire(next, true).await.unwrap();
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn transactions(store: &dyn SagaStore) {
    let mut tx = store.database().begin().await.unwrap();
    let rolled_back = saga("tx", "rolled back");
    store.insert(Some(&mut tx), &rolled_back).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(store.get(rolled_back.id).await.unwrap().is_none());

    let mut tx = store.database().begin().await.unwrap();
    let committed = saga("tx", "committed");
    store.insert(Some(&mut tx), &committed).await.unwrap();
    tx.commit().await.unwrap();
    assert!(store.get(committed.id).await.unwrap().is_some());

    // A fenced advance takes the step's transaction down with it.
    let node = new_id();
    store.heartbeat(node, TTL).await.unwrap();
    let fence = store.claim(&request(node, "tx")).await.unwrap()[0].record.fence;
    let mut tx = store.database().begin().await.unwrap();
    let effect = saga("tx", "a step's effect");
    store.insert(Some(&mut tx), &effect).await.unwrap();
    let stale = advance(committed.id, fence - 1, 0, SagaStatus::Running);
    assert_eq!(store.advance(Some(tx), &stale).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert!(store.get(effect.id).await.unwrap().is_none(), "nothing of it is left");

    let mut tx = store.database().begin().await.unwrap();
    store.insert(Some(&mut tx), &effect).await.unwrap();
    store.advance(Some(tx), &advance(committed.id, fence, 0, SagaStatus::Running)).await.unwrap();
    assert!(store.get(effect.id).await.unwrap().is_some(), "effect and progress commit together");
    assert_eq!(store.log(committed.id).await.unwrap().len(), 1);
    store.retire(node, true).await.unwrap();
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn deadlines(store: &dyn SagaStore) {
    let node = new_id();
    store.heartbeat(node, TTL).await.unwrap();
    let timed = NewSaga { timeout: Some(Duration::ZERO), ..saga("deadlines", "over") };
    let patient =
        NewSaga { timeout: Some(Duration::from_secs(3600)), ..saga("deadlines", "later") };
    store.insert(None, &timed).await.unwrap();
    store.insert(None, &patient).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    for claimed in store.claim(&request(node, "deadlines")).await.unwrap() {
        assert_eq!(claimed.overdue, claimed.record.id == timed.id);
        let advanced = advance(claimed.record.id, claimed.record.fence, 0, SagaStatus::Running);
        let told = store.advance(None, &advanced).await.unwrap();
        assert_eq!(told.overdue, claimed.record.id == timed.id);
    }
    store.retire(node, true).await.unwrap();
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn by_hand(store: &dyn SagaStore) {
    let node = new_id();
    store.heartbeat(node, TTL).await.unwrap();
    let new = saga("by-hand", "one");
    store.insert(None, &new).await.unwrap();
    let fence = store.claim(&request(node, "by-hand")).await.unwrap()[0].record.fence;

    store.request_cancel(new.id).await.unwrap();
    let told = store.advance(None, &advance(new.id, fence, 0, SagaStatus::Running)).await.unwrap();
    assert!(told.cancel_requested, "the owner learns of it with its next write");

    let park = Advance {
        entries: vec![LogEntry { step_name: None, ..entry(EntryKind::Parked, 1) }],
        parked: Some("for a reason".to_owned()),
        compensating: true,
        ..advance(new.id, fence, 1, SagaStatus::Failed)
    };
    store.advance(None, &park).await.unwrap();
    let parked = store.get(new.id).await.unwrap().unwrap();
    assert_eq!(
        (parked.status, parked.parked.as_deref()),
        (SagaStatus::Failed, Some("for a reason"))
    );
    assert!(
        store.claim(&request(node, "by-hand")).await.unwrap().is_empty(),
        "it waits for a hand"
    );

    store.resume(new.id).await.unwrap();
    let record = store.get(new.id).await.unwrap().unwrap();
    assert_eq!(
        (record.status, record.parked),
        (SagaStatus::Compensating, None),
        "it goes on the way it went"
    );
    let claimed = store.claim(&request(node, "by-hand")).await.unwrap();
    assert_eq!(claimed[0].log.last().map(|entry| entry.kind), Some(EntryKind::Resumed));
    let end = Advance {
        compensating: true,
        ..advance(new.id, claimed[0].record.fence, 3, SagaStatus::Cancelled)
    };
    store.advance(None, &end).await.unwrap();
    assert_eq!(store.resume(new.id).await.unwrap_err().kind(), ErrorKind::InvalidState);
    store.request_cancel(new.id).await.unwrap();
    assert_eq!(store.request_cancel(new_id()).await.unwrap_err().kind(), ErrorKind::NotFound);

    let late = saga("by-hand", "late");
    store.insert(None, &late).await.unwrap();
    let fence = store.claim(&request(node, "by-hand")).await.unwrap()[0].record.fence;
    let past = Advance { past_pivot: true, ..advance(late.id, fence, 0, SagaStatus::Running) };
    store.advance(None, &past).await.unwrap();
    assert_eq!(store.request_cancel(late.id).await.unwrap_err().kind(), ErrorKind::InvalidState);
    store.retire(node, true).await.unwrap();
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn versions(store: &dyn SagaStore) {
    let newer = NewSaga { version: 2, ..saga("versions", "newer") };
    store.insert(None, &newer).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let parked = store.park_unknown(&[("versions", 1)], Duration::from_secs(3600)).await.unwrap();
    assert_eq!(parked, 0, "within the grace it is left for others");
    let parked = store.park_unknown(&[("others", 1)], Duration::ZERO).await.unwrap();
    assert_eq!(parked, 0, "of another name it is none of our business");
    assert_eq!(store.park_unknown(&[("versions", 1)], Duration::ZERO).await.unwrap(), 1);
    let record = store.get(newer.id).await.unwrap().unwrap();
    assert_eq!(record.status, SagaStatus::Failed);
    assert!(record.parked.unwrap().contains("version 2"));
    store.park_unknown(&[("versions", 2)], Duration::ZERO).await.unwrap();
    let record = store.get(newer.id).await.unwrap().unwrap();
    assert_eq!(record.status, SagaStatus::Running, "it goes on where its version is known");
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn lists(store: &dyn SagaStore) {
    for number in 0..5 {
        store.insert(None, &saga("lists", &format!("list-{number}"))).await.unwrap();
    }
    let of_name = SagaFilter { name: Some("lists".to_owned()), ..SagaFilter::default() };
    let (all, total) = store.list(&of_name).await.unwrap();
    assert_eq!((all.len(), total), (5, 5));
    assert!(all.windows(2).all(|pair| pair[0].created_at >= pair[1].created_at), "newest first");
    let (page, total) =
        store.list(&SagaFilter { limit: 2, offset: 4, ..of_name.clone() }).await.unwrap();
    assert_eq!((page.len(), total), (1, 5));
    let one = SagaFilter { correlation_id: Some("list-3".to_owned()), ..of_name.clone() };
    assert_eq!(store.list(&one).await.unwrap().1, 1);
    let none = SagaFilter { status: Some(SagaStatus::Cancelled), ..of_name };
    assert_eq!(store.list(&none).await.unwrap().1, 0);
    let newer = NewSaga { version: 2, ..saga("lists", "newer") };
    store.insert(None, &newer).await.unwrap();
    let of_name = SagaFilter::new().name("lists");
    for (version, found) in [(1, 5), (2, 1), (3, 0)] {
        let of_version = of_name.clone().version(version).page(2, 0);
        let (page, total) = store.list(&of_version).await.unwrap();
        assert_eq!((page.len() as u64, total), (found.min(2), found), "version {version}");
        assert!(page.iter().all(|record| record.version == version));
    }
    let unfinished = SagaFilter::new().unfinished().page(500, 0);
    let (open, total) = store.list(&unfinished).await.unwrap();
    assert_eq!(open.len() as u64, total);
    assert!(open.iter().all(|record| !record.status.is_final()), "{open:?}");
    let (all, everything) = store.list(&SagaFilter::new().page(500, 0)).await.unwrap();
    let finished = all.iter().filter(|record| record.status.is_final()).count() as u64;
    assert!(finished > 0 && total == everything - finished, "{finished}, {total}, {everything}");

    let completed = SagaFilter { status: Some(SagaStatus::Completed), ..SagaFilter::default() };
    let (finished, _) = store.list(&completed).await.unwrap();
    let later = chrono::Utc::now() + chrono::Duration::hours(1);
    assert!(store.purge(later, 1000).await.unwrap() > 0);
    assert!(store.get(finished[0].id).await.unwrap().is_none());
    assert!(store.log(finished[0].id).await.unwrap().is_empty());
}

#[expect(clippy::unwrap_used, reason = "a test suite")]
async fn exact_payloads(store: &dyn SagaStore) {
    let text = r#"{"z":1,"a":12345678901234567890123,"f":1e400,"z":"twice"}"#;
    let node = new_id();
    store.heartbeat(node, TTL).await.unwrap();
    let new = NewSaga { input: Json::parse(text.to_owned()).unwrap(), ..saga("exact", "one") };
    store.insert(None, &new).await.unwrap();
    let claimed = store.claim(&request(node, "exact")).await.unwrap();
    assert_eq!(claimed[0].record.input.as_str(), text);
    let mut step = advance(new.id, claimed[0].record.fence, 0, SagaStatus::Running);
    step.entries[0].output = Some(new.input.clone());
    store.advance(None, &step).await.unwrap();
    let log = store.log(new.id).await.unwrap();
    assert_eq!(log[0].entry.output.as_ref().map(Json::as_str), Some(text));
    assert_eq!(log[0].entry.duration_us, 1500);
    store.retire(node, true).await.unwrap();
}
