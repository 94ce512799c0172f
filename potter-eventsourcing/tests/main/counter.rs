//! A small aggregate for tests.

use potter_eventsourcing::{Aggregate, Snapshottable, domain_events};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct By {
    pub(crate) by: i64,
}

domain_events! {
    /// What happens to a counter.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum CounterEvent {
        /// It went up or down.
        Added(By) => "counter.added" v 2,
        /// It was set to zero.
        Reset => "counter.reset" v 1,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counter {
    pub(crate) value: i64,
    pub(crate) resets: u64,
}

pub(crate) enum Do {
    Add(i64),
    /// Several events at once.
    AddEach(Vec<i64>),
    Reset,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("it would be negative")]
pub(crate) struct Negative;

impl Aggregate for Counter {
    const TYPE: &'static str = "counter";
    type Command = Do;
    type Event = CounterEvent;
    type Error = Negative;

    fn decide(&self, command: &Do) -> Result<Vec<CounterEvent>, Negative> {
        let added = |by: &i64| CounterEvent::Added(By { by: *by });
        match command {
            Do::Add(by) if self.value + by < 0 => Err(Negative),
            Do::Add(by) => Ok(vec![added(by)]),
            Do::AddEach(each) => Ok(each.iter().map(added).collect()),
            Do::Reset => Ok(vec![CounterEvent::Reset]),
        }
    }

    fn evolve(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Added(by) => self.value += by.by,
            CounterEvent::Reset => {
                self.value = 0;
                self.resets += 1;
            }
        }
    }
}

impl Snapshottable for Counter {
    const SNAPSHOT_VERSION: u32 = 2;
}
