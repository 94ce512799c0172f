//! The program without a browser: the life of an account and an order, told as a story.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use examples_common::{IdempotencyKey, StartError, env_text};
use potter_core::{Json, Metadata, new_id};
use potter_eventsourcing::{At, Rebuild, Slice, Worker};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::command::{AggregateId, CommandRequest};
use crate::service::{Service, connect};

/// A folder that goes away with this value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Tells to `out` what commands, events, read models and time travel are. No port is opened. The
/// database is a temporary file unless `DATABASE_URL` says otherwise.
///
/// # Errors
/// When the database can't be used, or `out` can't be written to.
pub fn demo(out: &mut dyn Write) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = Folder(std::env::temp_dir().join(format!("cqrs-event-store-demo-{}", new_id())));
    let (url, place) = match env_text(&["DATABASE_URL", "POSTGRES_URL"]) {
        Some((variable, url)) => (url, format!("the one of {variable}")),
        None => {
            let file = folder.0.join("demo.db");
            (format!("sqlite://{}", file.display()), "a temporary SQLite file".to_owned())
        }
    };
    runtime.block_on(Box::pin(async {
        let database = connect(&url).await?;
        let service = Service::open(database.clone(), CancellationToken::new()).await?;
        // Ids of its own, so that it can be told again in the same database.
        let names = (format!("account-{}", new_id()), format!("order-{}", new_id()));
        writeln!(
            out,
            "Commands are decided on the sum of an aggregate's events, and become events."
        )?;
        writeln!(out, "The database is {place}.")?;
        let told = tell(out, &service, &names.0, &names.1).await;
        service.snapshots.flush().await;
        database.close().await;
        told
    }))
}

async fn tell(
    out: &mut dyn Write,
    service: &Service,
    account: &str,
    order: &str,
) -> Result<(), StartError> {
    writeln!(out, "\nAn account")?;
    let opened = json!({"owner": "John Doe", "initial_balance": 1000});
    command(out, service, account, "CreateAccount", &opened).await?;
    command(out, service, account, "Withdraw", &json!({"amount": 200})).await?;
    command(out, service, account, "Withdraw", &json!({"amount": 900})).await?;
    command(out, service, account, "Deposit", &json!({"amount": 50.5})).await?;
    writeln!(out, "\nAn order")?;
    let created = json!({"customer_id": "cust-456", "amount": 100});
    command(out, service, order, "CreateOrder", &created).await?;
    let item = json!({"product_id": "tea", "quantity": 2, "price": 4.5});
    command(out, service, order, "AddItem", &item).await?;
    for name in ["ConfirmOrder", "PayOrder", "ShipOrder", "CancelOrder"] {
        command(out, service, order, name, &json!({})).await?;
    }
    time_travel(out, service, account).await?;
    read_models(out, service, account, order).await
}

async fn command(
    out: &mut dyn Write,
    service: &Service,
    aggregate_id: &str,
    command_type: &str,
    data: &Value,
) -> Result<(), StartError> {
    let request = CommandRequest {
        command_id: None,
        aggregate_id: aggregate_id.to_owned(),
        command_type: command_type.to_owned(),
        data: Json::of(data)?,
        expected_version: None,
    };
    let none = IdempotencyKey(None);
    let (_, done) = service.execute(&request, &none, Metadata::correlated()).await;
    let became = match done {
        Ok(answer) => {
            let done: Value = answer.body().get()?;
            let event = done["events"][0]["event_type"].as_str().unwrap_or_default();
            format!("{event}, version {}", done["version"])
        }
        Err(problem) => {
            let reason = problem.detail.split_once(": ").map_or("", |(_, reason)| reason);
            format!("refused ({}): {reason}", problem.code)
        }
    };
    writeln!(out, "  {command_type} {data}\n      {became}")?;
    Ok(())
}

async fn time_travel(
    out: &mut dyn Write,
    service: &Service,
    account: &str,
) -> Result<(), StartError> {
    writeln!(out, "\nThe account in time")?;
    let id = AggregateId::parse(account)?;
    let accounts = service.of(id.kind);
    for entry in accounts.timeline(id.local(), 1, 100).await? {
        let state: Value = entry.state.get()?;
        let (version, event_type) = (entry.event.version, &entry.event.event_type);
        writeln!(out, "  version {version}: {event_type:<18} balance {}", state["balance"])?;
    }
    let before = accounts.load_at(id.local(), At::Version(1)).await?;
    writeln!(out, "  as it was at version 1: balance {}", before.data["balance"])?;
    let without = accounts.without(id.local(), &[2]).await?;
    writeln!(out, "  had version 2 not happened: balance {}", without["balance"])?;
    Ok(())
}

async fn read_models(
    out: &mut dyn Write,
    service: &Service,
    account: &str,
    order: &str,
) -> Result<(), StartError> {
    writeln!(out, "\nThe read models")?;
    for model in service.models.iter() {
        let worker = Worker::shared(Arc::clone(&service.events), Arc::clone(model) as _)?;
        worker.catch_up().await?;
    }
    show(out, service, account, order).await?;
    let accounts = service.models.iter().find(|model| model.name() == "accounts");
    let accounts = accounts.ok_or("the read model is not there")?;
    Rebuild::new(Arc::clone(&service.events), Arc::clone(accounts))?.run().await?;
    writeln!(out, "  accounts was built anew beside itself, and took over")?;
    show(out, service, account, order).await?;
    let analytics = service.warehouse.analytics(Some("log"))?;
    let types = analytics.by_stream_type(&Slice::all(), 10).await?;
    let names: Vec<_> = types.iter().map(|one| one.stream_type.as_str()).collect();
    writeln!(out, "\nThe history has events of: {}", names.join(", "))?;
    Ok(())
}

async fn show(
    out: &mut dyn Write,
    service: &Service,
    account: &str,
    order: &str,
) -> Result<(), StartError> {
    const ACCOUNT: &str =
        "SELECT status, balance_cents AS cents FROM cqrs_accounts WHERE account_id = $1";
    const ORDER: &str = "SELECT status, total_cents AS cents FROM cqrs_orders WHERE order_id = $1";
    for (name, statement, id) in [("account", ACCOUNT, account), ("order", ORDER, order)] {
        let rows = service.database.read(statement, potter_core::values![id]).await?;
        let row = rows.first().ok_or("the read model has no row")?;
        let cents = examples_common::Money::from_cents(row.i64("cents")?);
        writeln!(out, "  the {name} is {}, with {cents}", row.text("status")?)?;
    }
    Ok(())
}
