//! Several projections at once. See the README beside it.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use clap::Parser;
use potter_eventsourcing::{Worker, WorkerPool};
use projections_common::{
    Activity, Applied, Common, Failure, Program, Revenue, Users, activity_total, append_order,
    dollars, revenue_cents, run, say, seed_users, user_totals,
};

const NAMES: [&str; 3] = ["user_counter", "revenue_tracker", "activity_log"];
/// Each has its own batch size: `--batch-size` sets all three.
const BATCHES: [u32; 3] = [100, 50, 200];
const AMOUNTS: [i64; 3] = [9_999, 14_999, 4_999];

/// Several projections at once, each with its own checkpoint and batch size.
#[derive(Parser)]
#[command(name = "multiple-projections")]
struct Args {
    #[command(flatten)]
    common: Common,
    /// How many users, and how many orders, the log has at the start at least
    #[arg(long, env = "EVENTS", default_value_t = 3)]
    events: usize,
}

fn main() -> ExitCode {
    run("multiple-projections", |args: &Args| Ok(&args.common), multiple)
}

async fn multiple(args: Args, program: Program) -> Result<(), Failure> {
    seed_users(&*program.store, args.events).await?;
    for n in 0..args.events {
        append_order(&*program.store, n, AMOUNTS[n % AMOUNTS.len()]).await?;
    }
    let pool = pool(&program).await?;
    for (name, batch) in NAMES.iter().zip(BATCHES) {
        let batch = program.common.batch_size.unwrap_or(batch);
        say(format_args!("Starting {name}: batches of up to {batch} events"));
    }
    program.run_pool(pool, &NAMES, |_| true).await?;
    let (users, _) = user_totals(&program.database, NAMES[0]).await?;
    let revenue = dollars(revenue_cents(&program.database).await?);
    let events = activity_total(&program.database).await?;
    say("All projections stopped.");
    for name in NAMES {
        let status = program.admin.status(name).await?;
        let (position, handled) = (status.position, status.handled);
        say(format_args!("{name}: checkpoint at position {position}, {handled} events"));
    }
    say(format_args!("Final stats - Users: {users}, Revenue: {revenue}, Total events: {events}"));
    Ok(())
}

async fn pool(program: &Program) -> Result<WorkerPool, Failure> {
    let delay = program.common.delay();
    let options = BATCHES.map(|batch| program.common.worker_options(batch));
    let [for_users, for_revenue, for_activity] = options;
    let users = Users {
        name: NAMES[0],
        worker: "multiple".to_owned(),
        delay,
        applied: Applied::new(|_, what, total| format!("[UserCounter] {what} - Total: {total}")),
    };
    // The total goes on from what the read model has.
    let sum = AtomicI64::new(revenue_cents(&program.database).await?);
    let told = Applied::new(move |event, what, _| {
        let cents =
            event.decode().map_or(0, |projections_common::OrderEvent::Placed(order)| order.cents);
        let total = sum.fetch_add(cents, Ordering::Relaxed) + cents;
        format!("[Revenue] Order placed: {what} - Total: {}", dollars(total))
    });
    let revenue = Revenue { delay, applied: told };
    let told = Applied::new(|_, what, total| format!("[Activity] Event #{total}: {what}"));
    let activity = Activity { delay, applied: told };
    let store = || Arc::clone(&program.store);
    Ok(WorkerPool::new()
        .worker(Worker::new(store(), users)?.options(for_users))
        .worker(Worker::new(store(), revenue)?.options(for_revenue))
        .worker(Worker::new(store(), activity)?.options(for_activity)))
}
