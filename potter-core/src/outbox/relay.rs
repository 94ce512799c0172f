//! From the outbox to a bus.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{OutboxMessage, memory, message_of};
use crate::backoff::{Backoff, jitter};
use crate::clock::micros;
use crate::database::{Database, Sql, Tx};
use crate::error::{Error, ErrorKind, Result};
use crate::json::Json;
use crate::lease::Lease;
use crate::values;

/// Something that delivers messages: a broker's client, or a bus in this process.
#[async_trait]
pub trait MessageBus: Send + Sync {
    /// Delivers one message. `Ok` means that the bus has it for good: it is then deleted from
    /// the outbox. It may be called again with the same message, and its future may be dropped
    /// (time limit, lost lease, shutdown): whatever is half done then is done again.
    ///
    /// # Errors
    /// Anything: the message is tried again later, those of other aggregates meanwhile.
    async fn publish(
        &self,
        message: &OutboxMessage,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// Delivers messages in order and answers for each; a bus that can pipeline overrides it.
    /// After a failure, later messages of the same aggregate must not be delivered.
    async fn publish_batch(
        &self,
        messages: &[&OutboxMessage],
    ) -> Vec<Result<(), Box<dyn std::error::Error + Send + Sync>>> {
        let mut answers = Vec::with_capacity(messages.len());
        let mut failed = HashSet::new();
        for message in messages {
            let aggregate = (&message.aggregate_type, &message.aggregate_id);
            if failed.contains(&aggregate) {
                answers.push(Err("an earlier message of the same aggregate failed".into()));
                continue;
            }
            let answer = self.publish(message).await;
            if answer.is_err() {
                failed.insert(aggregate);
            }
            answers.push(answer);
        }
        answers
    }
}

/// How the relay works. Defaults: batches of 100, polls every 200 ms when idle, a lease of 10 s, 30 s
/// for the bus to answer, retries exponentially from 100 ms up to 30 s and never gives a message up.
///
/// ```
/// use potter_core::{Backoff, RelayOptions};
/// use std::time::Duration;
///
/// let retries = Backoff::exponential(Duration::from_millis(100)).max_attempts(20);
/// let options = RelayOptions::new().name("orders").batch_size(500).backoff(retries);
/// # assert_eq!((options.name.as_str(), options.batch_size), ("orders", 500));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RelayOptions {
    /// The relay's lease: relays of the same name take turns.
    pub name: String,
    /// Messages read and deleted at a time.
    pub batch_size: u32,
    /// The wait when there was nothing to do.
    pub poll_interval: Duration,
    /// How long a dead relay keeps others out. A living one renews in time, also during a batch.
    pub lease_ttl: Duration,
    /// How long the bus may take for one call. After that the call is dropped and counts as
    /// failed: its messages may have arrived, and are delivered again.
    pub publish_timeout: Duration,
    /// The retry schedule of a failing message. When it ends, the message is dead and the next
    /// ones of its aggregate go on; see [`Outbox::dead`](super::Outbox::dead).
    pub backoff: Backoff,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            name: "outbox-relay".to_owned(),
            batch_size: 100,
            poll_interval: Duration::from_millis(200),
            lease_ttl: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            backoff: Backoff::exponential(Duration::from_millis(100)).unlimited(),
        }
    }
}

impl RelayOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the relay's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how many messages are read and deleted at a time; at least 1.
    #[must_use]
    pub fn batch_size(mut self, messages: u32) -> Self {
        self.batch_size = messages.max(1);
        self
    }

    /// Sets the wait when there was nothing to do.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how long a dead relay keeps others out.
    #[must_use]
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Sets how long the bus may take for one call.
    #[must_use]
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// Sets the retry schedule of a failing message.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Delivered and deleted.
    pub published: usize,
    /// Failed; to be tried again, or dead.
    pub failed: usize,
}

/// Moves messages from the outbox to a bus.
pub struct Relay {
    database: Database,
    bus: Arc<dyn MessageBus>,
    options: RelayOptions,
}

/// What became of a message.
enum Answer {
    Delivered,
    Failed(Box<dyn std::error::Error + Send + Sync>),
    Untried,
}

pub(super) struct Pending {
    pub(super) seq: i64,
    pub(super) attempts: u32,
    pub(super) message: OutboxMessage,
}

// A waiting row blocks the later ones of its aggregate, and only those.
const PENDING: Sql = Sql::new(
    "SELECT seq, attempts, id, aggregatetype, aggregateid, type, payload, headers
     FROM potter_outbox o
     WHERE NOT dead AND NOT EXISTS (
         SELECT 1 FROM potter_outbox b
         WHERE b.attempts > 0 AND NOT b.dead AND b.aggregatetype = o.aggregatetype
           AND b.aggregateid = o.aggregateid AND b.seq <= o.seq
           AND b.available_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER))
     ORDER BY seq LIMIT $1",
    "SELECT seq, attempts::bigint AS attempts, id, aggregatetype, aggregateid, type, payload, headers
     FROM potter_outbox o
     WHERE NOT dead AND NOT EXISTS (
         SELECT 1 FROM potter_outbox b
         WHERE b.attempts > 0 AND NOT b.dead AND b.aggregatetype = o.aggregatetype
           AND b.aggregateid = o.aggregateid AND b.seq <= o.seq
           AND b.available_at > clock_timestamp())
     ORDER BY seq LIMIT $1",
);

const DELETE: Sql = Sql::new(
    "DELETE FROM potter_outbox WHERE seq IN (SELECT value FROM json_each($1))",
    "DELETE FROM potter_outbox WHERE seq IN (SELECT value::bigint FROM jsonb_array_elements_text($1::jsonb))",
);

const FAIL: Sql = Sql::new(
    "UPDATE potter_outbox SET attempts = attempts + 1, last_error = $2, dead = $3,
            available_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $4
     WHERE seq = $1",
    "UPDATE potter_outbox SET attempts = attempts + 1, last_error = $2, dead = $3,
            available_at = clock_timestamp() + $4 * interval '1 microsecond'
     WHERE seq = $1",
);

impl Relay {
    /// A relay from `database`'s outbox to `bus`.
    pub fn new(database: Database, bus: Arc<dyn MessageBus>, options: RelayOptions) -> Self {
        Self { database, bus, options }
    }

    /// Works until `stop` is cancelled: waits for the lease, relays, renews. A database that is
    /// down is waited for.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match Lease::acquire(&self.database, &self.options.name, self.options.lease_ttl).await {
                Ok(Some(lease)) => {
                    self.run_with(&lease, &stop).await;
                    let _ = lease.release().await;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the outbox relay can't get its lease"),
            }
            self.pause(&stop).await;
        }
    }

    /// Relays one batch under `lease`.
    ///
    /// # Errors
    /// `Fenced` when another relay took over; errors of the database. What the bus refused is
    /// no error here: it is counted and tried again.
    pub async fn relay_batch(&self, lease: &Lease) -> Result<Relayed> {
        let pending = self.pending().await?;
        if pending.is_empty() {
            return Ok(Relayed::default());
        }
        let messages: Vec<_> = pending.iter().map(|one| &one.message).collect();
        let answers = self.publish(&messages).await;
        if answers.len() != pending.len() {
            let message =
                format!("the bus answered {} of {} messages", answers.len(), pending.len());
            return Err(Error::new(ErrorKind::Internal, message));
        }
        let mut tx = self.database.begin().await?;
        lease.check_in(&mut tx).await?;
        let relayed = self.settle(&mut tx, &pending, answers).await?;
        tx.commit().await?;
        metrics::counter!("potter_outbox_published_total").increment(relayed.published as u64);
        metrics::counter!("potter_outbox_failed_total").increment(relayed.failed as u64);
        Ok(relayed)
    }

    /// One answer a message. A batch that the bus does not answer is published again one by one,
    /// up to the message that it hangs on: so one message cannot hold up all others for ever.
    async fn publish(&self, messages: &[&OutboxMessage]) -> Vec<Answer> {
        if let Some(answers) = self.publish_in_time(messages).await {
            return answers;
        }
        let mut answers = Vec::with_capacity(messages.len());
        for message in messages {
            let Some(answer) = self.publish_in_time(&[message]).await else {
                let limit = self.options.publish_timeout;
                answers.push(Answer::Failed(format!("the bus did not answer in {limit:?}").into()));
                break;
            };
            answers.extend(answer);
        }
        answers.resize_with(messages.len(), || Answer::Untried);
        answers
    }

    async fn publish_in_time(&self, messages: &[&OutboxMessage]) -> Option<Vec<Answer>> {
        let answers = self.bus.publish_batch(messages);
        let answers = tokio::time::timeout(self.options.publish_timeout, answers).await.ok()?;
        let answers = answers.into_iter();
        Some(answers.map(|one| one.map_or_else(Answer::Failed, |()| Answer::Delivered)).collect())
    }

    async fn settle(
        &self,
        tx: &mut Tx,
        pending: &[Pending],
        answers: Vec<Answer>,
    ) -> Result<Relayed> {
        let mut delivered = Vec::new();
        let mut blocked = HashSet::new();
        for (one, answer) in pending.iter().zip(answers) {
            let aggregate = (&one.message.aggregate_type, &one.message.aggregate_id);
            match answer {
                Answer::Delivered => delivered.push(one.seq),
                Answer::Untried => {}
                // Those behind the first failure of an aggregate were not tried.
                Answer::Failed(_) if !blocked.insert(aggregate) => {}
                Answer::Failed(error) => {
                    let failed = one.attempts + 1;
                    let wait = self.options.backoff.delay(failed, Duration::ZERO, jitter());
                    tracing::warn!(id = %one.message.id, attempt = failed, dead = wait.is_none(), %error,
                        "an outbox message could not be delivered");
                    fail(tx, one.seq, &error.to_string(), wait).await?;
                }
            }
        }
        let relayed = Relayed { published: delivered.len(), failed: blocked.len() };
        if let Some(memory) = tx.memory() {
            memory::delete(memory, &delivered);
        } else if !delivered.is_empty() {
            tx.execute(DELETE, values![Json::of(&delivered)?]).await?;
        }
        Ok(relayed)
    }

    async fn pending(&self) -> Result<Vec<Pending>> {
        let limit = self.options.batch_size.max(1);
        if self.database.engine() == crate::database::Engine::Memory {
            let mut tx = self.database.begin().await?;
            return Ok(tx
                .memory()
                .map(|memory| memory::pending(memory, limit))
                .unwrap_or_default());
        }
        let rows = self.database.read(PENDING, values![limit]).await?;
        rows.iter()
            .map(|row| {
                let attempts = u32::try_from(row.i64("attempts")?).unwrap_or(u32::MAX);
                Ok(Pending { seq: row.i64("seq")?, attempts, message: message_of(row)? })
            })
            .collect()
    }

    async fn run_with(&self, lease: &Lease, stop: &CancellationToken) {
        tokio::select! {
            () = self.work(lease, stop) => {}
            error = self.keep(lease) => {
                tracing::warn!(%error, "the outbox relay lost its lease");
            }
        }
    }

    async fn work(&self, lease: &Lease, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.relay_batch(lease).await {
                Ok(relayed) if relayed.published > 0 => {}
                Ok(_) => self.pause(stop).await,
                Err(error) if error.kind() == ErrorKind::Fenced => return,
                Err(error) => {
                    tracing::warn!(%error, "the outbox relay can't work at the moment");
                    self.pause(stop).await;
                }
            }
        }
    }

    /// Renews the lease until it is lost. It runs beside the work: a batch that takes longer than
    /// the lease's time would else be taken over before its messages are deleted, time after time.
    async fn keep(&self, lease: &Lease) -> Error {
        loop {
            tokio::time::sleep(self.options.lease_ttl / 3).await;
            match lease.renew().await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Fenced => return error,
                Err(error) => tracing::warn!(%error, "the outbox relay can't renew its lease"),
            }
        }
    }

    async fn pause(&self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(self.options.poll_interval) => {}
        }
    }
}

async fn fail(tx: &mut Tx, seq: i64, error: &str, wait: Option<Duration>) -> Result<()> {
    // PostgreSQL takes no NUL in a text.
    let error: String = error.chars().filter(|c| *c != '\0').take(1000).collect();
    if let Some(memory) = tx.memory() {
        memory::fail(memory, seq, &error, wait);
        return Ok(());
    }
    let wait_micros = micros(wait.unwrap_or_default());
    tx.execute(FAIL, values![seq, error, wait.is_none(), wait_micros]).await?;
    Ok(())
}
