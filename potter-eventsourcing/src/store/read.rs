//! What to read.

use crate::event::RecordedEvent;

/// Which way through a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first event on.
    Forwards,
    /// From the last event back.
    Backwards,
}

/// Which events of a stream to read. The default: all, forwards.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The first version to read, inclusive; `None` for the end that the direction starts at.
    pub from_version: Option<u64>,
    /// Which way.
    pub direction: Direction,
    /// How many at most.
    pub limit: Option<u64>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self::forwards()
    }
}

impl ReadOptions {
    /// How many events are fetched at a time.
    pub const PAGE: u64 = 1_000;

    /// From the first event on.
    pub fn forwards() -> Self {
        Self { from_version: None, direction: Direction::Forwards, limit: None }
    }

    /// From the last event back.
    pub fn backwards() -> Self {
        Self { direction: Direction::Backwards, ..Self::forwards() }
    }

    /// Starts at `version`, inclusive.
    #[must_use]
    pub fn from_version(mut self, version: u64) -> Self {
        self.from_version = Some(version);
        self
    }

    /// Ends after `events`.
    #[must_use]
    pub fn limit(mut self, events: u64) -> Self {
        self.limit = Some(events);
        self
    }

    pub(crate) fn start(&self) -> u64 {
        match self.direction {
            Direction::Forwards => self.from_version.unwrap_or(1),
            Direction::Backwards => self.from_version.unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn page(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX).min(Self::PAGE)
    }
}

/// How much of all events to read. The default: everything that is final now.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ReadAllOptions {
    /// How many at most.
    pub limit: Option<u64>,
}

impl ReadAllOptions {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends after `events`.
    #[must_use]
    pub fn limit(mut self, events: u64) -> Self {
        self.limit = Some(events);
        self
    }
}

/// A page of all events, and how far it goes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The events, in the order of their positions.
    pub events: Vec<RecordedEvent>,
    /// No event that was wanted is missing up to here: go on from here.
    pub through: u64,
    /// The highest position that was given to any event. Above [`through`](Self::through), there
    /// is more to read now or soon.
    pub head: u64,
}

impl Page {
    /// For stores of your own.
    pub fn new(events: Vec<RecordedEvent>, through: u64, head: u64) -> Self {
        Self { events, through, head }
    }
}
