//! The commands.

use std::collections::BTreeMap;
use std::io::Write;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand};
use potter_core::Database;
use potter_eventsourcing::{
    EventFilter, EventStore, ProjectionAdmin, Replay, Repository, Worker, WorkerOptions,
    event_store,
};

use crate::order::Order;
use crate::progress::{Now, Progress};
use crate::{read_models, seed};

/// Why a command failed; its text is what the user sees.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Reads history again: builds read models anew, shows an order's life, counts a part of the log.
#[derive(Debug, Parser)]
#[command(name = "eventsourcing-replay", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// `sqlite://…` or `postgres://…`
    #[arg(long, env = "DATABASE_URL", global = true, hide_env_values = true)]
    dsn: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make orders, to have a history
    Seed {
        /// How many orders
        #[arg(long, default_value_t = 5_000)]
        orders: u64,
    },
    /// Build all read models anew; with --event-type, only count events of that type
    ReplayAll(How),
    /// Show what happened to one order, and what each event changed
    ReplayAggregate {
        /// The order
        #[arg(long)]
        aggregate_id: String,
    },
    /// Build one read model anew
    ReplayProjection {
        /// `order_summary` or `customer_stats`
        #[arg(long)]
        projection: String,
        #[command(flatten)]
        how: How,
    },
    /// Count the events from a time on, by type
    ReplayFrom {
        /// RFC 3339: 2026-01-31T12:00:00Z
        #[arg(long)]
        from_time: DateTime<Utc>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Args, Clone, Debug)]
struct How {
    /// Only events of this type
    #[arg(long)]
    event_type: Option<String>,
    /// How many events at a time
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_size: u32,
    /// How many batches at once, each of other orders (4 without a number)
    #[arg(long, num_args = 0..=1, default_value_t = 1, default_missing_value = "4",
        value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
}

/// Runs a command.
///
/// # Errors
/// When the database can't be used, or there is no such order or read model.
pub async fn run(cli: Cli, out: &mut impl Write) -> Result<(), Failure> {
    const OWN: &str = "sqlite://data/eventsourcing-replay.db";
    let url = cli.dsn.as_deref().unwrap_or(OWN);
    let database = Database::connect(url)
        .await
        .map_err(|error| format!("DATABASE_URL (or --dsn) can't be used: {error}"))?;
    let store = event_store(&database)?;
    store.migrate().await?;
    read_models::migrate(&database).await?;
    let done = match &cli.command {
        Command::Seed { orders } => {
            let events = seed::seed(&store, *orders).await?;
            writeln!(out, "✓ seed completed successfully: {events} events")?;
            Ok(())
        }
        Command::ReplayAll(how) if how.event_type.is_none() => {
            for name in ["order_summary", "customer_stats"] {
                rebuild(&store, name, how, out).await?;
            }
            writeln!(out, "✓ replay-all completed successfully")?;
            Ok(())
        }
        Command::ReplayAll(how) => count(&store, "replay-all", None, how, out).await,
        Command::ReplayAggregate { aggregate_id } => aggregate(store, aggregate_id, out).await,
        Command::ReplayProjection { projection, how } => {
            rebuild(&store, projection, how, out).await?;
            writeln!(out, "✓ replay-projection completed successfully")?;
            Ok(())
        }
        Command::ReplayFrom { from_time, how } => {
            count(&store, "replay-from", Some(*from_time), how, out).await
        }
    };
    database.close().await;
    done
}

/// Empties a read model and builds it from all events, beside whatever else runs.
async fn rebuild(
    store: &Arc<dyn EventStore>,
    name: &str,
    how: &How,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let projection = read_models::of(name)
        .ok_or_else(|| format!("there is no read model {name}: order_summary or customer_stats"))?;
    let worker = || Worker::shared(Arc::clone(store), Arc::clone(&projection));
    let admin = ProjectionAdmin::new(Arc::clone(store))?;
    let options = WorkerOptions::new().batch_size(how.batch_size);
    // The first time there is nothing to reset.
    if admin.status(name).await.is_ok() {
        admin.reset(&*projection).await?;
    }
    let workers = (0..how.parallel).map(|_| {
        let (worker, options) = (worker(), options.clone());
        async move { worker?.options(options).catch_up().await }
    });
    let total = store.count(0, store.safe_position().await?, &projection.filter()).await?;
    let (began, progress) = (Instant::now(), Progress::new());
    let mut all = pin!(futures::future::try_join_all(workers));
    let done = loop {
        tokio::select! {
            done = &mut all => break done?,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                if let Ok(status) = admin.status(name).await {
                    let (done, position) = (status.handled.min(total), status.position);
                    progress.show(Now { done, total, position, elapsed: began.elapsed() });
                }
            }
        }
    };
    let handled: u64 = done.iter().map(|done| done.handled).sum();
    let position = done.iter().map(|done| done.position).max().unwrap_or(0);
    let elapsed = began.elapsed();
    progress.show(Now { done: handled, total: total.max(handled), position, elapsed });
    for line in progress.take_lines() {
        writeln!(out, "{name} {line}")?;
    }
    Ok(())
}

/// Reads a part of the log and counts it by type. Nothing is written.
async fn count(
    store: &Arc<dyn EventStore>,
    command: &str,
    from: Option<DateTime<Utc>>,
    how: &How,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut filter = EventFilter::all();
    if let Some(event_type) = &how.event_type {
        filter = filter.event_types([event_type]);
    }
    let replay = Replay::new(Arc::clone(store)).filter(filter);
    let mut replay = replay.batch_size(how.batch_size).parallel(how.parallel);
    if let Some(from) = from {
        replay = replay.from_time(from);
    }
    let (counts, progress) = (Mutex::new(BTreeMap::<String, u64>::new()), Progress::new());
    let done = replay
        .run(
            |events| {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                for event in events {
                    *counts.entry(event.event_type).or_default() += 1;
                }
                std::future::ready(Ok(()))
            },
            |now| progress.show(now.into()),
        )
        .await?;
    progress.show((&done).into());
    for line in progress.take_lines() {
        writeln!(out, "{line}")?;
    }
    for (event_type, count) in counts.into_inner().unwrap_or_else(PoisonError::into_inner) {
        writeln!(out, "{event_type}: {count}")?;
    }
    writeln!(out, "✓ {command} completed successfully")?;
    Ok(())
}

/// Prints the life of one order.
async fn aggregate(
    store: Arc<dyn EventStore>,
    id: &str,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let orders = Repository::<Order>::new(store);
    let timeline = orders.timeline(id, 1, 10_000).await?;
    for entry in &timeline {
        let (version, event_type) = (entry.event.version, &entry.event.event_type);
        writeln!(out, "{version} {} {event_type}", entry.event.recorded_at.to_rfc3339())?;
        for change in &entry.changes {
            let value = |value: &Option<serde_json::Value>| {
                value.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
            };
            let (old, new) = (value(&change.old_value), value(&change.new_value));
            writeln!(out, "    {}: {old} → {new}", change.field)?;
        }
    }
    let count = timeline.len();
    writeln!(out, "✓ replay-aggregate completed successfully: {count} events")?;
    Ok(())
}
