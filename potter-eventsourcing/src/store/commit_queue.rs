//! Group commit: appends that come at the same time share a transaction, and each keeps its own
//! answer.
//!
//! There is no artificial delay. An append that finds nobody at work is committed at once, by its
//! own caller; what arrives meanwhile is taken together by a task that starts when it is done.
//!
//! # Invariants
//! 1. Every append that was let in is answered: also when the group fails as a whole, a committer
//!    panics or its runtime is shut down ([`Committer`] answers on drop).
//! 2. One append cannot fail another. A conflict is an answer inside the group. When the database
//!    refuses the group as a whole, its members are committed one by one, so only the guilty
//!    fail.
//! 3. Appends of one stream in one group are carried out in the order of arrival (the sort by
//!    stream is stable). Two groups at once may swap two appends to a stream; nobody can tell,
//!    as a caller waits for its answer before it appends again.
//! 4. A caller that goes away takes nothing with it: groups are run by tasks of their own, and one
//!    who commits alone passes the turn on when dropped ([`Turn`]).
//!
//! A connection that breaks before the answer leaves the outcome open. Appends are idempotent by
//! their event ids, so the group is simply sent again; only if no answer can be had at all do
//! the callers get `Unknown`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::append::Append;
use super::options::StoreOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Appended;

/// How often a group is sent again after its answer was lost: a pool full of connections that
/// died while idle is got through one by one.
const LOST_MAX: u32 = 32;
/// How often a group is sent again after the database ended a deadlock or a race at its cost.
const CONFLICTS_MAX: u32 = 8;
/// "Unavailable" that took longer than this was no dead idle connection.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// Commits a group of appends in one transaction.
#[async_trait]
pub(crate) trait Commit: Send + Sync + 'static {
    /// One answer for each append. An error is about the transaction as a whole.
    async fn commit(&self, appends: &[Append]) -> Result<Vec<Result<Appended>>>;
}

/// The queue in front of a store's committers. Cheap to clone.
pub(crate) struct CommitQueue<C> {
    shared: Arc<Shared<C>>,
}

struct Shared<C> {
    target: C,
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    options: StoreOptions,
    committers_max: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    committers: usize,
}

struct Job {
    append: Append,
    answer: oneshot::Sender<Result<Appended>>,
    _room: OwnedSemaphorePermit,
}

impl<C: Commit> CommitQueue<C> {
    pub(crate) fn new(target: C, options: StoreOptions, committers_max: usize) -> Self {
        let room = Arc::new(Semaphore::new(options.queue_max));
        let shared = Shared { target, queue: Mutex::default(), room, options, committers_max };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) async fn append(&self, append: Append) -> Result<Appended> {
        if let Some(_turn) = Turn::take(&self.shared) {
            let alone = commit_settled(&self.shared.target, std::slice::from_ref(&append)).await;
            return alone?.pop().unwrap_or_else(|| Err(stopped()));
        }
        let room = Arc::clone(&self.shared.room).acquire_owned().await.map_err(|source| {
            Error::with_source(ErrorKind::Internal, "the queue of appends was closed", source)
        })?;
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut queue = self.shared.lock();
            queue.waiting.push_back(Job { append, answer, _room: room });
            let start = queue.committers < self.shared.committers_max;
            queue.committers += usize::from(start);
            start
        };
        if start {
            Committer::start(Arc::clone(&self.shared));
        }
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// The right to commit alone: nobody else is at work, and nothing waits. It counts as a committer
/// and hands what came meanwhile to a task.
struct Turn<C: Commit> {
    shared: Arc<Shared<C>>,
}

impl<C: Commit> Turn<C> {
    fn take(shared: &Arc<Shared<C>>) -> Option<Self> {
        let mut queue = shared.lock();
        if queue.committers > 0 || !queue.waiting.is_empty() {
            return None;
        }
        queue.committers = 1;
        drop(queue);
        Some(Self { shared: Arc::clone(shared) })
    }
}

impl<C: Commit> Drop for Turn<C> {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        if queue.waiting.is_empty() {
            queue.committers -= 1;
            return;
        }
        drop(queue);
        Committer::start(Arc::clone(&self.shared));
    }
}

impl<C> Shared<C> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is waiting, as far as it fits in a group.
    fn take(&self, queue: &mut Queue) -> Vec<Job> {
        let (mut events, mut group) = (0, Vec::new());
        while let Some(job) = queue.waiting.front() {
            events += job.append.events.len();
            let full = group.len() >= self.options.group_appends_max
                || events > self.options.group_events_max;
            if full && !group.is_empty() {
                break;
            }
            group.extend(queue.waiting.pop_front());
        }
        group
    }
}

/// One task that commits groups until nothing waits.
struct Committer<C> {
    shared: Arc<Shared<C>>,
    group: Vec<oneshot::Sender<Result<Appended>>>,
    counted: bool,
}

impl<C: Commit> Committer<C> {
    /// Starts one that is counted already; its guard takes the count back however it ends.
    fn start(shared: Arc<Shared<C>>) {
        let committer = Self { shared, group: Vec::new(), counted: true };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(committer.run());
        }
    }

    async fn run(mut self) {
        loop {
            let mut jobs = {
                let mut queue = self.shared.lock();
                let jobs = self.shared.take(&mut queue);
                if jobs.is_empty() {
                    // In one step with the look at the queue: whoever comes next starts anew.
                    queue.committers -= 1;
                    self.counted = false;
                    return;
                }
                jobs
            };
            // Sorted by stream, so that two groups cannot wait for each other's streams.
            jobs.sort_by(|a, b| a.append.stream.cmp(&b.append.stream));
            let mut appends = Vec::with_capacity(jobs.len());
            let mut rooms = Vec::with_capacity(jobs.len());
            for job in jobs {
                appends.push(job.append);
                self.group.push(job.answer);
                rooms.push(job._room);
            }
            let answers = commit_group(&self.shared.target, &appends).await;
            for (caller, answer) in self.group.drain(..).zip(answers) {
                // A caller that went away wants no answer.
                let _ = caller.send(answer);
            }
        }
    }
}

/// A task that ends before its work does: its place is free again, and nobody waits for ever.
impl<C> Drop for Committer<C> {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let mut queue = self.shared.lock();
        queue.committers -= 1;
        // Dropped senders answer "unknown". What was not taken yet was not sent either.
        if queue.committers == 0 {
            for job in queue.waiting.drain(..) {
                let _ = job.answer.send(Err(Error::new(
                    ErrorKind::Unavailable,
                    "the task that commits appends was stopped; nothing was appended",
                )));
            }
        }
    }
}

async fn commit_group<C: Commit>(target: &C, appends: &[Append]) -> Vec<Result<Appended>> {
    match commit_settled(target, appends).await {
        Ok(answers) => answers,
        Err(error) if appends.len() > 1 && member_may_be_guilty(error.kind()) => {
            let mut answers = Vec::with_capacity(appends.len());
            for append in appends {
                let alone = commit_settled(target, std::slice::from_ref(append)).await;
                answers.push(alone.and_then(|mut one| one.pop().unwrap_or_else(|| Err(stopped()))));
            }
            answers
        }
        Err(error) => appends.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// Commits, and sends the group again where that is safe and can help.
async fn commit_settled<C: Commit>(
    target: &C,
    appends: &[Append],
) -> Result<Vec<Result<Appended>>> {
    let commit = || async move {
        match target.commit(appends).await {
            Ok(answers) if answers.len() == appends.len() => Ok(answers),
            Ok(_) => Err(Error::new(ErrorKind::Internal, "the store did not answer every append")),
            Err(error) => Err(error),
        }
    };
    settled(commit, appends.len() == 1).await
}

/// Commits, and sends it again where that is safe and can help. A conflict is one between
/// transactions (a deadlock, a race), not an answer: `alone` says that nobody else is to blame.
pub(crate) async fn settled<T, F, Fut>(commit: F, alone: bool) -> Result<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let (mut lost, mut stale, mut conflicts) = (0, 0, 0);
    loop {
        let began = Instant::now();
        let error = match commit().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::Unknown if lost < LOST_MAX => lost += 1,
            ErrorKind::Unavailable if stale < LOST_MAX && began.elapsed() < STALE_WITHIN => {
                stale += 1;
                if stale > LOST_MAX / 2 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            ErrorKind::Conflict if alone && conflicts < CONFLICTS_MAX => {
                conflicts += 1;
            }
            _ if lost > 0 => {
                let message = "the connection broke before the database answered: append the same \
                               events again to learn whether they are there";
                return Err(Error::with_source(ErrorKind::Unknown, message, error));
            }
            _ => return Err(error),
        }
    }
}

fn member_may_be_guilty(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Config)
}

fn stopped() -> Error {
    Error::new(
        ErrorKind::Unknown,
        "the task that commits appends was stopped: append the same events again to learn \
         whether they are there",
    )
}
