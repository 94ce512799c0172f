//! What is printed.

use std::fmt::Display;
use std::io::Write;

use potter_eventsourcing::{ErrorKind, RecordedEvent};

use crate::program::{Failure, Program};
use crate::read_model::user_totals;
use crate::seed::users_in_log;

/// Prints a line. A terminal that is gone is no reason to stop in the middle of a batch.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The first 8 characters of the aggregate's id.
pub fn short(event: &RecordedEvent) -> &str {
    let id = event.stream_id.id();
    id.get(..8).unwrap_or(id)
}

/// $12.34
pub fn dollars(cents: i64) -> String {
    format!("${}.{:02}", cents / 100, cents % 100)
}

/// How far a projection of users is: `Caught up`, `Behind by n events (x% complete)` or
/// `Not started`.
///
/// # Errors
/// `Unavailable` when the database is.
pub async fn progress(program: &Program, projection: &str) -> Result<String, Failure> {
    let status = match program.admin.status(projection).await {
        Ok(status) => status,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok("Not started".to_owned()),
        Err(error) => return Err(error.into()),
    };
    let (handled, behind) = (status.handled, status.lag_events);
    Ok(match (handled, behind) {
        (0, 1..) => "Not started".to_owned(),
        (_, 0) => "Caught up".to_owned(),
        _ => {
            // Rounded down: it is not complete until it is caught up.
            let percent = handled * 100 / (handled + behind);
            format!("Behind by {behind} events ({percent}% complete)")
        }
    })
}

/// Prints what the read model of a projection of users has, beside what the log has.
///
/// # Errors
/// `Unavailable` when the database is.
pub async fn summary(program: &Program, projection: &str) -> Result<(), Failure> {
    let (users, times) = user_totals(&program.database, projection).await?;
    let log = users_in_log(&*program.store).await?;
    let doubled = times - users;
    say(format_args!("Read model: {users} users of {log} in the log, {doubled} applied twice"));
    say(format_args!("Status: {}", progress(program, projection).await?));
    Ok(())
}
