//! Events to work on.

use potter_core::{Metadata, derived_id, new_id};
use potter_eventsourcing::{
    Appended, EventFilter, EventStore, ExpectedVersion, NewEvent, Result, StreamId,
};
use uuid::Uuid;

use crate::domain::{OrderEvent, OrderPlaced, UserCreated, UserEvent};

const NAMES: [&str; 8] = ["Alice", "Bob", "Carol", "Dave", "Eve", "Frank", "Grace", "Heidi"];
const SURNAMES: [&str; 5] = ["Smith", "Johnson", "Williams", "Brown", "Jones"];
const PAGE: u64 = 500;

/// The n-th user (from 0).
pub fn sample_user(n: usize) -> UserCreated {
    let (first, last) = (NAMES[n % NAMES.len()], SURNAMES[n % SURNAMES.len()]);
    let number = if n < NAMES.len() { String::new() } else { (n + 1).to_string() };
    let email = format!("{}{number}@example.com", first.to_lowercase());
    UserCreated { email, name: format!("{first} {last}") }
}

/// Appends that the user `id` came. Made again with the same `id`, it is harmless: the event's id
/// is derived from it.
///
/// # Errors
/// As [`EventStore::append`].
pub async fn append_user(store: &dyn EventStore, id: Uuid, user: UserCreated) -> Result<Appended> {
    let stream = StreamId::new("identity.user", id)?;
    let event = NewEvent::of(&UserEvent::Created(user))?
        .with_id(derived_id(&["user.created", &id.to_string()]))
        .with_metadata(Metadata::correlated());
    store.append(&stream, ExpectedVersion::NoStream, vec![event]).await
}

/// Appends a user who is new at every call.
///
/// # Errors
/// As [`EventStore::append`].
pub async fn new_user(store: &dyn EventStore, n: usize) -> Result<(Uuid, Appended)> {
    // Its first 8 characters are shown: a version 7 id has the time there.
    let id = derived_id(&["new user", &new_id().to_string()]);
    Ok((id, append_user(store, id, sample_user(n)).await?))
}

/// Makes sure that the log has `count` users, the same whoever asks; answers how many were added.
///
/// # Errors
/// As [`EventStore::append`].
pub async fn seed_users(store: &dyn EventStore, count: usize) -> Result<usize> {
    let mut added = 0;
    for n in 0..count {
        let id = derived_id(&["sample user", &n.to_string()]);
        let appended = append_user(store, id, sample_user(n)).await?;
        added += usize::from(!appended.duplicate);
    }
    Ok(added)
}

/// Makes sure that the log has the n-th order.
///
/// # Errors
/// As [`EventStore::append`].
pub async fn append_order(store: &dyn EventStore, n: usize, cents: i64) -> Result<Appended> {
    let user_id = derived_id(&["sample user", &n.to_string()]).to_string();
    let stream = StreamId::new("sales.order", derived_id(&["sample order", &n.to_string()]))?;
    let event = NewEvent::of(&OrderEvent::Placed(OrderPlaced { user_id, cents }))?
        .with_id(derived_id(&["order.placed", stream.id()]))
        .with_metadata(Metadata::correlated());
    store.append(&stream, ExpectedVersion::NoStream, vec![event]).await
}

/// How many users the log has: counted event by event.
///
/// # Errors
/// As [`EventStore::read_page`].
pub async fn users_in_log(store: &dyn EventStore) -> Result<u64> {
    let filter = EventFilter::all().event_types(["user.created"]);
    let (mut after, mut count) = (0, 0);
    loop {
        let page = store.read_page(after, &filter, PAGE).await?;
        count += page.events.len() as u64;
        if page.through >= page.head || page.through == after {
            return Ok(count);
        }
        after = page.through;
    }
}
