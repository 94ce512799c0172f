//! The program without a browser: two orders, told as a story.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use examples_common::{StartError, env_text};
use potter_core::{Metadata, new_id};
use potter_saga::{EntryKind, LogRecord};

use crate::order::{Item, PlacedOrder};
use crate::service::{Service, connect, order_id};
use crate::shop;
use crate::steps::CARD_LIMIT;
use crate::switches::Switches;
use examples_common::Money;

/// How long an order may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes away with this value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs one order that is completed and one whose payment is refused, and prints to `out` what
/// happens. The database is a temporary file unless `DATABASE_URL` says otherwise.
///
/// # Errors
/// When the database can't be used, or `out` can't be written to.
pub fn demo(out: &mut dyn Write) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = Folder(std::env::temp_dir().join(format!("saga-order-demo-{}", new_id())));
    let (url, place) = match env_text(&["DATABASE_URL", "POSTGRES_URL"]) {
        Some((variable, url)) => (url, format!("the one of {variable}")),
        None => {
            let file = folder.0.join("demo.db");
            (format!("sqlite://{}", file.display()), "a temporary SQLite file".to_owned())
        }
    };
    runtime.block_on(async {
        let switches = Switches::from_env()?;
        let database = connect(&url, switches.lease).await?;
        let service = Service::open(database.clone(), switches).await?;
        let running = service.orchestrator.spawn().await?;
        writeln!(out, "An order is a saga: each step commits together with the saga's progress,")?;
        writeln!(out, "and is undone when a later one refuses. The database is {place}.")?;
        let told = async {
            order(out, &service, "An order that is completed", 2, 2999).await?;
            let title = format!("An order over the card's limit of {CARD_LIMIT}");
            order(out, &service, &title, 3, 499_900).await
        };
        let told: Result<(), StartError> = told.await;
        running.shutdown().await?;
        database.close().await;
        told
    })
}

async fn order(
    out: &mut dyn Write,
    service: &Service,
    title: &str,
    quantity: i64,
    cents: i64,
) -> Result<(), StartError> {
    const PRODUCT: &str = "prod-1";
    let price = Money::from_cents(cents);
    let total_amount = price.checked_times(quantity).ok_or("too dear")?;
    let item = Item { product_id: PRODUCT.to_owned(), quantity, price };
    let placed = PlacedOrder {
        order_id: order_id(None),
        customer_id: "customer-123".to_owned(),
        items: vec![item],
        total_amount,
    };
    writeln!(out, "\n{title}: {quantity} x {PRODUCT} at {price}, {total_amount} in all")?;
    writeln!(out, "  stock before    {}", stock_of(service, PRODUCT).await?)?;
    let started = service.place(&placed, Metadata::correlated()).await?;
    let record = service.orchestrator.wait(started.id, PATIENCE).await?;
    let log = service.tools.sagas.log(started.id).await?;
    for row in &log {
        writeln!(out, "  {}", told(row))?;
    }
    let took = record.finished_at.unwrap_or(record.updated_at) - record.created_at;
    writeln!(
        out,
        "  the saga is {} after {}",
        record.status,
        milliseconds(took.num_microseconds())
    )?;
    let order = service.tools.orders.load(&placed.order_id.to_string()).await?;
    let state = order.state.state;
    writeln!(
        out,
        "  the order is {} at version {}",
        format!("{state:?}").to_lowercase(),
        order.version
    )?;
    writeln!(out, "  stock after     {}", stock_of(service, PRODUCT).await?)?;
    Ok(())
}

/// One line of the story.
fn told(row: &LogRecord) -> String {
    let entry = &row.entry;
    let what = match entry.kind {
        EntryKind::Completed => "done",
        EntryKind::Retry => "failed, is tried again",
        EntryKind::Rejected => "refused",
        EntryKind::Undone => "undone",
        EntryKind::UndoRetry => "not undone yet, is tried again",
        other => other.as_str(),
    };
    let Some(step) = &entry.step_name else {
        return format!("{what}: {}", entry.error.as_deref().unwrap_or_default());
    };
    let took = milliseconds(Some(entry.duration_us));
    let why = entry.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{step:<18} {took:>9}  {what}{why}")
}

fn milliseconds(micros: Option<i64>) -> String {
    let micros = micros.unwrap_or_default().max(0);
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

async fn stock_of(service: &Service, product_id: &str) -> Result<String, StartError> {
    let stock = shop::stock(&service.tools.database, Some(product_id)).await?;
    let stock = stock.first().ok_or("the product is not there")?;
    Ok(format!("{} available, {} reserved", stock.available, stock.reserved))
}
