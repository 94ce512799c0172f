//! How a projection is doing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a projection was told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProjectionState {
    /// To follow the log.
    #[default]
    Running,
    /// To stand still until it is resumed.
    Paused,
    /// To stand still for the moment in which a rebuilt read model takes over.
    Switching,
}

impl ProjectionState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Switching => "switching",
        }
    }

    pub(crate) fn of(text: &str) -> Self {
        match text {
            "paused" => Self::Paused,
            "switching" => Self::Switching,
            _ => Self::Running,
        }
    }
}

/// A projection and its segments.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// What it was told to do.
    pub state: ProjectionState,
    /// The version of the code that its read model belongs to.
    pub version: u32,
    /// Everything up to here was applied, in all segments.
    pub position: u64,
    /// The highest position that was given to any event.
    pub head: u64,
    /// How many events it applied in all.
    pub handled: u64,
    /// How many events wait to be looked at; counted up to [`Self::LAG_EVENTS_MAX`].
    pub lag_events: u64,
    /// How long the oldest of them waits.
    pub lag: Duration,
    /// How many events are parked; counted up to [`Self::LAG_EVENTS_MAX`].
    pub parked: u64,
    /// The segments, in order.
    pub segments: Vec<SegmentStatus>,
}

impl ProjectionStatus {
    /// Counting stops here.
    pub const LAG_EVENTS_MAX: u64 = 1_000_000;

    /// Has every segment reached the head?
    pub fn is_caught_up(&self) -> bool {
        self.lag_events == 0
    }

    /// The segments that stand still because of a failure.
    pub fn failed(&self) -> impl Iterator<Item = &SegmentStatus> {
        self.segments.iter().filter(|segment| segment.failure.is_some())
    }

    /// How many workers own a segment.
    pub fn workers(&self) -> usize {
        let owners: std::collections::BTreeSet<_> =
            self.segments.iter().filter_map(|segment| segment.owner).collect();
        owners.len()
    }
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SegmentStatus {
    /// Which.
    pub segment: u16,
    /// Everything of it up to here was applied. Without new events it is written late.
    pub position: u64,
    /// How many events of it were applied.
    pub handled: u64,
    /// The worker that owns it, if any does.
    pub owner: Option<Uuid>,
    /// Raised by every change of owner.
    pub token: i64,
    /// Why it stands still, if it does.
    pub failure: Option<String>,
    /// When it last moved.
    pub moved_at: DateTime<Utc>,
}
