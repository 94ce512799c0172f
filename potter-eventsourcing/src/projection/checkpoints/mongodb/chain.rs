//! A segment's checkpoint as a chain of documents: see the docs of the module above.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::error::ErrorKind as Driver;
use uuid::Uuid;

use super::{Known, MongoCheckpoints};
use crate::error::{Error, ErrorKind, Result};
use crate::projection::checkpoints::Claimed;
use crate::projection::status::SegmentStatus;
use crate::store::mongodb::document::{binary, signed, unsigned, uuid};
use crate::store::mongodb::failure::{Asked, DUPLICATE_KEY, meaning};

/// How many segments one command cleans up after.
const CLEANED_AT_ONCE: usize = 200;

/// The last document of a segment's chain.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) change: u64,
    pub(super) status: SegmentStatus,
}

impl Link {
    /// A segment that nobody has touched yet.
    pub(super) fn first(segment: u16) -> Self {
        let moved_at = DateTime::<Utc>::UNIX_EPOCH;
        let (position, handled, owner, token, failure) = (0, 0, None, 0, None);
        let status = SegmentStatus { segment, position, handled, owner, token, failure, moved_at };
        Self { change: 0, status }
    }

    pub(super) fn next(mut self, change: impl FnOnce(&mut SegmentStatus)) -> Self {
        self.change += 1;
        change(&mut self.status);
        self
    }

    fn document(&self, incarnation: Uuid) -> Document {
        let SegmentStatus { segment, position, handled, owner, token, failure, moved_at } =
            &self.status;
        doc! {
            "_id": format!("{incarnation}/{segment}/{}", self.change),
            "incarnation": binary(incarnation),
            "segment": i32::from(*segment),
            "change": signed(self.change),
            "position": signed(*position),
            "handled": signed(*handled),
            "owner": owner.map_or(Bson::Null, binary),
            "token": *token,
            "failure": failure.clone().map_or(Bson::Null, Bson::String),
            "moved_at": mongodb::bson::DateTime::from_millis(moved_at.timestamp_millis()),
        }
    }

    fn read(document: &RawDocument) -> Result<Self> {
        let status = SegmentStatus {
            segment: u16::try_from(unsigned(document, "segment")?).unwrap_or(u16::MAX),
            position: unsigned(document, "position")?,
            handled: unsigned(document, "handled")?,
            owner: uuid(document, "owner").ok(),
            token: signed(unsigned(document, "token")?),
            failure: document.get_str("failure").ok().map(str::to_owned),
            moved_at: document
                .get_datetime("moved_at")
                .ok()
                .and_then(|time| DateTime::from_timestamp_millis(time.timestamp_millis()))
                .unwrap_or_default(),
        };
        Ok(Self { change: unsigned(document, "change")?, status })
    }

    pub(super) fn claimed(&self) -> Claimed {
        let SegmentStatus { segment, position, token, failure, .. } = self.status.clone();
        Claimed { segment, position, token, failure }
    }
}

impl MongoCheckpoints {
    /// The ends of all chains, by segment.
    pub(super) async fn links(&self, known: &Known) -> Result<Vec<Link>> {
        let mut links: Vec<_> = (0..known.segments).map(Link::first).collect();
        let filter = doc! { "incarnation": binary(known.incarnation) };
        for document in self.documents(&self.segments, filter).await? {
            let found = Link::read(&document)?;
            if let Some(link) = links.get_mut(usize::from(found.status.segment))
                && found.change > link.change
            {
                *link = found;
            }
        }
        Ok(links)
    }

    /// Appends to chains; answers the segments whose change took hold and is still the last.
    pub(super) async fn append(&self, known: &Known, changes: &[Link]) -> Result<BTreeSet<u16>> {
        if changes.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut documents = Vec::with_capacity(changes.len());
        for change in changes {
            let document = RawDocumentBuf::try_from(&change.document(known.incarnation));
            documents.push(document.map_err(|source| {
                Error::with_source(ErrorKind::Internal, "a checkpoint is no document", source)
            })?);
        }
        let insert = self.segments.insert_many(documents).ordered(false);
        let refused = match tokio::time::timeout(self.mongo.options.timeout, insert).await {
            Ok(Ok(_)) => BTreeSet::new(),
            Ok(Err(error)) => taken(&error).ok_or_else(|| meaning(Asked::Write, error))?,
            Err(_) => {
                let message = "no answer came to a change of a checkpoint";
                return Err(Error::new(ErrorKind::Unknown, message));
            }
        };
        let now = self.links(known).await?;
        let mut held = BTreeSet::new();
        for (index, change) in changes.iter().enumerate() {
            let segment = change.status.segment;
            let last = now.get(usize::from(segment)).map(|link| link.change);
            if !refused.contains(&index) && last == Some(change.change) {
                held.insert(segment);
            }
        }
        let done: Vec<_> =
            changes.iter().filter(|one| held.contains(&one.status.segment)).collect();
        for some in done.chunks(CLEANED_AT_ONCE) {
            self.clean(known, some).await;
        }
        Ok(held)
    }

    /// Deletes what came before. What stays is found by the next one.
    async fn clean(&self, known: &Known, changes: &[&Link]) {
        let older = changes.iter().map(|change| {
            let segment = i32::from(change.status.segment);
            doc! { "segment": segment, "change": { "$lt": signed(change.change) } }
        });
        let filter = doc! {
            "incarnation": binary(known.incarnation),
            "$or": older.collect::<Vec<_>>(),
        };
        if let Err(error) = self.mongo.write(self.segments.delete_many(filter)).await {
            tracing::debug!(%error, "old checkpoints were not deleted; the next change does it");
        }
    }
}

/// The documents whose place was taken, if that is all that is wrong.
fn taken(error: &mongodb::error::Error) -> Option<BTreeSet<usize>> {
    let Driver::InsertMany(many) = &*error.kind else { return None };
    if many.write_concern_error.is_some() {
        return None;
    }
    let errors = many.write_errors.as_ref()?;
    errors
        .iter()
        .all(|error| error.code == DUPLICATE_KEY)
        .then(|| errors.iter().map(|error| error.index).collect())
}
