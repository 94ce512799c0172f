//! Several streams in one append, tags, and conditions over them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::Barrier;

use super::{assert_kind, event, read, read_all, stream};
use crate::error::{ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::query::{EventQuery, QueryItem};
use crate::store::{
    AppendCondition, EventFilter, EventStore, ExpectedVersion, Matching, ReadAllOptions,
    ReadOptions, StreamAppend,
};
use crate::stream_id::StreamId;

type Store = Arc<dyn EventStore>;

const ANY: ExpectedVersion = ExpectedVersion::Any;

/// A tag that nobody has used.
fn tag(name: &str) -> String {
    format!("{name}:{}", potter_core::new_id())
}

fn joined<T: Into<String>>(tags: impl IntoIterator<Item = T>) -> NewEvent {
    NewEvent::new("student.joined", &1).unwrap().with_tags(tags)
}

fn part(stream: &StreamId, expected: ExpectedVersion, events: Vec<NewEvent>) -> StreamAppend {
    StreamAppend::new(stream.clone(), expected, events)
}

/// One event in a stream of its own, on a condition.
async fn append_if(
    store: &Store,
    event: NewEvent,
    condition: AppendCondition,
) -> Result<Vec<Appended>> {
    store.append_if(vec![part(&stream(), ANY, vec![event])], condition).await
}

async fn matching(store: &Store, query: &EventQuery) -> Matching {
    store.read_matching(query, 0).await.unwrap()
}

fn ids(events: &[RecordedEvent]) -> Vec<uuid::Uuid> {
    events.iter().map(|event| event.event_id).collect()
}

pub(super) async fn several_streams_all_or_nothing(store: Store) {
    let mut streams = [stream(), stream(), stream()];
    // Not in the order of their names: the answers and positions are in the order of the call.
    streams.sort_by(|a, b| b.cmp(a));
    let [one, two, three] = &streams;
    let start = store.safe_position().await.unwrap();
    let parts = vec![
        part(one, ExpectedVersion::NoStream, vec![event(1), event(2)]),
        part(two, ANY, vec![event(3)]),
        part(three, ExpectedVersion::Exact(0), vec![event(4), event(5)]),
    ];
    let answers = store.append_streams(parts.clone()).await.unwrap();
    let versions: Vec<_> =
        answers.iter().map(|one| (one.first_version, one.last_version, one.duplicate)).collect();
    assert_eq!(versions, [(1, 2, false), (1, 1, false), (1, 2, false)]);
    let all = read_all(&store, start, ReadAllOptions::new()).await;
    assert_eq!(all.iter().map(super::number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let of = |stream: &StreamId| {
        all.iter()
            .filter(|event| event.stream_id == *stream)
            .map(|event| event.global_position)
            .max()
    };
    let positions: Vec<_> = answers.iter().map(|one| Some(one.last_position)).collect();
    assert_eq!(positions, [of(one), of(two), of(three)]);

    // The same again is answered as the first time.
    let again = store.append_streams(parts.clone()).await.unwrap();
    let answered: Vec<_> = again.iter().map(|one| (one.last_version, one.last_position)).collect();
    assert!(again.iter().all(|one| one.duplicate));
    assert_eq!(
        answered,
        answers.iter().map(|one| (one.last_version, one.last_position)).collect::<Vec<_>>()
    );

    // One that does not fit: nothing is written, not even the head of a new stream.
    let fresh = stream();
    let refused = store
        .append_streams(vec![
            part(&fresh, ANY, vec![event(6)]),
            part(one, ANY, vec![event(7)]),
            part(two, ExpectedVersion::Exact(9), vec![event(8)]),
        ])
        .await;
    let error = assert_kind(refused, ErrorKind::Conflict);
    assert!(error.to_string().contains(two.as_str()), "{error}");
    assert_eq!(store.stream_version(&fresh).await.unwrap(), 0);
    assert_eq!(store.stream_version(one).await.unwrap(), 2);

    // A part of it was there before, the rest is new.
    let mixed = vec![parts[0].clone(), part(&fresh, ANY, vec![event(9)])];
    assert_kind(store.append_streams(mixed).await, ErrorKind::DuplicateEventId);
    let other = vec![part(&fresh, ANY, parts[0].events.clone())];
    assert_kind(store.append_streams(other).await, ErrorKind::DuplicateEventId);
    assert_eq!(store.stream_version(&fresh).await.unwrap(), 0);

    let twice = vec![part(one, ANY, vec![event(10)]), part(one, ANY, vec![event(11)])];
    assert_kind(store.append_streams(twice).await, ErrorKind::InvalidInput);
    assert_kind(store.append_streams(vec![]).await, ErrorKind::InvalidInput);
    let one_id = event(12);
    let same_id = vec![part(one, ANY, vec![one_id.clone()]), part(two, ANY, vec![one_id])];
    assert_kind(store.append_streams(same_id).await, ErrorKind::InvalidInput);
    let empty = vec![part(one, ANY, vec![])];
    assert_kind(store.append_streams(empty).await, ErrorKind::InvalidInput);
}

pub(super) async fn several_streams_in_a_transaction(store: Store) {
    let (one, two, tag) = (stream(), stream(), tag("course"));
    let parts = || vec![part(&one, ANY, vec![joined([&tag])]), part(&two, ANY, vec![event(1)])];
    let condition = || AppendCondition::no_event(EventQuery::tags([&tag]));
    let mut tx = store.database().unwrap().begin().await.unwrap();
    store.append_if_in(&mut tx, parts(), condition()).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(store.stream_version(&one).await.unwrap(), 0);

    let mut tx = store.database().unwrap().begin().await.unwrap();
    store.append_if_in(&mut tx, parts(), condition()).await.unwrap();
    // What the transaction appended counts, and a conflict leaves it usable.
    let broken = store.append_if_in(&mut tx, parts(), condition()).await;
    assert_kind(broken, ErrorKind::Conflict);
    store.append_if_in(&mut tx, parts(), AppendCondition::none()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.stream_version(&one).await.unwrap(), 2);
    assert_eq!(store.stream_version(&two).await.unwrap(), 2);
    assert_eq!(matching(&store, &EventQuery::tags([&tag])).await.events.len(), 2);
}

pub(super) async fn tags_are_stored_and_found(store: Store) {
    let (course, student, odd) = (tag("course"), tag("student"), tag("ü \"\\',{} ✓"));
    let stream = stream();
    let both = joined([&course, &student]);
    let alone = NewEvent::new("course.planned", &1).unwrap().with_tags([&course]);
    let strange = joined([&odd]);
    let untagged = event(1);
    let batch = vec![both.clone(), alone.clone(), untagged.clone(), strange.clone()];
    store.append(&stream, ANY, batch).await.unwrap();
    // One alone may go another way through the store.
    let single = joined([&student]);
    store.append(&stream, ANY, vec![single.clone()]).await.unwrap();
    let stored = read(&store, &stream, ReadOptions::forwards()).await;
    let expected: Vec<BTreeSet<String>> =
        [&both, &alone, &untagged, &strange, &single].iter().map(|new| new.tags.clone()).collect();
    assert_eq!(stored.iter().map(|event| event.tags.clone()).collect::<Vec<_>>(), expected);

    let found = |items: Vec<QueryItem>| {
        let query = items.into_iter().fold(EventQuery::new(), EventQuery::item);
        let store = &store;
        async move {
            let found = matching(store, &query).await;
            assert!(found.events.iter().all(|event| query.matches(event)));
            let filter = EventFilter::all().query(query);
            let mut paged = Vec::new();
            let mut after = 0;
            loop {
                let page = store.read_page(after, &filter, 1).await.unwrap();
                paged.extend(page.events);
                if page.through >= page.head {
                    break;
                }
                after = page.through;
            }
            assert_eq!(ids(&found.events), ids(&paged));
            ids(&found.events)
        }
    };
    let item = |tags: &[&String]| QueryItem::tags(tags.iter().map(|tag| tag.as_str()));
    assert_eq!(found(vec![item(&[&course])]).await, [both.event_id, alone.event_id]);
    assert_eq!(found(vec![item(&[&course, &student])]).await, [both.event_id]);
    assert_eq!(found(vec![item(&[&odd])]).await, [strange.event_id]);
    let planned = item(&[&course]).event_types(["course.planned", "course.moved"]);
    assert_eq!(found(vec![planned.clone()]).await, [alone.event_id]);
    let either = vec![planned, item(&[&student]), item(&[&student, &course])];
    assert_eq!(found(either).await, [both.event_id, alone.event_id, single.event_id]);
    assert!(found(vec![]).await.is_empty());
    // An item without tags is found by looking through the log.
    let start = stored[0].global_position - 1;
    let by_type = EventQuery::from(QueryItem::types(["course.planned"])).item(item(&[&odd]));
    let after = store.read_matching(&by_type, start).await.unwrap();
    assert_eq!(ids(&after.events), [alone.event_id, strange.event_id]);

    let many: Vec<_> = (0..33).map(|n| n.to_string()).collect();
    let refused = store.append(&stream, ANY, vec![joined(many)]).await;
    assert_kind(refused, ErrorKind::LimitExceeded);
    for bad in ["", "a\0b", &"x".repeat(256)] {
        let refused = store.append(&stream, ANY, vec![joined([bad])]).await;
        assert_kind(refused, ErrorKind::InvalidInput);
    }
}

pub(super) async fn overlapping_tags_conflict(store: Store) {
    let (course, student, other) = (tag("course"), tag("student"), tag("student"));
    let query = EventQuery::new()
        .item(QueryItem::tags([&course]).event_types(["student.joined"]))
        .item(QueryItem::tags([&student]));
    let before = matching(&store, &query).await;
    assert!(before.events.is_empty());
    // An append without a condition counts as well as one with.
    store.append(&stream(), ANY, vec![joined([&course, &other])]).await.unwrap();
    let refused = append_if(&store, joined([&course, &student]), before.condition()).await;
    let error = assert_kind(refused, ErrorKind::Conflict);
    assert!(error.is_conflict() && error.is_retryable());

    // What was read is what the condition knows.
    let now = matching(&store, &query).await;
    assert_eq!(now.events.len(), 1);
    append_if(&store, joined([&course, &student]), now.condition()).await.unwrap();
    let refused = append_if(&store, joined([&course, &student]), now.condition()).await;
    assert_kind(refused, ErrorKind::Conflict);

    // From the kept position on.
    let since = store.read_matching(&query, now.position).await.unwrap();
    assert_eq!(since.events.len(), 1);
    append_if(&store, joined([&course]), since.condition()).await.unwrap();

    // By type only: whatever stream and tags it has.
    let types = EventQuery::from(QueryItem::types([tag("type")]));
    let planned = NewEvent::new(types.items()[0].types.first().unwrap(), &1).unwrap();
    let before = store.read_matching(&types, since.position).await.unwrap();
    store.append(&stream(), ANY, vec![planned.clone()]).await.unwrap();
    let next = NewEvent::new(&planned.event_type, &2).unwrap();
    let refused = append_if(&store, next.clone(), before.condition()).await;
    assert_kind(refused, ErrorKind::Conflict);
    let now = store.read_matching(&types, since.position).await.unwrap();
    append_if(&store, next, now.condition()).await.unwrap();
}

pub(super) async fn two_disjoint_conditions_no_false_conflict(store: Store) {
    // Each of many at once, with a condition of its own over two tags: nobody is refused, whatever
    // others append.
    let shared = tag("faculty");
    let ready = Arc::new(Barrier::new(16));
    let tasks = (0..16).map(|_| {
        let (store, ready, shared) = (Arc::clone(&store), Arc::clone(&ready), shared.clone());
        tokio::spawn(async move {
            let course = tag("course");
            let query = EventQuery::from(
                QueryItem::tags([&course, &shared]).event_types(["student.joined"]),
            );
            for n in 0..5 {
                let found = matching(&store, &query).await;
                assert_eq!(found.events.len(), n);
                ready.wait().await;
                let event = joined([&course, &shared]);
                append_if(&store, event, found.condition()).await.unwrap();
                // Another type, and another tag: no business of the condition's.
                let moved = NewEvent::new("course.moved", &1).unwrap();
                let moved = moved.with_tags([&course, &shared]);
                let found = matching(&store, &query).await;
                store.append(&stream(), ANY, vec![moved, joined([&shared])]).await.unwrap();
                append_if(&store, event_of(&course), found.condition()).await.unwrap();
            }
        })
    });
    for done in join_all(tasks).await {
        done.unwrap();
    }
}

/// An event with this tag only.
fn event_of(course: &str) -> NewEvent {
    joined([course])
}

/// A course takes ten students, and a student two courses; many try at once. A copy that appends
/// without the condition, after the same look, breaks the first rule: the test would notice.
pub(super) async fn no_course_is_overbooked(store: Store) {
    const SEATS: usize = 10;
    let courses = [tag("course"), tag("course")];
    let students: Vec<_> = (0..24).map(|_| tag("student")).collect();
    let tasks = students.iter().enumerate().map(|(n, student)| {
        let (store, student) = (Arc::clone(&store), student.clone());
        let course = courses[n % 2].clone();
        tokio::spawn(async move {
            let query = EventQuery::tags([&course]).item(QueryItem::tags([&student]));
            loop {
                let found = matching(&store, &query).await;
                let taken = found.events.iter().filter(|event| event.tags.contains(&course));
                if taken.count() >= SEATS {
                    return false;
                }
                match append_if(&store, joined([&course, &student]), found.condition()).await {
                    Ok(_) => return true,
                    Err(error) => assert!(error.is_conflict(), "{error}"),
                }
            }
        })
    });
    let in_time = join_all(tasks).await.into_iter().filter(|done| *done.as_ref().unwrap()).count();
    assert_eq!(in_time, 2 * SEATS);
    for course in &courses {
        assert_eq!(matching(&store, &EventQuery::tags([course])).await.events.len(), SEATS);
    }

    let (course, seen) = (tag("course"), Arc::new(Barrier::new(SEATS + 2)));
    let tasks = (0..SEATS + 2).map(|_| {
        let (store, course, seen) = (Arc::clone(&store), course.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let found = matching(&store, &EventQuery::tags([&course])).await;
            seen.wait().await;
            assert!(found.events.len() < SEATS);
            append_if(&store, joined([&course]), AppendCondition::none()).await.unwrap();
        })
    });
    for done in join_all(tasks).await {
        done.unwrap();
    }
    let booked = matching(&store, &EventQuery::tags([&course])).await.events.len();
    assert!(booked > SEATS, "without the condition it is overbooked: {booked}");
}

pub(super) async fn a_repetition_on_a_condition(store: Store) {
    let course = tag("course");
    let query = EventQuery::tags([&course]);
    let found = matching(&store, &query).await;
    let parts = vec![
        part(&stream(), ExpectedVersion::NoStream, vec![joined([&course])]),
        part(&stream(), ANY, vec![event(1), joined([&course])]),
    ];
    let first = store.append_if(parts.clone(), found.condition()).await.unwrap();
    assert!(first.iter().all(|one| !one.duplicate));
    // Its own events would break the condition.
    let again = store.append_if(parts.clone(), found.condition()).await.unwrap();
    assert!(again.iter().all(|one| one.duplicate));
    assert_eq!(
        again.iter().map(|one| one.last_position).collect::<Vec<_>>(),
        first.iter().map(|one| one.last_position).collect::<Vec<_>>()
    );
    // At once: written once, and each gets the same answer.
    let parts = vec![part(&stream(), ANY, vec![joined([&course])])];
    let found = matching(&store, &query).await;
    let tries = (0..8).map(|_| {
        let (store, parts) = (Arc::clone(&store), parts.clone());
        let condition = found.condition();
        tokio::spawn(async move { store.append_if(parts, condition).await.unwrap() })
    });
    let mut written = 0;
    for done in join_all(tries).await {
        written += usize::from(!done.unwrap()[0].duplicate);
    }
    assert_eq!(written, 1);
    assert_eq!(matching(&store, &query).await.events.len(), 3);
}
