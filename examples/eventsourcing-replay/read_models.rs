//! The two read models: rows of SQL, built from events only.

use std::sync::Arc;

use async_trait::async_trait;
use potter_core::{Database, Json, Sql, Tx, values};
use potter_eventsourcing::{EventFilter, HandlerError, Projection, RecordedEvent};

use crate::order::OrderEvent;

/// One row an order.
#[derive(Debug)]
pub(crate) struct OrderSummary;

/// One row a customer.
#[derive(Debug)]
pub(crate) struct CustomerStats;

const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS order_summary (
         order_id text PRIMARY KEY, customer_id text NOT NULL, amount bigint NOT NULL,
         status text NOT NULL, event_count bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS customer_stats (
         customer_id text PRIMARY KEY, total_orders bigint NOT NULL, total_amount bigint NOT NULL)",
];

const CREATED: Sql = Sql::new(
    "INSERT INTO order_summary (order_id, customer_id, amount, status, event_count)
     SELECT value ->> 0, value ->> 1, value ->> 2, 'created', 1 FROM json_each($1)",
    "INSERT INTO order_summary (order_id, customer_id, amount, status, event_count)
     SELECT one ->> 0, one ->> 1, (one ->> 2)::bigint, 'created', 1
     FROM json_array_elements($1::json) AS one",
);

const MOVED: Sql = Sql::new(
    "UPDATE order_summary SET status = m.value ->> 1, event_count = event_count + 1
     FROM json_each($1) AS m WHERE order_id = m.value ->> 0",
    "UPDATE order_summary SET status = m.one ->> 1, event_count = event_count + 1
     FROM (SELECT json_array_elements($1::json) AS one) AS m WHERE order_id = m.one ->> 0",
);

const BOUGHT: Sql = Sql::new(
    "INSERT INTO customer_stats AS c (customer_id, total_orders, total_amount)
     SELECT value ->> 0, count(*), sum(value ->> 1) FROM json_each($1) WHERE true
     GROUP BY value ->> 0
     ON CONFLICT (customer_id) DO UPDATE SET total_orders = c.total_orders + excluded.total_orders,
         total_amount = c.total_amount + excluded.total_amount",
    "INSERT INTO customer_stats AS c (customer_id, total_orders, total_amount)
     SELECT one ->> 0, count(*), sum((one ->> 1)::bigint)::bigint
     FROM json_array_elements($1::json) AS one GROUP BY one ->> 0 ORDER BY 1
     ON CONFLICT (customer_id) DO UPDATE SET total_orders = c.total_orders + excluded.total_orders,
         total_amount = c.total_amount + excluded.total_amount",
);

/// Makes the tables.
pub(crate) async fn migrate(database: &Database) -> potter_core::Result<()> {
    for table in TABLES {
        database.execute(table, &[]).await?;
    }
    Ok(())
}

/// The read model of that name.
pub(crate) fn of(name: &str) -> Option<Arc<dyn Projection>> {
    match name {
        "order_summary" => Some(Arc::new(OrderSummary)),
        "customer_stats" => Some(Arc::new(CustomerStats)),
        _ => None,
    }
}

#[async_trait]
impl Projection for OrderSummary {
    fn name(&self) -> &str {
        "order_summary"
    }

    fn filter(&self) -> EventFilter {
        EventFilter::all().event_types(["order.created", "order.completed", "order.cancelled"])
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.handle_batch(tx, std::slice::from_ref(event)).await
    }

    /// New orders first, then what became of orders: an order ends once, so the order among
    /// different orders does not matter.
    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        let (mut created, mut moved) = (Vec::new(), Vec::new());
        for event in events {
            let order_id = event.stream_id.id();
            match event.decode::<OrderEvent>()? {
                OrderEvent::Created(one) => created.push((order_id, one.customer_id, one.amount)),
                OrderEvent::Completed => moved.push((order_id, "completed")),
                OrderEvent::Cancelled => moved.push((order_id, "cancelled")),
            }
        }
        if !created.is_empty() {
            tx.execute(CREATED, values![Json::of(&created)?]).await?;
        }
        if !moved.is_empty() {
            let rows = tx.execute(MOVED, values![Json::of(&moved)?]).await?;
            if rows != moved.len() as u64 {
                return Err(format!("{} orders moved, {rows} are there", moved.len()).into());
            }
        }
        Ok(())
    }

    async fn reset(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        tx.execute("DELETE FROM order_summary", &[]).await?;
        Ok(())
    }
}

#[async_trait]
impl Projection for CustomerStats {
    fn name(&self) -> &str {
        "customer_stats"
    }

    fn filter(&self) -> EventFilter {
        EventFilter::all().event_types(["order.created"])
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.handle_batch(tx, std::slice::from_ref(event)).await
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        let mut bought = Vec::with_capacity(events.len());
        for event in events {
            if let OrderEvent::Created(created) = event.decode()? {
                bought.push((created.customer_id, created.amount));
            }
        }
        tx.execute(BOUGHT, values![Json::of(&bought)?]).await?;
        Ok(())
    }

    async fn reset(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        tx.execute("DELETE FROM customer_stats", &[]).await?;
        Ok(())
    }
}
