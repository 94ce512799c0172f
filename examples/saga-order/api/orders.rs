//! Orders.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, Utc};
use examples_common::{JsonBody, Problem, RequestContext};
use futures::TryStreamExt;
use potter_eventsourcing::{ReadOptions, StreamId};
use potter_saga::{ErrorKind, SagaRecord};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::request::OrderRequest;
use super::{idempotency_key, problem};
use crate::order::{Item, Order, OrderEvent, OrderState, PlacedOrder};
use crate::service::{Service, order_id, saga_id};
use examples_common::Money;
use potter_eventsourcing::Aggregate;

/// An order that is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// Its saga.
    saga_id: Uuid,
    /// The order.
    order_id: Uuid,
    #[schema(example = "pending")]
    status: &'static str,
    #[schema(example = "Order creation started")]
    message: &'static str,
}

/// Places an order: its saga is started, and will be finished even if this process dies.
///
/// With an `Idempotency-Key` the same order is placed once, however often it is sent.
#[utoipa::path(post, path = "/api/v1/orders", operation_id = "place_order", request_body = OrderRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters")),
    responses(
        (status = 202, body = Accepted),
        (status = 400, description = "Malformed", body = Problem),
        (status = 413, description = "Too large", body = Problem),
        (status = 422, description = "Refused, or the key was used for another order", body = Problem)))]
pub(super) async fn place(
    State(service): State<Service>,
    context: RequestContext,
    headers: HeaderMap,
    JsonBody(request): JsonBody<OrderRequest>,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let key = idempotency_key(&headers)?;
    let order = request.check(order_id(key))?;
    let started = service.place(&order, context.metadata()).await.map_err(|error| {
        if error.kind() == ErrorKind::KeyReused {
            let detail = format!(
                "The Idempotency-Key \"{}\" was used before for another order: use a new one.",
                key.unwrap_or_default()
            );
            return Problem::unprocessable("idempotency_key_reused", detail);
        }
        problem(&error)
    })?;
    let accepted = Accepted {
        saga_id: started.id,
        order_id: order.order_id,
        status: "pending",
        message: "Order creation started",
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// An order and its history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderView {
    order_id: Uuid,
    /// Its saga.
    saga_id: Uuid,
    state: OrderState,
    /// The version of its last event; 0 while there is none.
    version: u64,
    customer_id: String,
    items: Vec<Item>,
    #[schema(value_type = f64, example = 59.98)]
    total_amount: Money,
    /// Why it was called off.
    reason: Option<String>,
    events: Vec<EventView>,
}

/// One event of an order.
#[derive(Debug, Serialize, ToSchema)]
struct EventView {
    version: u64,
    #[schema(example = "order.placed")]
    event_type: String,
    recorded_at: DateTime<Utc>,
    #[schema(value_type = Object)]
    data: potter_core::Json,
}

/// The order as the sum of its events.
#[utoipa::path(get, path = "/api/v1/orders/{order_id}", operation_id = "get_order", params(("order_id" = Uuid, Path)),
    responses((status = 200, body = OrderView), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(service): State<Service>,
    Path(order_id): Path<Uuid>,
) -> Result<Json<OrderView>, Problem> {
    let saga = service.orchestrator.get(saga_id(order_id)).await.map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            return Problem::not_found("order_not_found", format!("There is no order {order_id}."));
        }
        problem(&error)
    })?;
    view(&service, order_id, &saga).await.map(Json)
}

async fn view(service: &Service, order_id: Uuid, saga: &SagaRecord) -> Result<OrderView, Problem> {
    let failed = |error: potter_eventsourcing::Error| Problem::internal(&format_args!("{error:?}"));
    let placed: PlacedOrder = saga.input.get()?;
    let (mut order, mut version, mut events) = (Order::default(), 0, Vec::new());
    let stream = StreamId::new(Order::TYPE, order_id).map_err(failed)?;
    let mut recorded = service.tools.orders.store().read_stream(&stream, ReadOptions::forwards());
    while let Some(event) = recorded.try_next().await.map_err(failed)? {
        order.evolve(&event.decode::<OrderEvent>().map_err(failed)?);
        version = event.version;
        events.push(EventView {
            version,
            event_type: event.event_type,
            recorded_at: event.recorded_at,
            data: event.payload,
        });
    }
    // A saga that was cancelled before its first step leaves no event.
    if version == 0 && saga.status.is_final() {
        order.state = OrderState::Cancelled;
        order.reason.clone_from(&saga.error);
    }
    Ok(OrderView {
        order_id,
        saga_id: saga.id,
        state: order.state,
        version,
        customer_id: placed.customer_id,
        items: placed.items,
        total_amount: placed.total_amount,
        reason: order.reason,
        events,
    })
}
