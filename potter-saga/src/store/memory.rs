//! Sagas in memory: for tests, and for services that need no more. The same promises within the
//! process; nothing survives it.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Database, MemoryTable, MemoryTx, Tx};
use uuid::Uuid;

use super::{
    Advance, Advanced, ClaimRequest, Claimed, Inserted, LogRecord, NewSaga, SagaFilter, SagaRecord,
    SagaStore, UNKNOWN_VERSION, UNNOTICED, rules,
};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{EntryKind, LogEntry};
use crate::status::SagaStatus;

struct Sagas;
impl MemoryTable for Sagas {
    type Key = Uuid;
    type Row = (SagaRecord, String);
}

struct Keys;
impl MemoryTable for Keys {
    type Key = (String, String);
    type Row = Uuid;
}

struct Log;
impl MemoryTable for Log {
    type Key = (Uuid, i64);
    type Row = LogRecord;
}

struct Nodes;
impl MemoryTable for Nodes {
    type Key = Uuid;
    type Row = DateTime<Utc>;
}

/// Sagas in a [`Database::memory`].
#[derive(Clone, Debug)]
pub struct MemorySagaStore {
    database: Database,
}

impl MemorySagaStore {
    /// A store in `database`, which must be a memory database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    async fn write<T>(&self, work: impl FnOnce(&mut MemoryTx) -> Result<T> + Send) -> Result<T> {
        let mut tx = self.database.begin().await?;
        let answer = work(memory(&mut tx)?)?;
        tx.commit().await?;
        Ok(answer)
    }
}

fn memory(tx: &mut Tx) -> Result<&mut MemoryTx> {
    tx.memory().ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            "the memory store of sagas was given a transaction of another engine",
        )
    })
}

fn insert(tx: &mut MemoryTx, saga: &NewSaga) -> Result<Inserted> {
    let key = (saga.name.to_owned(), saga.key.clone());
    if let Some(id) = tx.get::<Keys>(&key).copied() {
        let hash = tx.get::<Sagas>(&id).map(|(_, hash)| hash.clone()).unwrap_or_default();
        return rules::existing_id(saga, id, &hash);
    }
    if tx.get::<Sagas>(&saga.id).is_some() {
        return Err(rules::id_taken(saga));
    }
    let now = tx.now();
    let record = SagaRecord {
        id: saga.id,
        name: saga.name.to_owned(),
        version: saga.version,
        definition_hash: saga.definition_hash.clone(),
        key: saga.key.clone(),
        input: saga.input.clone(),
        metadata: saga.metadata.clone(),
        status: SagaStatus::Pending,
        steps_total: saga.steps_total,
        step: 0,
        attempt: 0,
        error: None,
        parked: None,
        past_pivot: false,
        compensating: false,
        cancel_requested: false,
        owner: saga.owner,
        fence: i64::from(saga.owner.is_some()),
        wake_at: now,
        deadline_at: saga.timeout.map(|timeout| now + timeout),
        created_at: now,
        updated_at: now,
        finished_at: None,
    };
    tx.put::<Keys>(key, saga.id);
    tx.put::<Sagas>(saga.id, (record, saga.input_hash.clone()));
    Ok(Inserted::Created)
}

fn rows(tx: &mut MemoryTx, id: Uuid) -> Vec<LogRecord> {
    tx.rows::<Log>().range((id, 0)..=(id, i64::MAX)).map(|(_, row)| row.clone()).collect()
}

fn active(status: SagaStatus) -> bool {
    matches!(status, SagaStatus::Pending | SagaStatus::Running | SagaStatus::Compensating)
}

fn due(tx: &mut MemoryTx, request: &ClaimRequest) -> Vec<(SagaRecord, String)> {
    let now = tx.now();
    let alive: Vec<Uuid> = tx
        .rows::<Nodes>()
        .iter()
        .filter(|(_, until)| **until > now)
        .map(|(node, _)| *node)
        .collect();
    let free = |record: &SagaRecord| match record.owner {
        None => true,
        Some(owner) if owner == request.node => {
            let unnoticed =
                !request.running.contains(&record.id) && record.updated_at + UNNOTICED < now;
            request.lost.contains(&record.id) || unnoticed
        }
        Some(owner) => !alive.contains(&owner),
    };
    let mut due: Vec<_> = tx
        .rows::<Sagas>()
        .values()
        .filter(|(record, _)| {
            active(record.status)
                && record.wake_at <= now
                && free(record)
                && request
                    .registered
                    .iter()
                    .any(|(name, version)| *name == record.name && *version == record.version)
        })
        .cloned()
        .collect();
    due.sort_by_key(|(record, _)| (record.wake_at, record.id));
    due.truncate(request.limit as usize);
    due
}

fn claim(tx: &mut MemoryTx, request: &ClaimRequest) -> Vec<Claimed> {
    let now = tx.now();
    due(tx, request)
        .into_iter()
        .map(|(mut record, hash)| {
            let taken_over = record.owner.is_some();
            record.owner = Some(request.node);
            record.fence += 1;
            tx.put::<Sagas>(record.id, (record.clone(), hash));
            let log = rows(tx, record.id).into_iter().map(|row| row.entry).collect();
            let overdue = record.deadline_at.is_some_and(|deadline| deadline <= now);
            Claimed { record, taken_over, log, overdue }
        })
        .collect()
}

fn advance(tx: &mut MemoryTx, advance: &Advance) -> Result<Advanced> {
    let now = tx.now();
    let (mut record, hash) = tx
        .get::<Sagas>(&advance.saga_id)
        .filter(|(record, _)| record.fence == advance.fence && record.owner.is_some())
        .cloned()
        .ok_or_else(|| rules::fenced(advance))?;
    record.status = advance.status;
    record.step = advance.step;
    record.attempt = advance.attempt;
    record.past_pivot = advance.past_pivot;
    record.compensating = advance.compensating;
    record.parked.clone_from(&advance.parked);
    record.error = advance.error.clone().or(record.error);
    record.updated_at = now;
    if advance.status.is_final() {
        record.finished_at = Some(now);
    }
    if !active(advance.status) || advance.release_after.is_some() {
        record.owner = None;
    }
    if let Some(wait) = advance.release_after {
        record.wake_at = rules::wake(now, wait, record.deadline_at);
    }
    let advanced = Advanced {
        cancel_requested: record.cancel_requested,
        overdue: record.deadline_at.is_some_and(|deadline| deadline <= now),
    };
    tx.put::<Sagas>(record.id, (record, hash));
    append(tx, advance.saga_id, advance.seq, &advance.entries);
    Ok(advanced)
}

fn append(tx: &mut MemoryTx, id: Uuid, seq: i64, entries: &[LogEntry]) {
    let at = tx.now();
    for (offset, entry) in (1i64..).zip(entries) {
        tx.put::<Log>((id, seq + offset), LogRecord { entry: entry.clone(), at });
    }
}

fn change(
    tx: &mut MemoryTx,
    id: Uuid,
    work: impl FnOnce(&mut SagaRecord) -> Result<bool>,
) -> Result<()> {
    let now = tx.now();
    let found = tx.get::<Sagas>(&id).cloned();
    let (mut record, hash) = found.ok_or_else(|| rules::not_found(id))?;
    let resumed = work(&mut record)?;
    record.wake_at = now;
    record.updated_at = now;
    if resumed {
        let seq = rows(tx, id).len();
        let entry = rules::resumed_entry(&record);
        append(tx, id, i64::try_from(seq).unwrap_or(i64::MAX), &[entry]);
    }
    tx.put::<Sagas>(id, (record, hash));
    Ok(())
}

#[async_trait]
impl SagaStore for MemorySagaStore {
    async fn migrate(&self) -> Result<()> {
        Ok(())
    }

    fn database(&self) -> &Database {
        &self.database
    }

    async fn insert(&self, tx: Option<&mut Tx>, saga: &NewSaga) -> Result<Inserted> {
        match tx {
            Some(tx) => insert(memory(tx)?, saga),
            None => self.write(|tx| insert(tx, saga)).await,
        }
    }

    async fn due(&self, request: &ClaimRequest) -> Result<u32> {
        self.write(|tx| Ok(u32::try_from(due(tx, request).len()).unwrap_or(u32::MAX))).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>> {
        self.write(|tx| Ok(claim(tx, request))).await
    }

    async fn advance(&self, tx: Option<Tx>, step: &Advance) -> Result<Advanced> {
        let mut tx = match tx {
            Some(tx) => tx,
            None => self.database.begin().await?,
        };
        let advanced = advance(memory(&mut tx)?, step)?;
        tx.commit().await?;
        Ok(advanced)
    }

    async fn heartbeat(&self, node: Uuid, ttl: Duration) -> Result<()> {
        self.write(|tx| {
            let until = tx.now() + ttl;
            tx.put::<Nodes>(node, until);
            Ok(())
        })
        .await
    }

    async fn retire(&self, node: Uuid, clean: bool) -> Result<()> {
        self.write(|tx| {
            tx.remove::<Nodes>(&node);
            if clean {
                let owned: Vec<_> = tx
                    .rows::<Sagas>()
                    .values()
                    .filter(|(record, _)| record.owner == Some(node))
                    .cloned()
                    .collect();
                for (mut record, hash) in owned {
                    record.owner = None;
                    tx.put::<Sagas>(record.id, (record, hash));
                }
            }
            Ok(())
        })
        .await
    }

    async fn park_unknown(
        &self,
        registered: &[(&'static str, u32)],
        grace: Duration,
    ) -> Result<u64> {
        self.write(|tx| {
            let now = tx.now();
            let known = |record: &SagaRecord| {
                registered
                    .iter()
                    .any(|(name, version)| *name == record.name && *version == record.version)
            };
            let named =
                |record: &SagaRecord| registered.iter().any(|(name, _)| *name == record.name);
            let all: Vec<_> = tx.rows::<Sagas>().values().cloned().collect();
            let mut parked = 0;
            for (mut record, hash) in all {
                let stale = active(record.status)
                    && record.owner.is_none()
                    && record.wake_at + grace <= now;
                let back =
                    record.parked.as_deref().is_some_and(|why| why.starts_with(UNKNOWN_VERSION));
                let entry = if stale && named(&record) && !known(&record) {
                    parked += 1;
                    record.status = SagaStatus::Failed;
                    record.parked = Some(rules::unknown_version(&record));
                    rules::whole_entry(&record, EntryKind::Parked, record.parked.clone())
                } else if back && known(&record) {
                    rules::unpark(&mut record);
                    rules::whole_entry(&record, EntryKind::Resumed, None)
                } else {
                    continue;
                };
                let seq = rows(tx, record.id).len();
                append(tx, record.id, i64::try_from(seq).unwrap_or(i64::MAX), &[entry]);
                tx.put::<Sagas>(record.id, (record, hash));
            }
            Ok(parked)
        })
        .await
    }

    async fn request_cancel(&self, id: Uuid) -> Result<()> {
        self.write(|tx| change(tx, id, rules::cancel)).await
    }

    async fn resume(&self, id: Uuid) -> Result<()> {
        self.write(|tx| change(tx, id, rules::resume)).await
    }

    async fn get(&self, id: Uuid) -> Result<Option<SagaRecord>> {
        self.write(|tx| Ok(tx.get::<Sagas>(&id).map(|(record, _)| record.clone()))).await
    }

    async fn log(&self, id: Uuid) -> Result<Vec<LogRecord>> {
        self.write(|tx| Ok(rows(tx, id))).await
    }

    async fn list(&self, filter: &SagaFilter) -> Result<(Vec<SagaRecord>, u64)> {
        self.write(|tx| {
            let mut all: Vec<_> = tx
                .rows::<Sagas>()
                .values()
                .map(|(record, _)| record)
                .filter(|record| {
                    filter.status.is_none_or(|status| record.status == status)
                        && filter.name.as_ref().is_none_or(|name| record.name == *name)
                        && filter.version.is_none_or(|version| record.version == version)
                        && !(filter.unfinished && record.status.is_final())
                        && (filter.correlation_id.is_none()
                            || record.metadata.correlation_id == filter.correlation_id)
                })
                .cloned()
                .collect();
            all.sort_by_key(|record| std::cmp::Reverse((record.created_at, record.id)));
            let total = all.len() as u64;
            let limit = filter.limit.min(SagaFilter::LIMIT_MAX) as usize;
            Ok((all.into_iter().skip(filter.offset as usize).take(limit).collect(), total))
        })
        .await
    }

    async fn purge(&self, before: DateTime<Utc>, limit: u32) -> Result<u64> {
        self.write(|tx| {
            let old: Vec<_> = tx
                .rows::<Sagas>()
                .values()
                .filter(|(record, _)| record.finished_at.is_some_and(|at| at < before))
                .map(|(record, _)| (record.id, (record.name.clone(), record.key.clone())))
                .take(limit as usize)
                .collect();
            for (id, key) in &old {
                tx.remove::<Sagas>(id);
                tx.remove::<Keys>(key);
                for seq in (1i64..).zip(rows(tx, *id)).map(|(seq, _)| seq).collect::<Vec<_>>() {
                    tx.remove::<Log>(&(*id, seq));
                }
            }
            Ok(old.len() as u64)
        })
        .await
    }
}
