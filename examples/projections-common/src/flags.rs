//! The flags that all programs have. Each is also read from the environment.

use std::fmt;
use std::time::Duration;

use clap::Args;
use potter_eventsourcing::WorkerOptions;

/// Flags that all programs have.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// postgres://user:password@host:port/name or sqlite://path/to/file.db; unset, an SQLite file
    /// under ./data
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Apply what is in the log now, then exit (without it: until Ctrl-C)
    #[arg(long, env = "ONCE")]
    pub once: bool,
    /// The most events in one transaction
    #[arg(long, env = "BATCH_SIZE")]
    pub batch_size: Option<u32>,
    /// How long each event takes, in milliseconds: time to press Ctrl-C
    #[arg(long, env = "DELAY_MS")]
    pub delay_ms: Option<u64>,
    /// How long a process that died keeps its part, in milliseconds
    #[arg(long, env = "LEASE_MS", default_value_t = 10_000)]
    pub lease_ms: u64,
}

impl Common {
    /// The options of a worker that these flags ask for.
    pub fn worker_options(&self, batch_size_default: u32) -> WorkerOptions {
        WorkerOptions::new()
            .batch_size(self.batch_size.unwrap_or(batch_size_default))
            .lease(Duration::from_millis(self.lease_ms))
    }

    /// How long each event takes.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.unwrap_or(0))
    }
}

/// A flag can't be used; the text says why and what can. The program exits with 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// `value`, if it is from `low` to `high`.
///
/// # Errors
/// One that names the flag and the range.
pub fn in_range(flag: &str, value: i64, low: u16, high: u16) -> Result<u16, Usage> {
    let range =
        || Usage(format!("{flag} {value} is out of range: it must be from {low} to {high}"));
    match u16::try_from(value) {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(range()),
    }
}
