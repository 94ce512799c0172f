//! The stock.

use axum::Json;
use axum::extract::{Path, State};
use examples_common::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::Service;
use crate::shop::{self, Stock};

/// All products.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StockList {
    stock: Vec<Stock>,
    total: usize,
}

/// What there is of every product.
#[utoipa::path(get, path = "/api/v1/stock", operation_id = "list_stock", responses((status = 200, body = StockList)))]
pub(super) async fn list(State(service): State<Service>) -> Result<Json<StockList>, Problem> {
    let stock = shop::stock(&service.tools.database, None).await?;
    Ok(Json(StockList { total: stock.len(), stock }))
}

/// What there is of one product.
#[utoipa::path(get, path = "/api/v1/stock/{product_id}", operation_id = "get_stock", params(("product_id" = String, Path)),
    responses((status = 200, body = Stock), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(service): State<Service>,
    Path(product_id): Path<String>,
) -> Result<Json<Stock>, Problem> {
    let none = || {
        let detail = "There is no such product; GET /api/v1/stock lists what there is.";
        Problem::not_found("product_not_found", detail)
    };
    if product_id.contains('\0') {
        return Err(none());
    }
    let stock = shop::stock(&service.tools.database, Some(&product_id)).await?;
    stock.into_iter().next().map(Json).ok_or_else(none)
}
