//! The four steps of an order.

mod complete_order;
mod create_shipment;
mod process_payment;
mod reserve_inventory;

use std::sync::Arc;
use std::time::Duration;

use potter_core::{Database, Metadata};
use potter_eventsourcing::{ExecuteError, Repository};
use potter_saga::{SagaStore, StepContext, StepError, StepOptions};
use uuid::Uuid;

pub use complete_order::{CompleteOrder, CompletedOrder};
pub use create_shipment::{CreateShipment, Shipment};
pub use process_payment::{CARD_LIMIT, Payment, ProcessPayment};
pub use reserve_inventory::{Reservation, ReserveInventory};

use crate::order::{Order, OrderCommand, OrderError};
use crate::switches::Switches;

/// Their names, in order.
pub const STEPS: [&str; 4] =
    ["reserve_inventory", "process_payment", "create_shipment", "complete_order"];

/// What the steps work with.
#[derive(Clone)]
pub struct Tools {
    /// The database that everything is in.
    pub database: Database,
    /// The orders.
    pub orders: Repository<Order>,
    /// The sagas.
    pub sagas: Arc<dyn SagaStore>,
    /// What is to go wrong.
    pub switches: Switches,
}

impl std::fmt::Debug for Tools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tools").field("switches", &self.switches).finish_non_exhaustive()
    }
}

impl Tools {
    /// All that a step does is in the transaction that also records its progress.
    fn options(&self) -> StepOptions {
        let timeout = Duration::from_secs(30) + self.switches.step_delay;
        StepOptions::new().local().timeout(timeout)
    }

    /// Waits as the switches say, before the transaction: it would hold locks meanwhile. Answers
    /// why the step is to refuse, if it is.
    async fn begin(&self, cx: &mut StepContext) -> Result<Option<String>, StepError> {
        tokio::time::sleep(self.switches.step_delay).await;
        let this = Some(cx.step_name());
        if self.switches.fail_once == this && cx.attempt() == 1 {
            return Err(StepError::retry("FAIL_ONCE says so"));
        }
        Ok((self.switches.fail_at == this).then(|| "FAIL_AT says so".to_owned()))
    }

    /// Asks the order, in the step's transaction.
    async fn ask(
        &self,
        cx: &mut StepContext,
        order_id: Uuid,
        command: OrderCommand,
    ) -> Result<(), StepError> {
        let metadata = caused_by(cx);
        let asked =
            self.orders.execute_in(cx.tx().await?, &order_id.to_string(), &command, metadata).await;
        asked.map(|_| ()).map_err(step_error)
    }
}

/// Why the saga goes back.
fn reason(cx: &StepContext) -> String {
    cx.reason().unwrap_or("called off").to_owned()
}

/// The metadata of what the step causes.
fn caused_by(cx: &StepContext) -> Metadata {
    cx.metadata().caused_by(cx.saga_id().to_string())
}

/// What the transaction has not committed has not happened: any failure of the store is tried
/// again.
fn step_error(error: ExecuteError<OrderError>) -> StepError {
    match error {
        ExecuteError::Rejected(reason) => StepError::rejected(reason),
        ExecuteError::Store(error) => StepError::retry(error),
        other => StepError::retry(other),
    }
}
