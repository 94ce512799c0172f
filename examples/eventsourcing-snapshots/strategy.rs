//! When snapshots are taken, as the environment says.

use std::time::Duration;

use examples_common::{StartError, env_parsed, env_text};
use potter_eventsourcing::{Frequency, Hybrid, SnapshotMoment, SnapshotStrategy, TimeBased};

/// One of the three.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strategy {
    Frequency(Frequency),
    TimeBased(TimeBased),
    Hybrid(Hybrid),
}

impl Strategy {
    /// Reads `SNAPSHOT_STRATEGY`, `SNAPSHOT_FREQUENCY` and `SNAPSHOT_INTERVAL_MS`.
    pub(crate) fn from_env() -> Result<Self, StartError> {
        let events: u64 = env_parsed(&["SNAPSHOT_FREQUENCY"], 10)?;
        let millis: u64 = env_parsed(&["SNAPSHOT_INTERVAL_MS"], 3_600_000)?;
        if events == 0 {
            return Err("SNAPSHOT_FREQUENCY=0 can't be used: it must be at least 1".into());
        }
        let interval = Duration::from_millis(millis);
        let name =
            env_text(&["SNAPSHOT_STRATEGY"]).map_or("frequency".to_owned(), |(_, name)| name);
        match name.as_str() {
            "frequency" => Ok(Self::Frequency(Frequency(events))),
            "timebased" => Ok(Self::TimeBased(TimeBased(interval))),
            "hybrid" => Ok(Self::Hybrid(Hybrid { events, interval })),
            other => Err(format!(
                "SNAPSHOT_STRATEGY={other} can't be used: it must be frequency, timebased or hybrid"
            )
            .into()),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Frequency(_) => "frequency",
            Self::TimeBased(_) => "timebased",
            Self::Hybrid(_) => "hybrid",
        }
    }
}

impl SnapshotStrategy for Strategy {
    fn is_due(&self, moment: &SnapshotMoment) -> bool {
        match self {
            Self::Frequency(frequency) => frequency.is_due(moment),
            Self::TimeBased(time_based) => time_based.is_due(moment),
            Self::Hybrid(hybrid) => hybrid.is_due(moment),
        }
    }
}
