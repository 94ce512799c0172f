//! MongoDB, standalone or replica set, and FerretDB.
//!
//! # A batch is one document
//! A commit inserts one document into `sync_batches`: the user's version, its place in the log, the
//! changes, the names of the operations, the answers. (Uploads that come together are one commit, so
//! one document.) One document is written as a whole or not at
//! all, and (user, version) is unique: of two commits from one version one gets in. So the newest
//! batch of a user *is* the user, and no transaction is needed.
//!
//! Everything else (entities, replicas, conflicts) is derived: a batch is *laid out* after it was
//! inserted, by whoever inserted it, and again by whoever finds that the user's watermark is behind
//! its newest batch: a process that was killed in between leaves nothing undone for long. Laying out
//! may be repeated and may overlap with itself: an entity takes a batch only if it has an older
//! change (compare and swap on its number, and what is put in is a join), a replica and a conflict
//! only what is newer, and the watermark only rises.
//!
//! # Interleavings
//! * Killed after the insert: the next that reads or writes for the user lays out first.
//! * Two lay out one batch: both compare and swap; who is second finds it done.
//! * An insert whose answer is lost: it is `Unknown`; a retry with the same ids finds them.
//! * A late insert: its version is taken, so it does nothing.
//!
//! Reads come from the primary, writes wait for a majority and the journal.

mod batch;
mod indexes;
mod lay;

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use mongodb::bson::{Document as Bson, doc};
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, FindOptions, ReadConcern, ReadPreference,
    SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection, Database};
use potter_core::{Error, ErrorKind, Result};

use super::{
    Commit, Conflict, ConflictFilter, Device, Entity, EntityKey, Identity, Loaded, LogEntry, OpKey,
    Replica, Store, User,
};
use crate::protocol::{Position, Secret, new_epoch};
use batch::{
    binary, conflict_of, entity_of, identity_of, int, log_of, ops_of, replica_doc, replica_of,
    text, time, uint, user_of,
};

/// How long the server may be looked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The store on MongoDB.
#[derive(Clone, Debug)]
pub struct MongoStore {
    database: Database,
}

/// What a driver's error means. `open`: it was a write, so without an answer it may have happened.
fn failed(source: mongodb::error::Error, open: bool) -> Error {
    use mongodb::error::ErrorKind as Driver;
    let (kind, message) = match &*source.kind {
        _ if is_duplicate(&source) => (ErrorKind::Conflict, "another write was first"),
        Driver::ServerSelection { .. } => (ErrorKind::Unavailable, "MongoDB can't be reached"),
        Driver::Authentication { .. } => (ErrorKind::Unauthorized, "MongoDB refuses the user"),
        Driver::Io(_) | Driver::ConnectionPoolCleared { .. } | Driver::Write(_) if open => {
            (ErrorKind::Unknown, "MongoDB did not confirm: the change may or may not be there")
        }
        Driver::Io(_) | Driver::ConnectionPoolCleared { .. } => {
            (ErrorKind::Unavailable, "the connection to MongoDB broke")
        }
        _ => (ErrorKind::Internal, "MongoDB refused the operation"),
    };
    Error::with_source(kind, format!("{message} ({source})"), source)
}

fn read(error: mongodb::error::Error) -> Error {
    failed(error, false)
}

fn write(error: mongodb::error::Error) -> Error {
    failed(error, true)
}

fn is_duplicate(error: &mongodb::error::Error) -> bool {
    use mongodb::error::{ErrorKind as Driver, WriteFailure};
    match &*error.kind {
        Driver::Write(WriteFailure::WriteError(one)) => one.code == 11000,
        Driver::Command(one) => one.code == 11000,
        _ => false,
    }
}

/// Of parts, a name that no other parts have.
pub(crate) fn name(parts: &[&str]) -> String {
    // Ids have no control characters.
    parts.join("\u{0}")
}

impl MongoStore {
    /// Connects and makes the indexes. `url` names a database.
    ///
    /// # Errors
    /// `Config` for a URL that is malformed or names no database, `Unavailable` when the server
    /// can't be reached. The password is in neither.
    pub async fn open(url: &str) -> Result<Self> {
        let malformed = |_| {
            let message = "the URL is malformed: mongodb://user:password@host:27017/database";
            Error::new(ErrorKind::Config, message)
        };
        let mut options = ClientOptions::parse(url).await.map_err(malformed)?;
        let hosts: Vec<_> = options.hosts.iter().map(ToString::to_string).collect();
        let Some(database) = options.default_database.clone() else {
            let message = format!("the URL of {} names no database", hosts.join(","));
            return Err(Error::new(ErrorKind::Config, message));
        };
        options.app_name.get_or_insert_with(|| "sync-service".to_owned());
        options.server_selection_timeout.get_or_insert(PATIENCE);
        options.connect_timeout.get_or_insert(PATIENCE);
        let client = Client::with_options(options).map_err(malformed)?;
        let store = Self { database: client.database(&database) };
        store.ping().await.map_err(|error| {
            let message = format!("MongoDB at {} can't be reached", hosts.join(","));
            Error::with_source(error.kind(), message, error)
        })?;
        store.make_indexes().await?;
        Ok(store)
    }

    fn collection(&self, name: &str) -> Collection<Bson> {
        let options = CollectionOptions::builder()
            .read_concern(ReadConcern::local())
            .write_concern(
                WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build(),
            )
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        self.database.collection_with_options(name, options)
    }

    fn batches(&self) -> Collection<Bson> {
        self.collection("sync_batches")
    }

    fn users_docs(&self) -> Collection<Bson> {
        self.collection("sync_users")
    }

    fn replicas(&self) -> Collection<Bson> {
        self.collection("sync_replicas")
    }

    fn entity_docs(&self) -> Collection<Bson> {
        self.collection("sync_entities")
    }

    fn conflict_docs(&self) -> Collection<Bson> {
        self.collection("sync_conflicts")
    }

    fn answers(&self) -> Collection<Bson> {
        self.collection("sync_answers")
    }

    async fn find(
        &self,
        collection: &Collection<Bson>,
        filter: Bson,
        sort: Option<Bson>,
        limit: Option<u64>,
    ) -> Result<Vec<Bson>> {
        self.find_from(collection, filter, sort, limit, 0).await
    }

    async fn find_from(
        &self,
        collection: &Collection<Bson>,
        filter: Bson,
        sort: Option<Bson>,
        limit: Option<u64>,
        skip: u64,
    ) -> Result<Vec<Bson>> {
        let options = FindOptions::builder().sort(sort).limit(limit.map(int)).skip(skip).build();
        let mut cursor = collection.find(filter).with_options(options).await.map_err(read)?;
        let mut found = Vec::new();
        while cursor.advance().await.map_err(read)? {
            found.push(cursor.deserialize_current().map_err(read)?);
        }
        Ok(found)
    }

    /// The answers that these requests got.
    async fn answered(&self, scope: &str, ids: &[&str]) -> Result<Vec<Identity>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = ids.iter().map(|id| name(&[scope, id])).collect();
        let filter = doc! { "_id": { "$in": names.clone() } };
        let alone = self.find(&self.answers(), filter, None, None).await?;
        let mut found: Vec<Identity> = alone.iter().map(identity_of).collect::<Result<_>>()?;
        let filter = doc! { "answers.name": { "$in": names } };
        for batch in self.find(&self.batches(), filter, None, None).await? {
            let all = batch::answers_of(&batch)?;
            let wanted = |one: &Identity| one.scope == scope && ids.contains(&one.id.as_str());
            found.extend(all.into_iter().filter(wanted));
        }
        Ok(found)
    }

    /// The newest batch of a user, which is what the user is.
    async fn newest(&self, user_id: &str) -> Result<Option<User>> {
        let filter = doc! { "user": user_id };
        let sort = Some(doc! { "version": -1 });
        let found = self.find(&self.batches(), filter, sort, Some(1)).await?;
        found.first().map(user_of).transpose()
    }
}

#[async_trait]
impl Store for MongoStore {
    async fn ping(&self) -> Result<()> {
        self.database.run_command(doc! { "ping": 1 }).await.map_err(read).map(|_| ())
    }

    async fn secret(&self) -> Result<Secret> {
        let meta = self.collection("sync_meta");
        let fresh: Vec<u8> = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()]
            .iter()
            .flat_map(|half| *half.as_bytes())
            .collect();
        match meta.insert_one(doc! { "_id": "secret", "value": binary(&fresh) }).await {
            Err(error) if !is_duplicate(&error) => return Err(write(error)),
            _ => {}
        }
        let found = self.find(&meta, doc! { "_id": "secret" }, None, Some(1)).await?;
        Secret::new(&found.first().map_or(Ok(fresh), |one| batch::bytes(one, "value"))?)
    }

    async fn device(&self, device_id: &str) -> Result<Option<Device>> {
        let filter = doc! { "device": device_id };
        let found = self.find(&self.replicas(), filter.clone(), None, Some(1)).await?;
        let Some(first) = found.first() else { return Ok(None) };
        // The user first: what changes after makes a commit fail.
        let Some(user) = self.laid_out(&text(first, "user")?).await? else { return Ok(None) };
        let sort = Some(doc! { "incarnation": 1 });
        let found = self.find(&self.replicas(), filter, sort, None).await?;
        let replicas = found.iter().map(replica_of).collect::<Result<_>>()?;
        Ok(Some(Device { user, replicas }))
    }

    async fn user(&self, user_id: &str) -> Result<Option<User>> {
        // Whoever commits from this has all before it laid out: the watermark may pass it.
        self.laid_out(user_id).await
    }

    async fn devices(
        &self,
        user_id: &str,
        device_ids: &[&str],
    ) -> Result<Option<(User, Vec<Replica>)>> {
        // The user first: what changes after makes a commit fail.
        let Some(user) = self.laid_out(user_id).await? else { return Ok(None) };
        let filter = doc! { "device": { "$in": device_ids }, "user": user_id };
        let sort = Some(doc! { "device": 1, "incarnation": 1 });
        let found = self.find(&self.replicas(), filter, sort, None).await?;
        Ok(Some((user, found.iter().map(replica_of).collect::<Result<_>>()?)))
    }

    async fn replicas_of(&self, user_id: &str) -> Result<Vec<Replica>> {
        self.laid_out(user_id).await?;
        let sort = Some(doc! { "device": 1, "incarnation": 1 });
        let filter = doc! { "user": user_id };
        let found = self.find(&self.replicas(), filter, sort, Some(super::REPLICAS_MAX)).await?;
        found.iter().map(replica_of).collect()
    }

    async fn add_replica(&self, user_id: &str, replica: &Replica) -> Result<bool> {
        if self.newest(user_id).await?.is_none() {
            let user = User {
                user_id: user_id.to_owned(),
                version: 0,
                epoch: new_epoch(),
                head: Position::default(),
                horizon: Position::default(),
            };
            let first = batch::first(&user, replica.registered_at);
            match self.batches().insert_one(first).await {
                Err(error) if !is_duplicate(&error) => return Err(write(error)),
                _ => {}
            }
            // Lists the user for upkeep.
            self.raise_watermark(user_id, 0).await?;
        }
        match self.replicas().insert_one(replica_doc(user_id, replica)).await {
            Err(error) if is_duplicate(&error) => Ok(false),
            done => done.map(|_| true).map_err(write),
        }
    }

    async fn load(
        &self,
        user_id: &str,
        scope: &str,
        ids: &[&str],
        ops: &[OpKey],
        entities: &[EntityKey],
    ) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        for identity in self.answered(scope, ids).await? {
            loaded.identities.insert(identity.id.clone(), identity);
        }
        if !ops.is_empty() {
            let names: Vec<_> = ops.iter().map(|name| binary(name)).collect();
            let filter = doc! { "ops.name": { "$in": names } };
            for found in self.find(&self.batches(), filter, None, None).await? {
                loaded.ops.extend(ops_of(&found)?);
            }
        }
        self.laid_out(user_id).await?;
        let names: Vec<String> =
            entities.iter().map(|key| lay::entity_name(user_id, key)).collect();
        let filter = doc! { "_id": { "$in": names } };
        for found in self.find(&self.entity_docs(), filter, None, None).await? {
            let entity = entity_of(&found)?;
            loaded.entities.insert(entity.key.clone(), entity);
        }
        Ok(loaded)
    }

    async fn commit(&self, commit: &Commit) -> Result<bool> {
        let inserted = batch::of(commit);
        match self.batches().insert_one(&inserted).await {
            Err(error) if is_duplicate(&error) => return Ok(false),
            done => done.map_err(write)?,
        };
        // It is committed. Whoever comes next lays out what could not be laid out here.
        if let Err(error) = self.lay_out(&inserted).await {
            tracing::warn!(%error, "a batch is not laid out yet");
        }
        Ok(true)
    }

    async fn remember(&self, one: &Identity) -> Result<bool> {
        let answer = doc! {
            "_id": name(&[&one.scope, &one.id]), "scope": &one.scope, "id": &one.id,
            "hash": binary(&one.hash), "answer": &one.answer, "at": time(Utc::now()),
        };
        match self.answers().insert_one(answer).await {
            Err(error) if is_duplicate(&error) => Ok(false),
            done => done.map(|_| true).map_err(write),
        }
    }

    async fn recall(&self, scope: &str, id: &str) -> Result<Option<Identity>> {
        Ok(self.answered(scope, &[id]).await?.pop())
    }

    async fn log(&self, user_id: &str, after: u64, limit: u64) -> Result<Vec<LogEntry>> {
        // A batch that changed something has a change, so `limit` batches are enough.
        let filter =
            doc! { "user": user_id, "last": { "$gt": int(after) }, "changes": { "$gt": 0 } };
        let sort = Some(doc! { "version": 1 });
        let mut entries = Vec::new();
        for found in self.find(&self.batches(), filter, sort, Some(limit)).await? {
            let new = log_of(&found)?.into_iter().filter(|entry| entry.position.seq > after);
            entries.extend(new);
        }
        entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(entries)
    }

    async fn mark(&self, user_id: &str, seq: u64) -> Result<Option<u64>> {
        let filter = doc! { "user": user_id, "last": { "$gte": int(seq) } };
        let sort = Some(doc! { "version": 1 });
        let found = self.find(&self.batches(), filter, sort, Some(1)).await?;
        found.first().map(|found| uint(found, "mark")).transpose()
    }

    async fn entities(
        &self,
        user_id: &str,
        after: Option<&EntityKey>,
        limit: u64,
    ) -> Result<Vec<Entity>> {
        self.laid_out(user_id).await?;
        let mut filter = doc! { "user": user_id };
        if let Some(after) = after {
            let (kind, id) = (&after.entity_type, &after.entity_id);
            filter.insert(
                "$or",
                vec![doc! { "type": { "$gt": kind } }, doc! { "type": kind, "id": { "$gt": id } }],
            );
        }
        let sort = Some(doc! { "type": 1, "id": 1 });
        let found = self.find(&self.entity_docs(), filter, sort, Some(limit)).await?;
        found.iter().map(entity_of).collect()
    }

    async fn find_entity(&self, key: &EntityKey) -> Result<Vec<(String, Entity)>> {
        let filter = doc! { "type": &key.entity_type, "id": &key.entity_id };
        let found = self.find(&self.entity_docs(), filter, None, Some(2)).await?;
        found.iter().map(|found| Ok((text(found, "user")?, entity_of(found)?))).collect()
    }

    async fn acknowledge(&self, replica: &Replica, seq: u64, now: DateTime<Utc>) -> Result<()> {
        let life = replica.incarnation.to_string();
        let filter = doc! { "_id": name(&[&replica.device_id, &life]) };
        let update = doc! { "$max": { "acked": int(seq) }, "$set": { "last_seen": time(now) } };
        self.replicas().update_one(filter, update).await.map_err(write)?;
        Ok(())
    }

    async fn conflicts(&self, filter: &ConflictFilter) -> Result<(Vec<Conflict>, u64)> {
        let mut wanted = doc! {};
        if let Some(user) = &filter.user_id {
            self.laid_out(user).await?;
            wanted.insert("user", user);
        }
        if let Some(status) = &filter.status {
            wanted.insert("status", status);
        }
        let docs = self.conflict_docs();
        let total = docs.count_documents(wanted.clone()).await.map_err(read)?;
        let sort = Some(doc! { "detected_at": -1, "_id": 1 });
        let found = self.find_from(&docs, wanted, sort, Some(filter.limit), filter.offset).await?;
        Ok((found.iter().map(conflict_of).collect::<Result<_>>()?, total))
    }

    async fn conflict(&self, id: uuid::Uuid) -> Result<Option<Conflict>> {
        let filter = doc! { "_id": id.to_string() };
        let found = self.find(&self.conflict_docs(), filter, None, Some(1)).await?;
        found.first().map(conflict_of).transpose()
    }

    async fn retire(&self, silent_since: DateTime<Utc>) -> Result<u64> {
        let filter = doc! { "retired": false, "last_seen": { "$lt": time(silent_since) } };
        let update = doc! { "$set": { "retired": true } };
        let done = self.replicas().update_many(filter, update).await.map_err(write)?;
        Ok(done.modified_count)
    }

    async fn users(&self, after: Option<&str>, limit: u64) -> Result<Vec<User>> {
        let filter = doc! { "_id": { "$gt": after.unwrap_or_default() } };
        let sort = Some(doc! { "_id": 1 });
        let mut users = Vec::new();
        for found in self.find(&self.users_docs(), filter, sort, Some(limit)).await? {
            users.extend(self.laid_out(&text(&found, "_id")?).await?);
        }
        Ok(users)
    }

    async fn least_acked(&self, user_id: &str) -> Result<Option<u64>> {
        let filter = doc! { "user": user_id, "retired": false };
        let sort = Some(doc! { "acked": 1 });
        let found = self.find(&self.replicas(), filter, sort, Some(1)).await?;
        found.first().map(|found| uint(found, "acked")).transpose()
    }

    async fn trim(&self, user_id: &str, up_to: u64) -> Result<()> {
        // The document stays: it has the ids. What it changed is laid out in the entities.
        let filter = doc! {
            "user": user_id, "last": { "$lte": int(up_to) }, "changes": { "$gt": 0 },
        };
        let update = doc! { "$set": { "log": Vec::<Bson>::new(), "changes": 0 } };
        self.batches().update_many(filter, update).await.map_err(write)?;
        Ok(())
    }

    async fn forget(&self, older_than: DateTime<Utc>) -> Result<u64> {
        let old = doc! { "$lt": time(older_than) };
        let answers = self.answers().delete_many(doc! { "at": old.clone() }).await;
        let mut forgotten = answers.map_err(write)?.deleted_count;
        // The newest of a user is the user, and stays.
        let filter = doc! { "at": old, "changes": 0, "ids": { "$gt": 0 } };
        for found in self.find(&self.batches(), filter, None, Some(1_000)).await? {
            let user_id = text(&found, "user")?;
            let newest = self.newest(&user_id).await?;
            forgotten += uint(&found, "ids")?;
            let one = doc! { "_id": text(&found, "_id")? };
            if newest
                .is_some_and(|newest| uint(&found, "version").is_ok_and(|v| v < newest.version))
            {
                self.batches().delete_one(one).await.map_err(write)?;
            } else {
                let update = doc! {
                    "$set": {
                        "ops": Vec::<Bson>::new(), "answers": Vec::<Bson>::new(), "ids": 0,
                    },
                };
                self.batches().update_one(one, update).await.map_err(write)?;
            }
        }
        Ok(forgotten)
    }
}
