//! One projection, one worker. See the README beside it.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use potter_eventsourcing::{Worker, WorkerPool};
use projections_common::{
    Applied, Common, Failure, Program, Users, run, say, seed_users, summary, user_totals,
};

const PROJECTION: &str = "simple_user_counter";

/// One projection, one worker, until Ctrl-C.
#[derive(Parser)]
#[command(name = "single-worker")]
struct Args {
    #[command(flatten)]
    common: Common,
    /// How many users the log has at the start at least
    #[arg(long, env = "EVENTS", default_value_t = 3)]
    events: usize,
}

fn main() -> ExitCode {
    run("single-worker", |args: &Args| Ok(&args.common), single_worker)
}

async fn single_worker(args: Args, program: Program) -> Result<(), Failure> {
    let added = seed_users(&*program.store, args.events).await?;
    say(format_args!("Sample users appended: {added}"));
    let applied = Applied::new(|_, what, total| format!("{what} - Total: {total}"));
    let users = Users {
        name: PROJECTION,
        worker: "single".to_owned(),
        delay: program.common.delay(),
        applied: applied.clone(),
    };
    let options = program.common.worker_options(100);
    let worker = Worker::new(Arc::clone(&program.store), users)?.options(options);
    say("Starting projection... (Ctrl-C stops)");
    program.run_pool(WorkerPool::new().worker(worker), &[PROJECTION], |_| true).await?;
    let (users, _) = user_totals(&program.database, PROJECTION).await?;
    say(format_args!("Projection stopped. Final count: {users}"));
    summary(&program, PROJECTION).await
}
