//! In memory: the same rules on the tables of the memory database.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Database, MemoryTable, MemoryTx, Tx};
use uuid::Uuid;

use super::{
    Checkpoints, CheckpointsAdmin, Claimed, Membership, Move, Registered, WorkerId, checked_name,
    checked_segments, no_such_projection, same_segments, same_version,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::projection::options::{Partition, WorkerOptions};
use crate::projection::parked::ParkedEvent;
use crate::projection::status::{ProjectionState, SegmentStatus};

#[derive(Debug)]
pub(super) struct MemoryCheckpoints {
    database: Database,
}

struct Projections;

#[derive(Clone)]
struct ProjectionRow {
    segments: u16,
    version: u32,
    state: ProjectionState,
    switch_until: Option<DateTime<Utc>>,
}

impl MemoryTable for Projections {
    type Key = String;
    type Row = ProjectionRow;
}

struct Segments;

impl MemoryTable for Segments {
    type Key = (String, u16);
    type Row = SegmentStatus;
}

struct Workers;

#[derive(Clone, Copy)]
struct WorkerRow {
    elastic: bool,
    expires_at: DateTime<Utc>,
}

impl MemoryTable for Workers {
    type Key = (String, Uuid);
    type Row = WorkerRow;
}

struct Parked;

impl MemoryTable for Parked {
    type Key = (String, u64);
    type Row = ParkedEvent;
}

fn memory(tx: &mut Tx) -> Result<&mut MemoryTx> {
    let wrong = || Error::new(ErrorKind::Config, "the transaction is not in memory");
    tx.memory().ok_or_else(wrong)
}

fn in_future(now: DateTime<Utc>, time: Duration) -> DateTime<Utc> {
    let time = chrono::TimeDelta::from_std(time).unwrap_or(chrono::TimeDelta::MAX);
    now.checked_add_signed(time).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

fn held(memory: &mut MemoryTx, projection: &str) -> Result<ProjectionState> {
    let now = memory.now();
    let row = memory.get::<Projections>(&projection.to_owned());
    let row = row.ok_or_else(|| no_such_projection(projection))?;
    let late = row.switch_until.is_some_and(|until| until < now);
    Ok(match row.state {
        ProjectionState::Switching if late => ProjectionState::Running,
        state => state,
    })
}

fn segments_of(memory: &mut MemoryTx, projection: &str) -> Vec<SegmentStatus> {
    let range = (projection.to_owned(), 0)..=(projection.to_owned(), u16::MAX);
    memory.rows::<Segments>().range(range).map(|(_, row)| row.clone()).collect()
}

fn put(memory: &mut MemoryTx, projection: &str, row: SegmentStatus) {
    memory.put::<Segments>((projection.to_owned(), row.segment), row);
}

fn live(memory: &mut MemoryTx, projection: &str, elastic_only: bool) -> BTreeSet<Uuid> {
    let now = memory.now();
    let range = (projection.to_owned(), Uuid::nil())..=(projection.to_owned(), Uuid::max());
    let workers = memory.rows::<Workers>().range(range);
    let alive = workers.filter(|(_, row)| row.expires_at > now && (row.elastic || !elastic_only));
    alive.map(|((_, worker), _)| *worker).collect()
}

fn claimed(row: &SegmentStatus) -> Claimed {
    Claimed {
        segment: row.segment,
        position: row.position,
        token: row.token,
        failure: row.failure.clone(),
    }
}

impl MemoryCheckpoints {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    async fn with<T>(&self, work: impl FnOnce(&mut MemoryTx) -> Result<T> + Send) -> Result<T> {
        let mut tx = self.database.begin().await?;
        let done = work(memory(&mut tx)?)?;
        tx.commit().await?;
        Ok(done)
    }
}

#[async_trait]
impl Checkpoints for MemoryCheckpoints {
    async fn register(&self, projection: &str, version: u32, segments: Option<u16>) -> Result<u16> {
        let name = checked_name(projection)?.to_owned();
        let wanted = checked_segments(segments.unwrap_or(WorkerOptions::SEGMENTS))?;
        self.with(|memory| {
            if let Some(row) = memory.get::<Projections>(&name) {
                same_version(&name, version, row.version)?;
                return same_segments(&name, segments, row.segments);
            }
            let state = ProjectionState::Running;
            let row = ProjectionRow { segments: wanted, version, state, switch_until: None };
            memory.put::<Projections>(name.clone(), row);
            let moved_at = memory.now();
            for segment in 0..wanted {
                let (position, handled, owner, token, failure) = (0, 0, None, 0, None);
                let row =
                    SegmentStatus { segment, position, handled, owner, token, failure, moved_at };
                put(memory, &name, row);
            }
            Ok(wanted)
        })
        .await
    }

    async fn heartbeat(
        &self,
        worker: WorkerId<'_>,
        partition: Option<Partition>,
        lease: Duration,
    ) -> Result<Membership> {
        let key = (worker.projection.to_owned(), worker.id);
        self.with(|memory| {
            let expires_at = in_future(memory.now(), lease);
            memory.put::<Workers>(key, WorkerRow { elastic: partition.is_none(), expires_at });
            let elastic = live(memory, worker.projection, true).into_iter().collect();
            let state = held(memory, worker.projection)?;
            let row = memory.get::<Projections>(&worker.projection.to_owned());
            Ok(Membership { elastic, state, version: row.map(|row| row.version) })
        })
        .await
    }

    async fn claim(
        &self,
        worker: WorkerId<'_>,
        partition: Option<Partition>,
        at_most: u16,
    ) -> Result<Vec<Claimed>> {
        let Partition { key, total } = partition.unwrap_or(Partition { key: 0, total: 1 });
        self.with(|memory| {
            let live = live(memory, worker.projection, false);
            let mut taken = Vec::new();
            for mut row in segments_of(memory, worker.projection) {
                let free =
                    row.owner.is_none_or(|owner| owner != worker.id && !live.contains(&owner));
                if taken.len() < usize::from(at_most) && row.segment % total == key && free {
                    row.owner = Some(worker.id);
                    row.token += 1;
                    taken.push(claimed(&row));
                    put(memory, worker.projection, row);
                }
            }
            Ok(taken)
        })
        .await
    }

    async fn owned(&self, worker: WorkerId<'_>) -> Result<Vec<Claimed>> {
        self.with(|memory| {
            let rows = segments_of(memory, worker.projection);
            Ok(rows.iter().filter(|row| row.owner == Some(worker.id)).map(claimed).collect())
        })
        .await
    }

    async fn release(&self, worker: WorkerId<'_>, segments: &[u16]) -> Result<()> {
        self.with(|memory| {
            for mut row in segments_of(memory, worker.projection) {
                if row.owner == Some(worker.id) && segments.contains(&row.segment) {
                    row.owner = None;
                    put(memory, worker.projection, row);
                }
            }
            Ok(())
        })
        .await
    }

    async fn leave(&self, worker: WorkerId<'_>) -> Result<()> {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        self.release(worker, &all).await?;
        let key = (worker.projection.to_owned(), worker.id);
        self.with(|memory| {
            memory.remove::<Workers>(&key);
            Ok(())
        })
        .await
    }

    async fn advance_in(&self, tx: &mut Tx, worker: WorkerId<'_>, moves: &[Move]) -> Result<bool> {
        let memory = memory(tx)?;
        if held(memory, worker.projection)? != ProjectionState::Running {
            return Ok(false);
        }
        let version = memory.get::<Projections>(&worker.projection.to_owned());
        if version.map(|row| row.version) != Some(worker.version) {
            return Ok(false);
        }
        let now = memory.now();
        for one in moves {
            let key = (worker.projection.to_owned(), one.segment);
            let Some(mut row) = memory.get::<Segments>(&key).cloned() else { return Ok(false) };
            let mine = row.owner == Some(worker.id) && row.token == one.token;
            if !mine || row.position != one.from || row.failure.is_some() {
                return Ok(false);
            }
            row.position = one.to;
            row.handled += one.handled;
            row.moved_at = now;
            memory.put::<Segments>(key, row);
        }
        Ok(true)
    }

    async fn advance(&self, worker: WorkerId<'_>, moves: &[Move]) -> Result<bool> {
        let mut tx = self.database.begin().await?;
        let moved = self.advance_in(&mut tx, worker, moves).await?;
        if moved {
            tx.commit().await?;
        }
        Ok(moved)
    }

    async fn stop(&self, worker: WorkerId<'_>, at: &Claimed, failure: &str) -> Result<bool> {
        let key = (worker.projection.to_owned(), at.segment);
        self.with(|memory| {
            let Some(mut row) = memory.get::<Segments>(&key).cloned() else { return Ok(false) };
            let mine = row.owner == Some(worker.id) && row.token == at.token;
            if mine {
                row.failure = Some(failure.to_owned());
                memory.put::<Segments>(key, row);
            }
            Ok(mine)
        })
        .await
    }

    async fn park_in(
        &self,
        tx: &mut Tx,
        projection: &str,
        events: &[(&RecordedEvent, u16)],
        error: &str,
        attempts: u32,
    ) -> Result<()> {
        let memory = memory(tx)?;
        let parked_at = memory.now();
        for (event, segment) in events {
            let row = ParkedEvent {
                global_position: event.global_position,
                segment: *segment,
                stream_id: event.stream_id.clone(),
                event_id: event.event_id,
                event_type: event.event_type.clone(),
                error: error.to_owned(),
                attempts,
                parked_at,
            };
            memory.put::<Parked>((projection.to_owned(), event.global_position), row);
        }
        Ok(())
    }

    async fn parked_streams_in(
        &self,
        tx: &mut Tx,
        projection: &str,
        streams: &[&str],
    ) -> Result<Vec<String>> {
        let parked = parked_of(memory(tx)?, projection);
        let streams =
            parked.iter().map(|one| one.stream_id.as_str()).filter(|s| streams.contains(s));
        Ok(streams.map(str::to_owned).collect())
    }

    async fn lowest(&self, projection: &str) -> Result<(u64, Option<String>)> {
        self.with(|memory| {
            let rows = segments_of(memory, projection);
            let lowest = rows.iter().map(|row| row.position).min();
            let lowest = lowest.ok_or_else(|| no_such_projection(projection))?;
            Ok((lowest, rows.into_iter().find_map(|row| row.failure)))
        })
        .await
    }
}

fn parked_of(memory: &mut MemoryTx, projection: &str) -> Vec<ParkedEvent> {
    let range = (projection.to_owned(), 0)..=(projection.to_owned(), u64::MAX);
    memory.rows::<Parked>().range(range).map(|(_, row)| row.clone()).collect()
}

#[async_trait]
impl CheckpointsAdmin for MemoryCheckpoints {
    async fn projections(&self) -> Result<Vec<String>> {
        self.with(|memory| Ok(memory.rows::<Projections>().keys().cloned().collect())).await
    }

    async fn registered(&self, projection: &str) -> Result<Option<Registered>> {
        let name = projection.to_owned();
        self.with(|memory| {
            let at_work = !live(memory, &name, false).is_empty();
            let row = memory.get::<Projections>(&name);
            Ok(row.map(|row| Registered {
                state: row.state,
                version: row.version,
                segments: row.segments,
                at_work,
            }))
        })
        .await
    }

    async fn segments(&self, projection: &str) -> Result<Vec<SegmentStatus>> {
        self.with(|memory| Ok(segments_of(memory, projection))).await
    }

    async fn set_state(
        &self,
        projection: &str,
        state: ProjectionState,
        at_most: Option<Duration>,
    ) -> Result<bool> {
        let name = projection.to_owned();
        self.with(|memory| {
            let now = memory.now();
            let Some(mut row) = memory.get::<Projections>(&name).cloned() else {
                return Ok(false);
            };
            row.state = state;
            row.switch_until = at_most.map(|time| in_future(now, time));
            memory.put::<Projections>(name, row);
            Ok(true)
        })
        .await
    }

    async fn lock_in(&self, tx: &mut Tx, projection: &str) -> Result<Vec<(u16, u64)>> {
        let rows = segments_of(memory(tx)?, projection);
        Ok(rows.iter().map(|row| (row.segment, row.position)).collect())
    }

    async fn restart_in(&self, tx: &mut Tx, projection: &str, version: u32) -> Result<()> {
        let memory = memory(tx)?;
        let name = projection.to_owned();
        if let Some(mut row) = memory.get::<Projections>(&name).cloned() {
            row.version = version;
            memory.put::<Projections>(name.clone(), row);
        }
        for mut row in segments_of(memory, projection) {
            (row.position, row.handled, row.failure) = (0, 0, None);
            row.token += 1;
            put(memory, projection, row);
        }
        for parked in parked_of(memory, projection) {
            memory.remove::<Parked>(&(name.clone(), parked.global_position));
        }
        Ok(())
    }

    async fn adopt_in(&self, _: &mut Tx, _: &str, _: &str) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "the memory database has no tables to swap: reset the projection instead",
        ))
    }

    async fn clear_failures(&self, projection: &str) -> Result<u64> {
        self.with(|memory| {
            let mut cleared = 0;
            for mut row in segments_of(memory, projection) {
                if row.failure.take().is_some() {
                    row.token += 1;
                    cleared += 1;
                    put(memory, projection, row);
                }
            }
            Ok(cleared)
        })
        .await
    }

    async fn forget_in(&self, tx: &mut Tx, projection: &str) -> Result<()> {
        let memory = memory(tx)?;
        let name = projection.to_owned();
        for row in segments_of(memory, projection) {
            memory.remove::<Segments>(&(name.clone(), row.segment));
        }
        for parked in parked_of(memory, projection) {
            memory.remove::<Parked>(&(name.clone(), parked.global_position));
        }
        for worker in live(memory, projection, false) {
            memory.remove::<Workers>(&(name.clone(), worker));
        }
        memory.remove::<Projections>(&name);
        Ok(())
    }

    async fn parked(&self, projection: &str, after: u64, limit: u64) -> Result<Vec<ParkedEvent>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.with(|memory| {
            let parked = parked_of(memory, projection).into_iter();
            Ok(parked.filter(|one| one.global_position > after).take(limit).collect())
        })
        .await
    }

    async fn parked_count(&self, projection: &str) -> Result<u64> {
        self.with(|memory| Ok(parked_of(memory, projection).len() as u64)).await
    }

    async fn parked_of_stream_in(
        &self,
        tx: &mut Tx,
        projection: &str,
        stream: &str,
    ) -> Result<Vec<ParkedEvent>> {
        let parked = parked_of(memory(tx)?, projection).into_iter();
        Ok(parked.filter(|one| one.stream_id.as_str() == stream).collect())
    }

    async fn unpark_in(&self, tx: &mut Tx, projection: &str, positions: &[u64]) -> Result<u64> {
        let memory = memory(tx)?;
        let mut removed = 0;
        for position in positions {
            let key = (projection.to_owned(), *position);
            removed += u64::from(memory.remove::<Parked>(&key).is_some());
        }
        Ok(removed)
    }
}
