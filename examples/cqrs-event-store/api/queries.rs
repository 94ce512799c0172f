//! The read side: read models by name, with filters.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use examples_common::{Money, Problem};
use potter_core::{Row, Sql, SqlValue, values};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Params, limit, position};
use crate::service::{Service, problem};

/// How long a query waits for its read model to reach `min_position`.
const WAIT_MAX: Duration = Duration::from_secs(5);

const QUERIES: [(&str, &[&str]); 3] = [
    ("accounts", &["id", "owner", "status", "min_balance", "max_balance"]),
    ("orders", &["id", "customer_id", "status", "min_total", "max_total"]),
    ("activity", &["event_type", "from_day", "to_day"]),
];

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryParams {
    name: Option<String>,
    id: Option<String>,
    owner: Option<String>,
    customer_id: Option<String>,
    status: Option<String>,
    min_balance: Option<String>,
    max_balance: Option<String>,
    min_total: Option<String>,
    max_total: Option<String>,
    event_type: Option<String>,
    from_day: Option<String>,
    to_day: Option<String>,
    min_position: Option<String>,
    cursor: Option<String>,
    limit: Option<u32>,
}

impl QueryParams {
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let all: [(&str, bool); 11] = [
            ("id", self.id.is_some()),
            ("owner", self.owner.is_some()),
            ("customer_id", self.customer_id.is_some()),
            ("status", self.status.is_some()),
            ("min_balance", self.min_balance.is_some()),
            ("max_balance", self.max_balance.is_some()),
            ("min_total", self.min_total.is_some()),
            ("max_total", self.max_total.is_some()),
            ("event_type", self.event_type.is_some()),
            ("from_day", self.from_day.is_some()),
            ("to_day", self.to_day.is_some()),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// An account, as its read model has it.
#[derive(Debug, Serialize, ToSchema)]
struct AccountRow {
    #[schema(example = "account-123")]
    id: String,
    owner: String,
    #[schema(example = "open")]
    status: String,
    #[schema(value_type = f64)]
    balance: Money,
    version: i64,
    updated_at: DateTime<Utc>,
}

/// An order, as its read model has it.
#[derive(Debug, Serialize, ToSchema)]
struct OrderRow {
    #[schema(example = "order-123")]
    id: String,
    customer_id: String,
    #[schema(example = "paid")]
    status: String,
    #[schema(value_type = f64)]
    total: Money,
    version: i64,
    updated_at: DateTime<Utc>,
}

/// How often something happened on a day.
#[derive(Debug, Serialize, ToSchema)]
struct ActivityRow {
    #[schema(example = "2026-11-25")]
    day: String,
    event_type: String,
    events: i64,
}

/// A page of a read model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueryPage {
    #[schema(example = "accounts")]
    name: String,
    items: Vec<Value>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
    /// The read model has everything up to this position.
    position: u64,
    /// How many events it does not have yet.
    lag_events: u64,
}

const ACCOUNTS: Sql = Sql::same(
    "SELECT account_id AS id, owner AS whose, status, balance_cents AS cents, version, updated_at
     FROM cqrs_accounts
     WHERE account_id > $1 AND ($2 IS NULL OR account_id = $2) AND ($3 IS NULL OR owner = $3)
         AND ($4 IS NULL OR status = $4) AND balance_cents >= $5 AND balance_cents <= $6
     ORDER BY account_id LIMIT $7",
);
const ORDERS: Sql = Sql::same(
    "SELECT order_id AS id, customer_id AS whose, status, total_cents AS cents, version, updated_at
     FROM cqrs_orders
     WHERE order_id > $1 AND ($2 IS NULL OR order_id = $2) AND ($3 IS NULL OR customer_id = $3)
         AND ($4 IS NULL OR status = $4) AND total_cents >= $5 AND total_cents <= $6
     ORDER BY order_id LIMIT $7",
);
const ACTIVITY: Sql = Sql::same(
    "SELECT day, event_type, events FROM cqrs_activity
     WHERE (day, event_type) > ($1, $2) AND ($3 IS NULL OR event_type = $3)
         AND ($4 IS NULL OR day >= $4) AND ($5 IS NULL OR day <= $5)
     ORDER BY day, event_type LIMIT $6",
);

/// A page of a read model by its name, with filters; without a name, the queries that there are.
///
/// Read models follow the log a moment behind. `min_position` (the `position` of a command's
/// answer) waits until the read model has got there, up to 5 s.
#[utoipa::path(get, path = "/api/v1/queries", tag = "queries",
    params(("name" = Option<String>, Query, description = "accounts, orders or activity"),
        ("id" = Option<String>, Query), ("owner" = Option<String>, Query),
        ("customer_id" = Option<String>, Query), ("status" = Option<String>, Query),
        ("min_balance" = Option<f64>, Query), ("max_balance" = Option<f64>, Query),
        ("min_total" = Option<f64>, Query), ("max_total" = Option<f64>, Query),
        ("event_type" = Option<String>, Query), ("from_day" = Option<String>, Query),
        ("to_day" = Option<String>, Query), ("min_position" = Option<u64>, Query),
        ("cursor" = Option<String>, Query), ("limit" = Option<u32>, Query, description = "1 to 500 (50)")),
    responses((status = 200, body = QueryPage), (status = 404, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn query(
    State(service): State<Service>,
    Params(params): Params<QueryParams>,
) -> Result<Json<Value>, Problem> {
    let Some(name) = &params.name else {
        let queries = QUERIES.map(|(name, filters)| json!({ "name": name, "filters": filters }));
        return Ok(Json(json!({ "queries": queries, "total": queries.len() })));
    };
    let known = QUERIES.iter().find(|(query, _)| query == name).ok_or_else(|| {
        let names = QUERIES.map(|(name, _)| name).join(", ");
        let detail = format!("There is no query {name}. There are: {names}.");
        Problem::not_found("query_not_found", detail)
    })?;
    if let Some(foreign) = params.given().find(|filter| !known.1.contains(filter)) {
        let detail = format!("{name} has no filter {foreign}. It has: {}.", known.1.join(", "));
        return Err(Problem::unprocessable("unknown_filter", &*detail).with_field(foreign, detail));
    }
    let wanted = position("min_position", params.min_position.as_deref())?;
    if wanted > 0 {
        wait_for(&service, name, wanted).await?;
    }
    // The position first: what the rows have is that, or more.
    let (at, lag) = reached(&service, name).await?;
    let limit = limit(params.limit)?;
    let (items, next_cursor) = match name.as_str() {
        "activity" => activity(&service, &params, limit).await?,
        _ => aggregates(&service, name, &params, limit).await?,
    };
    let page = QueryPage { name: name.clone(), items, next_cursor, position: at, lag_events: lag };
    serde_json::to_value(page).map(Json).map_err(|error| Problem::internal(&error))
}

/// How far the read model is, and how many events it lacks.
async fn reached(service: &Service, name: &str) -> Result<(u64, u64), Problem> {
    match service.admin.status(name).await {
        Ok(status) => Ok((status.position, status.lag_events)),
        // It did not run yet.
        Err(error) if error.kind() == potter_eventsourcing::ErrorKind::NotFound => Ok((0, 0)),
        Err(error) => Err(problem(&error)),
    }
}

async fn wait_for(service: &Service, name: &str, wanted: u64) -> Result<(), Problem> {
    let reached = service.admin.wait_for(name, wanted, WAIT_MAX).await;
    if reached.map_err(|error| problem(&error))? {
        return Ok(());
    }
    let detail = format!("The read model {name} has not reached position {wanted} yet.");
    Err(Problem::unavailable("read_model_behind", detail))
}

fn cents(name: &'static str, given: Option<&str>, default: i64) -> Result<i64, Problem> {
    let Some(given) = given else { return Ok(default) };
    let money = serde_json::from_str::<Money>(given);
    money.map(Money::cents).map_err(|_| {
        let detail = format!("{name} is an amount, such as 29.99.");
        Problem::unprocessable("invalid_amount", &*detail).with_field(name, detail)
    })
}

type Items = (Vec<Value>, Option<String>);

async fn aggregates(
    service: &Service,
    name: &str,
    params: &QueryParams,
    limit: u32,
) -> Result<Items, Problem> {
    let is_account = name == "accounts";
    let (statement, whose, min, max) = if is_account {
        let min = cents("min_balance", params.min_balance.as_deref(), 0)?;
        let max = cents("max_balance", params.max_balance.as_deref(), i64::MAX)?;
        (ACCOUNTS, params.owner.clone(), min, max)
    } else {
        let min = cents("min_total", params.min_total.as_deref(), 0)?;
        let max = cents("max_total", params.max_total.as_deref(), i64::MAX)?;
        (ORDERS, params.customer_id.clone(), min, max)
    };
    let cursor = params.cursor.clone().unwrap_or_default();
    let (id, status) = (params.id.clone(), params.status.clone());
    let values = values![cursor, id, whose, status, min, max, limit + 1];
    let rows = service.database.read(statement, values).await?;
    let item = |row: &Row| {
        let (id, whose, status) = (row.text("id")?, row.text("whose")?, row.text("status")?);
        let (version, updated_at) = (row.i64("version")?, row.time("updated_at")?);
        let cents = Money::from_cents(row.i64("cents")?);
        let item = if is_account {
            let row = AccountRow { id, owner: whose, status, balance: cents, version, updated_at };
            serde_json::to_value(row)
        } else {
            let row =
                OrderRow { id, customer_id: whose, status, total: cents, version, updated_at };
            serde_json::to_value(row)
        };
        item.map_err(|error| Problem::internal(&error))
    };
    page(&rows, limit, item, |row| Ok(row.text("id")?))
}

async fn activity(service: &Service, params: &QueryParams, limit: u32) -> Result<Items, Problem> {
    let cursor = params.cursor.clone().unwrap_or_default();
    let (day, event_type) = cursor.split_once('~').unwrap_or((&cursor, ""));
    let (of_type, from, to) =
        (params.event_type.clone(), params.from_day.clone(), params.to_day.clone());
    let values: &[SqlValue] = values![day, event_type, of_type, from, to, limit + 1];
    let rows = service.database.read(ACTIVITY, values).await?;
    let item = |row: &Row| {
        let (day, event_type) = (row.text("day")?, row.text("event_type")?);
        let row = ActivityRow { day, event_type, events: row.i64("events")? };
        serde_json::to_value(row).map_err(|error| Problem::internal(&error))
    };
    let cursor = |row: &Row| Ok(format!("{}~{}", row.text("day")?, row.text("event_type")?));
    page(&rows, limit, item, cursor)
}

/// The first `limit` of the rows; one more than that means that there is another page.
fn page(
    rows: &[Row],
    limit: u32,
    item: impl Fn(&Row) -> Result<Value, Problem>,
    cursor: impl Fn(&Row) -> Result<String, Problem>,
) -> Result<Items, Problem> {
    let shown = &rows[..rows.len().min(limit as usize)];
    let next = if rows.len() > shown.len() { shown.last().map(cursor).transpose()? } else { None };
    Ok((shown.iter().map(item).collect::<Result<_, _>>()?, next))
}
