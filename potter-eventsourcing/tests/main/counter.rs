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

mod tests {
    use potter_eventsourcing::testing::given;

    use super::*;

    fn added(by: i64) -> CounterEvent {
        CounterEvent::Added(By { by })
    }

    #[test]
    fn given_when_then() {
        given::<Counter>([added(3), CounterEvent::Reset])
            .when(&Do::AddEach(vec![1, 2]))
            .then([added(1), added(2)])
            .then_state(|counter| assert_eq!((counter.value, counter.resets), (3, 1)));
        assert_eq!(given::<Counter>([added(3)]).when(&Do::Add(-4)).then_rejected(), Negative);
        given::<Counter>([]).then_state(|counter| assert_eq!(*counter, Counter::default()));
    }

    #[test]
    #[should_panic(expected = "other events happened")]
    fn other_events_are_noticed() {
        let _ = given::<Counter>([]).when(&Do::Add(1)).then([added(2)]);
    }

    #[test]
    #[should_panic(expected = "the command was refused: it would be negative")]
    fn a_refusal_is_noticed() {
        let _ = given::<Counter>([]).when(&Do::Add(-1)).then([]);
    }
}
