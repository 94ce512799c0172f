//! Old events in the shape of today.
//!
//! Stored events never change. When a payload changes its shape, its schema version is raised,
//! and a step is written that makes the next version of the old one. Steps are chained: v1 → v2 →
//! v3, so each is written once and never again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use potter_core::Json;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;

/// More steps than this for one event are a circle.
const STEPS_MAX: u32 = 100;

/// What a step failed with.
type StepError = Box<dyn std::error::Error + Send + Sync>;

type Step = Arc<dyn Fn(Value) -> Result<Vec<Upcast>, StepError> + Send + Sync>;

/// What is done with an event whose type or schema version the code does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnknownEvents {
    /// It is an error that names it.
    #[default]
    Refuse,
    /// It is passed over.
    Skip,
}

/// An event as a step makes it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Upcast {
    /// What happened.
    pub event_type: String,
    /// The shape of the payload.
    pub schema_version: u32,
    /// The details.
    pub payload: Value,
}

impl Upcast {
    /// An event of this type and schema version.
    pub fn new(event_type: impl Into<String>, schema_version: u32, payload: Value) -> Self {
        Self { event_type: event_type.into(), schema_version, payload }
    }
}

/// The steps from old shapes of events to those of today. Give them to
/// [`Repository::upcasters`](crate::Repository::upcasters), [`Replay::upcasters`](crate::Replay::upcasters),
/// and put projections and subscribers into [`Upcasted`](crate::Upcasted). What comes from the store
/// itself (`read_stream`, `read_all`, `read_matching`) is as it was stored: see [`apply`](Self::apply).
///
/// ```
/// use potter_eventsourcing::{Upcast, Upcasters};
/// use serde_json::json;
///
/// let upcasters = Upcasters::new()
///     // The name of an event has changed.
///     .rename(("order.created", 1), ("order.placed", 1))
///     // In version 2 an amount has a currency.
///     .step("order.placed", 1, |mut payload| {
///         payload["currency"] = json!("EUR");
///         Ok(payload)
///     })
///     // One event became two.
///     .split("order.paid_and_shipped", 1, |payload| {
///         Ok(vec![
///             Upcast::new("order.paid", 1, json!({"amount": payload["amount"]})),
///             Upcast::new("order.shipped", 1, json!({})),
///         ])
///     });
/// ```
#[derive(Clone, Default)]
pub struct Upcasters {
    steps: HashMap<(String, u32), Step>,
}

impl fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.steps.keys()).finish()
    }
}

impl Upcasters {
    /// No step.
    pub fn new() -> Self {
        Self::default()
    }

    /// From schema version `from` of a type to the next.
    #[must_use]
    pub fn step(
        self,
        event_type: &'static str,
        from: u32,
        step: impl Fn(Value) -> Result<Value, StepError> + Send + Sync + 'static,
    ) -> Self {
        self.split(event_type, from, move |payload| {
            Ok(vec![Upcast::new(event_type, from + 1, step(payload)?)])
        })
    }

    /// From a type and schema version to others, with the same payload.
    #[must_use]
    pub fn rename(self, (old, from): (&str, u32), (new, to): (&'static str, u32)) -> Self {
        self.split(old, from, move |payload| Ok(vec![Upcast::new(new, to, payload)]))
    }

    /// From one event to several, or to none. They keep its version, position and id.
    #[must_use]
    pub fn split(
        mut self,
        event_type: &str,
        from: u32,
        step: impl Fn(Value) -> Result<Vec<Upcast>, StepError> + Send + Sync + 'static,
    ) -> Self {
        self.steps.insert((event_type.to_owned(), from), Arc::new(step));
        self
    }

    /// The types of events that a step begins with.
    pub(crate) fn old_types(&self) -> impl Iterator<Item = &str> {
        self.steps.keys().map(|(event_type, _)| event_type.as_str())
    }

    /// The event in the shape of today. One without a step stays bit for bit as it is.
    ///
    /// # Errors
    /// `Corrupt` when a step fails, or the steps go in a circle.
    pub fn apply(&self, event: &RecordedEvent) -> Result<Vec<RecordedEvent>> {
        Ok(self.shape(event)?.into_owned())
    }

    /// The same; an event without a step is not copied.
    pub(crate) fn shape<'e>(&self, event: &'e RecordedEvent) -> Result<Cow<'e, [RecordedEvent]>> {
        let Some(step) = self.find(&event.event_type, event.schema_version) else {
            return Ok(Cow::Borrowed(std::slice::from_ref(event)));
        };
        let mut waiting = self.run(step, event, event.payload.get()?)?;
        waiting.reverse();
        let (mut done, mut steps) = (Vec::new(), 1);
        while let Some(one) = waiting.pop() {
            let Some(step) = self.find(&one.event_type, one.schema_version) else {
                done.push(RecordedEvent {
                    event_type: one.event_type,
                    schema_version: one.schema_version,
                    payload: Json::of(&one.payload)?,
                    ..event.clone()
                });
                continue;
            };
            steps += 1;
            if steps > STEPS_MAX {
                return Err(failed(event, "its steps go in a circle".into()));
            }
            waiting.extend(self.run(step, event, one.payload)?.into_iter().rev());
        }
        Ok(Cow::Owned(done))
    }

    fn find(&self, event_type: &str, schema_version: u32) -> Option<&Step> {
        // Most events are of today: the common case allocates nothing.
        if self.steps.is_empty() {
            return None;
        }
        self.steps.get(&(event_type.to_owned(), schema_version))
    }

    fn run(&self, step: &Step, event: &RecordedEvent, payload: Value) -> Result<Vec<Upcast>> {
        step(payload).map_err(|error| failed(event, error))
    }
}

fn failed(event: &RecordedEvent, source: StepError) -> Error {
    let (id, event_type, version) = (event.event_id, &event.event_type, event.schema_version);
    let message =
        format!("event {id} ({event_type}, schema version {version}) can't be upcast: {source}");
    Error::with_source(ErrorKind::Corrupt, message, source)
}
