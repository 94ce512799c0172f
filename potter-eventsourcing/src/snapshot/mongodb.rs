//! In MongoDB.

use async_trait::async_trait;
use mongodb::Collection;
use mongodb::bson::{DateTime as BsonTime, Document, RawDocument, RawDocumentBuf, doc};
use potter_core::{Tx, new_id};
use uuid::Uuid;

use super::{NewSnapshot, Snapshot, SnapshotStore};
use crate::error::{Error, ErrorKind, Result};
use crate::store::mongodb::clock::ServerClock;
use crate::store::mongodb::connect::Mongo;
use crate::store::mongodb::document::{binary, json, signed, text, unsigned, uuid};
use crate::store::mongodb::no_transactions;
use crate::stream_id::StreamId;

/// Of a document's 16 MiB, what the state may take.
const STATE_BYTES_MAX: usize = (16 << 20) - 4096;

/// Snapshots as documents, the state as text. A snapshot is only a saving, so it is read from the
/// primary as it is: one that a change of the primary takes back is refused by the event id in it.
#[derive(Debug)]
pub(crate) struct MongoSnapshots {
    mongo: Mongo,
    snapshots: Collection<RawDocumentBuf>,
    clock: ServerClock,
}

impl MongoSnapshots {
    pub(crate) fn new(mongo: &Mongo) -> Self {
        let snapshots = mongo.collection("potter_snapshots", false);
        Self { mongo: mongo.clone(), snapshots, clock: ServerClock::default() }
    }

    async fn find(
        &self,
        filter: Document,
        sort: Document,
        offset: u64,
        limit: i64,
    ) -> Result<Vec<Snapshot>> {
        let find = self.snapshots.find(filter).sort(sort).skip(offset).limit(limit);
        let mut cursor = self.mongo.read(find).await?;
        let mut found = Vec::new();
        while self.mongo.read(cursor.advance()).await? {
            found.push(snapshot(cursor.current())?);
        }
        Ok(found)
    }

    async fn delete_those(&self, filter: Document) -> Result<u64> {
        Ok(self.mongo.write(self.snapshots.delete_many(filter)).await?.deleted_count)
    }
}

#[async_trait]
impl SnapshotStore for MongoSnapshots {
    async fn save(&self, snapshot: NewSnapshot, keep: u32) -> Result<()> {
        let NewSnapshot { stream_id, version, schema_version, event_id, state } = snapshot;
        let bytes = state.as_str().len();
        if bytes > STATE_BYTES_MAX {
            let message = format!(
                "the state of stream {stream_id} has {bytes} bytes, {STATE_BYTES_MAX} at most: on \
                 MongoDB a snapshot is one document"
            );
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let schema_version = i64::from(schema_version);
        let series = doc! { "stream": stream_id.as_str(), "schema_version": schema_version };
        let taken_at: BsonTime = self.clock.about_now(&self.mongo).await?;
        let mut place = series.clone();
        place.insert("version", signed(version));
        let change = doc! {
            "$set": {
                "event_id": binary(event_id),
                "state": state.as_str(),
                "taken_at": taken_at,
            },
            "$setOnInsert": { "id": binary(new_id()) },
        };
        self.mongo.write(self.snapshots.update_one(place, change).upsert(true)).await?;
        // All but the newest.
        let newest = doc! { "version": -1 };
        let old = self.find(series.clone(), newest, u64::from(keep), 1).await?;
        if let Some(old) = old.first() {
            let mut doomed = series;
            doomed.insert("version", doc! { "$lte": signed(old.version) });
            self.delete_those(doomed).await?;
        }
        Ok(())
    }

    async fn latest(
        &self,
        stream: &StreamId,
        schema_version: u32,
        at_most: u64,
    ) -> Result<Option<Snapshot>> {
        let filter = doc! {
            "stream": stream.as_str(),
            "schema_version": i64::from(schema_version),
            "version": { "$lte": signed(at_most) },
        };
        Ok(self.find(filter, doc! { "version": -1 }, 0, 1).await?.pop())
    }

    async fn latest_in(
        &self,
        _: &mut Tx,
        _: &StreamId,
        _: u32,
        _: u64,
    ) -> Result<Option<Snapshot>> {
        Err(no_transactions())
    }

    async fn list(
        &self,
        stream: Option<&StreamId>,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<Snapshot>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let filter = stream.map_or_else(Document::new, |stream| doc! { "stream": stream.as_str() });
        let order = doc! { "stream": 1, "version": -1, "schema_version": -1 };
        self.find(filter, order, offset, i64::from(limit)).await
    }

    async fn delete(&self, id: Uuid) -> Result<bool> {
        Ok(self.delete_those(doc! { "id": binary(id) }).await? > 0)
    }

    async fn delete_before(&self, stream: &StreamId, before: u64) -> Result<u64> {
        let filter = doc! { "stream": stream.as_str(), "version": { "$lt": signed(before) } };
        self.delete_those(filter).await
    }
}

fn snapshot(document: &RawDocument) -> Result<Snapshot> {
    let taken_at = document.get_datetime("taken_at").ok();
    let taken_at = taken_at
        .and_then(|time| chrono::DateTime::from_timestamp_millis(time.timestamp_millis()))
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a stored snapshot has no time"))?;
    Ok(Snapshot {
        id: uuid(document, "id")?,
        stream_id: StreamId::parse(text(document, "stream")?)?,
        version: unsigned(document, "version")?,
        schema_version: u32::try_from(unsigned(document, "schema_version")?).unwrap_or(0),
        event_id: uuid(document, "event_id")?,
        state: json(document, "state")?,
        taken_at,
    })
}
