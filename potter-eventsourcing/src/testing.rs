//! The conformance suite for event stores (feature `testing`).
//!
//! ```
//! use potter_core::Database;
//! use potter_eventsourcing::{event_store, testing};
//!
//! # #[tokio::main]
//! # async fn main() {
//! testing::conformance(async || event_store(&Database::memory()).unwrap()).await;
//! # }
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod appending;
mod boundary;
mod faults;
mod projection_spec;
mod reading;
mod repeating;
mod spec;
mod transactions;

pub use faults::{FaultyEventStore, Ids};
pub use projection_spec::ProjectionSpec;
pub use spec::{Decided, Given, given};

use std::sync::Arc;

use futures::TryStreamExt;
use potter_core::Json;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::store::{EventStore, ExpectedVersion, ReadAllOptions, ReadOptions};
use crate::stream_id::StreamId;

/// Runs every check of the suite against the stores that `store` makes: migrated, on the default
/// options. The checks do not mind events of others, so it may give the same store each time; but
/// nobody else may append while they run.
///
/// # Panics
/// When the store does not keep a promise of [`EventStore`].
pub async fn conformance<F>(store: F)
where
    F: AsyncFn() -> Arc<dyn EventStore>,
{
    macro_rules! check {
        ($($module:ident :: $check:ident),* $(,)?) => {$(
            tracing::info!(check = stringify!($check), "conformance");
            let fresh = store().await;
            fresh.migrate().await.expect("migrate again");
            $module::$check(fresh).await;
        )*};
    }
    check! {
        appending::every_expected_version,
        appending::twenty_parallel_any_appends_store_twenty_batches,
        appending::of_parallel_exact_appends_one_wins,
        appending::batch_order_equals_version_order,
        appending::payload_is_bit_exact,
        appending::what_was_appended_is_read_back,
        appending::malformed_appends_are_refused,
        appending::limits_are_kept,
        appending::a_dropped_caller_harms_nobody,
        repeating::same_events_twice_are_answered_as_the_first_time,
        repeating::same_events_at_once_are_stored_once,
        repeating::same_id_with_other_content_is_refused,
        repeating::same_id_in_another_stream_is_refused,
        repeating::a_part_of_an_append_is_not_a_repetition,
        reading::a_stream_forwards_and_backwards,
        reading::a_stream_that_does_not_exist_is_empty,
        reading::streams_longer_than_a_page,
        reading::all_in_order_and_on_from_anywhere,
        reading::all_ends_and_goes_on,
        reading::pages_of_any_size_miss_nothing,
        reading::pages_of_segments_make_up_the_log,
        reading::pages_are_filtered,
        reading::changes_are_hinted_at,
        transactions::rolled_back_leaves_nothing,
        transactions::committed_is_there,
        transactions::own_appends_are_seen,
        transactions::a_conflict_leaves_the_transaction_usable,
        transactions::a_repetition_in_a_transaction,
        transactions::a_stream_is_reused_after_a_rollback,
    }
}

/// The part of the suite for stores that append to several streams at once, and on conditions over
/// tags. As [`conformance`], beside it.
///
/// # Panics
/// When the store does not keep a promise of [`EventStore::append_if`].
pub async fn boundaries<F>(store: F)
where
    F: AsyncFn() -> Arc<dyn EventStore>,
{
    macro_rules! check {
        ($($check:ident),* $(,)?) => {$(
            tracing::info!(check = stringify!($check), "boundaries");
            boundary::$check(store().await).await;
        )*};
    }
    check! {
        several_streams_all_or_nothing,
        several_streams_in_a_transaction,
        tags_are_stored_and_found,
        overlapping_tags_conflict,
        two_disjoint_conditions_no_false_conflict,
        no_course_is_overbooked,
        a_repetition_on_a_condition,
    }
}

/// A stream that nobody has used.
fn stream() -> StreamId {
    StreamId::new("conformance", potter_core::new_id()).unwrap()
}

fn event(n: u64) -> NewEvent {
    NewEvent::new("conformance.happened", &n).unwrap()
}

fn events(count: u64) -> Vec<NewEvent> {
    (1..=count).map(event).collect()
}

fn number(event: &RecordedEvent) -> u64 {
    event.payload.get().unwrap()
}

fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

async fn append(
    store: &dyn EventStore,
    stream: &StreamId,
    expected: ExpectedVersion,
    count: u64,
) -> Result<Appended> {
    store.append(stream, expected, events(count)).await
}

async fn read(
    store: &dyn EventStore,
    stream: &StreamId,
    options: ReadOptions,
) -> Vec<RecordedEvent> {
    store.read_stream(stream, options).try_collect().await.unwrap()
}

async fn read_versions(
    store: &dyn EventStore,
    stream: &StreamId,
    options: ReadOptions,
) -> Vec<u64> {
    read(store, stream, options).await.iter().map(|event| event.version).collect()
}

async fn read_all(
    store: &dyn EventStore,
    after: u64,
    options: ReadAllOptions,
) -> Vec<RecordedEvent> {
    store.read_all(after, options).try_collect().await.unwrap()
}

#[track_caller]
fn assert_kind<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error
}
