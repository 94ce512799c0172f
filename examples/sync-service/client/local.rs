//! What a device holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use potter_crdt::{ActorId, Hlc, SkewGuard, Stamp, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{Author, Document, Kind, Operation, Refused, Seen};
use crate::service::{Changes, Downloaded, Registered, UploadAnswer, UploadRequest};
use crate::store::EntityKey;

/// How many acknowledged operations are kept for a server that lost them.
pub const KEPT_MAX: usize = 10_000;
/// Acknowledged operations are sent again for so long: the server knows their names for twice as long.
pub const RESEND_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// The most operations of one batch.
pub const BATCH_MAX: usize = 100;

/// Who the device is, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The device.
    pub device_id: String,
    /// Whose it is.
    pub user_id: String,
    /// From registration; empty before.
    pub token: String,
    /// Which life, from registration.
    pub incarnation: u64,
    /// Which history of the server.
    pub epoch: String,
    /// The number of the last batch that was frozen.
    pub sequence: u64,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// The base has everything up to this change.
    pub seq: u64,
    /// The number of the next operation here.
    pub next_op: u64,
    /// The clock's last stamp: instant and counter.
    pub clock: Option<(String, u32)>,
}

/// Where an operation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpState {
    /// Not sent.
    Pending,
    /// In the batch of that number, which may have been sent.
    Sent(u64),
    /// The server has it; it is in the base once that has reached this number.
    Acked(u64),
    /// Set aside by the server, and why.
    Rejected(String),
}

/// Something that was done here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalOp {
    /// The entity's kind in the user's program.
    pub entity_type: String,
    /// The entity.
    pub entity_id: String,
    /// Its CRDT.
    pub crdt_type: String,
    /// What.
    pub op: Operation,
    /// Where it is.
    pub state: OpState,
    /// When the server took it, by the server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_at: Option<String>,
}

/// What changed here since it was stored.
#[derive(Clone, Debug, Default)]
pub struct Dirty {
    /// The base was emptied first.
    pub cleared: bool,
    /// Entities of the base.
    pub entities: BTreeSet<EntityKey>,
    /// Operations, by number; those that are not there any more are to be deleted.
    pub ops: BTreeSet<u64>,
}

/// An entity as its user sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Its CRDT.
    pub kind: Kind,
    /// Its value.
    pub value: Value,
    /// Own operations that the base does not have yet.
    pub unsent: usize,
    /// Different values stand side by side.
    pub conflict: bool,
}

/// All that a device holds.
#[derive(Debug, Default)]
pub struct Local {
    /// Who and where.
    pub meta: Meta,
    /// The base.
    pub entities: BTreeMap<EntityKey, Document>,
    /// Own operations, by number.
    pub ops: BTreeMap<u64, LocalOp>,
    /// What is to be stored.
    pub dirty: Dirty,
}

/// The name of this device's events in the overlay, before the server names them.
const UNNAMED: &str = "here";

impl Local {
    /// A new device.
    pub fn new(device_id: &str, user_id: &str) -> Self {
        let meta = Meta {
            device_id: device_id.to_owned(),
            user_id: user_id.to_owned(),
            ..Meta::default()
        };
        Self { meta, ..Self::default() }
    }

    /// Does something, here and now; it is sent at the next sync. `wall` is the device's clock.
    ///
    /// # Errors
    /// What the server would refuse too; nothing is recorded then.
    pub fn record(
        &mut self,
        key: &EntityKey,
        kind: Kind,
        mut op: Operation,
        op_id: String,
        wall: Timestamp,
    ) -> Result<(), Refused> {
        let mut document = self.document(key, kind, wall)?;
        op.op_id = Some(op_id);
        op.context = self.entities.get(key).and_then(Document::context).map(|seen| {
            let mut context: BTreeMap<String, Seen> = BTreeMap::new();
            for (actor, lo, hi) in seen.iter() {
                let ranges = context.entry(actor.to_string()).or_insert(Seen::Ranges(Vec::new()));
                if let Seen::Ranges(ranges) = ranges {
                    ranges.push((lo, hi));
                }
            }
            context
        });
        let clock = self.meta.clock.clone();
        if stamped(kind) {
            let stamp = self.stamp(&document, wall)?;
            op.timestamp = Some(stamp.at.to_string());
            op.counter = (stamp.counter > 0).then_some(stamp.counter);
        }
        if let Err(refused) = self.lay(&mut document, &op, wall) {
            self.meta.clock = clock;
            return Err(refused);
        }
        let number = self.meta.next_op;
        self.meta.next_op += 1;
        self.dirty.ops.insert(number);
        let EntityKey { entity_type, entity_id } = key.clone();
        let crdt_type = kind.name().to_owned();
        let state = OpState::Pending;
        self.ops.insert(
            number,
            LocalOp { entity_type, entity_id, crdt_type, op, state, acked_at: None },
        );
        Ok(())
    }

    /// A stamp above all before, and above what this device shows of the entity.
    fn stamp(&mut self, document: &Document, wall: Timestamp) -> Result<Stamp, Refused> {
        let node = ActorId::new(&self.meta.device_id)?;
        let read = |(at, counter): &(String, u32)| -> Option<Stamp> {
            Some(Stamp { at: Timestamp::parse(at).ok()?, counter: *counter, node: node.clone() })
        };
        let mut clock = match self.meta.clock.as_ref().and_then(read) {
            Some(last) => Hlc::resume(node, &last),
            None => Hlc::new(node),
        };
        let stamp = clock.now_after(wall, document.top_stamp().as_ref())?;
        self.meta.clock = Some((stamp.at.to_string(), stamp.counter));
        Ok(stamp)
    }

    fn lay(&self, document: &mut Document, op: &Operation, wall: Timestamp) -> Result<(), Refused> {
        // The device believes its own clock.
        let mut guard = SkewGuard::new(Duration::MAX);
        let mut author = Author {
            device: &self.meta.device_id,
            incarnation: 0,
            epoch: UNNAMED,
            now: wall,
            guard: &mut guard,
        };
        document.apply(op, &mut author).map(|_| ())
    }

    /// Own operations on an entity that the base does not have yet.
    fn overlay<'a>(&'a self, key: &'a EntityKey) -> impl Iterator<Item = &'a LocalOp> {
        self.ops.values().filter(move |op| {
            op.entity_id == key.entity_id
                && op.entity_type == key.entity_type
                && match op.state {
                    OpState::Pending | OpState::Sent(_) => true,
                    OpState::Acked(seq) => seq > self.meta.seq,
                    OpState::Rejected(_) => false,
                }
        })
    }

    fn document(&self, key: &EntityKey, kind: Kind, wall: Timestamp) -> Result<Document, Refused> {
        let known = || self.overlay(key).next().and_then(|op| Kind::parse(&op.crdt_type));
        let mut document = match self.entities.get(key) {
            Some(base) => base.clone(),
            None => Document::new(known().unwrap_or(kind)),
        };
        for op in self.overlay(key) {
            // What no longer fits (a bounded counter's rights are gone) is not shown.
            let _ = self.lay(&mut document, &op.op, wall);
        }
        if document.kind() != kind {
            let detail = format!("{} is a {}", key.entity_id, document.kind().name());
            return Err(Refused { code: "type_mismatch", detail });
        }
        Ok(document)
    }

    /// An entity as its user sees it.
    pub fn show(&self, key: &EntityKey) -> Option<Shown> {
        let kind = match self.entities.get(key) {
            Some(base) => base.kind(),
            None => Kind::parse(&self.overlay(key).next()?.crdt_type)?,
        };
        let document = self.document(key, kind, Timestamp::MIN).ok()?;
        Some(Shown {
            kind,
            value: document.value(),
            unsent: self.overlay(key).count(),
            conflict: !document.conflicts().is_empty(),
        })
    }

    /// All entities that there is anything of.
    pub fn keys(&self) -> BTreeSet<EntityKey> {
        let own = self.ops.values().map(|op| EntityKey {
            entity_type: op.entity_type.clone(),
            entity_id: op.entity_id.clone(),
        });
        let keys: BTreeSet<_> = self.entities.keys().cloned().chain(own).collect();
        keys.into_iter().filter(|key| self.show(key).is_some()).collect()
    }

    /// Freezes the next batch, if nothing is frozen: gives it its number. Store this before sending.
    pub fn freeze(&mut self) -> bool {
        if self.ops.values().any(|op| matches!(op.state, OpState::Sent(_))) {
            return true;
        }
        let pending = self.ops.iter_mut().filter(|(_, op)| op.state == OpState::Pending);
        let mut any = false;
        for (number, op) in pending.take(BATCH_MAX) {
            op.state = OpState::Sent(self.meta.sequence + 1);
            self.dirty.ops.insert(*number);
            any = true;
        }
        self.meta.sequence += u64::from(any);
        any
    }

    /// The frozen batch.
    pub fn batch(&self) -> UploadRequest {
        let mut changes: Vec<Changes> = Vec::new();
        let sent = |op: &&LocalOp| matches!(op.state, OpState::Sent(_));
        for op in self.ops.values().filter(sent) {
            let operation = serde_json::to_value(&op.op).unwrap_or_default();
            // In the order in which they were made: an entity may come several times.
            match changes.last_mut() {
                Some(last)
                    if last.entity_id == op.entity_id && last.entity_type == op.entity_type =>
                {
                    last.operations.push(operation);
                }
                _ => changes.push(Changes {
                    entity_id: op.entity_id.clone(),
                    entity_type: op.entity_type.clone(),
                    crdt_type: op.crdt_type.clone(),
                    operations: vec![operation],
                }),
            }
        }
        UploadRequest {
            device_id: self.meta.device_id.clone(),
            changes,
            batch_id: None,
            sequence: Some(self.meta.sequence),
            incarnation: Some(self.meta.incarnation),
            epoch: Some(self.meta.epoch.clone()),
            device_time: None,
        }
    }

    /// Takes in the answer to the frozen batch.
    pub fn uploaded(&mut self, answer: &UploadAnswer) {
        let mut results = answer.results.iter();
        for (number, op) in &mut self.ops {
            if !matches!(op.state, OpState::Sent(_)) {
                continue;
            }
            let result = results.next();
            op.state =
                match result.and_then(|result| result.code.clone().zip(result.detail.clone())) {
                    Some((code, detail)) => OpState::Rejected(format!("{code}: {detail}")),
                    None => {
                        op.acked_at = Some(answer.server_time.clone());
                        OpState::Acked(answer.seq)
                    }
                };
            self.dirty.ops.insert(*number);
        }
        self.forget();
    }

    /// Drops what need not be kept any more.
    fn forget(&mut self) {
        let in_base =
            |op: &LocalOp| matches!(op.state, OpState::Acked(seq) if seq <= self.meta.seq);
        let surplus = self.ops.values().filter(|op| in_base(op)).count().saturating_sub(KEPT_MAX);
        let old: Vec<u64> = self
            .ops
            .iter()
            .filter(|(_, op)| in_base(op))
            .map(|(number, _)| *number)
            .take(surplus)
            .collect();
        for number in old {
            self.ops.remove(&number);
            self.dirty.ops.insert(number);
        }
    }

    /// Takes in a page. Store this before the cursor is sent back.
    ///
    /// # Errors
    /// When a delta can't be read or joined; nothing is changed then.
    pub fn downloaded(&mut self, page: &Downloaded) -> Result<(), Refused> {
        let mut joined: BTreeMap<EntityKey, Document> = BTreeMap::new();
        let anew = page.snapshot && self.meta.cursor.is_none();
        for change in &page.changes {
            let kind = Kind::parse(&change.crdt_type).ok_or_else(|| Refused {
                code: "unknown_crdt_type",
                detail: format!("there is no {}", change.crdt_type),
            })?;
            let delta = Document::from_json(kind, &change.delta)?;
            let key = EntityKey {
                entity_type: change.entity_type.clone(),
                entity_id: change.entity_id.clone(),
            };
            let base = || match self.entities.get(&key) {
                Some(base) if !anew => base.clone(),
                _ => Document::new(kind),
            };
            joined.entry(key.clone()).or_insert_with(base).join(&delta)?;
        }
        if anew {
            self.entities.clear();
            self.dirty.entities.clear();
            self.dirty.cleared = true;
        }
        self.dirty.entities.extend(joined.keys().cloned());
        self.entities.extend(joined);
        self.meta.cursor = Some(page.next_cursor.clone());
        self.meta.seq = self.meta.seq.max(page.seq);
        self.forget();
        Ok(())
    }

    /// The cursor is worth nothing any more: the next download begins anew.
    pub fn forget_cursor(&mut self) {
        self.meta.cursor = None;
        self.meta.seq = 0;
    }

    /// Another life: nothing is frozen any more.
    pub fn reborn(&mut self, registered: &Registered) {
        self.meta.incarnation = registered.incarnation;
        self.meta.token.clone_from(&registered.token);
        self.meta.epoch.clone_from(&registered.epoch);
        self.meta.sequence = 0;
        self.again(|op| matches!(op.state, OpState::Sent(_)));
    }

    /// The server has another history: what it had acknowledged is sent again, and all is downloaded
    /// anew.
    pub fn resend(&mut self, server_time: &str) {
        let now = Timestamp::parse(server_time).unwrap_or(Timestamp::MAX);
        let recent = |op: &LocalOp| {
            let at = op.acked_at.as_deref().and_then(|at| Timestamp::parse(at).ok());
            at.is_some_and(|at| now.since(at) <= RESEND_MAX)
        };
        self.again(|op| matches!(op.state, OpState::Acked(_)) && recent(op));
        self.forget_cursor();
    }

    fn again(&mut self, which: impl Fn(&LocalOp) -> bool) {
        for (number, op) in self.ops.iter_mut().filter(|(_, op)| which(op)) {
            op.state = OpState::Pending;
            self.dirty.ops.insert(*number);
        }
    }
}

/// Does the last writer win here, so that an operation needs a stamp?
fn stamped(kind: Kind) -> bool {
    matches!(kind, Kind::LwwRegister | Kind::MvRegister | Kind::LwwMap | Kind::OrMap)
}
