//! Workers that are added and removed while the others work. See the README beside it.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use potter_eventsourcing::{Worker, WorkerOptions, WorkerPool};
use projections_common::{
    Applied, Common, Failure, Program, Usage, Users, in_range, new_user, run, say, short, summary,
};

const PROJECTION: &str = "scalable_projection";

/// Workers share the streams evenly, however many there are.
#[derive(Parser)]
#[command(name = "scaling")]
struct Args {
    #[command(flatten)]
    common: Common,
    /// The name of this worker: a number from 0
    #[arg(long, env = "WORKER_ID", allow_negative_numbers = true)]
    worker_id: Option<i64>,
    /// How many there can be; those that do not run leave their share to the others
    #[arg(long, env = "TOTAL_WORKERS", default_value_t = 4, allow_negative_numbers = true)]
    total_workers: i64,
    /// Append events and exit
    #[arg(long)]
    append: bool,
    /// How many `--append` appends
    #[arg(long, env = "EVENTS", default_value_t = 20)]
    events: usize,
}

impl Args {
    /// Id and total.
    fn worker(&self) -> Result<(u16, u16), Usage> {
        let total = in_range("--total-workers", self.total_workers, 1, WorkerOptions::SEGMENTS)?;
        let Some(id) = self.worker_id else {
            let high = total - 1;
            return Err(Usage(format!("say which worker: WORKER_ID or --worker-id, 0 to {high}")));
        };
        Ok((in_range("--worker-id", id, 0, total - 1)?, total))
    }
}

fn main() -> ExitCode {
    run("scaling", |args: &Args| args.worker().map(|_| &args.common), scaling)
}

async fn scaling(args: Args, program: Program) -> Result<(), Failure> {
    let (id, total) = args.worker()?;
    if args.append {
        say(format_args!("Appending {} events...", args.events));
        for n in 0..args.events {
            new_user(&*program.store, n).await?;
        }
        say(format_args!("Appended {} events.", args.events));
        return Ok(());
    }
    let applied = Applied::new(move |event, _, sum| {
        let (what, aggregate) = (&event.event_type, short(event));
        format!("[Worker {id}] Processing: {what} (aggregate: {aggregate}) - Worker total: {sum}")
    });
    let users = Users {
        name: PROJECTION,
        worker: format!("worker {id}"),
        delay: program.common.delay(),
        applied: applied.clone(),
    };
    let options = program.common.worker_options(100);
    let worker = Worker::new(Arc::clone(&program.store), users)?.options(options);
    say(format_args!("Worker {id} of {total} starting... (Ctrl-C stops)"));
    program.run_pool(WorkerPool::new().worker(worker), &[PROJECTION], |_| true).await?;
    say(format_args!("[Worker {id}] Stopped. Processed {} events.", applied.total()));
    summary(&program, PROJECTION).await
}
