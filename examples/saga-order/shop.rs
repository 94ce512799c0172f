//! The shop's tables: stock, reservations, payments, shipments.
//!
//! Everything that changes them takes the caller's transaction. None of it looks whether it was
//! done before: that a step's effects happen once is the saga's promise, and a row too many would
//! show that it was broken.
//!
//! Rows of stock are locked in the order of the products' ids, by every transaction: so no two
//! can wait for each other.

use potter_core::{Database, Migration, Migrations, Result, Tx, values};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::order::Item;
use examples_common::Money;

/// The schema of these tables, with some stock to sell.
pub const MIGRATIONS: Migrations = Migrations {
    owner: "saga-order",
    list: &[Migration {
        version: 1,
        name: "shop",
        sqlite: include_str!("migrations/sqlite/0001_shop.sql"),
        postgres: include_str!("migrations/postgres/0001_shop.sql"),
    }],
};

/// What there is of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stock {
    /// The product.
    #[schema(example = "prod-1")]
    pub product_id: String,
    /// How many can be sold.
    pub available: i64,
    /// How many are set aside for orders under way.
    pub reserved: i64,
}

fn sorted(items: &[Item]) -> Vec<&Item> {
    let mut items: Vec<_> = items.iter().collect();
    items.sort_by(|a, b| a.product_id.cmp(&b.product_id));
    items
}

/// The stock of all products, or of one.
///
/// # Errors
/// `Unavailable` when the database is.
pub async fn stock(database: &Database, product_id: Option<&str>) -> Result<Vec<Stock>> {
    let rows = database
        .read(
            "SELECT product_id, available,
                 (SELECT CAST(coalesce(sum(quantity), 0) AS bigint) FROM reservations r
                  WHERE r.product_id = stock.product_id AND r.status = 'held') AS reserved
             FROM stock WHERE product_id = $1 OR $1 IS NULL ORDER BY product_id LIMIT 500",
            values![product_id.map(str::to_owned)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Stock {
                product_id: row.text("product_id")?,
                available: row.i64("available")?,
                reserved: row.i64("reserved")?,
            })
        })
        .collect()
}

/// What there is too little of, in words; `None` when all is there.
///
/// # Errors
/// `Unavailable` when the database is.
pub async fn shortage(database: &Database, items: &[Item]) -> Result<Option<String>> {
    for Item { product_id, quantity, .. } in sorted(items) {
        let rows = database
            .read("SELECT available FROM stock WHERE product_id = $1", values![product_id])
            .await?;
        let Some(row) = rows.first() else {
            return Ok(Some(format!("there is no product {product_id}")));
        };
        let available = row.i64("available")?;
        if available < *quantity {
            let what = format!("{product_id} is short: {quantity} ordered, {available} left");
            return Ok(Some(what));
        }
    }
    Ok(None)
}

/// Sets the items aside; answers `false` when there is too little of one. Then the transaction
/// must be rolled back.
///
/// # Errors
/// Those of the database.
pub async fn reserve(
    tx: &mut Tx,
    reservation_id: Uuid,
    order_id: Uuid,
    items: &[Item],
) -> Result<bool> {
    for Item { product_id, quantity, .. } in sorted(items) {
        let taken = tx
            .execute(
                "UPDATE stock SET available = available - $2
                 WHERE product_id = $1 AND available >= $2",
                values![product_id, *quantity],
            )
            .await?;
        if taken != 1 {
            return Ok(false);
        }
        tx.execute(
            "INSERT INTO reservations (reservation_id, order_id, product_id, quantity, status)
             VALUES ($1, $2, $3, $4, 'held')",
            values![reservation_id.to_string(), order_id.to_string(), product_id, *quantity],
        )
        .await?;
    }
    Ok(true)
}

/// Gives back what was set aside.
///
/// # Errors
/// Those of the database.
pub async fn release(tx: &mut Tx, reservation_id: Uuid, items: &[Item]) -> Result<()> {
    for Item { product_id, quantity, .. } in sorted(items) {
        tx.execute(
            "UPDATE stock SET available = available + $2 WHERE product_id = $1",
            values![product_id, *quantity],
        )
        .await?;
    }
    set_reservation(tx, reservation_id, "released").await
}

/// What was set aside has been sold.
///
/// # Errors
/// Those of the database.
pub async fn use_up(tx: &mut Tx, reservation_id: Uuid) -> Result<()> {
    set_reservation(tx, reservation_id, "used").await
}

async fn set_reservation(tx: &mut Tx, reservation_id: Uuid, status: &str) -> Result<()> {
    tx.execute(
        "UPDATE reservations SET status = $2 WHERE reservation_id = $1",
        values![reservation_id.to_string(), status],
    )
    .await?;
    Ok(())
}

/// Takes the money.
///
/// # Errors
/// Those of the database.
pub async fn pay(
    tx: &mut Tx,
    payment_id: Uuid,
    order_id: Uuid,
    customer_id: &str,
    amount: Money,
) -> Result<()> {
    tx.execute(
        "INSERT INTO payments (payment_id, order_id, customer_id, amount, status)
         VALUES ($1, $2, $3, $4, 'captured')",
        values![payment_id.to_string(), order_id.to_string(), customer_id, amount.cents()],
    )
    .await?;
    Ok(())
}

/// Gives the money back.
///
/// # Errors
/// Those of the database.
pub async fn refund(tx: &mut Tx, payment_id: Uuid) -> Result<()> {
    tx.execute(
        "UPDATE payments SET status = 'refunded', refunded = refunded + amount
         WHERE payment_id = $1",
        values![payment_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Hands the order to the carrier.
///
/// # Errors
/// Those of the database.
pub async fn ship(tx: &mut Tx, shipment_id: Uuid, order_id: Uuid) -> Result<()> {
    tx.execute(
        "INSERT INTO shipments (shipment_id, order_id, status) VALUES ($1, $2, 'created')",
        values![shipment_id.to_string(), order_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Calls the carrier back.
///
/// # Errors
/// Those of the database.
pub async fn cancel_shipment(tx: &mut Tx, shipment_id: Uuid) -> Result<()> {
    tx.execute(
        "UPDATE shipments SET status = 'cancelled' WHERE shipment_id = $1",
        values![shipment_id.to_string()],
    )
    .await?;
    Ok(())
}
