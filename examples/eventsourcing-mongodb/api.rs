//! The program over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use examples_common::{
    Context, HealthCheck, IdempotencyKey, JsonBody, Kit, Problem, Program, RequestContext,
    Settings, StartError, env_text,
};
use potter_eventsourcing::{
    ErrorKind, EventFilter, EventStore, MongoEventStore, RecordedEvent, Repository,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::inventory::{Added, Command, Inventory, QUANTITY_MAX, Refused};
use crate::once;

const VARIABLES: [&str; 2] = ["MONGO_URL", "MONGODB_URI"];

/// The settings, with the URL of MongoDB.
///
/// # Errors
/// `Config` when it is not set: the message says what to set, and to what.
pub fn settings(program: &Program) -> Result<Settings, potter_core::Error> {
    let settings = Settings::from_env(program.service, program.port)?;
    let Some((_, url)) = env_text(&VARIABLES) else {
        let message = "MONGO_URL is not set. The events are in MongoDB: set MONGO_URL (or \
                       MONGODB_URI) to mongodb://user:password@host:27017/database. \
                       `docker compose up mongodb` or `scripts/services up mongodb` in the \
                       repository start a server";
        return Err(potter_core::Error::new(potter_core::ErrorKind::Config, message));
    };
    Ok(settings.with_database(url))
}

#[derive(Clone, Debug)]
struct Warehouse {
    inventories: Repository<Inventory>,
}

/// Connects and answers requests.
///
/// # Errors
/// When MongoDB can't be reached: the message names the variable and the host.
pub async fn app(context: Context) -> Result<Router, StartError> {
    let name = env_text(&VARIABLES).map_or(VARIABLES[0], |(name, _)| name);
    let store = MongoEventStore::connect(&context.settings.database_url)
        .await
        .map_err(|error| format!("{name} can't be used: {error}"))?;
    store.migrate().await.map_err(|error| format!("{name} can't be used: {error}"))?;
    let store: Arc<dyn EventStore> = Arc::new(store);
    let pinged = Arc::clone(&store);
    let health = HealthCheck::new("mongodb", move || {
        let store = Arc::clone(&pinged);
        async move { Ok(store.head_position().await.map(|_| ())?) }
    });
    let routes = OpenApiRouter::new()
        .routes(routes!(add))
        .routes(routes!(reserve))
        .routes(routes!(get))
        .routes(routes!(by_type))
        .with_state(Warehouse { inventories: Repository::new(store) });
    Ok(Kit::new(&context).check(health).router(routes))
}

/// Goods that came.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AddRequest {
    #[schema(example = "tea")]
    product_id: String,
    #[schema(example = "berlin")]
    warehouse_id: String,
    #[schema(minimum = 1, example = 100)]
    quantity: i64,
}

/// Goods to reserve.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReserveRequest {
    #[schema(example = "tea@berlin")]
    inventory_id: String,
    #[schema(minimum = 1, example = 10)]
    quantity: i64,
}

/// What a request did.
#[derive(Debug, Serialize, ToSchema)]
struct DoneView {
    #[schema(example = "added")]
    status: &'static str,
    id: String,
    /// The same as `id`.
    inventory_id: String,
    product_id: String,
    warehouse_id: String,
    /// How many were added or reserved.
    quantity: u64,
    /// What can still be reserved.
    available: u64,
    reserved: u64,
    version: u64,
}

/// The stock of a product in a warehouse.
#[derive(Debug, Serialize, ToSchema)]
struct InventoryView {
    id: String,
    product_id: String,
    warehouse_id: String,
    /// What can still be reserved.
    quantity: u64,
    reserved: u64,
    version: u64,
}

/// One event.
#[derive(Debug, Serialize, ToSchema)]
struct EventView {
    event_id: String,
    inventory_id: String,
    version: u64,
    global_position: u64,
    #[schema(example = "inventory.item.added")]
    event_type: String,
    recorded_at: DateTime<Utc>,
    #[schema(value_type = Object)]
    data: potter_core::Json,
}

#[derive(Debug, Deserialize)]
struct ByType {
    r#type: Option<String>,
    limit: Option<u64>,
    /// Events above this position.
    cursor: Option<u64>,
}

/// Some events of a type, and where to go on.
#[derive(Debug, Serialize, ToSchema)]
struct EventList {
    event_type: String,
    /// How many are in this answer.
    count: usize,
    events: Vec<EventView>,
    /// Send it as `cursor` for the next page; `null` at the end.
    next_cursor: Option<u64>,
}

/// Goods came to a warehouse.
#[utoipa::path(post, path = "/inventory/items", request_body = AddRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = DoneView), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn add(
    State(warehouse): State<Warehouse>,
    context: RequestContext,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<AddRequest>,
) -> Result<(StatusCode, Json<DoneView>), Problem> {
    let quantity = checked(request.quantity)?;
    let product_id = named("product_id", &request.product_id)?;
    let warehouse_id = named("warehouse_id", &request.warehouse_id)?;
    let id = format!("{product_id}@{warehouse_id}");
    let command = Command::Add(Added { product_id, warehouse_id, quantity });
    let of = &warehouse.inventories;
    let done = once::execute(of, &id, &command, &key, &request, context.metadata()).await?;
    Ok((StatusCode::CREATED, Json(view("added", id, quantity, done))))
}

/// Promises goods to somebody, if there are enough.
#[utoipa::path(post, path = "/inventory/reserve", request_body = ReserveRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = DoneView), (status = 404, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn reserve(
    State(warehouse): State<Warehouse>,
    context: RequestContext,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<ReserveRequest>,
) -> Result<Json<DoneView>, Problem> {
    let quantity = checked(request.quantity)?;
    let (of, id) = (&warehouse.inventories, request.inventory_id.clone());
    let command = Command::Reserve(quantity);
    let done = once::execute(of, &id, &command, &key, &request, context.metadata()).await?;
    Ok(Json(view("reserved", id, quantity, done)))
}

/// The stock of a product in a warehouse.
#[utoipa::path(get, path = "/inventory/{id}", params(("id" = String, Path)),
    responses((status = 200, body = InventoryView), (status = 404, body = Problem)))]
async fn get(
    State(warehouse): State<Warehouse>,
    Path(id): Path<String>,
) -> Result<Json<InventoryView>, Problem> {
    let loaded = warehouse.inventories.load(&id).await.map_err(|error| problem(&error))?;
    if loaded.version == 0 {
        return Err(refused(&id, &Refused::Unknown));
    }
    let Inventory { product_id, warehouse_id, available: quantity, reserved } = loaded.state;
    let version = loaded.version;
    Ok(Json(InventoryView { id, product_id, warehouse_id, quantity, reserved, version }))
}

/// The events of a type, in the order in which they happened.
#[utoipa::path(get, path = "/events/by-type",
    params(
        ("type" = String, Query, example = "inventory.item.added"),
        ("limit" = Option<u64>, Query, description = "1 to 500 (100)"),
        ("cursor" = Option<u64>, Query),
    ),
    responses((status = 200, body = EventList), (status = 422, body = Problem)))]
async fn by_type(
    State(warehouse): State<Warehouse>,
    Query(query): Query<ByType>,
) -> Result<Json<EventList>, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(Problem::unprocessable("invalid_limit", "limit is from 1 to 500."));
    }
    let event_type = query.r#type.filter(|event_type| !event_type.is_empty());
    let Some(event_type) = event_type else {
        let detail = "Say which type of events: ?type=inventory.item.added.";
        return Err(Problem::unprocessable("missing_type", detail).with_field("type", detail));
    };
    let filter = EventFilter::all().event_types([event_type.as_str()]);
    let mut through = query.cursor.unwrap_or(0);
    let mut found: Vec<RecordedEvent> = Vec::new();
    let at_end = loop {
        let missing = limit - found.len() as u64;
        let page = warehouse.inventories.store().read_page(through, &filter, missing).await;
        let page = page.map_err(|error| problem(&error))?;
        through = page.through;
        found.extend(page.events);
        if through >= page.head || found.len() as u64 >= limit {
            break through >= page.head;
        }
    };
    let events: Vec<_> = found.into_iter().map(event_view).collect();
    let next_cursor = (!at_end).then_some(through);
    Ok(Json(EventList { event_type, count: events.len(), events, next_cursor }))
}

fn event_view(event: RecordedEvent) -> EventView {
    EventView {
        event_id: event.event_id.to_string(),
        inventory_id: event.stream_id.id().to_owned(),
        version: event.version,
        global_position: event.global_position,
        event_type: event.event_type,
        recorded_at: event.recorded_at,
        data: event.payload,
    }
}

fn view(status: &'static str, id: String, quantity: u64, done: once::Done) -> DoneView {
    let Inventory { product_id, warehouse_id, available, reserved } = done.state;
    DoneView {
        status,
        inventory_id: id.clone(),
        id,
        product_id,
        warehouse_id,
        quantity,
        available,
        reserved,
        version: done.version,
    }
}

fn checked(quantity: i64) -> Result<u64, Problem> {
    match u64::try_from(quantity) {
        Ok(quantity) if (1..=QUANTITY_MAX).contains(&quantity) => Ok(quantity),
        _ => {
            let detail = format!("quantity is from 1 to {QUANTITY_MAX}.");
            let problem = Problem::unprocessable("invalid_quantity", &*detail);
            Err(problem.with_field("quantity", detail))
        }
    }
}

/// A name that can be a part of an id, and of a URL.
fn named(field: &'static str, name: &str) -> Result<String, Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=100).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(name.to_owned());
    }
    let detail = format!("{field} has 1 to 100 letters, digits, hyphens, dots and underscores.");
    Err(Problem::unprocessable("invalid_name", &*detail).with_field(field, detail))
}

pub(crate) fn refused(id: &str, reason: &Refused) -> Problem {
    let detail = format!("Inventory {id}: {reason}.");
    match reason {
        Refused::Unknown => Problem::not_found("inventory_not_found", detail),
        Refused::Insufficient { .. } => Problem::unprocessable("insufficient_quantity", detail),
        Refused::TooMuch => Problem::unprocessable("quantity_too_large", detail),
    }
}

/// What an error of the store means for the one who asked.
pub(crate) fn problem(error: &potter_eventsourcing::Error) -> Problem {
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
