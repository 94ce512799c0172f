//! Loading products of many events, with and without snapshots.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use examples_common::{StartError, env_text};
use potter_core::{Database, Metadata, new_id};
use potter_eventsourcing::{
    EventStore, ExpectedVersion, Frequency, NewEvent, Repository, Snapshots, event_store,
    snapshot_store,
};

use crate::product::{Command, PriceUpdated, Product, ProductEvent};

const ROUNDS: usize = 15;

/// Makes products of 10 to 10,000 events, loads each in turn with and without snapshots, and
/// prints the medians. In `DATABASE_URL`, or a temporary SQLite file.
///
/// # Errors
/// When the database can't be used.
pub fn bench(out: &mut impl Write) -> Result<(), StartError> {
    let runtime = tokio::runtime::Runtime::new()?;
    let folder = std::env::temp_dir().join(format!("snapshots-{}", new_id().simple()));
    let (url, own) = match env_text(&["DATABASE_URL", "POSTGRES_URL"]) {
        Some((_, url)) => (url, false),
        None => (format!("sqlite://{}", folder.join("bench.db").display()), true),
    };
    let done = runtime.block_on(run(&url, out));
    if own {
        let _ = std::fs::remove_dir_all(folder);
    }
    done
}

async fn run(url: &str, out: &mut impl Write) -> Result<(), StartError> {
    let database = Database::connect(url).await?;
    let events = event_store(&database)?;
    events.migrate().await?;
    let plain = Repository::<Product>::new(Arc::clone(&events));
    let snapshots = Snapshots::new(snapshot_store(&database), Frequency(100));
    let with_snapshots = plain.clone().with_snapshots(snapshots.clone());
    let engine = database.engine();
    writeln!(out, "Product on {engine}, medians of {ROUNDS} loads, a snapshot at the last event")?;
    let (count, slow, fast) = ("events", "from events", "with snapshot");
    writeln!(out, "{count:>8}  {slow:>14}  {fast:>14}  {:>8}", "ratio")?;
    for count in [10_u64, 100, 1_000, 10_000] {
        let id = new_id().to_string();
        fill(&plain, &*events, &id, count).await?;
        with_snapshots.take_snapshot(&id).await?;
        let (mut slow, mut fast) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            slow.push(timed(&plain, &id, count).await?);
            fast.push(timed(&with_snapshots, &id, count).await?);
        }
        let (slow, fast) = (median(slow), median(fast));
        let ratio = slow.as_secs_f64() / fast.as_secs_f64();
        writeln!(out, "{count:>8}  {slow:>14.1?}  {fast:>14.1?}  {ratio:>7.1}×")?;
    }
    snapshots.flush().await;
    database.close().await;
    Ok(())
}

async fn fill(
    products: &Repository<Product>,
    store: &dyn EventStore,
    id: &str,
    count: u64,
) -> Result<(), StartError> {
    let command = Command::Create { name: "Tea".to_owned(), price_cents: 100 };
    products.execute(id, &command, Metadata::new()).await?;
    let stream = products.stream_id(id)?;
    let mut version = 1;
    while version < count {
        let size = (count - version).min(1_000);
        let events: Result<Vec<_>, _> = (0..size)
            .map(|n| {
                let price_cents = i64::try_from(n).unwrap_or(0);
                NewEvent::of(&ProductEvent::PriceUpdated(PriceUpdated { price_cents }))
            })
            .collect();
        version =
            store.append(&stream, ExpectedVersion::Exact(version), events?).await?.last_version;
    }
    Ok(())
}

async fn timed(
    products: &Repository<Product>,
    id: &str,
    count: u64,
) -> Result<Duration, StartError> {
    let began = Instant::now();
    let loaded = products.load(id).await?;
    let took = began.elapsed();
    if loaded.version != count {
        return Err(format!("loaded version {} of {count}", loaded.version).into());
    }
    Ok(took)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
