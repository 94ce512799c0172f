//! Where it is kept.
//!
//! Contract of a store. [`Store::commit`] writes everything of a [`Commit`] or nothing, and only if
//! the user's version is still the one that the commit was made from; a store without transactions
//! makes one document of the batch the truth and derives the rest. Whoever builds a commit reads the
//! device first (it carries the version) and everything else after: what changes in between makes
//! the commit answer `false`. Readers of the log see numbers in order, without gaps.

#[cfg(feature = "mongodb")]
pub mod mongodb;
pub mod sql;

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::Result;
use serde::{Deserialize, Serialize};

use crate::document::{Kind, Sibling};
use crate::protocol::{Position, Secret};

/// The most replicas of one user that a status shows.
pub const REPLICAS_MAX: u64 = 500;

/// A user's place in its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Whose.
    pub user_id: String,
    /// Counts commits; the compare-and-swap is on it.
    pub version: u64,
    /// Which history.
    pub epoch: String,
    /// The last change.
    pub head: Position,
    /// The last change that is trimmed from the log.
    pub horizon: Position,
}

/// One life of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The device.
    pub device_id: String,
    /// Which life, from 1.
    pub incarnation: u64,
    /// When it registered.
    pub registered_at: DateTime<Utc>,
    /// When it was heard of.
    pub last_seen: DateTime<Utc>,
    /// The highest number whose cursor came back.
    pub acked: u64,
    /// The number of its last upload; 0 before the first, or if it does not number them.
    pub last_sequence: u64,
    /// It was silent too long, or its user said so: it must register again.
    pub retired: bool,
    /// What small things are kept of it.
    pub notes: Notes,
}

/// What is kept of a replica beside its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    /// The greatest stamp that was set back, and what to: (claimed, given), as RFC 3339 and counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamped: Option<((String, u32), (String, u32))>,
    /// The device's clock less the server's at its last upload that told it, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// The device's vector clock.
    pub clock: std::collections::BTreeMap<String, u64>,
}

/// A device as requests find it: its user, and its lives, the first one first.
#[derive(Clone, Debug)]
pub struct Device {
    /// The user, as of one moment together with the replicas.
    pub user: User,
    /// The lives.
    pub replicas: Vec<Replica>,
}

/// Which entity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntityKey {
    /// Its kind in the user's program; `document` if none is given.
    pub entity_type: String,
    /// Its id.
    pub entity_id: String,
}

/// An entity as it is stored.
#[derive(Clone, Debug)]
pub struct Entity {
    /// Which.
    pub key: EntityKey,
    /// Its CRDT.
    pub kind: Kind,
    /// Its state.
    pub state: Vec<u8>,
    /// Its last change.
    pub seq: u64,
    /// When that was.
    pub updated_at: DateTime<Utc>,
}

/// One change in the log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Its number and its batch's mark.
    pub position: Position,
    /// The entity.
    pub key: EntityKey,
    /// Its CRDT.
    pub kind: Kind,
    /// Who changed it.
    pub device_id: String,
    /// What changed.
    pub delta: Vec<u8>,
    /// When, by the server.
    pub at: DateTime<Utc>,
}

/// The name of an operation: 16 bytes that stand for user and `op_id`.
pub type OpKey = [u8; 16];

/// An operation that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpRecord {
    /// Its name.
    pub key: OpKey,
    /// What it was, to tell a retry from another operation of that name. 63 bits of a SHA-256.
    pub payload: u64,
}

/// A request that is answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Within what its name is unique: a user, or a kind of request.
    pub scope: String,
    /// Its name.
    pub id: String,
    /// What it asked.
    pub hash: Vec<u8>,
    /// What was answered, JSON.
    pub answer: String,
}

/// What a commit needs to know.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Those of the requests that were answered before, by their ids.
    pub identities: HashMap<String, Identity>,
    /// The operations that were counted before.
    pub ops: HashMap<OpKey, u64>,
    /// The entities that are there.
    pub entities: HashMap<EntityKey, Entity>,
}

/// Where values stand side by side.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// Derived from user, entity and entry: the next conflict at the same place has it too.
    pub id: uuid::Uuid,
    /// Whose.
    pub user_id: String,
    /// The entity.
    pub key: EntityKey,
    /// Its CRDT.
    pub kind: Kind,
    /// Which entry of a map.
    pub entry: Option<String>,
    /// The values.
    pub siblings: Vec<Sibling>,
    /// `open`, `resolved` (by hand or policy) or `superseded` (by a later write).
    pub status: &'static str,
    /// When it was found.
    pub detected_at: DateTime<Utc>,
    /// When it ended.
    pub resolved_at: Option<DateTime<Utc>>,
    /// What ended it.
    pub resolution: Option<String>,
}

/// Everything that one request changes of a user.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The user as it was read.
    pub before: User,
    /// And as it will be, with the next version.
    pub after: User,
    /// The replicas that wrote, each once.
    pub replicas: Vec<Replica>,
    /// Operations to remember.
    pub ops: Vec<OpRecord>,
    /// Entities that changed.
    pub entities: Vec<Entity>,
    /// Their changes, in the order of their numbers.
    pub log: Vec<LogEntry>,
    /// Conflicts that came, went or changed.
    pub conflicts: Vec<Conflict>,
    /// The answers to give again.
    pub identities: Vec<Identity>,
}

impl Commit {
    /// One that changes nothing but the version.
    pub fn of(user: &User) -> Self {
        let after = User { version: user.version + 1, ..user.clone() };
        Self {
            before: user.clone(),
            after,
            replicas: Vec::new(),
            ops: Vec::new(),
            entities: Vec::new(),
            log: Vec::new(),
            conflicts: Vec::new(),
            identities: Vec::new(),
        }
    }
}

/// Which conflicts.
#[derive(Clone, Debug, Default)]
pub struct ConflictFilter {
    /// Whose; all users' if `None`.
    pub user_id: Option<String>,
    /// In which state; all if `None`.
    pub status: Option<String>,
    /// At most so many.
    pub limit: u64,
    /// After so many.
    pub offset: u64,
}

/// The storage of the service. See the module for what commits promise.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Does it answer?
    async fn ping(&self) -> Result<()>;
    /// The secret; made at the first start.
    async fn secret(&self) -> Result<Secret>;
    /// A device and its user, as of one moment.
    async fn device(&self, device_id: &str) -> Result<Option<Device>>;
    /// A user.
    async fn user(&self, user_id: &str) -> Result<Option<User>>;
    /// A user and the lives of these devices of it, as of one moment.
    async fn devices(
        &self,
        user_id: &str,
        device_ids: &[&str],
    ) -> Result<Option<(User, Vec<Replica>)>>;
    /// All replicas of a user, at most [`REPLICAS_MAX`].
    async fn replicas_of(&self, user_id: &str) -> Result<Vec<Replica>>;
    /// Makes the user if it is new, and adds a replica; answers `false` if that replica is there.
    async fn add_replica(&self, user_id: &str, replica: &Replica) -> Result<bool>;
    /// What a commit needs: of the requests of these ids within `scope`, operations and entities,
    /// those that are there.
    async fn load(
        &self,
        user_id: &str,
        scope: &str,
        ids: &[&str],
        ops: &[OpKey],
        entities: &[EntityKey],
    ) -> Result<Loaded>;
    /// All of it or, if the version is another, nothing and `false`.
    async fn commit(&self, commit: &Commit) -> Result<bool>;
    /// An answer to a request that belongs to no user; `false` if the name is taken.
    async fn remember(&self, identity: &Identity) -> Result<bool>;
    /// What [`remember`](Self::remember) has under that name.
    async fn recall(&self, scope: &str, id: &str) -> Result<Option<Identity>>;
    /// The changes after a number, in order.
    async fn log(&self, user_id: &str, after: u64, limit: u64) -> Result<Vec<LogEntry>>;
    /// The mark of a number.
    async fn mark(&self, user_id: &str, seq: u64) -> Result<Option<u64>>;
    /// Entities in the order of their keys.
    async fn entities(
        &self,
        user_id: &str,
        after: Option<&EntityKey>,
        limit: u64,
    ) -> Result<Vec<Entity>>;
    /// Entities of that key, of any user; at most two.
    async fn find_entity(&self, key: &EntityKey) -> Result<Vec<(String, Entity)>>;
    /// Raises what a replica has acknowledged, and notes that it was heard of.
    async fn acknowledge(&self, replica: &Replica, seq: u64, now: DateTime<Utc>) -> Result<()>;
    /// Conflicts, the latest first, and how many there are in all.
    async fn conflicts(&self, filter: &ConflictFilter) -> Result<(Vec<Conflict>, u64)>;
    /// One of them.
    async fn conflict(&self, id: uuid::Uuid) -> Result<Option<Conflict>>;
    /// Retires replicas that were not heard of since; how many.
    async fn retire(&self, silent_since: DateTime<Utc>) -> Result<u64>;
    /// Users in the order of their ids.
    async fn users(&self, after: Option<&str>, limit: u64) -> Result<Vec<User>>;
    /// The least that the live replicas of a user have acknowledged; `None` if it has none.
    async fn least_acked(&self, user_id: &str) -> Result<Option<u64>>;
    /// Deletes the log up to a position. It is the commit's horizon already.
    async fn trim(&self, user_id: &str, up_to: u64) -> Result<()>;
    /// Forgets answers and operations that are older; how many.
    async fn forget(&self, older_than: DateTime<Utc>) -> Result<u64>;
}
