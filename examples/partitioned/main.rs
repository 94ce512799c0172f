//! One projection in several processes, each with a fixed part. See the README beside it.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use potter_eventsourcing::{Worker, WorkerOptions, WorkerPool};
use projections_common::{
    Applied, Common, Failure, Program, Usage, Users, in_range, run, say, seed_users, summary,
};

const PROJECTION: &str = "partitioned_user_counter";

/// One projection in several processes: this one has a fixed part of the streams.
#[derive(Parser)]
#[command(name = "partitioned")]
struct Args {
    #[command(flatten)]
    common: Common,
    /// Which partition this process is, from 0
    #[arg(long, env = "PARTITION_KEY", allow_negative_numbers = true)]
    partition_key: Option<i64>,
    /// How many there are; may be another number at the next start
    #[arg(long, env = "TOTAL_PARTITIONS", default_value_t = 4, allow_negative_numbers = true)]
    total_partitions: i64,
    /// Partition 0 sees to it that the log has so many users
    #[arg(long, env = "EVENTS", default_value_t = 8)]
    events: usize,
}

impl Args {
    /// Key and total.
    fn partition(&self) -> Result<(u16, u16), Usage> {
        let total =
            in_range("--total-partitions", self.total_partitions, 1, WorkerOptions::SEGMENTS)?;
        let Some(key) = self.partition_key else {
            let high = total - 1;
            let text =
                format!("say which partition: PARTITION_KEY or --partition-key, 0 to {high}");
            return Err(Usage(text));
        };
        Ok((in_range("--partition-key", key, 0, total - 1)?, total))
    }
}

fn main() -> ExitCode {
    run("partitioned", |args: &Args| args.partition().map(|_| &args.common), partitioned)
}

async fn partitioned(args: Args, program: Program) -> Result<(), Failure> {
    let (key, total) = args.partition()?;
    if key == 0 {
        let added = seed_users(&*program.store, args.events).await?;
        say(format_args!("Sample users appended: {added}"));
    }
    let applied = Applied::new(move |_, what, sum| {
        format!("[Partition {key}] {what} - Partition total: {sum}")
    });
    let users = Users {
        name: PROJECTION,
        worker: format!("partition {key} of {total}"),
        delay: program.common.delay(),
        applied: applied.clone(),
    };
    let options = program.common.worker_options(100).partition(key, total)?;
    let worker = Worker::new(Arc::clone(&program.store), users)?.options(options);
    say(format_args!("Starting projection on partition {key} of {total}... (Ctrl-C stops)"));
    let mine = |segment| segment % total == key;
    program.run_pool(WorkerPool::new().worker(worker), &[PROJECTION], mine).await?;
    let sum = applied.total();
    say(format_args!("[Partition {key}] Stopped. Processed {sum} events on this partition."));
    summary(&program, PROJECTION).await
}
