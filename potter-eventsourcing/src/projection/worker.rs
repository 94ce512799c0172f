//! A worker: claims segments, reads their part of the log, applies it, goes on.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use potter_core::{Database, Waiter, new_id};

use super::Projection;
use super::batch::{Applied, Pace};
use super::checkpoints::{Checkpoints, Membership, WorkerId, checkpoints};
use super::membership::{Heart, Member, share};
use super::options::{OnFailure, WorkerOptions};
use super::owned::{Group, Owned};
use super::status::ProjectionState;
use super::subscriber::Subscriber;
use super::target::Target;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{EventStore, Page, SegmentSet};

/// Positions that nobody reads are written this often.
const LATE_INTERVAL: Duration = Duration::from_secs(1);
/// Positions were given and are not final yet: their transactions end any moment.
const PENDING_WAIT: Duration = Duration::from_millis(1);
const TROUBLE_WAIT_MIN: Duration = Duration::from_millis(50);
const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Runs a projection, or a part of one, or a subscriber.
#[derive(Clone)]
pub struct Worker {
    store: Arc<dyn EventStore>,
    checkpoints: Arc<dyn Checkpoints>,
    target: Target,
    options: WorkerOptions,
}

/// What a one-off run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaughtUp {
    /// How many events this worker applied.
    pub handled: u64,
    /// Everything up to here is applied in all segments, by this worker or others.
    pub position: u64,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("projection", &self.name()).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker for `projection`, with the default options. The read model is in the store's
    /// database, where its checkpoints are.
    ///
    /// # Errors
    /// `Unsupported` when the store has no transactions for projections.
    pub fn new(store: Arc<dyn EventStore>, projection: impl Projection) -> Result<Self> {
        Self::of_target(store, Target::Projection(Arc::new(projection)))
    }

    /// The same for one that is shared.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn shared(store: Arc<dyn EventStore>, projection: Arc<dyn Projection>) -> Result<Self> {
        Self::of_target(store, Target::Projection(projection))
    }

    /// A worker for `subscriber`, with the default options. Its checkpoints are in the store's
    /// database.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn subscriber(store: Arc<dyn EventStore>, subscriber: impl Subscriber) -> Result<Self> {
        Self::of_target(store, Target::Subscriber(Arc::new(subscriber)))
    }

    fn of_target(store: Arc<dyn EventStore>, target: Target) -> Result<Self> {
        let checkpoints = match (store.database(), &target) {
            (Some(database), _) => Some(checkpoints(database)),
            (None, Target::Subscriber(_)) => store.checkpoint_storage().map(|one| one.checkpoints),
            (None, Target::Projection(_)) => None,
        };
        let Some(checkpoints) = checkpoints else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this event store has no transactions that a projection could be in: follow it with \
                 a subscriber that keeps the position in the read model's own rows, or copy the \
                 events to a database that has",
            ));
        };
        Ok(Self { store, checkpoints, target, options: WorkerOptions::default() })
    }

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: WorkerOptions) -> Self {
        self.options = options;
        self
    }

    /// The name of what it runs.
    pub fn name(&self) -> &str {
        self.target.name()
    }

    /// Follows the log until `stop` is done; then commits what was applied, gives its segments
    /// up and returns. When the database is away it waits for it.
    ///
    /// # Errors
    /// What can't get better by waiting: a projection that was registered with another number of
    /// segments, tables that are missing.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<()> {
        let mut stop = pin!(stop);
        let mut trouble = TROUBLE_WAIT_MIN;
        let mut session = loop {
            match Session::start(self.clone()).await {
                Ok(session) => break session,
                Err(error) if worth_waiting(&error) => {
                    tracing::warn!(projection = self.name(), %error, wait = ?trouble, "a worker can't join yet");
                    tokio::select! {
                        () = &mut stop => return Ok(()),
                        () = tokio::time::sleep(trouble) => {}
                    }
                    trouble = (trouble * 2).min(TROUBLE_WAIT_MAX);
                }
                Err(error) => return Err(error),
            }
        };
        let run = session.follow(None, stop.as_mut()).await;
        session.end().await;
        run
    }

    /// Applies everything that is in the log now, together with whoever else is at work, and
    /// returns; with a partition of its own, everything of that partition.
    ///
    /// # Errors
    /// As [`run`](Self::run); `Handler` when a segment is stopped in front of an event;
    /// `Unavailable` when the projection is paused.
    pub async fn catch_up(self) -> Result<CaughtUp> {
        let target = self.store.head_position().await?;
        let (checkpoints, name) = (Arc::clone(&self.checkpoints), self.name().to_owned());
        let mut session = Session::start(self).await?;
        let run = session.follow(Some(target), std::future::pending()).await;
        let handled = session.handled;
        session.end().await;
        run?;
        let (position, _) = checkpoints.lowest(&name).await?;
        Ok(CaughtUp { handled, position })
    }
}

/// A worker at work.
pub(super) struct Session {
    store: Arc<dyn EventStore>,
    pub(super) checkpoints: Arc<dyn Checkpoints>,
    pub(super) target: Target,
    pub(super) options: WorkerOptions,
    pub(super) owned: Owned,
    /// The segments that the page at hand stops at.
    pub(super) blocked_now: HashSet<u16>,
    pub(super) handled: u64,
    pub(super) pace: Pace,
    member: Member,
    heart: Heart,
    hints: Option<Waiter>,
    late_written: Instant,
    /// When it next looks for segments that came free, and whom it saw when it last did.
    claim_at: Instant,
    claimed_among: Membership,
    read_ahead: Option<(Group, Page)>,
}

/// What to do next.
enum Next {
    Work,
    /// There is nothing to do until a hint, a change of membership, or this time.
    Wait(Duration),
    Finished,
}

impl Session {
    async fn start(worker: Worker) -> Result<Self> {
        let Worker { store, checkpoints, target, options } = worker;
        if store.database().is_none() && options.on_failure != OnFailure::Stop {
            let message = "this event store has no transactions, so events can't be parked: \
                           OnFailure::Stop stops in front of one that fails";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let segments =
            checkpoints.register(target.name(), target.version(), options.segments).await?;
        if let Some(partition) = options.partition
            && partition.total > segments
        {
            let message = format!(
                "projection {} has {segments} segments, so there can't be {} partitions",
                target.name(),
                partition.total
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let member = Member {
            checkpoints: Arc::clone(&checkpoints),
            projection: target.name().to_owned(),
            version: target.version(),
            id: new_id(),
            partition: options.partition,
            lease: options.lease,
        };
        let heart = Heart::start(member.clone()).await?;
        tracing::info!(projection = member.projection, worker = %member.id, "a worker joined");
        Ok(Self {
            hints: store.changes(),
            store,
            checkpoints,
            target,
            owned: Owned::new(segments),
            blocked_now: HashSet::new(),
            handled: 0,
            pace: Pace::new(options.batch_max, options.page_bytes_max),
            options,
            member,
            heart,
            late_written: Instant::now(),
            claim_at: Instant::now(),
            claimed_among: Membership::default(),
            read_ahead: None,
        })
    }

    pub(super) fn worker(&self) -> WorkerId<'_> {
        self.member.worker()
    }

    pub(super) fn database(&self) -> Result<&Database> {
        let none = || Error::new(ErrorKind::Unsupported, "the event store has no transactions");
        self.store.database().ok_or_else(none)
    }

    /// Works until `stop`, or until everything up to `target` is applied.
    async fn follow(
        &mut self,
        target: Option<u64>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        let mut stop = pin!(stop);
        let mut trouble = TROUBLE_WAIT_MIN;
        loop {
            // A batch that has begun is ended before the worker stops.
            let next = match self.step(target).await {
                Ok(next) => {
                    trouble = TROUBLE_WAIT_MIN;
                    next
                }
                Err(error) if worth_waiting(&error) => {
                    tracing::warn!(projection = self.target.name(), %error, wait = ?trouble, "the projection waits");
                    let wait = trouble;
                    trouble = (trouble * 2).min(TROUBLE_WAIT_MAX);
                    self.read_ahead = None;
                    // The storage may have more than was answered.
                    if let Ok(claimed) = self.checkpoints.owned(self.member.worker()).await {
                        self.owned.replace(claimed);
                    }
                    Next::Wait(wait)
                }
                Err(error) => return Err(error),
            };
            let wait = match next {
                Next::Finished => return Ok(()),
                Next::Work => Duration::ZERO,
                Next::Wait(wait) => wait.min(self.claim_wait()),
            };
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                () = idle(&mut self.hints, &mut self.heart, wait) => {}
            }
        }
    }

    async fn step(&mut self, target: Option<u64>) -> Result<Next> {
        let membership = self.heart.seen();
        if membership.version.is_some_and(|version| version != self.target.version()) {
            // Also without an event to apply: it would only keep segments from the new workers.
            self.register().await?;
        }
        if membership.state != ProjectionState::Running {
            if target.is_some() {
                let message = format!("the projection {} is paused", self.target.name());
                return Err(Error::new(ErrorKind::Config, message));
            }
            return Ok(Next::Wait(self.options.lease));
        }
        self.balance(&membership).await?;
        if let Some(target) = target
            && self.owned.lowest_read().is_none_or(|read| read >= target)
        {
            return self.finished(target).await;
        }
        let Some(group) = self.owned.next_group(Instant::now()) else {
            let retry =
                self.owned.next_retry().map(|at| at.saturating_duration_since(Instant::now()));
            return Ok(Next::Wait(retry.unwrap_or(self.options.poll_interval)));
        };
        let page = match self.read_ahead.take() {
            Some((of, page)) if of == group => page,
            _ => self.read(&group).await?,
        };
        let next = self.work(group, page).await?;
        // Whether that was all is looked at now, and not after a wait for more.
        let reached = target
            .is_some_and(|target| self.owned.lowest_read().is_some_and(|read| read >= target));
        Ok(if reached { Next::Work } else { next })
    }

    /// Applies a page while the next one is read.
    async fn work(&mut self, group: Group, page: Page) -> Result<Next> {
        let through = group.until.map_or(page.through, |until| until.min(page.through));
        let events = page.events.partition_point(|event| event.global_position <= through);
        let events = &page.events[..events];
        let moved = through > group.after;
        self.blocked_now.clear();
        let ahead = Group { after: through, until: None, ..group.clone() };
        let read_on = group.until.is_none() && !group.cautious && moved && through < page.head;
        let applied = if read_on && !events.is_empty() {
            let reader = self.reader(&ahead)?;
            let (applied, next) = tokio::join!(self.apply(events, through), reader);
            self.read_ahead = next.ok().map(|page| (ahead, page));
            applied?
        } else {
            self.apply(events, through).await?
        };
        if applied == Applied::Lost {
            self.read_ahead = None;
            // A newer version may have taken over: then this ends here.
            self.register().await?;
            let claimed = self.checkpoints.owned(self.member.worker()).await?;
            self.owned.replace(claimed);
            return Ok(Next::Wait(PENDING_WAIT));
        }
        self.owned.read_through(&group.members, through);
        if self.late_written.elapsed() >= LATE_INTERVAL && self.write_late().await? {
            return Ok(Next::Work);
        }
        Ok(match (moved, through < page.head) {
            (true, true) => Next::Work,
            _ if group.until.is_some() => Next::Work,
            (false, true) => Next::Wait(PENDING_WAIT),
            (_, false) => {
                let retry = self.owned.next_retry();
                let retry = retry.map(|at| at.saturating_duration_since(Instant::now()));
                let poll = self.options.poll_interval;
                Next::Wait(retry.map_or(poll, |retry| retry.min(poll)))
            }
        })
    }

    /// Fails when the read model is of another version than this code.
    async fn register(&self) -> Result<()> {
        let (name, version) = (self.target.name(), self.target.version());
        self.checkpoints.register(name, version, self.options.segments).await?;
        Ok(())
    }

    async fn read(&mut self, group: &Group) -> Result<Page> {
        self.reader(group)?.await
    }

    fn reader(
        &mut self,
        group: &Group,
    ) -> Result<impl Future<Output = Result<Page>> + Send + 'static> {
        // What was hinted at before the page is read is in it.
        if let Some(hints) = &mut self.hints {
            hints.clear();
        }
        let mut filter = self.target.filter();
        if group.members.len() < usize::from(self.owned.count) {
            let members = group.members.iter().copied();
            filter = filter.segments(SegmentSet::new(self.owned.count, members)?);
        }
        let limit = if group.cautious { 1 } else { self.pace.limit() };
        let (store, after) = (Arc::clone(&self.store), group.after);
        Ok(async move { store.read_page(after, &filter, limit).await })
    }

    /// Gives up what is too much, takes what is missing, and looks whether what had stopped was
    /// let go.
    async fn balance(&mut self, membership: &Membership) -> Result<()> {
        let share = share(membership, self.member.id, self.options.partition, self.owned.count);
        let have = self.owned.len();
        if have > share {
            self.write_late().await?;
            let too_many = self.owned.all().split_off(share.min(self.owned.len()));
            self.checkpoints.release(self.member.worker(), &too_many).await?;
            self.owned.remove(&too_many);
            self.read_ahead = None;
            return Ok(());
        }
        let now = Instant::now();
        let due = now >= self.claim_at || *membership != self.claimed_among;
        if !due || have == share && !self.owned.has_failed() {
            return Ok(());
        }
        self.claim_at = now + self.claim_interval();
        self.claimed_among = membership.clone();
        if have < share {
            let missing = u16::try_from(share - have).unwrap_or(u16::MAX);
            let partition = self.options.partition;
            let taken = self.checkpoints.claim(self.member.worker(), partition, missing).await?;
            if taken.is_empty() {
                return Ok(());
            }
            self.owned.add(taken);
        } else {
            let claimed = self.checkpoints.owned(self.member.worker()).await?;
            self.owned.replace(claimed);
        }
        self.read_ahead = None;
        Ok(())
    }

    /// Until it must look at segments again, if it wants more or one has stopped. Otherwise the
    /// lease's task says when somebody came or went.
    fn claim_wait(&self) -> Duration {
        if self.owned.len() == self.share() && !self.owned.has_failed() {
            return Duration::MAX;
        }
        self.claim_at.saturating_duration_since(Instant::now()).max(PENDING_WAIT)
    }

    /// How long a segment that came free may lie there.
    fn claim_interval(&self) -> Duration {
        (self.options.lease / 5).min(Duration::from_millis(500))
    }

    async fn finished(&mut self, target: u64) -> Result<Next> {
        self.write_late().await?;
        if self.options.partition.is_some() {
            // A partition is done when its own segments are.
            if let Some(failure) = self.owned.failure() {
                return Err(Error::new(ErrorKind::Handler, failure));
            }
            let all = self.owned.len() == self.share();
            return Ok(if all { Next::Finished } else { Next::Wait(PENDING_WAIT * 20) });
        }
        let (lowest, failure) = self.checkpoints.lowest(self.target.name()).await?;
        if let Some(failure) = failure {
            return Err(Error::new(ErrorKind::Handler, failure));
        }
        Ok(if lowest >= target { Next::Finished } else { Next::Wait(PENDING_WAIT * 20) })
    }

    fn share(&self) -> usize {
        share(&self.heart.seen(), self.member.id, self.options.partition, self.owned.count)
    }

    /// Writes positions that nobody waits for. Answers whether segments were moved or taken by
    /// somebody else: an idle worker has no other way to see that its projection was reset.
    async fn write_late(&mut self) -> Result<bool> {
        self.late_written = Instant::now();
        let late = self.owned.late_moves();
        if !late.is_empty() && self.checkpoints.advance(self.member.worker(), &late).await? {
            self.owned.moved(&late);
            return Ok(false);
        }
        let claimed = self.checkpoints.owned(self.member.worker()).await?;
        let changed = self.owned.replace(claimed);
        if changed {
            self.read_ahead = None;
        }
        Ok(changed)
    }

    async fn end(mut self) {
        let late = self.write_late().await.map(|_| ());
        self.heart.stop().await;
        let left = self.checkpoints.leave(self.member.worker()).await;
        let (projection, worker) = (&self.member.projection, self.member.id);
        if let Err(error) = late.and(left) {
            tracing::warn!(projection, %worker, %error, "a worker could not give its segments up; they are free when its lease ends");
        } else {
            tracing::info!(projection, %worker, handled = self.handled, "a worker left");
        }
    }
}

/// The database is away, or somebody was in the way.
fn worth_waiting(error: &Error) -> bool {
    error.is_retryable() || error.kind() == ErrorKind::Unknown
}

async fn idle(hints: &mut Option<Waiter>, heart: &mut Heart, wait: Duration) {
    if wait.is_zero() {
        return;
    }
    tokio::select! {
        () = async {
            match hints {
                Some(hints) if wait > PENDING_WAIT => hints.wait(wait).await,
                _ => tokio::time::sleep(wait).await,
            }
        } => {}
        () = heart.changed() => {}
    }
}
