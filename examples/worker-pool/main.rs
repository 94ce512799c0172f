//! Several workers of one projection in one process. See the README beside it.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use potter_eventsourcing::{Worker, WorkerOptions, WorkerPool};
use projections_common::{
    Applied, Common, Failure, Program, Usage, Users, in_range, run, say, seed_users, summary,
};

const PROJECTION: &str = "worker_pool_projection";

/// Several workers of one projection in one process.
#[derive(Parser)]
#[command(name = "worker-pool")]
struct Args {
    #[command(flatten)]
    common: Common,
    /// How many workers
    #[arg(long, env = "WORKERS", default_value_t = 4, allow_negative_numbers = true)]
    workers: i64,
    /// How many users the log has at the start at least
    #[arg(long, env = "EVENTS", default_value_t = 12)]
    events: usize,
}

impl Args {
    fn count(&self) -> Result<u16, Usage> {
        in_range("--workers", self.workers, 1, WorkerOptions::SEGMENTS)
    }
}

fn main() -> ExitCode {
    run("worker-pool", |args: &Args| args.count().map(|_| &args.common), worker_pool)
}

async fn worker_pool(args: Args, program: Program) -> Result<(), Failure> {
    let count = args.count()?;
    let added = seed_users(&*program.store, args.events).await?;
    say(format_args!("Sample users appended: {added}"));
    let applied = Applied::new(|_, what, _| format!("[Worker Pool] {what}"));
    let options = program.common.worker_options(100);
    let mut pool = WorkerPool::new();
    // `WorkerPool::workers(count, worker)` does this in one call; here each has a name of its own.
    for number in 0..count {
        let users = Users {
            name: PROJECTION,
            worker: format!("worker {number}"),
            delay: program.common.delay(),
            applied: applied.clone(),
        };
        let worker = Worker::new(Arc::clone(&program.store), users)?;
        pool = pool.worker(worker.options(options.clone()));
    }
    say(format_args!("Starting {count} workers... (Ctrl-C stops)"));
    program.run_pool(pool, &[PROJECTION], |_| true).await?;
    let sum = applied.total();
    say(format_args!("All workers stopped. Total events processed: {sum}"));
    summary(&program, PROJECTION).await
}
