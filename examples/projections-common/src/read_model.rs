//! The read models: tables that the projections keep, in the transaction of the checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use potter_core::{Database, Sql, Tx, values};
use potter_eventsourcing::{EventFilter, HandlerError, Projection, RecordedEvent};

use crate::domain::{OrderEvent, UserEvent};
use crate::report::say;

// A user comes once. Were an event applied twice, `times` would say so.
const ADD_USER: Sql = Sql::same(
    "INSERT INTO example_users (projection, user_id, name, email, worker) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (projection, user_id) DO UPDATE SET times = example_users.times + 1",
);
const ADD_ORDER: Sql = Sql::same(
    "INSERT INTO example_revenue (order_id, cents) VALUES ($1, $2)
     ON CONFLICT (order_id) DO UPDATE SET times = example_revenue.times + 1",
);
const ADD_ACTIVITY: Sql = Sql::same(
    "INSERT INTO example_activity (event_id, event_type, position) VALUES ($1, $2, $3)
     ON CONFLICT (event_id) DO UPDATE SET times = example_activity.times + 1",
);

/// What is printed about an event, with how many this process has applied.
type Line = Arc<dyn Fn(&RecordedEvent, &str, u64) -> String + Send + Sync>;

/// Counts what this process has applied, and tells it: after the commit, as only then it is true.
#[derive(Clone)]
pub struct Applied {
    total: Arc<AtomicU64>,
    line: Line,
}

impl Applied {
    /// Counts from 0. `line` is given the event, what happened in words, and the total with it.
    pub fn new(line: impl Fn(&RecordedEvent, &str, u64) -> String + Send + Sync + 'static) -> Self {
        Self { total: Arc::default(), line: Arc::new(line) }
    }

    /// How many this process has applied.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    fn after_commit(&self, tx: &mut Tx, event: &RecordedEvent, what: String) {
        let (applied, event) = (self.clone(), event.clone());
        tx.on_commit(move || {
            let total = applied.total.fetch_add(1, Ordering::Relaxed) + 1;
            say((applied.line)(&event, &what, total));
        });
    }
}

/// The users: one row each.
pub struct Users {
    /// The projection's name.
    pub name: &'static str,
    /// Who applies: kept with the row.
    pub worker: String,
    /// How long each event takes.
    pub delay: Duration,
    /// What is told.
    pub applied: Applied,
}

#[async_trait]
impl Projection for Users {
    fn name(&self) -> &str {
        self.name
    }

    fn filter(&self) -> EventFilter {
        EventFilter::all().event_types(["user.created"])
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        let UserEvent::Created(user) = event.decode()?;
        tokio::time::sleep(self.delay).await;
        let id = event.stream_id.id();
        tx.execute(ADD_USER, values![self.name, id, &user.name, &user.email, &self.worker]).await?;
        let what = format!("User created: {} ({})", user.name, user.email);
        self.applied.after_commit(tx, event, what);
        Ok(())
    }
}

/// The orders and what they bring in.
pub struct Revenue {
    /// How long each event takes.
    pub delay: Duration,
    /// What is told.
    pub applied: Applied,
}

#[async_trait]
impl Projection for Revenue {
    fn name(&self) -> &str {
        "revenue_tracker"
    }

    fn filter(&self) -> EventFilter {
        EventFilter::all().context("sales").event_types(["order.placed"])
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        let OrderEvent::Placed(order) = event.decode()?;
        tokio::time::sleep(self.delay).await;
        tx.execute(ADD_ORDER, values![event.stream_id.id(), order.cents]).await?;
        self.applied.after_commit(tx, event, crate::dollars(order.cents));
        Ok(())
    }
}

/// Everything that happens.
pub struct Activity {
    /// How long each event takes.
    pub delay: Duration,
    /// What is told.
    pub applied: Applied,
}

#[async_trait]
impl Projection for Activity {
    fn name(&self) -> &str {
        "activity_log"
    }

    async fn handle(&self, tx: &mut Tx, event: &RecordedEvent) -> Result<(), HandlerError> {
        tokio::time::sleep(self.delay).await;
        let (id, position) = (event.event_id.to_string(), i64::try_from(event.global_position)?);
        tx.execute(ADD_ACTIVITY, values![id, &event.event_type, position]).await?;
        self.applied.after_commit(tx, event, event.event_type.clone());
        Ok(())
    }
}

async fn number(
    database: &Database,
    statement: &'static str,
    values: &[potter_core::SqlValue],
) -> potter_core::Result<i64> {
    let rows = database.read(statement, values).await?;
    rows.first().map_or(Ok(0), |row| row.i64("n"))
}

/// How many users the read model of `projection` has, and how often an event was applied.
///
/// # Errors
/// `Unavailable` when the database is.
pub async fn user_totals(database: &Database, projection: &str) -> potter_core::Result<(i64, i64)> {
    const USERS: &str = "SELECT count(*) AS n FROM example_users WHERE projection = $1";
    const TIMES: &str = "SELECT CAST(COALESCE(sum(times), 0) AS BIGINT) AS n
         FROM example_users WHERE projection = $1";
    let users = number(database, USERS, values![projection]).await?;
    Ok((users, number(database, TIMES, values![projection]).await?))
}

/// Their addresses, in order.
///
/// # Errors
/// `Unavailable` when the database is.
pub async fn user_emails(
    database: &Database,
    projection: &str,
) -> potter_core::Result<Vec<String>> {
    const EMAILS: &str =
        "SELECT email FROM example_users WHERE projection = $1 ORDER BY email LIMIT 1000";
    let rows = database.read(EMAILS, values![projection]).await?;
    rows.iter().map(|row| row.text("email")).collect()
}

/// What all orders brought in.
///
/// # Errors
/// `Unavailable` when the database is.
pub async fn revenue_cents(database: &Database) -> potter_core::Result<i64> {
    const SUM: &str =
        "SELECT CAST(COALESCE(sum(cents * times), 0) AS BIGINT) AS n FROM example_revenue";
    number(database, SUM, &[]).await
}

/// How many events the log of activities has.
///
/// # Errors
/// `Unavailable` when the database is.
pub async fn activity_total(database: &Database) -> potter_core::Result<i64> {
    const SUM: &str = "SELECT CAST(COALESCE(sum(times), 0) AS BIGINT) AS n FROM example_activity";
    number(database, SUM, &[]).await
}
