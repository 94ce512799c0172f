//! The server's clock, so that the times of events do not depend on whose machine wrote them.
//!
//! An insert can't ask the server to fill a time in (`$$NOW` is for updates), so the offset between
//! the server's clock and this process's monotonic one is measured, again every few seconds, and is
//! wrong by half a round trip at most. Nothing is decided by it: order is what positions are for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{DateTime, doc};

use super::connect::Mongo;
use crate::error::{Error, ErrorKind, Result};

const MEASURED_FOR: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct ServerClock {
    measured: Mutex<Option<(Instant, i64)>>,
}

impl ServerClock {
    /// Milliseconds since 1970, by a measurement that is not old.
    pub(crate) async fn about_now(&self, mongo: &Mongo) -> Result<DateTime> {
        let measured = *self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, then)) = measured
            && at.elapsed() < MEASURED_FOR
        {
            let since = i64::try_from(at.elapsed().as_millis()).unwrap_or(0);
            return Ok(DateTime::from_millis(then + since));
        }
        let began = Instant::now();
        let now = server_now(mongo).await?;
        let middle = began + began.elapsed() / 2;
        *self.measured.lock().unwrap_or_else(PoisonError::into_inner) = Some((middle, now));
        Ok(DateTime::from_millis(now))
    }
}

/// The server's time, asked for now: never later than it is there when this returns.
pub(crate) async fn server_now(mongo: &Mongo) -> Result<i64> {
    let hello = mongo.read(mongo.database.run_command(doc! { "hello": 1 })).await?;
    let time = hello.get_datetime("localTime").map_err(|source| {
        Error::with_source(ErrorKind::Unsupported, "the server does not tell its time", source)
    })?;
    Ok(time.timestamp_millis())
}
