//! The mirror at work: reads the log, sends blocks, keeps its bounds.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use potter_core::{Backoff, jitter};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ClickHouse;
use super::block::Block;
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::store::{EventFilter, EventStore};

const POLL: Duration = Duration::from_millis(500);
/// How soon it is written down that nothing is open. Each time is an insert, and not to know it
/// costs no more than a block that is sent again.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
const PENDING_WAIT: Duration = Duration::from_millis(1);
const NAME_BYTES_MAX: usize = 200;
/// The most bytes of payloads in a block, about.
const BLOCK_BYTES_MAX: usize = 32 << 20;

/// How a mirror is.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct MirrorStatus {
    /// Everything up to here is in ClickHouse; `None` until it was asked.
    pub position: Option<u64>,
    /// The highest position that the mirror saw in the log.
    pub head: u64,
    /// How many events this process mirrored.
    pub mirrored: u64,
    /// How many blocks were sent again, because an answer was lost or a process ended.
    pub resent: u64,
    /// When the last block was acknowledged.
    pub mirrored_at: Option<DateTime<Utc>>,
    /// Why it stands still, if it does.
    pub failure: Option<String>,
    /// How often it failed since the last success.
    pub failures: u32,
    /// When it began to fail.
    pub failing_since: Option<DateTime<Utc>>,
}

/// Looks at a mirror that runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct MirrorHandle(Arc<Mutex<MirrorStatus>>);

impl MirrorHandle {
    /// How it is now.
    pub fn status(&self) -> MirrorStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut MirrorStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Mirrors the log into ClickHouse. The module's documentation says what is promised.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use potter_eventsourcing::{ClickHouse, ClickHouseMirror, EventAnalytics, EventStore, Slice};
/// # async fn run(store: Arc<dyn EventStore>) -> potter_eventsourcing::Result<()> {
/// let clickhouse = ClickHouse::connect("http://localhost:8123/shop").await?;
/// clickhouse.migrate().await?;
/// let mirror = ClickHouseMirror::new(store, clickhouse.clone());
/// let handle = mirror.handle();
/// tokio::spawn(mirror.run(async { /* until the program ends */ }));
/// let totals = clickhouse.analytics().totals(&Slice::all()).await?;
/// println!("{} events, up to {:?}", totals.events, handle.status().position);
/// # Ok(())
/// # }
/// ```
pub struct ClickHouseMirror {
    store: Arc<dyn EventStore>,
    clickhouse: ClickHouse,
    name: String,
    filter: EventFilter,
    batch: u64,
    linger: Duration,
    retry: Backoff,
    handle: MirrorHandle,
}

impl fmt::Debug for ClickHouseMirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickHouseMirror")
            .field("clickhouse", &self.clickhouse)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The bounds as ClickHouse has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
struct Bounds {
    done: u64,
    sending: u64,
}

/// Where the mirror is.
struct Cursor {
    done: u64,
    /// What ClickHouse was told last, and when.
    told: Bounds,
    told_at: Instant,
    /// Sent, and not acknowledged.
    open: Option<Block>,
    sent_at: Option<Instant>,
}

/// What a step came to.
enum Step {
    /// There is more to do.
    More,
    /// There is nothing above the position; positions below the head may be open.
    Idle { pending: bool },
    /// There is a little: more may come.
    Linger(Duration),
}

impl ClickHouseMirror {
    /// Of all events in `store`: blocks of up to 10,000 events; when few come, one block a second
    /// (ClickHouse wants few, large inserts). A failure is tried again for ever, after 100 ms to
    /// 30 s.
    pub fn new(store: Arc<dyn EventStore>, clickhouse: ClickHouse) -> Self {
        let retry = Backoff::exponential(Duration::from_millis(100))
            .cap(Duration::from_secs(30))
            .unlimited();
        Self {
            store,
            clickhouse,
            name: "events".to_owned(),
            filter: EventFilter::all(),
            batch: 10_000,
            linger: Duration::from_secs(1),
            retry,
            handle: MirrorHandle::default(),
        }
    }

    /// Names its bounds (`events`), for another filter of the same log. Another log needs tables of
    /// its own: an event is known by its position.
    ///
    /// # Errors
    /// `InvalidInput` when it is empty or has more than 200 bytes.
    pub fn name(mut self, name: impl Into<String>) -> Result<Self> {
        self.name = name.into();
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            let message = format!("a mirror's name has 1 to {NAME_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(self)
    }

    /// Only these events. A mirror that ran with another filter needs another name, or a
    /// [`reset`](Self::reset).
    #[must_use]
    pub fn filter(mut self, filter: EventFilter) -> Self {
        self.filter = filter;
        self
    }

    /// The most events in one block (1 to 100,000).
    #[must_use]
    pub fn batch_size(mut self, events: u32) -> Self {
        self.batch = u64::from(events.clamp(1, 100_000));
        self
    }

    /// How long it waits for more when few events are there.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// After which waits [`run`](Self::run) tries again. One that ends begins again with its last
    /// wait: a mirror does not give up.
    #[must_use]
    pub fn retry(mut self, retry: Backoff) -> Self {
        self.retry = retry;
        self
    }

    /// Is looked at by `handle`, which was there before.
    #[must_use]
    pub fn observed_by(mut self, handle: MirrorHandle) -> Self {
        self.handle = handle;
        self
    }

    /// Looks at it while it runs.
    pub fn handle(&self) -> MirrorHandle {
        self.handle.clone()
    }

    /// Follows the log until `stop`. Whatever goes wrong is tried again;
    /// [`MirrorStatus::failure`] says what it is.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::select! {
            // In the middle of a block, too: the next run sends it again.
            () = stop => {}
            () = self.follow() => {}
        }
    }

    /// Mirrors what is in the log now, and returns.
    ///
    /// # Errors
    /// `Unavailable` when ClickHouse or the log's database is, `Config` when its tables are
    /// missing. Nothing is lost: call it again.
    pub async fn catch_up(&self) -> Result<MirrorStatus> {
        let target = self.store.safe_position().await?;
        let mut cursor = self.begin().await?;
        while cursor.done < target {
            self.step(&mut cursor, Duration::ZERO).await?;
        }
        self.tell_done(&mut cursor).await?;
        Ok(self.handle.status())
    }

    /// Empties the tables, for all mirrors into them: the next run begins at the first event. Stop
    /// them before.
    ///
    /// # Errors
    /// As [`catch_up`](Self::catch_up).
    pub async fn reset(&self) -> Result<()> {
        // The bounds first: should this end in between, nothing looks done that is not there.
        for statement in ["TRUNCATE TABLE {events_mirror}", "TRUNCATE TABLE {events_raw}"] {
            self.clickhouse.execute(&self.clickhouse.named(statement)).await?;
        }
        self.handle.update(|status| *status = MirrorStatus::default());
        Ok(())
    }

    async fn follow(&self) {
        let (mut cursor, mut failed, mut began) = (None, 0, Instant::now());
        let mut hints = self.store.changes();
        loop {
            if let Some(hints) = &mut hints {
                hints.clear();
            }
            let step = self.step_from(&mut cursor).await;
            let wait = match step {
                Ok(step) => {
                    if failed > 0 {
                        tracing::info!(mirror = self.name, "the mirror goes on");
                    }
                    failed = 0;
                    began = Instant::now();
                    self.handle.update(|status| {
                        (status.failure, status.failing_since) = (None, None);
                        status.failures = 0;
                    });
                    match step {
                        Step::More => continue,
                        Step::Linger(wait) => wait,
                        Step::Idle { pending: true } => PENDING_WAIT,
                        Step::Idle { pending: false } => {
                            match &mut hints {
                                Some(hints) => hints.wait(POLL).await,
                                None => tokio::time::sleep(POLL).await,
                            }
                            continue;
                        }
                    }
                }
                Err(error) => {
                    failed += 1;
                    self.failed(&error, failed);
                    let wait = self.retry.delay(failed, began.elapsed(), jitter());
                    wait.unwrap_or(Duration::from_secs(30))
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn failed(&self, error: &Error, failures: u32) {
        tracing::warn!(mirror = self.name, %error, failures, "the mirror waits");
        self.handle.update(|status| {
            status.failure = Some(error.to_string());
            status.failures = failures;
            status.failing_since.get_or_insert_with(Utc::now);
        });
    }

    async fn step_from(&self, cursor: &mut Option<Cursor>) -> Result<Step> {
        let cursor = match cursor {
            Some(cursor) => cursor,
            None => cursor.insert(self.begin().await?),
        };
        let step = self.step(cursor, self.linger).await?;
        if matches!(step, Step::Idle { .. }) && cursor.told_at.elapsed() >= TELL_INTERVAL {
            self.tell_done(cursor).await?;
        }
        Ok(step)
    }

    /// Where ClickHouse says that it is. What is open is read again, to be sent again.
    async fn begin(&self) -> Result<Cursor> {
        const BOUNDS: &str =
            "SELECT max(m.done) AS done, argMax(m.sending, (m.done, m.sending)) AS sending
             FROM {events_mirror} AS m WHERE m.mirror = {mirror:String}";
        let found = self.clickhouse.read(BOUNDS, &[("mirror", self.name.clone())]).await?;
        let told: Bounds = found.first().copied().unwrap_or_default();
        let safe = self.store.safe_position().await?;
        if told.done > safe {
            return Err(self.other_log(told.done, safe));
        }
        let mut cursor =
            Cursor { done: told.done, told, told_at: Instant::now(), open: None, sent_at: None };
        if told.sending > told.done {
            cursor.open = Some(self.read_between(told.done, told.sending).await?);
        }
        self.handle.update(|status| status.position = Some(told.done));
        Ok(cursor)
    }

    /// The block of these bounds. It was within the limits when it was first made.
    async fn read_between(&self, after: u64, through: u64) -> Result<Block> {
        let (mut at, mut events) = (after, Vec::new());
        while at < through {
            let page = self.store.read_page(at, &self.filter, self.batch).await?;
            if page.through <= at {
                return Err(self.other_log(through, at));
            }
            at = page.through;
            events.extend(page.events.into_iter().filter(|event| event.global_position <= through));
        }
        Block::new(after, through, &events)
    }

    fn other_log(&self, mirrored: u64, end: u64) -> Error {
        let message = format!(
            "the mirror {} is at position {mirrored}, and the log ends at {end}: it is the mirror \
             of another log, or the log was restored from a backup; reset the mirror",
            self.name
        );
        Error::new(ErrorKind::Corrupt, message)
    }

    async fn step(&self, cursor: &mut Cursor, linger: Duration) -> Result<Step> {
        if let Some(block) = cursor.open.take() {
            self.handle.update(|status| status.resent += 1);
            return self.send(cursor, block).await;
        }
        let page = self.store.read_page(cursor.done, &self.filter, self.batch).await?;
        self.handle.update(|status| status.head = page.head);
        let (events, through) = bounded(page.events, page.through);
        if events.is_empty() {
            let moved = through > cursor.done;
            cursor.done = through.max(cursor.done);
            self.handle.update(|status| status.position = Some(cursor.done));
            let pending = cursor.done < page.head;
            return Ok(if moved && pending { Step::More } else { Step::Idle { pending } });
        }
        let is_full = events.len() as u64 >= self.batch || through < page.through;
        if let (false, Some(sent_at)) = (is_full, cursor.sent_at) {
            let left = linger.saturating_sub(sent_at.elapsed());
            if !left.is_zero() {
                return Ok(Step::Linger(left));
            }
        }
        let block = Block::new(cursor.done, through, &events)?;
        self.send(cursor, block).await
    }

    /// Writes the bounds down, then sends the block. Until it is acknowledged it stays open.
    async fn send(&self, cursor: &mut Cursor, block: Block) -> Result<Step> {
        let bounds = Bounds { done: block.after, sending: block.through };
        let sent = async {
            self.tell(cursor, bounds).await?;
            self.insert(&block).await
        };
        let sent = sent.await;
        cursor.sent_at = Some(Instant::now());
        if let Err(error) = sent {
            cursor.open = Some(block);
            return Err(error);
        }
        cursor.done = block.through;
        self.handle.update(|status| {
            status.position = Some(block.through);
            status.mirrored += block.events;
            status.mirrored_at = Some(Utc::now());
        });
        Ok(Step::More)
    }

    async fn insert(&self, block: &Block) -> Result<()> {
        if block.events == 0 {
            return Ok(());
        }
        const INTO: &str =
            "INSERT INTO {events_raw} (global_position, stream_id, stream_type, version,
             event_id, event_type, schema_version, payload, metadata, tenant, recorded_at)
             FORMAT JSONEachRow";
        let clickhouse = &self.clickhouse;
        let mut insert = clickhouse
            .client
            .insert_formatted_with(clickhouse.named(INTO))
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", block.token(&self.name));
        let sent = async {
            insert.send(block.rows()).await?;
            insert.end().await
        };
        clickhouse.within(sent).await
    }

    /// Tells ClickHouse the bounds, unless it has them.
    async fn tell(&self, cursor: &mut Cursor, bounds: Bounds) -> Result<()> {
        const INTO: &str = "INSERT INTO {events_mirror} (mirror, done, sending) FORMAT JSONEachRow";
        if cursor.told == bounds {
            return Ok(());
        }
        let (name, Bounds { done, sending }) = (&self.name, bounds);
        let row = serde_json::json!({ "mirror": name, "done": done, "sending": sending });
        let clickhouse = &self.clickhouse;
        let mut insert = clickhouse
            .client
            .insert_formatted_with(clickhouse.named(INTO))
            .with_setting("async_insert", "0");
        let sent = async {
            insert.send(format!("{row}\n").into()).await?;
            insert.end().await
        };
        clickhouse.within(sent).await?;
        (cursor.told, cursor.told_at) = (bounds, Instant::now());
        Ok(())
    }

    /// Tells ClickHouse that nothing is open, and how far it is.
    async fn tell_done(&self, cursor: &mut Cursor) -> Result<()> {
        let bounds = Bounds { done: cursor.done, sending: cursor.done };
        self.tell(cursor, bounds).await
    }
}

/// As many of the events as make a block, and how far they go.
fn bounded(mut events: Vec<RecordedEvent>, through: u64) -> (Vec<RecordedEvent>, u64) {
    let mut bytes = 0;
    for at in 0..events.len() {
        bytes += events[at].payload.as_str().len();
        if bytes > BLOCK_BYTES_MAX && at > 0 {
            events.truncate(at);
            let through = events[at - 1].global_position;
            return (events, through);
        }
    }
    (events, through)
}
