//! One page of events, applied.
//!
//! A batch is one transaction: checkpoints first, then the handler, then the commit. When the
//! handler fails, the batch is rolled back and halved until the event that fails is alone; what
//! comes before it is committed, and segments other than its own go on behind it.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use potter_core::{Tx, jitter};

use super::checkpoints::Move;
use super::options::OnFailure;
use super::target::{Target, Unapplied, contained};
use super::worker::Session;
use crate::error::Result;
use crate::event::RecordedEvent;

/// What came of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is done with, as far as it can be.
    Done,
    /// The storage has the last word: look at it again.
    Lost,
}

impl Session {
    /// Applies the events of a page that is whole up to `through`.
    pub(super) async fn apply(
        &mut self,
        events: &[RecordedEvent],
        through: u64,
    ) -> Result<Applied> {
        let mut ranges = VecDeque::new();
        if !events.is_empty() {
            ranges.push_back(0..events.len());
        }
        while let Some(range) = ranges.pop_front() {
            let chunk = self.unblocked(&events[range.clone()]);
            let chunk = chunk.as_deref().unwrap_or(&events[range.clone()]);
            let Some(last) = chunk.last() else { continue };
            // All events of these segments up to here are in this chunk or before it.
            let to = if range.end == events.len() { through } else { last.global_position };
            match self.commit(chunk, to).await {
                Ok(()) => {}
                Err(Unapplied::Lost) => return Ok(Applied::Lost),
                Err(Unapplied::Database(error)) => return Err(error),
                Err(Unapplied::Handler(error)) if range.len() == 1 => {
                    if self.failed(last, &error).await? == Applied::Lost {
                        return Ok(Applied::Lost);
                    }
                }
                Err(Unapplied::Handler(_)) => {
                    let Range { start, end } = range;
                    let middle = start + (end - start) / 2;
                    ranges.push_front(middle..end);
                    ranges.push_front(start..middle);
                }
            }
        }
        Ok(Applied::Done)
    }

    /// Without the events of segments that wait for a retry; `None` when there are none.
    fn unblocked(&self, events: &[RecordedEvent]) -> Option<Vec<RecordedEvent>> {
        let waits = |event: &RecordedEvent| {
            let segment = self.owned.segment_of(event);
            self.blocked_now.contains(&segment) || !self.owned.has(segment)
        };
        if !events.iter().any(waits) {
            return None;
        }
        Some(events.iter().filter(|event| !waits(event)).cloned().collect())
    }

    async fn commit(&mut self, events: &[RecordedEvent], to: u64) -> Result<(), Unapplied> {
        let moves = self.owned.moves(events, to);
        let began = Instant::now();
        match self.target.clone() {
            Target::Projection(projection) => {
                let mut tx = self.database()?.begin().await?;
                if !self.checkpoints.advance_in(&mut tx, self.worker(), &moves).await? {
                    return Err(Unapplied::Lost);
                }
                let set_aside = self.set_aside_in(&mut tx, events).await?;
                let events = set_aside.as_deref().unwrap_or(events);
                if !events.is_empty() {
                    let handler = projection.handle_batch(&mut tx, events);
                    contained(handler, self.options.handler_timeout).await?;
                }
                commit(tx).await?;
            }
            Target::Subscriber(subscriber) => {
                let handler = subscriber.handle_batch(events);
                contained(handler, self.options.handler_timeout).await?;
                if !self.checkpoints.advance(self.worker(), &moves).await? {
                    return Err(Unapplied::Lost);
                }
            }
        }
        self.owned.moved(&moves);
        self.handled += events.len() as u64;
        self.pace.took(events, began.elapsed());
        Ok(())
    }

    /// Parks the events of streams that have parked ones; answers the others, or `None` when
    /// that is all of them.
    async fn set_aside_in(
        &mut self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<Option<Vec<RecordedEvent>>> {
        if self.options.on_failure != OnFailure::ParkStream {
            return Ok(None);
        }
        let streams: HashSet<&str> = events.iter().map(|event| event.stream_id.as_str()).collect();
        let streams: Vec<&str> = streams.into_iter().collect();
        let name = self.target.name().to_owned();
        let parked = self.checkpoints.parked_streams_in(tx, &name, &streams).await?;
        if parked.is_empty() {
            return Ok(None);
        }
        let parked: HashSet<String> = parked.into_iter().collect();
        let (aside, others): (Vec<_>, Vec<_>) =
            events.iter().partition(|event| parked.contains(event.stream_id.as_str()));
        let aside: Vec<_> =
            aside.into_iter().map(|event| (event, self.owned.segment_of(event))).collect();
        let error = "an earlier event of its stream is parked";
        self.checkpoints.park_in(tx, &name, &aside, error, 0).await?;
        Ok(Some(others.into_iter().cloned().collect()))
    }

    /// An event failed, alone.
    async fn failed(&mut self, event: &RecordedEvent, error: &str) -> Result<Applied> {
        let segment = self.owned.segment_of(event);
        let attempts = self.owned.failed(event);
        let projection = self.target.name();
        let (position, stream) = (event.global_position, &event.stream_id);
        tracing::warn!(projection, position, %stream, attempts, error, "an event was not applied");
        if let Some(wait) = self.options.retry.delay(attempts, Duration::ZERO, jitter()) {
            self.owned.retry_at(event, Instant::now() + wait);
            self.blocked_now.insert(segment);
            return Ok(Applied::Done);
        }
        if self.options.on_failure == OnFailure::Stop {
            let failure = format!(
                "event {} ({}) at position {position} of stream {stream} failed {attempts} times: {error}",
                event.event_id, event.event_type
            );
            let Some(at) = self.owned.claimed(segment) else { return Ok(Applied::Lost) };
            if !self.checkpoints.stop(self.worker(), &at, &failure).await? {
                return Ok(Applied::Lost);
            }
            tracing::error!(projection, segment, failure, "a segment of the projection stopped");
            self.owned.stopped(segment, &failure);
            self.blocked_now.insert(segment);
            return Ok(Applied::Done);
        }
        self.park(event, error, attempts).await
    }

    async fn park(&mut self, event: &RecordedEvent, error: &str, attempts: u32) -> Result<Applied> {
        let moves: Vec<Move> = self.owned.moves(std::slice::from_ref(event), event.global_position);
        let mut tx = self.database()?.begin().await?;
        if !self.checkpoints.advance_in(&mut tx, self.worker(), &moves).await? {
            return Ok(Applied::Lost);
        }
        let parked = [(event, self.owned.segment_of(event))];
        let name = self.target.name();
        self.checkpoints.park_in(&mut tx, name, &parked, error, attempts).await?;
        match commit(tx).await {
            Ok(()) => {}
            Err(Unapplied::Database(error)) => return Err(error),
            Err(_) => return Ok(Applied::Lost),
        }
        self.owned.moved(&moves);
        Ok(Applied::Done)
    }
}

/// A commit without an answer may have taken effect: the storage knows.
async fn commit(tx: Tx) -> Result<(), Unapplied> {
    tx.commit().await.map_err(|error| match error.kind() {
        potter_core::ErrorKind::Unknown => Unapplied::Lost,
        _ => Unapplied::Database(error.into()),
    })
}

/// How many events are asked for at a time.
#[derive(Debug)]
pub(super) struct Pace {
    max: u64,
    bytes_max: usize,
    limit: u64,
    bytes_per_event: usize,
}

impl Pace {
    /// A transaction that is open for longer than this holds others up.
    const SLOW: Duration = Duration::from_secs(1);
    const QUICK: Duration = Duration::from_millis(250);

    pub(super) fn new(max: u64, bytes_max: usize) -> Self {
        Self { max, bytes_max, limit: max, bytes_per_event: 256 }
    }

    /// The next page's size.
    pub(super) fn limit(&self) -> u64 {
        let by_bytes = (self.bytes_max / self.bytes_per_event.max(1)).max(1) as u64;
        self.limit.min(by_bytes).max(1)
    }

    fn took(&mut self, events: &[RecordedEvent], time: Duration) {
        let bytes: usize = events.iter().map(|event| event.payload.as_str().len() + 256).sum();
        let per_event = bytes / events.len().max(1);
        // Up at once, down slowly: a page of large events must not be followed by a larger one.
        self.bytes_per_event = per_event.max((self.bytes_per_event * 7 + per_event) / 8);
        if time > Self::SLOW {
            self.limit = (events.len() as u64 / 2).max(1);
        } else if time < Self::QUICK {
            self.limit = self.limit.saturating_mul(2).min(self.max);
        }
    }
}
