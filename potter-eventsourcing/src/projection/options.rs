//! How a worker works.

use std::time::Duration;

use potter_core::Backoff;

use crate::error::{Error, ErrorKind, Result};

/// What happens to an event that a handler keeps failing on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFailure {
    /// Its segment stops in front of it until somebody calls
    /// [`ProjectionAdmin::resume_failed`](super::ProjectionAdmin::resume_failed); the others go on.
    Stop,
    /// It is set aside with its error, and the projection goes on without it.
    Park,
    /// The same, and the events of its stream that come after it are set aside with it, so that
    /// they can be applied in order later.
    ParkStream,
}

/// How a worker works. The defaults: batches of up to 1,000 events, elastic, a lease of 10 s, a
/// failing event is tried 5 times over some 3 s and then stopped at, a handler has 60 s, a poll
/// once a second behind the hints.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerOptions {
    pub(crate) segments: Option<u16>,
    pub(crate) partition: Option<Partition>,
    pub(crate) batch_max: u64,
    pub(crate) page_bytes_max: usize,
    pub(crate) lease: Duration,
    pub(crate) retry: Backoff,
    pub(crate) on_failure: OnFailure,
    pub(crate) handler_timeout: Duration,
    pub(crate) poll_interval: Duration,
}

/// The segments s with s mod `total` = `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) key: u16,
    pub(crate) total: u16,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            segments: None,
            partition: None,
            batch_max: 1000,
            page_bytes_max: 16 << 20,
            lease: Duration::from_secs(10),
            retry: Backoff::exponential(Duration::from_millis(100)).max_attempts(5),
            on_failure: OnFailure::Stop,
            handler_timeout: Duration::from_secs(60),
            poll_interval: Duration::from_secs(1),
        }
    }
}

impl WorkerOptions {
    /// The number of segments of a projection that was made without saying how many.
    pub const SEGMENTS: u16 = 64;

    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Into how many segments the projection is divided: a power of two up to 4096, and the most
    /// workers that it can have. Kept with the projection when it first runs; another number
    /// later is an error.
    #[must_use]
    pub fn segments(mut self, segments: u16) -> Self {
        self.segments = Some(segments);
        self
    }

    /// Static assignment: partition `key` (from 0) of `total`. It owns the segments s with
    /// s mod `total` = `key`, waits for those that another live worker holds, and takes no others.
    /// Without it workers share the segments evenly among themselves, and take over those of a
    /// worker that is gone.
    ///
    /// # Errors
    /// `InvalidInput` when `key` is not below `total`, or `total` is 0.
    pub fn partition(mut self, key: u16, total: u16) -> Result<Self> {
        if key >= total {
            let range = match total {
                0 => "the number of partitions must be at least 1".to_owned(),
                _ => format!("with {total} partitions it must be from 0 to {}", total - 1),
            };
            let message = format!("partition key {key} is out of range: {range}");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        self.partition = Some(Partition { key, total });
        Ok(self)
    }

    /// The most events in one transaction. Smaller ones are used while a batch takes long.
    #[must_use]
    pub fn batch_size(mut self, events: u32) -> Self {
        self.batch_max = u64::from(events.max(1));
        self
    }

    /// About how many bytes of payloads are held at a time, times two (one page is read ahead).
    #[must_use]
    pub fn page_bytes(mut self, bytes: usize) -> Self {
        self.page_bytes_max = bytes.max(1);
        self
    }

    /// How long a worker that is silent keeps its segments (at least 100 ms).
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// How often, and after which waits, an event that failed is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Backoff) -> Self {
        self.retry = retry;
        self
    }

    /// What happens then.
    #[must_use]
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.on_failure = policy;
        self
    }

    /// How long a handler may take for a batch: then it has failed.
    #[must_use]
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.handler_timeout = timeout;
        self
    }

    /// How often it looks for events when no hint comes.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(1));
        self
    }
}
