//! The queries.

use std::collections::{BTreeSet, HashMap};

use futures::stream::{self, StreamExt, TryStreamExt};
use mongodb::bson::{Document, RawDocument, RawDocumentBuf, doc};
use mongodb::{Collection, Cursor};
use uuid::Uuid;

use super::connect::Mongo;
use super::document::{binary, decode, signed, unsigned};
use crate::error::{Error, Result};
use crate::event::RecordedEvent;
use crate::query::QueryItem;
use crate::store::condition::AppendCondition;
use crate::store::filter::{EventFilter, GROUPS};
use crate::store::plan::{Known, KnownEvent};
use crate::store::read::{Direction, ReadOptions};
use crate::stream_id::{SEGMENTS, StreamId};

/// How many positions are looked through for a page that no index helps with.
const WINDOW: u64 = 1 << 18;
/// How many streams are asked about at once, and how many ids in one query.
const HEADS_AT_ONCE: usize = 16;
const IDS_AT_ONCE: usize = 1000;

/// The events as a reader sees them: final ones only, or for who appends, all.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    mongo: Mongo,
    collection: Collection<RawDocumentBuf>,
}

/// Documents one by one: a page of large appends is never in memory as a whole.
struct Documents<'a> {
    mongo: &'a Mongo,
    cursor: Cursor<RawDocumentBuf>,
}

impl Documents<'_> {
    async fn next(&mut self) -> Result<Option<&RawDocument>> {
        let more = self.mongo.read(self.cursor.advance()).await?;
        Ok(more.then(|| self.cursor.current()))
    }
}

impl Events {
    pub(crate) fn new(mongo: &Mongo, final_only: bool) -> Self {
        let collection = mongo.collection("potter_events", final_only);
        Self { mongo: mongo.clone(), collection }
    }

    pub(crate) fn collection(&self) -> &Collection<RawDocumentBuf> {
        &self.collection
    }

    async fn find(&self, filter: Document, sort: Document, limit: u64) -> Result<Documents<'_>> {
        let find = self.collection.find(filter).sort(sort).limit(signed(limit));
        let cursor = self.mongo.read(find).await?;
        Ok(Documents { mongo: &self.mongo, cursor })
    }

    async fn one_number(
        &self,
        filter: Document,
        sort: Document,
        field: &str,
    ) -> Result<Option<u64>> {
        let find = self.collection.find(filter).sort(sort).limit(1);
        let cursor = self.mongo.read(find.projection(doc! { field: 1 })).await?;
        let mut documents = Documents { mongo: &self.mongo, cursor };
        documents.next().await?.map(|document| unsigned(document, field)).transpose()
    }

    /// The last position; 0 when there is none.
    pub(crate) async fn head(&self) -> Result<u64> {
        Ok(self.one_number(doc! {}, doc! { "_id": -1 }, "position").await?.unwrap_or(0))
    }

    pub(crate) async fn stream_version(&self, stream: &StreamId) -> Result<u64> {
        let filter = doc! { "stream": stream.as_str() };
        Ok(self.one_number(filter, doc! { "version": -1 }, "version").await?.unwrap_or(0))
    }

    /// What of the store matters to appends to `streams` with `ids`, read one after the other: the
    /// end of the log, the versions, the ids. Decisions of any kind can stand on it.
    pub(crate) async fn known(&self, streams: BTreeSet<&StreamId>, ids: &[Uuid]) -> Result<Known> {
        let last_position = self.head().await?;
        let heads = self.heads(streams).await?;
        let events = self.all_seen(ids).await?;
        Ok(Known { heads, events, last_position })
    }

    /// The same at once, behind an end that was seen before. A decision to write can stand on it;
    /// a refusal can't, as the ids may be older than the versions.
    pub(crate) async fn known_behind(
        &self,
        last_position: u64,
        streams: BTreeSet<&StreamId>,
        ids: &[Uuid],
    ) -> Result<Known> {
        let (heads, events) = futures::try_join!(self.heads(streams), self.all_seen(ids))?;
        Ok(Known { heads, events, last_position })
    }

    async fn heads(&self, streams: BTreeSet<&StreamId>) -> Result<HashMap<StreamId, u64>> {
        let heads = stream::iter(streams.into_iter().cloned()).map(|stream| async move {
            let version = self.stream_version(&stream).await?;
            Ok::<_, Error>((stream, version))
        });
        heads.buffer_unordered(HEADS_AT_ONCE).try_collect().await
    }

    async fn all_seen(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, KnownEvent>> {
        let mut seen = HashMap::new();
        for ids in ids.chunks(IDS_AT_ONCE) {
            self.seen(ids, &mut seen).await?;
        }
        Ok(seen)
    }

    async fn seen(&self, ids: &[Uuid], seen: &mut HashMap<Uuid, KnownEvent>) -> Result<()> {
        let wanted: BTreeSet<_> = ids.iter().copied().collect();
        let ids: Vec<_> = ids.iter().copied().map(binary).collect();
        let filter = doc! { "events.id": { "$in": ids } };
        let mut documents = self.find(filter, doc! { "_id": 1 }, 0).await?;
        while let Some(document) = documents.next().await? {
            for event in decode(document, |_, _| true)? {
                if wanted.contains(&event.event_id) {
                    let id = event.event_id;
                    seen.insert(id, known_event(event));
                }
            }
        }
        Ok(())
    }

    /// Are all of these events there? Each id once.
    pub(crate) async fn are_there(&self, ids: &[Uuid]) -> Result<bool> {
        Ok(self.all_seen(ids).await?.len() == ids.len())
    }

    pub(crate) async fn stream_page(
        &self,
        stream: &StreamId,
        options: ReadOptions,
    ) -> Result<Vec<RecordedEvent>> {
        let (start, limit) = (options.start(), options.page());
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut filter = doc! { "stream": stream.as_str() };
        let sort = match options.direction {
            Direction::Forwards => {
                filter.insert("version", doc! { "$gte": signed(start) });
                doc! { "version": 1 }
            }
            Direction::Backwards => {
                if options.from_version.is_some() {
                    // The append that has it ends there or later.
                    let has =
                        doc! { "stream": stream.as_str(), "version": { "$gte": signed(start) } };
                    let end = self.one_number(has, doc! { "version": 1 }, "version").await?;
                    filter.insert("version", doc! { "$lte": end.map_or(i64::MAX, signed) });
                }
                doc! { "version": -1 }
            }
        };
        let mut documents = self.find(filter, sort, limit).await?;
        let mut events = Vec::new();
        while let Some(document) = documents.next().await? {
            match options.direction {
                Direction::Forwards => {
                    events.extend(decode(document, |_, version| version >= start)?);
                }
                Direction::Backwards => {
                    events
                        .extend(decode(document, |_, version| version <= start)?.into_iter().rev());
                }
            }
            if events.len() as u64 >= limit {
                break;
            }
        }
        events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(events)
    }

    /// The first `limit` of what `filter` wants above `after`, up to and with `until`, and how far
    /// that was looked.
    pub(crate) async fn page(
        &self,
        after: u64,
        until: u64,
        filter: &EventFilter,
        limit: u64,
    ) -> Result<(Vec<RecordedEvent>, u64)> {
        let Some(wanted) = wanted(filter) else { return Ok((Vec::new(), until)) };
        let until = if wanted.indexed { until } else { until.min(after.saturating_add(WINDOW)) };
        let mut query = between(after, until);
        query.extend(wanted.documents);
        let limit_documents = limit.saturating_add(1);
        let mut documents = self.find(query, doc! { "position": 1 }, limit_documents).await?;
        let (mut events, mut seen) = (Vec::new(), 0);
        while let Some(document) = documents.next().await? {
            seen += 1;
            let through = unsigned(document, "position")?;
            let new = decode(document, |position, _| position > after && position <= until)?;
            events.extend(new.into_iter().filter(|event| filter.matches(event)));
            if events.len() as u64 > limit {
                events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                let through = events.last().map_or(through, |event| event.global_position);
                return Ok((events, through));
            }
            if seen >= limit_documents {
                return Ok((events, through.min(until)));
            }
        }
        Ok((events, until))
    }

    /// The first event up to `head` that breaks the condition.
    pub(crate) async fn breaks(
        &self,
        condition: &AppendCondition,
        head: u64,
    ) -> Result<Option<u64>> {
        if condition.is_none() {
            return Ok(None);
        }
        let filter = EventFilter::all().query(condition.query().clone());
        let mut after = condition.after();
        while after < head {
            let (events, through) = self.page(after, head, &filter, ReadOptions::PAGE).await?;
            if let Some(event) = events.iter().find(|event| condition.is_broken_by(event)) {
                return Ok(Some(event.global_position));
            }
            after = through;
        }
        Ok(None)
    }

    pub(crate) async fn event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>> {
        let filter = doc! { "events.id": binary(event_id) };
        let mut documents = self.find(filter, doc! { "_id": 1 }, 1).await?;
        let Some(document) = documents.next().await? else { return Ok(None) };
        let events = decode(document, |_, _| true)?;
        Ok(events.into_iter().find(|event| event.event_id == event_id))
    }

    /// How many events above `after`, up to and with `until`.
    pub(crate) async fn count(&self, after: u64, until: u64, filter: &EventFilter) -> Result<u64> {
        if until <= after {
            return Ok(0);
        }
        let Some(wanted) = wanted(filter) else { return Ok(0) };
        let mut events =
            doc! { "events.position": { "$gt": signed(after), "$lte": signed(until) } };
        events.extend(wanted.events);
        let mut query = between(after, until);
        query.extend(wanted.documents);
        let pipeline = [
            doc! { "$match": query },
            doc! { "$project": { "events.position": 1, "events.type": 1, "events.tenant": 1, "events.tags": 1 } },
            doc! { "$unwind": "$events" },
            doc! { "$match": events },
            doc! { "$count": "n" },
        ];
        let aggregate = self.collection.aggregate(pipeline).with_type::<RawDocumentBuf>();
        let cursor = self.mongo.read(aggregate).await?;
        let mut documents = Documents { mongo: &self.mongo, cursor };
        documents.next().await?.map_or(Ok(0), |document| unsigned(document, "n"))
    }

    /// The position before the first event that was recorded after `time`.
    pub(crate) async fn before(&self, time: chrono::DateTime<chrono::Utc>) -> Result<Option<u64>> {
        let time = mongodb::bson::DateTime::from_millis(time.timestamp_millis());
        let filter = doc! { "recorded_at": { "$gt": time } };
        let first = self.one_number(filter, doc! { "_id": 1 }, "_id").await?;
        Ok(first.map(|first| first.saturating_sub(1)))
    }
}

fn known_event(event: RecordedEvent) -> KnownEvent {
    KnownEvent {
        stream: event.stream_id,
        version: event.version,
        global_position: event.global_position,
        event_type: event.event_type,
        schema_version: event.schema_version,
        payload: event.payload,
    }
}

/// The documents that have a position above `after`, up to and with `until`.
fn between(after: u64, until: u64) -> Document {
    doc! { "position": { "$gt": signed(after) }, "_id": { "$lte": signed(until) } }
}

/// A filter as MongoDB takes it.
struct Wanted {
    /// Documents that may have such an event.
    documents: Document,
    /// Of the unwound events, those.
    events: Document,
    /// Is there an index that has little else?
    indexed: bool,
}

/// `None` when it wants nothing.
fn wanted(filter: &EventFilter) -> Option<Wanted> {
    let mut documents = Document::new();
    let mut indexed = filter.is_all();
    if let Some(segments) = &filter.segments {
        let groups = segments.groups();
        if groups.is_empty() {
            return None;
        }
        if groups.len() < usize::from(GROUPS) {
            indexed = true;
            let groups: Vec<_> = groups.into_iter().map(i32::from).collect();
            documents.insert("group", doc! { "$in": groups });
        }
        if segments.is_finer_than_groups() {
            let width = SEGMENTS / segments.count();
            let fine = segments.members().flat_map(|one| one * width..(one + 1) * width);
            let fine: Vec<_> = fine.map(i32::from).collect();
            documents.insert("segment", doc! { "$in": fine });
        }
    }
    let mut stream_type = Document::new();
    if let Some(types) = &filter.stream_types {
        stream_type.insert("$in", types.iter().map(String::as_str).collect::<Vec<_>>());
    }
    if let Some(context) = &filter.context {
        // A slash comes right after a dot.
        stream_type.insert("$gte", format!("{context}."));
        stream_type.insert("$lt", format!("{context}/"));
    }
    if !stream_type.is_empty() {
        documents.insert("stream_type", stream_type);
    }
    // Both may be true of different events of a document: what is not wanted is left out later.
    let mut events = Document::new();
    if let Some(types) = &filter.event_types {
        indexed = true;
        let types: Vec<_> = types.iter().map(String::as_str).collect();
        events.insert("events.type", doc! { "$in": types });
    }
    if let Some(tenant) = &filter.tenant {
        events.insert("events.tenant", tenant.as_str());
    }
    documents.extend(events.clone());
    if let Some(query) = &filter.query {
        if query.items().is_empty() {
            return None;
        }
        indexed |= query.is_tagged() || query.types().is_some();
        if !query.items().iter().any(|item| item.tags.is_empty() && item.types.is_empty()) {
            let items = query.items();
            documents.insert("$or", items.iter().map(|one| item(one, "tags")).collect::<Vec<_>>());
            let of_events = items.iter().map(|one| item(one, "events.tags"));
            events.insert("$or", of_events.collect::<Vec<_>>());
        }
    }
    Some(Wanted { documents, events, indexed })
}

/// An item of a query, for documents or for unwound events.
fn item(item: &QueryItem, tags_field: &str) -> Document {
    let mut wanted = Document::new();
    if !item.tags.is_empty() {
        let tags: Vec<_> = item.tags.iter().map(String::as_str).collect();
        wanted.insert(tags_field, doc! { "$all": tags });
    }
    if !item.types.is_empty() {
        let types: Vec<_> = item.types.iter().map(String::as_str).collect();
        wanted.insert("events.type", doc! { "$in": types });
    }
    wanted
}
