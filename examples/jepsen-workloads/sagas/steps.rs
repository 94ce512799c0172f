//! The saga: two steps that can be undone, a pivot that refuses every fourth order, a last step.

use async_trait::async_trait;
use potter_core::{Database, Sql, values};
use potter_saga::{
    BeforePivot, Compensate, Finished, Flow, Saga, Step, StepContext, StepError, StepOptions, Value,
};
use serde::{Deserialize, Serialize};

/// The steps' names, in order.
pub(super) const STEPS: [&str; 4] = ["reserve", "hold", "charge", "ship"];

/// Makes the table of effects. `effect_key` is what the service behind `hold` knows of a request.
pub(super) async fn create(database: &Database) -> potter_core::Result<()> {
    const TABLE: Sql = Sql::same(
        "CREATE TABLE IF NOT EXISTS potter_jepsen_effects (
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             run text NOT NULL, saga bigint NOT NULL, step text NOT NULL, what text NOT NULL,
             effect_key text UNIQUE)",
    );
    // Two runs may begin at once: who finds the other's table half made tries again.
    match database.execute(TABLE, values![]).await {
        Err(_) => database.execute(TABLE, values![]).await.map(drop),
        Ok(_) => Ok(()),
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) run: String,
    pub(super) number: i64,
}

#[derive(Debug)]
pub(super) struct OrderSaga {
    pub(super) database: Database,
}

impl Saga for OrderSaga {
    const NAME: &'static str = "potter_jepsen_order";
    const VERSION: u32 = 1;
    type Input = Order;
    type Output = bool;

    fn define<'s>(
        &self,
        order: Value<'s, Order>,
        mut flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, bool> {
        flow.step(Reserve, &order);
        flow.step(Hold { database: self.database.clone() }, &order);
        let (_, mut flow) = flow.pivot(Charge, &order);
        let shipped = flow.step(Ship, &order);
        flow.finish(shipped)
    }
}

/// An effect in the step's own transaction.
async fn effect(
    cx: &mut StepContext,
    order: &Order,
    step: &'static str,
    what: &'static str,
) -> Result<(), StepError> {
    const ADD: Sql = Sql::same(
        "INSERT INTO potter_jepsen_effects (run, saga, step, what) VALUES ($1, $2, $3, $4)",
    );
    let values = values![order.run.clone(), order.number, step, what];
    cx.tx().await?.execute(ADD, values).await?;
    Ok(())
}

/// All of its effects are in its own transaction: an attempt that did not commit did not happen. Without
/// this a refusal after an attempt of an orchestrator that was killed would be no certain one, and the
/// saga would wait for a hand at its pivot.
fn local() -> StepOptions {
    StepOptions::new().local()
}

struct Reserve;

#[async_trait]
impl Step for Reserve {
    const NAME: &'static str = "reserve";
    type Input = Order;
    type Output = bool;

    async fn run(&self, cx: &mut StepContext, order: Order) -> Result<bool, StepError> {
        effect(cx, &order, "reserve", "apply").await?;
        Ok(true)
    }

    fn options(&self) -> StepOptions {
        local()
    }
}

#[async_trait]
impl Compensate for Reserve {
    async fn undo(
        &self,
        cx: &mut StepContext,
        order: Order,
        _: Option<bool>,
    ) -> Result<(), StepError> {
        effect(cx, &order, "reserve", "compensate").await
    }
}

/// A service of its own: it does a request once for each key, and a request that was taken back
/// before it came does nothing.
struct Hold {
    database: Database,
}

const ONCE: Sql = Sql::same(
    "INSERT INTO potter_jepsen_effects (run, saga, step, what, effect_key)
     VALUES ($1, $2, 'hold', $3, $4) ON CONFLICT (effect_key) DO NOTHING",
);

#[async_trait]
impl Step for Hold {
    const NAME: &'static str = "hold";
    type Input = Order;
    type Output = bool;

    async fn run(&self, cx: &mut StepContext, order: Order) -> Result<bool, StepError> {
        let key = cx.run_key().to_string();
        let values = values![order.run, order.number, "apply", key];
        self.database.execute(ONCE, values).await.map_err(StepError::unknown)?;
        Ok(true)
    }
}

#[async_trait]
impl Compensate for Hold {
    async fn undo(
        &self,
        cx: &mut StepContext,
        order: Order,
        _: Option<bool>,
    ) -> Result<(), StepError> {
        let key = cx.run_key().to_string();
        let mut tx = self.database.begin().await?;
        // If the key is new, the request never came; now it can't take effect any more.
        let void = values![order.run.clone(), order.number, "void", key.clone()];
        if tx.execute(ONCE, void).await? == 0 {
            let undo = values![order.run, order.number, "compensate", format!("undo-{key}")];
            tx.execute(ONCE, undo).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

struct Charge;

#[async_trait]
impl Step for Charge {
    const NAME: &'static str = "charge";
    type Input = Order;
    type Output = bool;

    async fn run(&self, cx: &mut StepContext, order: Order) -> Result<bool, StepError> {
        if order.number % 4 == 0 {
            return Err(StepError::rejected("every fourth card is declined"));
        }
        effect(cx, &order, "charge", "apply").await?;
        Ok(true)
    }

    fn options(&self) -> StepOptions {
        local()
    }
}

struct Ship;

#[async_trait]
impl Step for Ship {
    const NAME: &'static str = "ship";
    type Input = Order;
    type Output = bool;

    async fn run(&self, cx: &mut StepContext, order: Order) -> Result<bool, StepError> {
        effect(cx, &order, "ship", "apply").await?;
        Ok(true)
    }

    fn options(&self) -> StepOptions {
        local()
    }
}
