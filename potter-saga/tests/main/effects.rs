//! A saga whose effects can be counted.
//!
//! Local effects are rows in a table of the database, written through the step's transaction,
//! without any unique key: if a step's effect happened twice there are two rows. The outside
//! world is a map in this process that survives a crash of the orchestrator; like a good
//! participant it applies a key once, and refuses a run that arrives after its undo.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use potter_core::{
    Backoff, Database, Engine, MemoryTable, Outbox, OutboxMessage, derived_id, new_id, values,
};
use potter_saga::{
    BeforePivot, Compensate, Direction, Finished, Flow, Probe, Saga, Step, StepContext, StepError,
    StepOptions, Value,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) name: String,
    /// The step that says no.
    pub(crate) reject: Option<String>,
    /// The step whose effect happens although it reports a time-out, on its first attempt.
    pub(crate) lose_answer: Option<String>,
}

struct Effects;
impl MemoryTable for Effects {
    type Key = Uuid;
    type Row = (Uuid, String);
}

pub(crate) async fn prepare(database: &Database) {
    if database.engine() != Engine::Memory {
        let table = "CREATE TABLE effects (key text NOT NULL, what text NOT NULL)";
        database.execute(table, &[]).await.unwrap();
    }
}

async fn effect(cx: &mut StepContext) -> Result<(), StepError> {
    let direction = if cx.direction() == Direction::Forward { "run" } else { "undo" };
    let (key, what) = (cx.idempotency_key(), format!("{direction} {}", cx.step_name()));
    let tx = cx.tx().await?;
    if let Some(memory) = tx.memory() {
        memory.put::<Effects>(new_id(), (key, what));
    } else {
        tx.execute(
            "INSERT INTO effects (key, what) VALUES ($1, $2)",
            values![key.to_string(), what],
        )
        .await?;
    }
    Ok(())
}

/// How often each effect happened.
pub(crate) async fn effects(database: &Database) -> BTreeMap<String, usize> {
    let mut tx = database.begin().await.unwrap();
    let all: Vec<String> = if let Some(memory) = tx.memory() {
        memory.rows::<Effects>().values().map(|(_, what)| what.clone()).collect()
    } else {
        let rows = tx.fetch_all("SELECT what FROM effects", &[]).await.unwrap();
        rows.iter().map(|row| row.text("what").unwrap()).collect()
    };
    let mut count = BTreeMap::new();
    for what in all {
        *count.entry(what).or_default() += 1;
    }
    count
}

/// What another service would keep.
#[derive(Clone, Debug, Default)]
pub(crate) struct World(pub(crate) Arc<Mutex<BTreeMap<Uuid, Deed>>>);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deed {
    pub(crate) applied: u32,
    pub(crate) undone: bool,
}

impl World {
    fn apply(&self, key: Uuid) -> Result<(), StepError> {
        let mut deeds = self.0.lock().unwrap();
        let deed = deeds.entry(key).or_default();
        if deed.undone {
            return Err(StepError::rejected("undone before it arrived"));
        }
        if deed.applied == 0 {
            deed.applied = 1;
        }
        Ok(())
    }

    fn undo(&self, key: Uuid) {
        self.0.lock().unwrap().entry(key).or_default().undone = true;
    }

    pub(crate) fn standing(&self) -> usize {
        self.0.lock().unwrap().values().filter(|deed| deed.applied > 0 && !deed.undone).count()
    }
}

macro_rules! local_step {
    ($type:ident, $name:literal) => {
        pub(crate) struct $type;

        #[async_trait]
        impl Step for $type {
            const NAME: &'static str = $name;
            type Input = Order;
            type Output = String;

            async fn run(&self, cx: &mut StepContext, order: Order) -> Result<String, StepError> {
                effect(cx).await?;
                let id = derived_id(&[&cx.idempotency_key().to_string(), "told"]);
                let message =
                    OutboxMessage::new("order", &order.name, $name, &order.name)?.with_id(id);
                cx.send(message).await?;
                if order.reject.as_deref() == Some($name) {
                    return Err(StepError::rejected("no"));
                }
                Ok(cx.idempotency_key().to_string())
            }

            fn options(&self) -> StepOptions {
                StepOptions::new()
                    .local()
                    .backoff(Backoff::fixed(Duration::from_millis(2)).max_attempts(5))
            }
        }

        #[async_trait]
        impl Compensate for $type {
            async fn undo(
                &self,
                cx: &mut StepContext,
                _: Order,
                output: Option<String>,
            ) -> Result<(), StepError> {
                assert_eq!(
                    output,
                    Some(cx.run_key().to_string()),
                    "a local step is never uncertain"
                );
                effect(cx).await
            }
        }
    };
}

local_step!(Reserve, "reserve");
local_step!(Ship, "ship");
local_step!(Finish, "finish");

/// A step in another service.
pub(crate) struct Pay(pub(crate) World);

#[async_trait]
impl Step for Pay {
    const NAME: &'static str = "pay";
    type Input = (Order, String);
    type Output = Uuid;

    async fn run(
        &self,
        cx: &mut StepContext,
        (order, _): (Order, String),
    ) -> Result<Uuid, StepError> {
        if order.reject.as_deref() == Some("pay") {
            return Err(StepError::rejected("no money"));
        }
        self.0.apply(cx.idempotency_key())?;
        if order.lose_answer.as_deref() == Some("pay") && cx.attempt() == 1 {
            return Err(StepError::unknown("no answer"));
        }
        if order.lose_answer.as_deref() == Some("pay always") {
            return Err(StepError::unknown("no answer"));
        }
        Ok(cx.idempotency_key())
    }

    async fn probe(
        &self,
        cx: &mut StepContext,
        (order, _): (Order, String),
    ) -> Result<Probe<Uuid>, StepError> {
        let key = cx.idempotency_key();
        if order.lose_answer.as_deref() == Some("pay always") {
            return Err(StepError::unknown("no answer to the question either"));
        }
        let applied = self.0.0.lock().unwrap().get(&key).is_some_and(|deed| deed.applied > 0);
        Ok(if applied { Probe::Done(key) } else { Probe::NotDone })
    }

    fn options(&self) -> StepOptions {
        StepOptions::new().backoff(Backoff::fixed(Duration::from_millis(2)).max_attempts(4))
    }
}

#[async_trait]
impl Compensate for Pay {
    async fn undo(
        &self,
        cx: &mut StepContext,
        _: (Order, String),
        _: Option<Uuid>,
    ) -> Result<(), StepError> {
        self.0.undo(cx.run_key());
        Ok(())
    }
}

/// reserve → pay → ship → finish (the pivot).
pub(crate) struct Purchase(pub(crate) World);

impl Saga for Purchase {
    const NAME: &'static str = "purchase";
    const VERSION: u32 = 1;
    type Input = Order;
    type Output = String;

    fn define<'s>(
        &self,
        order: Value<'s, Order>,
        mut flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, String> {
        let reserved = flow.step(Reserve, &order);
        let _paid = flow.step(Pay(self.0.clone()), (&order, &reserved));
        let _shipped = flow.step(Ship, &order);
        let (finished, flow) = flow.pivot(Finish, &order);
        flow.finish(finished)
    }
}

/// The messages that will be delivered.
pub(crate) async fn told(database: &Database) -> u64 {
    let mut tx = database.begin().await.unwrap();
    Outbox.depth(&mut tx).await.unwrap().0
}
