//! The program over HTTP.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use examples_common::{
    Context, HealthCheck, IdempotencyKey, JsonBody, Kit, OnceAnswer, Problem, RequestContext,
    StartError, once,
};
use potter_core::{Database, new_id};
use potter_eventsourcing::{
    ErrorKind, ExecuteError, Repository, Snapshots, Snapshottable, event_store, snapshot_store,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::product::{Command, Product, Refused};
use crate::strategy::Strategy;

const CENTS_MAX: i64 = 100_000_000_000;
const STOCK_MAX: i64 = 1_000_000_000;

#[derive(Clone, Debug)]
struct Catalog {
    database: Database,
    products: Repository<Product>,
    snapshots: Snapshots,
    strategy: Strategy,
}

/// Connects and answers requests.
///
/// # Errors
/// When a setting can't be used or the database can't be reached: the message names the variable.
pub async fn app(context: Context) -> Result<Router, StartError> {
    let strategy = Strategy::from_env()?;
    let url = &context.settings.database_url;
    let database = Database::connect(url).await.map_err(|error| {
        let message = format!("DATABASE_URL can't be used: {error}");
        potter_core::Error::with_source(error.kind(), message, error)
    })?;
    potter_core::migrate(&database).await?;
    let events = event_store(&database)?;
    events.migrate().await?;
    let snapshots = Snapshots::new(snapshot_store(&database), strategy);
    let products = Repository::new(events).with_snapshots(snapshots.clone());
    let (stop, flushed) = (context.shutdown.token(), snapshots.clone());
    context.background.spawn(async move {
        stop.cancelled().await;
        flushed.flush().await;
    });
    let pinged = database.clone();
    let health = HealthCheck::new("database", move || {
        let database = pinged.clone();
        async move { Ok(database.ping().await?) }
    });
    let routes = OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(get))
        .routes(routes!(set_price))
        .routes(routes!(set_stock))
        .routes(routes!(stats))
        .with_state(Catalog { database, products, snapshots, strategy });
    Ok(Kit::new(&context).check(health).router(routes))
}

/// A product to put on the list.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateRequest {
    /// Its id; a new one if it is left out.
    id: Option<String>,
    #[schema(example = "Tea")]
    name: String,
    /// With two decimals at most.
    #[schema(example = 4.5)]
    price: f64,
}

/// What a product costs.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PriceRequest {
    #[schema(example = 4.9)]
    price: f64,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StockRequest {
    #[schema(example = 12)]
    stock: i64,
}

/// A product.
#[derive(Debug, Serialize, ToSchema)]
struct ProductView {
    id: String,
    name: String,
    price: f64,
    stock: i64,
    version: u64,
}

impl ProductView {
    #[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53 cents")]
    fn new(id: &str, product: Product, version: u64) -> Self {
        Self {
            id: id.to_owned(),
            name: product.name.unwrap_or_default(),
            price: product.price_cents as f64 / 100.0,
            stock: product.stock,
            version,
        }
    }
}

#[derive(Debug, Deserialize)]
struct StatsQuery {
    product_id: Option<String>,
    limit: Option<u32>,
    offset: Option<u64>,
}

/// What snapshots there are.
#[derive(Debug, Serialize, ToSchema)]
struct Stats {
    #[schema(example = "frequency")]
    strategy: &'static str,
    /// Of the product that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    product_id: Option<String>,
    /// The product's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    has_snapshot: bool,
    /// How many events a load reads behind the newest snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_to_read: Option<u64>,
    snapshots: Vec<SnapshotView>,
}

/// One snapshot.
#[derive(Debug, Serialize, ToSchema)]
struct SnapshotView {
    id: String,
    product_id: String,
    version: u64,
    schema_version: u32,
    taken_at: DateTime<Utc>,
}

/// Puts a product on the list.
#[utoipa::path(post, path = "/products", request_body = CreateRequest,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = ProductView), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn create(
    State(catalog): State<Catalog>,
    context: RequestContext,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<CreateRequest>,
) -> Result<OnceAnswer, Problem> {
    let name = request.name.trim().to_owned();
    if name.is_empty() || name.len() > 200 {
        let detail = "A product needs a name of 1 to 200 bytes.";
        return Err(Problem::unprocessable("invalid_name", detail).with_field("name", detail));
    }
    let command = Command::Create { name, price_cents: cents(request.price)? };
    let id = request.id.clone().unwrap_or_else(|| new_id().to_string());
    execute(&catalog, &context, &key, StatusCode::CREATED, (id, command), &request).await
}

/// A product as it is: from the newest snapshot, and the events behind it.
#[utoipa::path(get, path = "/products/{id}", params(("id" = String, Path)),
    responses((status = 200, body = ProductView), (status = 404, body = Problem)))]
async fn get(
    State(catalog): State<Catalog>,
    Path(id): Path<String>,
) -> Result<Json<ProductView>, Problem> {
    let loaded = catalog.products.load(&id).await.map_err(|error| problem(&error))?;
    if loaded.version == 0 {
        return Err(refused(&id, Refused::Unknown));
    }
    Ok(Json(ProductView::new(&id, loaded.state, loaded.version)))
}

/// Changes its price.
#[utoipa::path(put, path = "/products/{id}/price", request_body = PriceRequest,
    params(("id" = String, Path)),
    responses((status = 200, body = ProductView), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn set_price(
    State(catalog): State<Catalog>,
    Path(id): Path<String>,
    context: RequestContext,
    JsonBody(request): JsonBody<PriceRequest>,
) -> Result<OnceAnswer, Problem> {
    let command = Command::SetPrice(cents(request.price)?);
    let key = IdempotencyKey(None);
    execute(&catalog, &context, &key, StatusCode::OK, (id, command), &request).await
}

/// Changes how many there are.
#[utoipa::path(put, path = "/products/{id}/stock", request_body = StockRequest,
    params(("id" = String, Path)),
    responses((status = 200, body = ProductView), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn set_stock(
    State(catalog): State<Catalog>,
    Path(id): Path<String>,
    context: RequestContext,
    JsonBody(request): JsonBody<StockRequest>,
) -> Result<OnceAnswer, Problem> {
    if !(0..=STOCK_MAX).contains(&request.stock) {
        let detail = format!("stock is from 0 to {STOCK_MAX}.");
        return Err(Problem::unprocessable("invalid_stock", &*detail).with_field("stock", detail));
    }
    let command = Command::SetStock(request.stock);
    let key = IdempotencyKey(None);
    execute(&catalog, &context, &key, StatusCode::OK, (id, command), &request).await
}

/// What snapshots there are, of one product or all.
#[utoipa::path(get, path = "/snapshots/stats",
    params(("product_id" = Option<String>, Query), ("limit" = Option<u32>, Query, description = "1 to 500 (50)"), ("offset" = Option<u64>, Query)),
    responses((status = 200, body = Stats), (status = 404, body = Problem)))]
async fn stats(
    State(catalog): State<Catalog>,
    Query(query): Query<StatsQuery>,
) -> Result<Json<Stats>, Problem> {
    let limit = query.limit.unwrap_or(50);
    if !(1..=500).contains(&limit) {
        return Err(Problem::unprocessable("invalid_limit", "limit is from 1 to 500."));
    }
    let (mut stream, mut version) = (None, None);
    if let Some(id) = &query.product_id {
        let of = catalog.products.stream_id(id).map_err(|error| problem(&error))?;
        let found = catalog.products.store().stream_version(&of).await;
        match found.map_err(|error| problem(&error))? {
            0 => return Err(refused(id, Refused::Unknown)),
            found => version = Some(found),
        }
        stream = Some(of);
    }
    let store = catalog.snapshots.store();
    let list = store.list(stream.as_ref(), query.offset.unwrap_or(0), limit).await;
    let list = list.map_err(|error| problem(&error))?;
    let usable = list.iter().find(|one| one.schema_version == Product::SNAPSHOT_VERSION);
    let newest = usable.map_or(0, |one| one.version);
    Ok(Json(Stats {
        strategy: catalog.strategy.name(),
        product_id: query.product_id,
        version,
        has_snapshot: usable.is_some(),
        events_to_read: version.map(|version| version.saturating_sub(newest)),
        snapshots: list
            .into_iter()
            .map(|one| SnapshotView {
                id: one.id.to_string(),
                product_id: one.stream_id.id().to_owned(),
                version: one.version,
                schema_version: one.schema_version,
                taken_at: one.taken_at,
            })
            .collect(),
    }))
}

async fn execute(
    catalog: &Catalog,
    context: &RequestContext,
    key: &IdempotencyKey,
    status: StatusCode,
    (id, command): (String, Command),
    request: &(impl Serialize + Sync),
) -> Result<OnceAnswer, Problem> {
    let work = (catalog.products.clone(), id, command, context.metadata());
    once(&catalog.database, "eventsourcing-snapshots", key, request, move |tx| {
        // The transaction may be begun again.
        let (products, id, command, metadata) = work.clone();
        Box::pin(async move {
            let executed = products.execute_in(tx, &id, &command, metadata).await;
            let executed = executed.map_err(|error| match error {
                ExecuteError::Rejected(reason) => refused(&id, reason),
                ExecuteError::Store(error) => problem(&error),
                other => Problem::internal(&other),
            })?;
            OnceAnswer::new(status, &ProductView::new(&id, executed.state, executed.version))
        })
    })
    .await
}

/// A price in cents.
#[expect(clippy::cast_possible_truncation, reason = "checked before")]
fn cents(price: f64) -> Result<i64, Problem> {
    let cents = (price * 100.0).round();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let fits = (0.0..=CENTS_MAX as f64).contains(&cents);
    if fits && (cents / 100.0 - price).abs() < 1e-9 {
        return Ok(cents as i64);
    }
    let detail = format!("price is from 0 to {}, with two decimals at most.", CENTS_MAX / 100);
    Err(Problem::unprocessable("invalid_price", &*detail).with_field("price", detail))
}

fn refused(id: &str, reason: Refused) -> Problem {
    let detail = format!("Product {id}: {reason}.");
    match reason {
        Refused::Unknown => Problem::not_found("product_not_found", detail),
        Refused::Exists => Problem::conflict("product_exists", detail),
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
