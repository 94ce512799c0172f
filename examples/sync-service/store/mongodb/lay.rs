//! Laying out batches: entities, replicas and conflicts follow from them.

use mongodb::bson::{Document as Bson, doc};
use potter_core::{Error, ErrorKind, Result};

use super::batch::{self, entity_doc, entity_of, int, log_of, text, uint};
use super::{MongoStore, is_duplicate, name, write};
use crate::document::Document;
use crate::store::{Entity, EntityKey, LogEntry, User};

/// How often a compare and swap is tried: each failure is somebody else's success.
const ATTEMPTS_MAX: u32 = 100;

/// The name of an entity's document.
pub(super) fn entity_name(user_id: &str, key: &EntityKey) -> String {
    name(&[user_id, &key.entity_type, &key.entity_id])
}

fn unreadable(key: &EntityKey, error: &potter_crdt::Error) -> Error {
    Error::new(ErrorKind::Corrupt, format!("entity {}: {error}", key.entity_id))
}

impl MongoStore {
    /// The user, with all its batches laid out.
    pub(super) async fn laid_out(&self, user_id: &str) -> Result<Option<User>> {
        let filter = doc! { "_id": user_id };
        let found = self.find(&self.users_docs(), filter, None, Some(1)).await?;
        let mark = found.first().map_or(Ok(0), |found| uint(found, "laid_out"))?;
        // The newest is read after: what is newer than it, its own committer lays out.
        let Some(newest) = self.newest(user_id).await? else { return Ok(None) };
        if newest.version > mark {
            let filter = doc! { "user": user_id, "version": { "$gt": int(mark) } };
            let sort = Some(doc! { "version": 1 });
            for behind in self.find(&self.batches(), filter, sort, None).await? {
                self.lay_out(&behind).await?;
            }
        }
        Ok(Some(newest))
    }

    /// Lays out one batch; the ones before are, or its committer would not have seen their end.
    pub(super) async fn lay_out(&self, batch: &Bson) -> Result<()> {
        let user_id = text(batch, "user")?;
        let version = uint(batch, "version")?;
        let mut entries: Vec<(LogEntry, Document)> = Vec::new();
        for entry in log_of(batch)? {
            let delta = Document::from_bytes(entry.kind, &entry.delta)
                .map_err(|error| unreadable(&entry.key, &error))?;
            // What several uploads of one commit changed of an entity is laid at once.
            match entries.iter_mut().find(|(earlier, _)| earlier.key == entry.key) {
                Some((earlier, all)) => {
                    all.join(&delta).map_err(|error| unreadable(&entry.key, &error))?;
                    (earlier.position, earlier.at) = (entry.position, entry.at);
                }
                None => entries.push((entry, delta)),
            }
        }
        for (last, delta) in entries {
            self.lay_entry(&user_id, &last, &delta).await?;
        }
        for entity in batch.get_array("reclaimed").into_iter().flatten() {
            if let Some(entity) = entity.as_document() {
                let seq = int(uint(entity, "seq")?);
                // Only in the place of the state that it was made from.
                let filter = doc! { "_id": text(entity, "_id")?, "seq": seq };
                self.entity_docs().replace_one(filter, entity).await.map_err(write)?;
            }
        }
        for replica in batch.get_array("replicas").into_iter().flatten() {
            if let Some(replica) = replica.as_document() {
                self.lay_replica(replica, version).await?;
            }
        }
        for conflict in batch.get_array("conflicts").into_iter().flatten() {
            if let Some(conflict) = conflict.as_document() {
                self.lay_conflict(conflict, version).await?;
            }
        }
        self.raise_watermark(&user_id, version).await
    }

    /// Joins what a commit changed into its entity, if that has only older changes than the last.
    async fn lay_entry(&self, user_id: &str, last: &LogEntry, delta: &Document) -> Result<()> {
        let failed = |error: potter_crdt::Error| unreadable(&last.key, &error);
        let id = entity_name(user_id, &last.key);
        for _ in 0..ATTEMPTS_MAX {
            let found = self.find(&self.entity_docs(), doc! { "_id": &id }, None, Some(1)).await?;
            let known = found.first().map(entity_of).transpose()?;
            if known.as_ref().is_some_and(|known| known.seq >= last.position.seq) {
                return Ok(());
            }
            let mut document = match &known {
                Some(known) => Document::from_bytes(known.kind, &known.state),
                None => Ok(Document::new(last.kind)),
            }
            .map_err(failed)?;
            document.join(delta).map_err(failed)?;
            let new = Entity {
                key: last.key.clone(),
                kind: last.kind,
                state: document.to_bytes(),
                seq: last.position.seq,
                updated_at: last.at,
            };
            let new = entity_doc(user_id, &new);
            let swapped = match &known {
                Some(known) => {
                    let filter = doc! { "_id": &id, "seq": int(known.seq) };
                    let done = self.entity_docs().replace_one(filter, new).await.map_err(write)?;
                    done.matched_count == 1
                }
                None => match self.entity_docs().insert_one(new).await {
                    Err(error) if is_duplicate(&error) => false,
                    done => done.map(|_| true).map_err(write)?,
                },
            };
            if swapped {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Conflict, "too many others lay out this entity"))
    }

    async fn lay_replica(&self, replica: &Bson, version: u64) -> Result<()> {
        let filter = doc! { "_id": text(replica, "_id")?, "version": { "$lt": int(version) } };
        let fields = ["last_seen", "last_sequence", "notes"];
        let mut set = doc! { "version": int(version) };
        set.extend(
            fields
                .into_iter()
                .filter_map(|field| Some((field.to_owned(), replica.get(field)?.clone()))),
        );
        self.replicas().update_one(filter, doc! { "$set": set }).await.map_err(write)?;
        Ok(())
    }

    async fn lay_conflict(&self, conflict: &Bson, version: u64) -> Result<()> {
        let docs = self.conflict_docs();
        let id = text(conflict, "_id")?;
        let mut new = conflict.clone();
        new.insert("version", int(version));
        let found = self.find(&docs, doc! { "_id": &id }, None, Some(1)).await?;
        let Some(known) = found.first() else {
            return match docs.insert_one(new).await {
                Err(error) if !is_duplicate(&error) => Err(write(error)),
                _ => Ok(()),
            };
        };
        // It began when it was found first, as long as it goes on.
        let goes_on = text(known, "status")? == "open" || text(conflict, "status")? != "open";
        if goes_on && let Some(began) = known.get("detected_at") {
            new.insert("detected_at", began.clone());
        }
        let filter = doc! { "_id": &id, "version": { "$lt": int(version) } };
        docs.replace_one(filter, new).await.map_err(write)?;
        Ok(())
    }

    /// Everything up to this version is laid out.
    pub(super) async fn raise_watermark(&self, user_id: &str, version: u64) -> Result<()> {
        let raise = doc! { "$max": { "laid_out": batch::int(version) } };
        let done = self.users_docs().update_one(doc! { "_id": user_id }, raise).await;
        if done.map_err(write)?.matched_count == 0 {
            let first = doc! { "_id": user_id, "laid_out": batch::int(version) };
            match self.users_docs().insert_one(first).await {
                Err(error) if !is_duplicate(&error) => return Err(write(error)),
                _ => {}
            }
        }
        Ok(())
    }
}
