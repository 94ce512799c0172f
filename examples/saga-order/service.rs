//! The parts of the program, put together.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use examples_common::{Context, StartError, env_text};
use potter_core::{
    Database, DatabaseOptions, Error, InProcessBus, MessageHandler, Metadata, OutboxMessage, Relay,
    RelayOptions, derived_id, new_id,
};
use potter_eventsourcing::{Repository, event_store};
use potter_saga::{
    BeforePivot, Finished, Flow, Orchestrator, Running, Saga, Started, Value, saga_store,
};
use uuid::Uuid;

use crate::order::PlacedOrder;
use crate::shop;
use crate::steps::{
    CompleteOrder, CompletedOrder, CreateShipment, ProcessPayment, ReserveInventory, Tools,
};
use crate::switches::Switches;

/// Reserve, pay, ship, complete. A refusal at any of them undoes those before it.
#[derive(Debug)]
pub struct OrderSaga(pub Tools);

impl Saga for OrderSaga {
    const NAME: &'static str = "order_saga";
    const VERSION: u32 = 1;
    type Input = PlacedOrder;
    type Output = CompletedOrder;

    fn define<'s>(
        &self,
        order: Value<'s, PlacedOrder>,
        mut flow: Flow<'s, BeforePivot>,
    ) -> Finished<'s, CompletedOrder> {
        let reservation = flow.step(ReserveInventory(self.0.clone()), &order);
        let payment = flow.step(ProcessPayment(self.0.clone()), (&order, &reservation));
        let shipment = flow.step(CreateShipment(self.0.clone()), (&order, &payment));
        let (completed, flow) =
            flow.pivot(CompleteOrder(self.0.clone()), (&order, &reservation, &payment, &shipment));
        flow.finish(completed)
    }
}

/// The program without its HTTP side.
#[derive(Clone, Debug)]
pub struct Service {
    /// What the steps work with.
    pub tools: Tools,
    /// What runs the sagas.
    pub orchestrator: Orchestrator,
}

impl Service {
    /// Prepares the database and puts the parts together. Nothing runs yet.
    ///
    /// # Errors
    /// When the database can't be reached, or its schema is that of a newer release.
    pub async fn open(database: Database, switches: Switches) -> Result<Self, StartError> {
        let events = event_store(&database)?;
        events.migrate().await?;
        let sagas = saga_store(&database);
        sagas.migrate().await?;
        shop::MIGRATIONS.apply(&database).await?;
        let tools = Tools {
            database,
            orders: Repository::new(events),
            sagas: Arc::clone(&sagas),
            switches,
        };
        let orchestrator = Orchestrator::builder(sagas)
            .lease_ttl(switches.lease)
            .shutdown_grace(Duration::from_secs(7))
            .register(&OrderSaga(tools.clone()))?
            .build();
        Ok(Self { tools, orchestrator })
    }

    /// Begins to run sagas, and to tell of completed orders, until the program is to stop.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn run_in(&self, context: &Context) -> Result<(), StartError> {
        let running = self.orchestrator.spawn().await?;
        let stop = context.shutdown.token();
        let relay = self.relay();
        context.background.spawn(async move { relay.run(stop).await });
        let stop = context.shutdown.token();
        context.background.spawn(async move {
            stop.cancelled().await;
            hand_back(running).await;
        });
        Ok(())
    }

    /// Starts the saga of an order. Starts with the same key and order are one; without a key
    /// each is another one.
    ///
    /// # Errors
    /// `KeyReused` when the key was used for another order.
    pub async fn place(
        &self,
        order: &PlacedOrder,
        metadata: Metadata,
    ) -> potter_saga::Result<Started> {
        self.orchestrator
            .start::<OrderSaga>(order)
            .id(saga_id(order.order_id))
            .key(order.order_id.to_string())
            .metadata(metadata)
            .await
    }

    /// Moves messages from the outbox to a handler that writes them to the log.
    fn relay(&self) -> Relay {
        let mut options = RelayOptions::default();
        options.lease_ttl = self.tools.switches.lease;
        let bus = InProcessBus::new();
        bus.subscribe("order", ToLog);
        Relay::new(self.tools.database.clone(), Arc::new(bus), options)
    }
}

async fn hand_back(running: Running) {
    if let Err(error) = running.shutdown().await {
        tracing::warn!(%error, "the sagas could not be handed back; others take them over later");
    }
}

/// The id of an order: the same for the same idempotency key, so that a request which comes again
/// is about the same order.
pub fn order_id(idempotency_key: Option<&str>) -> Uuid {
    idempotency_key.map_or_else(new_id, |key| derived_id(&[OrderSaga::NAME, "order", key]))
}

/// The saga of an order.
pub fn saga_id(order_id: Uuid) -> Uuid {
    derived_id(&[OrderSaga::NAME, "saga", &order_id.to_string()])
}

/// Connects to the database, with an error that names the variable it came from.
///
/// A process that stands still in a transaction keeps its locks until the server ends it. That
/// must not take longer than the `lease`; and shorter, since connections that wait for the same
/// row get it, and are ended, one after the other.
///
/// # Errors
/// When it can't be reached.
pub async fn connect(url: &str, lease: Duration) -> Result<Database, StartError> {
    let options = DatabaseOptions::new()
        .application_name("saga-order")
        .idle_in_transaction_timeout((lease / 8).max(Duration::from_millis(250)));
    options.connect(url).await.map_err(|error| {
        let variable =
            env_text(&["DATABASE_URL", "POSTGRES_URL"]).map_or("DATABASE_URL", |it| it.0);
        Error::with_source(error.kind(), format!("{variable} can't be used: {error}"), error).into()
    })
}

struct ToLog;

#[async_trait]
impl MessageHandler for ToLog {
    async fn handle(
        &self,
        message: &OutboxMessage,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        tracing::info!(
            id = %message.id,
            event_type = message.event_type,
            order_id = message.aggregate_id,
            correlation_id = message.headers.get("correlation_id"),
            payload = message.payload.as_str(),
            "published"
        );
        Ok(())
    }
}
