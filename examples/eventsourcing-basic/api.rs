//! The program over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use examples_common::{
    Context, HealthCheck, IdempotencyKey, JsonBody, Kit, OnceAnswer, Problem, RequestContext,
    StartError, once,
};
use futures::TryStreamExt;
use potter_core::{Database, new_id};
use potter_eventsourcing::{
    ErrorKind, EventStore, ExecuteError, ReadOptions, Repository, event_store,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::account::{AMOUNT_MAX, Account, Command, Refused};

#[derive(Clone, Debug)]
struct Bank {
    database: Database,
    accounts: Repository<Account>,
}

/// Connects and answers requests.
///
/// # Errors
/// When the database can't be reached: the message names the variable.
pub async fn app(context: Context) -> Result<Router, StartError> {
    let url = &context.settings.database_url;
    let database = Database::connect(url).await.map_err(|error| {
        potter_core::Error::with_source(
            error.kind(),
            format!("DATABASE_URL can't be used: {error}"),
            error,
        )
    })?;
    potter_core::migrate(&database).await?;
    let events: Arc<dyn EventStore> = event_store(&database)?;
    events.migrate().await?;
    let accounts = Repository::new(events);
    let pinged = database.clone();
    let health = HealthCheck::new("database", move || {
        let database = pinged.clone();
        async move { Ok(database.ping().await?) }
    });
    let routes = OpenApiRouter::new()
        .routes(routes!(open))
        .routes(routes!(get))
        .routes(routes!(deposit))
        .routes(routes!(withdraw))
        .routes(routes!(close))
        .routes(routes!(events_of))
        .with_state(Bank { database, accounts });
    Ok(Kit::new(&context).check(health).router(routes))
}

/// An account to open.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OpenRequest {
    /// Its number; a new one if it is left out.
    #[serde(alias = "account_number")]
    id: Option<String>,
    #[serde(alias = "owner_name")]
    #[schema(example = "Ada")]
    owner: String,
    /// The first deposit.
    #[serde(default)]
    initial_balance: i64,
}

/// An amount, in the smallest unit of the currency.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AmountRequest {
    #[schema(example = 100)]
    amount: i64,
}

/// An account.
#[derive(Debug, Serialize, ToSchema)]
struct AccountView {
    id: String,
    /// The same as `id`.
    account_number: String,
    owner: String,
    /// The same as `owner`.
    owner_name: String,
    balance: i64,
    is_active: bool,
    version: u64,
    /// What the request did; not there when nothing was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    /// The amount that moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<i64>,
}

impl AccountView {
    fn new(id: &str, account: Account, version: u64) -> Self {
        let owner = account.owner.unwrap_or_default();
        Self {
            id: id.to_owned(),
            account_number: id.to_owned(),
            owner_name: owner.clone(),
            owner,
            balance: account.balance,
            is_active: !account.closed,
            version,
            status: None,
            amount: None,
        }
    }
}

/// One event of an account.
#[derive(Debug, Serialize, ToSchema)]
struct EventView {
    version: u64,
    global_position: u64,
    event_id: String,
    #[schema(example = "account.deposited")]
    event_type: String,
    recorded_at: DateTime<Utc>,
    #[schema(value_type = Object)]
    data: potter_core::Json,
}

#[derive(Debug, Deserialize)]
struct Paging {
    limit: Option<u64>,
    /// Events above this version.
    cursor: Option<u64>,
}

/// Some events, and where to go on.
#[derive(Debug, Serialize, ToSchema)]
struct EventList {
    account_id: String,
    events: Vec<EventView>,
    /// Send it as `cursor` for the next page; `null` at the end.
    next_cursor: Option<u64>,
}

/// Opens an account.
#[utoipa::path(post, path = "/accounts", request_body = OpenRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = AccountView), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn open(
    State(bank): State<Bank>,
    context: RequestContext,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<OpenRequest>,
) -> Result<OnceAnswer, Problem> {
    let owner = request.owner.trim().to_owned();
    if owner.is_empty() || owner.len() > 200 {
        let detail = "An account needs an owner of 1 to 200 bytes.";
        return Err(Problem::unprocessable("invalid_owner", detail).with_field("owner", detail));
    }
    let initial_balance = request.initial_balance;
    if !(0..=AMOUNT_MAX).contains(&initial_balance) {
        let detail = format!("initial_balance is from 0 to {AMOUNT_MAX}.");
        return Err(Problem::unprocessable("invalid_amount", &*detail)
            .with_field("initial_balance", detail));
    }
    let id = request.id.clone().unwrap_or_else(|| new_id().to_string());
    let command = Command::Open { owner, initial_balance };
    let done = Done { status: StatusCode::CREATED, what: "created", amount: None };
    execute(&bank, &context, &key, &id, command, done, &request).await
}

/// An account as it is.
#[utoipa::path(get, path = "/accounts/{id}", params(("id" = String, Path)),
    responses((status = 200, body = AccountView), (status = 404, body = Problem)))]
async fn get(
    State(bank): State<Bank>,
    Path(id): Path<String>,
) -> Result<Json<AccountView>, Problem> {
    let loaded = bank.accounts.load(&id).await.map_err(|error| problem(&error))?;
    if loaded.version == 0 {
        return Err(refused(&id, &Refused::Unknown));
    }
    Ok(Json(AccountView::new(&id, loaded.state, loaded.version)))
}

/// Puts money in.
#[utoipa::path(post, path = "/accounts/{id}/deposit", request_body = AmountRequest,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = AccountView), (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn deposit(
    State(bank): State<Bank>,
    Path(id): Path<String>,
    context: RequestContext,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<AmountRequest>,
) -> Result<OnceAnswer, Problem> {
    let amount = checked(request.amount)?;
    let done = Done { status: StatusCode::OK, what: "deposited", amount: Some(amount) };
    let request = ("deposit", &id, request);
    execute(&bank, &context, &key, &id, Command::Deposit(amount), done, &request).await
}

/// Takes money out.
#[utoipa::path(post, path = "/accounts/{id}/withdraw", request_body = AmountRequest,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = AccountView), (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn withdraw(
    State(bank): State<Bank>,
    Path(id): Path<String>,
    context: RequestContext,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<AmountRequest>,
) -> Result<OnceAnswer, Problem> {
    let amount = checked(request.amount)?;
    let done = Done { status: StatusCode::OK, what: "withdrawn", amount: Some(amount) };
    let request = ("withdraw", &id, request);
    execute(&bank, &context, &key, &id, Command::Withdraw(amount), done, &request).await
}

/// Closes it.
#[utoipa::path(post, path = "/accounts/{id}/close",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = AccountView), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn close(
    State(bank): State<Bank>,
    Path(id): Path<String>,
    context: RequestContext,
    key: IdempotencyKey,
) -> Result<OnceAnswer, Problem> {
    let done = Done { status: StatusCode::OK, what: "closed", amount: None };
    execute(&bank, &context, &key, &id, Command::Close, done, &("close", &id)).await
}

/// What happened to an account.
#[utoipa::path(get, path = "/accounts/{id}/events",
    params(("id" = String, Path), ("limit" = Option<u64>, Query, description = "1 to 500 (100)"), ("cursor" = Option<u64>, Query)),
    responses((status = 200, body = EventList), (status = 404, body = Problem)))]
async fn events_of(
    State(bank): State<Bank>,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<EventList>, Problem> {
    let limit = paging.limit.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(Problem::unprocessable("invalid_limit", "limit is from 1 to 500."));
    }
    let stream = bank.accounts.stream_id(&id).map_err(|error| problem(&error))?;
    let from = paging.cursor.unwrap_or(0).saturating_add(1);
    let options = ReadOptions::forwards().from_version(from).limit(limit);
    let events = bank.accounts.store().read_stream(&stream, options);
    let events: Vec<_> = events.try_collect().await.map_err(|error| problem(&error))?;
    if events.is_empty() && from == 1 {
        return Err(refused(&id, &Refused::Unknown));
    }
    let full = events.len() as u64 == limit;
    let next_cursor = events.last().filter(|_| full).map(|event| event.version);
    let events = events.into_iter().map(|event| EventView {
        version: event.version,
        global_position: event.global_position,
        event_id: event.event_id.to_string(),
        event_type: event.event_type,
        recorded_at: event.recorded_at,
        data: event.payload,
    });
    Ok(Json(EventList { account_id: id, events: events.collect(), next_cursor }))
}

/// What is answered when it is done.
#[derive(Clone, Copy, Debug)]
struct Done {
    status: StatusCode,
    what: &'static str,
    amount: Option<i64>,
}

async fn execute(
    bank: &Bank,
    context: &RequestContext,
    key: &IdempotencyKey,
    id: &str,
    command: Command,
    done: Done,
    request: &(impl Serialize + Sync),
) -> Result<OnceAnswer, Problem> {
    let work = (bank.accounts.clone(), id.to_owned(), command, context.metadata());
    once(&bank.database, "eventsourcing-basic", key, request, move |tx| {
        // The transaction may be begun again.
        let (accounts, id, command, metadata) = work.clone();
        Box::pin(async move {
            let executed = accounts.execute_in(tx, &id, &command, metadata).await;
            let executed = executed.map_err(|error| match error {
                ExecuteError::Rejected(reason) => refused(&id, &reason),
                ExecuteError::Store(error) => problem(&error),
                other => Problem::internal(&other),
            })?;
            let mut view = AccountView::new(&id, executed.state, executed.version);
            (view.status, view.amount) = (Some(done.what), done.amount);
            OnceAnswer::new(done.status, &view)
        })
    })
    .await
}

fn checked(amount: i64) -> Result<i64, Problem> {
    if (1..=AMOUNT_MAX).contains(&amount) {
        return Ok(amount);
    }
    let detail = format!("amount must be positive, at most {AMOUNT_MAX}.");
    Err(Problem::unprocessable("invalid_amount", &*detail).with_field("amount", detail))
}

fn refused(id: &str, reason: &Refused) -> Problem {
    let detail = format!("Account {id}: {reason}.");
    match reason {
        Refused::Unknown => Problem::not_found("account_not_found", detail),
        Refused::Exists => Problem::conflict("account_exists", detail),
        Refused::Closed => Problem::conflict("account_closed", detail),
        Refused::InsufficientFunds { .. } => Problem::unprocessable("insufficient_funds", detail),
        Refused::TooMuch => Problem::unprocessable("balance_too_large", detail),
    }
}

/// What an error of the store means for the one who asked.
fn problem(error: &potter_eventsourcing::Error) -> Problem {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::InvalidInput => Problem::unprocessable("invalid_input", text),
        ErrorKind::Conflict => Problem::conflict("conflict", text),
        ErrorKind::Unavailable => {
            potter_core::Error::new(potter_core::ErrorKind::Unavailable, text).into()
        }
        ErrorKind::Unknown => potter_core::Error::new(potter_core::ErrorKind::Unknown, text).into(),
        _ => Problem::internal(&format_args!("{error:?}")),
    }
}
