//! The read models: tables that follow the log, in one transaction with their checkpoints.
//!
//! Accounts and orders are kept by the aggregates' own `evolve`, so a row is the fold of its
//! stream. Each can be built anew beside itself ([`Rebuildable`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use potter_core::{Identifier, Json, Sql, Tx, values};
use potter_eventsourcing::{
    EventFilter, HandlerError, Projection, Rebuildable, RecordedEvent, Result, ShadowTable,
    Snapshottable,
};

use crate::account::{self, Account};
use crate::order::Order;

/// An aggregate that has a row in a read model.
pub(crate) trait Shown: Snapshottable {
    const NAME: &'static str;
    const TABLE: &'static str;
    const LOAD: Sql;
    const SAVE: Sql;

    /// Whose it is, how it stands, and how much it is about, in cents.
    fn columns(&self) -> (&str, &'static str, i64);
}

macro_rules! save {
    ($id:literal, $whose:literal, $cents:literal, $state:literal) => {
        concat!(
            "INSERT INTO {table} (",
            $id,
            ", ",
            $whose,
            ", status, ",
            $cents,
            ", state, version, updated_at) VALUES ($1, $2, $3, $4, ",
            $state,
            ", $6, $7) ON CONFLICT (",
            $id,
            ") DO UPDATE SET ",
            $whose,
            " = excluded.",
            $whose,
            ", status = excluded.status, ",
            $cents,
            " = excluded.",
            $cents,
            ", state = excluded.state, version = excluded.version, updated_at = excluded.updated_at"
        )
    };
    ($id:literal, $whose:literal, $cents:literal) => {
        Sql::new(save!($id, $whose, $cents, "$5"), save!($id, $whose, $cents, "$5::json"))
    };
}

impl Shown for Account {
    const NAME: &'static str = "accounts";
    const TABLE: &'static str = "cqrs_accounts";
    const LOAD: Sql = Sql::same("SELECT state, version FROM {table} WHERE account_id = $1");
    const SAVE: Sql = save!("account_id", "owner", "balance_cents");

    fn columns(&self) -> (&str, &'static str, i64) {
        let status = match self.status {
            account::Status::None => "none",
            account::Status::Open => "open",
            account::Status::Closed => "closed",
        };
        (&self.owner, status, self.balance.cents())
    }
}

impl Shown for Order {
    const NAME: &'static str = "orders";
    const TABLE: &'static str = "cqrs_orders";
    const LOAD: Sql = Sql::same("SELECT state, version FROM {table} WHERE order_id = $1");
    const SAVE: Sql = save!("order_id", "customer_id", "total_cents");

    fn columns(&self) -> (&str, &'static str, i64) {
        (&self.customer_id, self.status.as_str(), self.total.cents())
    }
}

/// One row an aggregate.
struct States<A> {
    table: ShadowTable,
    /// The one that is written: the live or the next.
    name: Identifier,
    aggregate: std::marker::PhantomData<fn() -> A>,
}

struct Row<A> {
    state: A,
    version: u64,
    at: DateTime<Utc>,
}

impl<A: Shown> States<A> {
    fn live() -> Result<Self> {
        let table = ShadowTable::new(A::TABLE)?;
        let name = table.live().clone();
        Ok(Self { table, name, aggregate: std::marker::PhantomData })
    }

    async fn load(&self, tx: &mut Tx, id: &str) -> Result<Row<A>, HandlerError> {
        let statement = A::LOAD.with("table", &self.name);
        let (mut row, at) = ((A::default(), 0), DateTime::UNIX_EPOCH);
        if let Some(found) = tx.fetch_optional(statement, values![id]).await? {
            row = (found.json("state")?.get()?, u64::try_from(found.i64("version")?)?);
        }
        Ok(Row { state: row.0, version: row.1, at })
    }

    async fn save(&self, tx: &mut Tx, id: &str, row: &Row<A>) -> Result<(), HandlerError> {
        let (whose, status, cents) = row.state.columns();
        let (state, version) = (Json::of(&row.state)?, i64::try_from(row.version)?);
        let statement = A::SAVE.with("table", &self.name);
        tx.execute(statement, values![id, whose, status, cents, &state, version, row.at]).await?;
        Ok(())
    }
}

#[async_trait]
impl<A: Shown> Projection for States<A> {
    fn name(&self) -> &str {
        A::NAME
    }

    fn filter(&self) -> EventFilter {
        EventFilter::all().stream_types([A::TYPE])
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.handle_batch(tx, std::slice::from_ref(event)).await
    }

    /// Each aggregate of the batch is read once and written once.
    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        let mut rows: BTreeMap<&str, Row<A>> = BTreeMap::new();
        for event in events {
            let id = event.stream_id.as_str();
            let mut row = match rows.remove(id) {
                Some(row) => row,
                None => self.load(tx, id).await?,
            };
            if event.version != row.version + 1 {
                let (at, came) = (row.version, event.version);
                return Err(format!("{id} is at version {at} here, and {came} came").into());
            }
            row.state.evolve(&event.decode::<A::Event>()?);
            (row.version, row.at) = (event.version, event.recorded_at);
            rows.insert(id, row);
        }
        for (id, row) in &rows {
            self.save(tx, id, row).await?;
        }
        Ok(())
    }

    async fn reset(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        empty(tx, &self.name).await
    }
}

impl<A: Shown> Rebuildable for States<A> {
    fn tables(&self) -> Vec<ShadowTable> {
        vec![self.table.clone()]
    }

    fn shadow(&self) -> Arc<dyn Projection> {
        let (table, name) = (self.table.clone(), self.table.next().clone());
        Arc::new(Self { table, name, aggregate: std::marker::PhantomData })
    }
}

/// How often what happened on which day.
struct Activity {
    table: ShadowTable,
    name: Identifier,
}

#[async_trait]
impl Projection for Activity {
    fn name(&self) -> &str {
        "activity"
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        self.handle_batch(tx, std::slice::from_ref(event)).await
    }

    async fn handle_batch(
        &self,
        tx: &mut Tx,
        events: &[RecordedEvent],
    ) -> Result<(), HandlerError> {
        const ADD: Sql = Sql::same(
            "INSERT INTO {table} AS a (day, event_type, events) VALUES ($1, $2, $3)
             ON CONFLICT (day, event_type) DO UPDATE SET events = a.events + excluded.events",
        );
        let mut counts: BTreeMap<(String, &str), i64> = BTreeMap::new();
        for event in events {
            let day = event.recorded_at.format("%Y-%m-%d").to_string();
            *counts.entry((day, &event.event_type)).or_default() += 1;
        }
        // In one order everywhere: so no two workers can wait for each other.
        for ((day, event_type), count) in counts {
            let statement = ADD.with("table", &self.name);
            tx.execute(statement, values![day, event_type, count]).await?;
        }
        Ok(())
    }

    async fn reset(&self, tx: &mut Tx) -> Result<(), HandlerError> {
        empty(tx, &self.name).await
    }
}

impl Rebuildable for Activity {
    fn tables(&self) -> Vec<ShadowTable> {
        vec![self.table.clone()]
    }

    fn shadow(&self) -> Arc<dyn Projection> {
        let (table, name) = (self.table.clone(), self.table.next().clone());
        Arc::new(Self { table, name })
    }
}

async fn empty(tx: &mut Tx, table: &Identifier) -> Result<(), HandlerError> {
    const EMPTY: Sql = Sql::same("DELETE FROM {table}");
    tx.execute(EMPTY.with("table", table), &[]).await?;
    Ok(())
}

/// All of them.
///
/// # Errors
/// When a table's name can't be one.
pub(crate) fn all() -> Result<Vec<Arc<dyn Rebuildable>>> {
    let table = ShadowTable::new("cqrs_activity")?;
    let activity = Activity { name: table.live().clone(), table };
    let (accounts, orders) = (States::<Account>::live()?, States::<Order>::live()?);
    Ok(vec![Arc::new(accounts), Arc::new(orders), Arc::new(activity)])
}
