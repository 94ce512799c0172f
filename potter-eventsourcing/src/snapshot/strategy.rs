//! When a snapshot is due.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// Where an aggregate is, when it is asked whether a snapshot is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotMoment {
    /// The version of its last event.
    pub version: u64,
    /// The version of the snapshot that it was loaded from; 0 without one.
    pub last_version: u64,
    /// When that snapshot was taken; without one, when its first event was recorded.
    pub since: Option<DateTime<Utc>>,
    /// The time now.
    pub now: DateTime<Utc>,
}

/// Says when a snapshot is due. Pure.
pub trait SnapshotStrategy: Send + Sync + 'static {
    /// Is one due?
    fn is_due(&self, moment: &SnapshotMoment) -> bool;
}

/// After this many events since the last snapshot. A command that leads to several events does
/// not jump over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency(pub u64);

impl SnapshotStrategy for Frequency {
    fn is_due(&self, moment: &SnapshotMoment) -> bool {
        moment.version - moment.last_version.min(moment.version) >= self.0.max(1)
    }
}

/// When the last snapshot of this aggregate is older than this, and something has happened since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBased(pub Duration);

impl SnapshotStrategy for TimeBased {
    fn is_due(&self, moment: &SnapshotMoment) -> bool {
        let old = moment
            .since
            .is_some_and(|since| (moment.now - since).to_std().is_ok_and(|age| age >= self.0));
        old && moment.version > moment.last_version
    }
}

/// When one of the two is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hybrid {
    /// After this many events.
    pub events: u64,
    /// After this time.
    pub interval: Duration,
}

impl SnapshotStrategy for Hybrid {
    fn is_due(&self, moment: &SnapshotMoment) -> bool {
        Frequency(self.events).is_due(moment) || TimeBased(self.interval).is_due(moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(version: u64, last_version: u64, age_seconds: i64) -> SnapshotMoment {
        let now = Utc::now();
        let since = Some(now - chrono::TimeDelta::seconds(age_seconds));
        SnapshotMoment { version, last_version, since, now }
    }

    #[test]
    fn frequency_counts_since_the_last_one() {
        let due = |version, last| Frequency(10).is_due(&moment(version, last, 0));
        assert!(!due(9, 0) && due(10, 0) && due(13, 0));
        assert!(!due(22, 13) && due(23, 13), "a save of several events went over 20");
        assert!(!due(5, 13), "a snapshot that is ahead");
    }

    #[test]
    fn time_is_each_aggregates_own() {
        let hour = TimeBased(Duration::from_secs(3600));
        assert!(!hour.is_due(&moment(5, 0, 10)) && hour.is_due(&moment(5, 0, 3600)));
        assert!(!hour.is_due(&moment(5, 5, 9999)), "nothing has happened since");
        assert!(!hour.is_due(&moment(5, 0, -9999)), "a clock that went back");
    }

    #[test]
    fn hybrid_is_either() {
        let hybrid = Hybrid { events: 10, interval: Duration::from_secs(60) };
        assert!(hybrid.is_due(&moment(10, 0, 0)) && hybrid.is_due(&moment(2, 0, 60)));
        assert!(!hybrid.is_due(&moment(9, 0, 59)));
    }
}
