//! Given, when, then: aggregates without a store.

use std::fmt;

use crate::aggregate::Aggregate;
use crate::domain_event::DomainEvent;

/// What has happened to an aggregate.
///
/// Each event goes through its stored form and back, so that one which does not survive that is
/// found here and not in production.
///
/// ```
/// use potter_eventsourcing::testing::given;
/// # use potter_eventsourcing::{Aggregate, domain_events};
/// # domain_events! {
/// #     #[derive(Clone, Debug, PartialEq)]
/// #     pub enum DoorEvent { Opened => "door.opened" v 1, Closed => "door.closed" v 1 }
/// # }
/// # #[derive(Debug, PartialEq, thiserror::Error)]
/// # #[error("it is open already")]
/// # pub struct AlreadyOpen;
/// # #[derive(Default)]
/// # pub struct Door { open: bool }
/// # impl Aggregate for Door {
/// #     const TYPE: &'static str = "door";
/// #     type Command = ();
/// #     type Event = DoorEvent;
/// #     type Error = AlreadyOpen;
/// #     fn decide(&self, _: &()) -> Result<Vec<DoorEvent>, AlreadyOpen> {
/// #         if self.open { Err(AlreadyOpen) } else { Ok(vec![DoorEvent::Opened]) }
/// #     }
/// #     fn evolve(&mut self, event: &DoorEvent) { self.open = *event == DoorEvent::Opened; }
/// # }
/// # let open = ();
///
/// given::<Door>([DoorEvent::Opened, DoorEvent::Closed])
///     .when(&open)
///     .then([DoorEvent::Opened])
///     .then_state(|door| assert!(door.open));
///
/// let reason = given::<Door>([DoorEvent::Opened]).when(&open).then_rejected();
/// assert_eq!(reason, AlreadyOpen);
/// ```
#[track_caller]
pub fn given<A>(events: impl IntoIterator<Item = A::Event>) -> Given<A>
where
    A: Aggregate,
    A::Event: PartialEq + fmt::Debug,
{
    let mut state = A::default();
    for event in events {
        state.evolve(&stored(&event));
    }
    Given { state }
}

/// An aggregate to which something has happened.
#[derive(Debug)]
#[must_use = "say what it is asked to do"]
pub struct Given<A> {
    state: A,
}

/// What came of a command.
#[derive(Debug)]
#[must_use = "say what is expected"]
pub struct Decided<A: Aggregate> {
    state: A,
    decided: Result<Vec<A::Event>, A::Error>,
}

impl<A> Given<A>
where
    A: Aggregate,
    A::Event: PartialEq + fmt::Debug,
{
    /// Lets it decide.
    #[track_caller]
    pub fn when(mut self, command: &A::Command) -> Decided<A> {
        let decided = self.state.decide(command);
        for event in decided.iter().flatten() {
            self.state.evolve(&stored(event));
        }
        Decided { state: self.state, decided }
    }

    /// Looks at the state.
    pub fn then_state(self, check: impl FnOnce(&A)) {
        check(&self.state);
    }
}

impl<A> Decided<A>
where
    A: Aggregate,
    A::Event: PartialEq + fmt::Debug,
{
    /// These events happen, and no others.
    ///
    /// # Panics
    /// When others do, or the command is refused.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) -> Self {
        let expected: Vec<_> = expected.into_iter().collect();
        match &self.decided {
            Ok(events) => assert_eq!(*events, expected, "other events happened"),
            Err(reason) => panic!("the command was refused: {reason}; expected {expected:?}"),
        }
        self
    }

    /// The command is refused; answers why.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn then_rejected(self) -> A::Error {
        match self.decided {
            Ok(events) => panic!("the command was not refused; what happened: {events:?}"),
            Err(reason) => reason,
        }
    }

    /// Looks at the state after it.
    pub fn then_state(self, check: impl FnOnce(&A)) {
        check(&self.state);
    }
}

/// The event as it comes back from a store.
#[track_caller]
fn stored<E: DomainEvent + PartialEq + fmt::Debug>(event: &E) -> E {
    let (event_type, version) = (event.event_type(), event.schema_version());
    let back = event.encode().and_then(|payload| E::decode(event_type, version, &payload));
    match back {
        Ok(back) => {
            assert_eq!(back, *event, "{event_type} comes back from its stored form as another");
            back
        }
        Err(error) => panic!("{event_type} can't be read back from its stored form: {error}"),
    }
}
