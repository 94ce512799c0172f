//! Reading history again, into code of the caller's.
//!
//! A replay calls one handler, given to it, and nothing else: subscribers and projections that run
//! elsewhere neither notice it nor move. To build a read model again, use
//! [`ProjectionAdmin::reset`](crate::ProjectionAdmin::reset) or [`Rebuild`](crate::Rebuild).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::projection::HandlerError;
use crate::store::{EventFilter, EventStore, SegmentSet};
use crate::upcast::Upcasters;

/// Events in the order of their positions, from one to another, in batches. The defaults: all of
/// them that are final when it begins, 1,000 a batch, one batch at a time.
#[derive(Clone)]
#[must_use]
pub struct Replay {
    store: Arc<dyn EventStore>,
    filter: EventFilter,
    after: u64,
    from_time: Option<DateTime<Utc>>,
    until: Option<u64>,
    batch: u64,
    parallel: u16,
    upcasters: Arc<Upcasters>,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct ReplayProgress {
    /// How many events the handler took.
    pub done: u64,
    /// How many there are to take.
    pub total: u64,
    /// The highest position that was reached.
    pub position: u64,
    /// Since it began.
    pub elapsed: Duration,
}

impl ReplayProgress {
    /// Events a second, so far.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.done as f64 / seconds } else { 0.0 }
    }

    /// The part that is done, from 0 to 100.
    pub fn percent(&self) -> f64 {
        if self.total == 0 { 100.0 } else { self.done as f64 * 100.0 / self.total as f64 }
    }

    /// How long the rest takes at this rate; `None` before the first batch.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.done);
        let rate = self.rate();
        (rate > 0.0).then(|| Duration::try_from_secs_f64(left as f64 / rate).ok()).flatten()
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Replay {
    /// Of everything in `store`.
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self {
            store,
            filter: EventFilter::all(),
            after: 0,
            from_time: None,
            until: None,
            batch: 1000,
            parallel: 1,
            upcasters: Arc::default(),
        }
    }

    /// Only these events.
    pub fn filter(mut self, filter: EventFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Only events above this position.
    pub fn after_position(mut self, position: u64) -> Self {
        self.after = position;
        self
    }

    /// Only events from this time on: above [`EventStore::position_at`] of the moment before it.
    pub fn from_time(mut self, time: DateTime<Utc>) -> Self {
        self.from_time = Some(time);
        self
    }

    /// Only events up to and with this position.
    pub fn until_position(mut self, position: u64) -> Self {
        self.until = Some(position);
        self
    }

    /// How many events the handler gets at most at a time.
    pub fn batch_size(mut self, events: u32) -> Self {
        self.batch = u64::from(events.max(1));
        self
    }

    /// How many batches are handled at once, each of other streams (64 at most): the events of a
    /// stream stay in order, those of different streams do not.
    pub fn parallel(mut self, batches: u16) -> Self {
        self.parallel = batches.clamp(1, 64);
        self
    }

    /// Reads old events in the shape of today.
    pub fn upcasters(mut self, upcasters: Upcasters) -> Self {
        self.upcasters = Arc::new(upcasters);
        self
    }

    /// Runs it; `progress` is told after each batch.
    ///
    /// # Errors
    /// `Handler` with the handler's first error: batches behind it are not begun. What it has done
    /// before stays done.
    pub async fn run<H, F>(
        self,
        handler: H,
        progress: impl Fn(&ReplayProgress) + Send + Sync,
    ) -> Result<ReplayProgress>
    where
        H: Fn(Vec<RecordedEvent>) -> F + Send + Sync,
        F: Future<Output = Result<(), HandlerError>> + Send,
    {
        let began = Instant::now();
        let safe = self.store.safe_position().await?;
        let until = self.until.map_or(safe, |until| until.min(safe));
        let after = match self.from_time {
            Some(time) => {
                let before = time - chrono::TimeDelta::microseconds(1);
                self.after.max(self.store.position_at(before).await?)
            }
            None => self.after,
        };
        let total = self.store.count(after, until, &self.filter).await?;
        let (done, position) = (AtomicU64::new(0), AtomicU64::new(after));
        let now = || ReplayProgress {
            done: done.load(Ordering::SeqCst),
            total,
            position: position.load(Ordering::SeqCst),
            elapsed: began.elapsed(),
        };
        let parts = (0..self.parallel).map(|part| {
            let (replay, handler, progress, now) = (&self, &handler, &progress, &now);
            let (done, position) = (&done, &position);
            async move {
                let filter = replay.part(part)?;
                let mut after = after;
                while after < until {
                    let page = replay.store.read_page(after, &filter, replay.batch).await?;
                    after = page.through;
                    let mut events = page.events;
                    events.retain(|event| event.global_position <= until);
                    let taken = events.len() as u64;
                    if taken > 0 {
                        handler(replay.shaped(events)?).await.map_err(|source| {
                            let message =
                                format!("the replay stopped up to position {after}: {source}");
                            Error::with_source(ErrorKind::Handler, message, source)
                        })?;
                    }
                    done.fetch_add(taken, Ordering::SeqCst);
                    position.fetch_max(after.min(until), Ordering::SeqCst);
                    progress(&now());
                }
                Ok::<_, Error>(())
            }
        });
        try_join_all(parts).await?;
        Ok(now())
    }

    fn part(&self, part: u16) -> Result<EventFilter> {
        if self.parallel == 1 {
            return Ok(self.filter.clone());
        }
        let members = (0..64).filter(|segment| segment % self.parallel == part);
        Ok(self.filter.clone().segments(SegmentSet::new(64, members)?))
    }

    fn shaped(&self, events: Vec<RecordedEvent>) -> Result<Vec<RecordedEvent>> {
        let mut shaped = Vec::with_capacity(events.len());
        for event in events {
            let other = match self.upcasters.shape(&event)? {
                Cow::Borrowed(_) => None,
                Cow::Owned(other) => Some(other),
            };
            match other {
                None => shaped.push(event),
                Some(other) => shaped.extend(other),
            }
        }
        Ok(shaped)
    }
}
