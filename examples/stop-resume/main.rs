//! A projection that is stopped and goes on where it was. See the README beside it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use potter_eventsourcing::{ErrorKind, Worker, WorkerPool};
use projections_common::{
    Applied, Common, Failure, Program, Users, new_user, progress, run, say, summary, user_totals,
    users_in_log,
};

const PROJECTION: &str = "reliable_checkpoint_projection";
/// Slow enough to press Ctrl-C.
const DELAY_MS: u64 = 100;

/// A projection that is stopped, or killed, and goes on where it was.
#[derive(Parser)]
#[command(name = "stop-resume")]
struct Args {
    #[command(flatten)]
    common: Common,
    /// What to do
    #[arg(long, env = "MODE", value_enum)]
    mode: Mode,
    /// How many events `append` appends
    #[arg(long, env = "EVENTS", default_value_t = 10)]
    events: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Append events
    Append,
    /// Apply events until Ctrl-C
    Process,
    /// Say how far it is
    Status,
}

fn main() -> ExitCode {
    run(
        "stop-resume",
        |args: &Args| Ok(&args.common),
        |args, mut program| async move {
            program.common.delay_ms.get_or_insert(DELAY_MS);
            match args.mode {
                Mode::Append => append(&program, args.events).await,
                Mode::Process => process(&program).await,
                Mode::Status => status(&program).await,
            }
        },
    )
}

async fn append(program: &Program, events: usize) -> Result<(), Failure> {
    say(format_args!("Appending {events} events..."));
    let delay: Duration = program.common.delay();
    for number in 1..=events {
        let (_, appended) = new_user(&*program.store, number - 1).await?;
        let position = appended.last_position;
        say(format_args!("→ Event {number} appended at position {position}"));
        if number < events {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = program.stop.requested() => break,
            }
        }
    }
    Ok(())
}

async fn process(program: &Program) -> Result<(), Failure> {
    match program.admin.status(PROJECTION).await {
        Ok(status) if status.handled > 0 => {
            say(format_args!("Resuming from checkpoint: position {}", status.position));
        }
        Ok(_) => say("Starting fresh (no checkpoint found)"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            say("Starting fresh (no checkpoint found)");
        }
        Err(error) => return Err(error.into()),
    }
    let applied = Applied::new(|event, what, total| {
        format!("✓ Position {}: {what} - Processed: {total}", event.global_position)
    });
    let users = Users {
        name: PROJECTION,
        worker: "stop-resume".to_owned(),
        delay: program.common.delay(),
        applied: applied.clone(),
    };
    // One event a transaction: what was printed is committed, what was not is not.
    let options = program.common.worker_options(1);
    let worker = Worker::new(Arc::clone(&program.store), users)?.options(options);
    program.run_pool(WorkerPool::new().worker(worker), &[PROJECTION], |_| true).await?;
    say(format_args!("Stopped. Processed {} events this time.", applied.total()));
    summary(program, PROJECTION).await
}

async fn status(program: &Program) -> Result<(), Failure> {
    let status = match program.admin.status(PROJECTION).await {
        Ok(status) => Some(status),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let (users, times) = user_totals(&program.database, PROJECTION).await?;
    let total = users_in_log(&*program.store).await?;
    say(format_args!("Checkpoint: position {}", status.as_ref().map_or(0, |it| it.position)));
    say(format_args!("Events processed: {}", status.map_or(0, |it| it.handled)));
    say(format_args!("Total events: {total}"));
    say(format_args!("Read model: {users} users, {} applied twice", times - users));
    say(format_args!("Status: {}", progress(program, PROJECTION).await?));
    Ok(())
}
