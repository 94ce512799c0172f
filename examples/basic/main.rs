//! Append events, read their stream, run one projection. See the README beside it.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use futures::TryStreamExt;
use potter_core::derived_id;
use potter_eventsourcing::{ReadOptions, StreamId, Worker};
use projections_common::{
    Applied, Common, Failure, Program, UserCreated, Users, append_user, run, say, user_emails,
};

const PROJECTION: &str = "user_list";

/// Append events, read their stream, run one projection.
#[derive(Parser)]
#[command(name = "basic")]
struct Args {
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    run("basic", |args: &Args| Ok(&args.common), |_, program| basic(program))
}

async fn basic(program: Program) -> Result<(), Failure> {
    let store = &program.store;
    say("Appending events...");
    let id = derived_id(&["basic", "alice"]);
    let email = "alice@example.com".to_owned();
    let user = UserCreated { email, name: "Alice Smith".to_owned() };
    // Run again, this appends nothing: the event's id is the same, so the store knows it.
    let appended = append_user(&**store, id, user).await?;
    say(format_args!("Events appended at positions: [{}]", appended.last_position));
    if appended.duplicate {
        say("(They were there: the same append is answered as the first time.)");
    }
    say(format_args!("Aggregate is now at version: {}", appended.last_version));

    let stream = StreamId::new("identity.user", id)?;
    let mut events = store.read_stream(&stream, ReadOptions::forwards());
    while let Some(event) = events.try_next().await? {
        let (version, what) = (event.version, &event.event_type);
        say(format_args!("Stream {stream}, version {version}: {what} {}", event.payload.as_str()));
    }

    say("Running projection...");
    let users = Users {
        name: PROJECTION,
        worker: "basic".to_owned(),
        delay: program.common.delay(),
        applied: Applied::new(|_, what, _| {
            format!("Projection processed: {}", what.replacen(": ", " - ", 1))
        }),
    };
    let options = program.common.worker_options(100);
    let done = Worker::new(Arc::clone(store), users)?.options(options).catch_up().await?;
    say(format_args!("Checkpoint: position {} ({} events now)", done.position, done.handled));
    let emails = user_emails(&program.database, PROJECTION).await?;
    say(format_args!("Projection result - Users: [{}]", emails.join(", ")));
    Ok(())
}
