//! One store for many tenants, each of whom sees only what is its own.
//!
//! # Invariant
//! Whatever goes through a [`TenantEventStore`] reads and writes only events of its tenant: streams
//! whose id begins with the tenant's name, events whose metadata name it, tags that begin with it.
//! Positions are those of the whole log, so they have gaps, and say how much others append.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use potter_core::{Database, Tx, Waiter};
use uuid::Uuid;

use super::condition::{AppendCondition, Matching, StreamAppend};
use super::pages::pages;
use super::{EventFilter, EventStore, ExpectedVersion, Page, ReadAllOptions, ReadOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Appended, NewEvent, RecordedEvent};
use crate::query::{EventQuery, QueryItem};
use crate::stream_id::StreamId;

/// The longest name of a tenant, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The part of an event store that is one tenant's.
///
/// Its streams are `type-tenant:id`; [`id`](Self::id) and [`stream`](Self::stream) make such names,
/// and others are refused. Appended events get the tenant into their metadata. Tags are the
/// tenant's own: the same tag of two tenants is two tags, and conditions over them do not disturb
/// each other.
///
/// Give a projection over it a name with the tenant in it: checkpoints go by the name.
///
/// ```
/// use potter_core::Database;
/// use potter_eventsourcing::{
///     EventStore, ExpectedVersion, NewEvent, TenantEventStore, event_store,
/// };
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = event_store(&Database::memory())?;
/// let acme = TenantEventStore::new(store.clone(), "acme")?;
/// let other = TenantEventStore::new(store, "other")?;
///
/// let order = acme.stream("order", 42)?;
/// assert_eq!(order.as_str(), "order-acme:42");
/// let placed = NewEvent::new("order.placed", &())?;
/// acme.append(&order, ExpectedVersion::NoStream, vec![placed]).await?;
/// assert!(other.stream_version(&order).await.is_err(), "it is not this tenant's");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TenantEventStore {
    store: Arc<dyn EventStore>,
    tenant: Arc<str>,
}

impl TenantEventStore {
    /// The part of `store` that is `tenant`'s.
    ///
    /// # Errors
    /// `InvalidInput` when the name is not 1 to 64 letters, digits, `_` and `.`.
    pub fn new(store: Arc<dyn EventStore>, tenant: impl Into<String>) -> Result<Self> {
        let tenant = tenant.into();
        let named =
            tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
        if tenant.is_empty() || tenant.len() > NAME_BYTES_MAX || !named {
            let message = format!(
                "{tenant:?} is no name for a tenant: 1 to {NAME_BYTES_MAX} letters, digits, _ and ."
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Self { store, tenant: tenant.into() })
    }

    /// The tenant's name.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The id of a thing of the tenant's, for a [`StreamId`] or a
    /// [`Repository`](crate::Repository): `tenant:id`.
    pub fn id(&self, id: impl fmt::Display) -> String {
        format!("{}:{id}", self.tenant)
    }

    /// The stream of a thing of the tenant's.
    ///
    /// # Errors
    /// As [`StreamId::new`].
    pub fn stream(&self, stream_type: &str, id: impl fmt::Display) -> Result<StreamId> {
        StreamId::new(stream_type, self.id(id))
    }

    fn owns(&self, stream: &StreamId) -> bool {
        let rest = stream.id().strip_prefix(&*self.tenant);
        rest.and_then(|rest| rest.strip_prefix(':')).is_some_and(|id| !id.is_empty())
    }

    fn check(&self, stream: &StreamId) -> Result<()> {
        if self.owns(stream) {
            return Ok(());
        }
        let tenant = &self.tenant;
        let message = format!(
            "the stream {stream} is not one of tenant {tenant}: those are named type-{tenant}:id"
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    fn own(&self, stream: &StreamId, mut events: Vec<NewEvent>) -> Result<Vec<NewEvent>> {
        self.check(stream)?;
        for event in &mut events {
            match &event.metadata.tenant {
                Some(other) if **other != *self.tenant => {
                    let message = format!("an event for {stream} names the tenant {other:?}");
                    return Err(Error::new(ErrorKind::InvalidInput, message));
                }
                _ => event.metadata.tenant = Some(self.tenant.to_string()),
            }
            event.tags = self.own_tags(&event.tags);
        }
        Ok(events)
    }

    fn own_tags(&self, tags: &BTreeSet<String>) -> BTreeSet<String> {
        tags.iter().map(|tag| format!("{}|{tag}", self.tenant)).collect()
    }

    fn own_parts(&self, appends: Vec<StreamAppend>) -> Result<Vec<StreamAppend>> {
        let own = |StreamAppend { stream, expected, events }| {
            let events = self.own(&stream, events)?;
            Ok(StreamAppend { stream, expected, events })
        };
        appends.into_iter().map(own).collect()
    }

    fn own_query(&self, query: &EventQuery) -> Result<EventQuery> {
        let mut own = EventQuery::new();
        for item in query.items() {
            if item.tags.is_empty() {
                let message = "a query of one tenant names a tag in each item: without, it would \
                               concern the events of others";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            own =
                own.item(QueryItem { tags: self.own_tags(&item.tags), types: item.types.clone() });
        }
        Ok(own)
    }

    fn own_condition(&self, condition: AppendCondition) -> Result<AppendCondition> {
        let query = self.own_query(&condition.query)?;
        Ok(AppendCondition { query, ..condition })
    }

    fn own_filter(&self, filter: &EventFilter) -> Result<EventFilter> {
        if filter.tenant.as_deref().is_some_and(|tenant| tenant != &*self.tenant) {
            let message = "the filter names another tenant than the store is of";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let query = filter.query.as_ref().map(|query| self.own_query(query)).transpose()?;
        Ok(EventFilter { query, ..filter.clone() }.tenant(&*self.tenant))
    }

    /// As the tenant knows it: its tags without its name.
    fn shown(&self, mut event: RecordedEvent) -> RecordedEvent {
        let own = |tag: String| match tag.split_once('|') {
            Some((tenant, rest)) if tenant == &*self.tenant => rest.to_owned(),
            _ => tag,
        };
        event.tags = std::mem::take(&mut event.tags).into_iter().map(own).collect();
        event
    }

    fn is_own(&self, event: &RecordedEvent) -> bool {
        event.metadata.tenant.as_deref() == Some(&*self.tenant) && self.owns(&event.stream_id)
    }

    fn shown_all(&self, events: Vec<RecordedEvent>) -> Vec<RecordedEvent> {
        let own = events.into_iter().filter(|event| self.is_own(event));
        own.map(|event| self.shown(event)).collect()
    }
}

impl fmt::Debug for TenantEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantEventStore").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for TenantEventStore {
    fn database(&self) -> Option<&Database> {
        self.store.database()
    }

    async fn migrate(&self) -> Result<()> {
        self.store.migrate().await
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        let events = self.own(stream, events)?;
        self.store.append(stream, expected, events).await
    }

    async fn append_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        let events = self.own(stream, events)?;
        self.store.append_in(tx, stream, expected, events).await
    }

    async fn append_if(
        &self,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let (appends, condition) = (self.own_parts(appends)?, self.own_condition(condition)?);
        self.store.append_if(appends, condition).await
    }

    async fn append_if_in(
        &self,
        tx: &mut Tx,
        appends: Vec<StreamAppend>,
        condition: AppendCondition,
    ) -> Result<Vec<Appended>> {
        let (appends, condition) = (self.own_parts(appends)?, self.own_condition(condition)?);
        self.store.append_if_in(tx, appends, condition).await
    }

    async fn read_matching(&self, query: &EventQuery, after: u64) -> Result<Matching> {
        let found = self.store.read_matching(&self.own_query(query)?, after).await?;
        Ok(Matching::new(query.clone(), self.shown_all(found.events), found.position))
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        if let Err(error) = self.check(stream) {
            return stream::once(std::future::ready(Err(error))).boxed();
        }
        let events = self.store.read_stream(stream, options);
        events.map_ok(|event| self.shown(event)).boxed()
    }

    async fn read_stream_in(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        self.check(stream)?;
        Ok(self.shown_all(self.store.read_stream_in(tx, stream, options).await?))
    }

    /// By pages of what is the tenant's. It ends where the log was when it began.
    fn read_all(
        &self,
        after: u64,
        options: ReadAllOptions,
    ) -> BoxStream<'_, Result<RecordedEvent>> {
        let first = (after, options.limit.unwrap_or(u64::MAX), None);
        pages(first, move |(after, left, until): (u64, u64, Option<u64>)| async move {
            if left == 0 {
                return Ok((Vec::new(), None));
            }
            let until = match until {
                Some(until) => until,
                None => self.store.safe_position().await?,
            };
            let limit = left.min(ReadOptions::PAGE);
            let page = self.read_page(after, &EventFilter::all(), limit).await?;
            let left = left - page.events.len() as u64;
            let more = page.through > after && page.through < until;
            Ok((page.events, more.then_some((page.through, left, Some(until)))))
        })
    }

    async fn read_page(&self, after: u64, filter: &EventFilter, limit: u64) -> Result<Page> {
        let mut page = self.store.read_page(after, &self.own_filter(filter)?, limit).await?;
        page.events = self.shown_all(page.events);
        Ok(page)
    }

    fn changes(&self) -> Option<Waiter> {
        self.store.changes()
    }

    async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        let found = self.store.event(event_id).await?;
        Ok(found.filter(|event| self.is_own(event)).map(|event| self.shown(event)))
    }

    async fn count(&self, after: u64, until: u64, filter: &EventFilter) -> Result<u64> {
        self.store.count(after, until, &self.own_filter(filter)?).await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<u64> {
        self.store.position_at(time).await
    }

    async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        self.check(stream)?;
        self.store.stream_version(stream).await
    }

    async fn head_position(&self) -> Result<u64> {
        self.store.head_position().await
    }

    async fn safe_position(&self) -> Result<u64> {
        self.store.safe_position().await
    }
}
