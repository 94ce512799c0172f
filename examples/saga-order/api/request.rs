//! An order as it is asked for.

use std::collections::HashSet;

use examples_common::Problem;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::order::{Item, PlacedOrder};
use examples_common::Money;

const ITEMS_MAX: usize = 100;
const QUANTITY_MAX: i64 = 1_000_000;
const NAME_BYTES_MAX: usize = 100;

/// What to order, for whom.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderRequest {
    /// Who orders: 1 to 100 bytes.
    #[schema(example = "customer-123")]
    customer_id: String,
    /// 1 to 100 different products.
    items: Vec<ItemRequest>,
}

/// One product of an order.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ItemRequest {
    /// The product: 1 to 100 bytes.
    #[schema(example = "prod-1")]
    product_id: String,
    /// How many: 1 to 1,000,000.
    #[schema(example = 2, minimum = 1)]
    quantity: i64,
    /// What one costs: zero or more, with at most two decimals.
    #[schema(value_type = f64, example = 29.99, minimum = 0)]
    price: Money,
}

impl OrderRequest {
    /// The order, or all that is wrong with it.
    pub(super) fn check(self, order_id: Uuid) -> Result<PlacedOrder, Problem> {
        let mut wrong = Vec::new();
        let mut check = |field: String, message: Option<String>| {
            if let Some(message) = message {
                wrong.push((field, message));
            }
        };
        check("customer_id".to_owned(), name(&self.customer_id));
        let count = self.items.len();
        check("items".to_owned(), (count == 0).then(|| "must not be empty".to_owned()));
        let too_many = format!("has {count} products; {ITEMS_MAX} at most");
        check("items".to_owned(), (count > ITEMS_MAX).then_some(too_many));
        let mut seen = HashSet::new();
        for (index, item) in self.items.iter().enumerate().take(ITEMS_MAX) {
            let twice = !seen.insert(&item.product_id);
            let twice = twice.then(|| "is there twice: add the quantities up".to_owned());
            check(format!("items[{index}].product_id"), name(&item.product_id).or(twice));
            let in_range = (1..=QUANTITY_MAX).contains(&item.quantity);
            let quantity = format!("must be from 1 to {QUANTITY_MAX}");
            check(format!("items[{index}].quantity"), (!in_range).then_some(quantity));
        }
        if wrong.is_empty() {
            let total_amount = total(&self.items)?;
            let items = self.items.into_iter().map(Item::from).collect();
            return Ok(PlacedOrder {
                order_id,
                customer_id: self.customer_id,
                items,
                total_amount,
            });
        }
        let detail: Vec<_> =
            wrong.iter().map(|(field, message)| format!("{field} {message}")).collect();
        let problem = Problem::unprocessable("invalid_order", format!("{}.", detail.join("; ")));
        Err(wrong.into_iter().fold(problem, |all, (field, message)| all.with_field(field, message)))
    }
}

fn name(name: &str) -> Option<String> {
    let bytes = name.len();
    if !(1..=NAME_BYTES_MAX).contains(&bytes) {
        return Some(format!("must have 1 to {NAME_BYTES_MAX} bytes"));
    }
    name.contains(char::is_control).then(|| "must not have control characters".to_owned())
}

fn total(items: &[ItemRequest]) -> Result<Money, Problem> {
    let total = items.iter().try_fold(Money::default(), |total, item| {
        total.checked_add(item.price.checked_times(item.quantity)?)
    });
    total.ok_or_else(|| {
        let message = format!("cost more than {} in all", Money::MAX);
        Problem::unprocessable("invalid_order", format!("items {message}."))
            .with_field("items", message)
    })
}

impl From<ItemRequest> for Item {
    fn from(item: ItemRequest) -> Self {
        let ItemRequest { product_id, quantity, price } = item;
        Self { product_id, quantity, price }
    }
}
