//! Uploads of one user that come together are one commit.
//!
//! While a commit of a user is under way, more uploads of its devices come in. They wait in the user's
//! queue, and the next commit takes all of them (group commit, as databases do it for their log):
//! one load, one transaction, one wait for the disk.
//!
//! # Invariants
//! - There is one worker a user, in this process, as long as its queue has something: it takes a
//!   group, loads, lets [`crate::ingest`] put batch on batch, commits, answers, and takes the next.
//! - A group is what its batches would be one after the other: each has its own results, answer and
//!   error, sees what those before it did, and is answered only after the commit.
//! - A batch that can't be taken (it is stale, its name is another's, an entity of it can't be read)
//!   leaves nothing in the group and stops nobody. If the store refuses the commit as a whole, its
//!   batches are tried one by one: the error goes to the one that causes it.
//! - What a request waits for is not its own: the worker is a task, so a client that goes away takes
//!   nobody's commit with it.
//! - Bounded: [`WAITING_MAX`] uploads a user, then 503; a group has at most [`BATCHES_MAX`] batches,
//!   [`OPERATIONS_MAX`] operations and [`BYTES_MAX`] bytes of them (one batch is always taken).
//!
//! # Interleavings
//! | what happens | what holds |
//! |---|---|
//! | killed before the commit | nothing of the group is there, and nobody was answered |
//! | killed after it, before the answers | the retries find their ids, each gets its first answer |
//! | another process commits for the user first | the compare-and-swap fails; the whole group is loaded and decided anew, with the ids that are there now |
//! | one batch twice in a group (a retry that overtakes the first, or two devices with one `batch_id`) | the second gets the answer of the first, or the refusal of a reused name, after the commit |
//! | one `op_id` in two batches of a group | the second is a duplicate |
//! | a batch shows that the server lost something | the others are committed in the old epoch; then the new one begins, and this batch is refused |
//! | the outcome of the commit is unknown | all of the group are told so; retries with ids find out |
//! | the worker panics | its group is told that the outcome is unknown; the queue ends with it, and the next upload begins another |

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use examples_common::Problem;
use tokio::sync::oneshot;

use super::upload::{Batch, answer, has_lost, stale};
use super::{SyncService, epoch_changed, replica_of};
use crate::ingest::{Ingest, Uploader};
use crate::store::{Device, Identity, Loaded, Replica, User};

/// The most uploads of one user that wait.
const WAITING_MAX: usize = 512;
/// The most batches of one commit.
const BATCHES_MAX: usize = 64;
/// The most operations of one commit, unless its first batch has more.
const OPERATIONS_MAX: usize = 4_000;
/// The most bytes of operations of one commit, unless its first batch has more.
const BYTES_MAX: usize = 4 * 1024 * 1024;

type Outcome = Result<String, Problem>;

/// An upload that waits for its answer.
#[derive(Debug)]
struct Waiting {
    batch: Batch,
    /// As it was before the upload began to wait.
    device: Device,
    answer: oneshot::Sender<Outcome>,
}

/// The queues of all users that have a worker.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<String, VecDeque<Waiting>>>);

impl Queues {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Waiting>>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends; `true` if the user has no worker yet.
    fn push(&self, user_id: &str, one: Waiting) -> Result<bool, Problem> {
        let mut queues = self.lock();
        if let Some(queue) = queues.get_mut(user_id) {
            if queue.len() >= WAITING_MAX {
                let detail = "Too many uploads of this user wait already: try again.";
                return Err(Problem::unavailable("busy", detail));
            }
            queue.push_back(one);
            return Ok(false);
        }
        queues.insert(user_id.to_owned(), VecDeque::from([one]));
        Ok(true)
    }

    /// The next group, in the order in which they came; `None` ends the worker.
    fn take(&self, user_id: &str) -> Option<Vec<Waiting>> {
        let mut queues = self.lock();
        let queue = queues.get_mut(user_id)?;
        let (mut group, mut operations, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = queue.front() {
            operations += next.batch.operations.len();
            bytes += next.batch.operations.iter().map(|op| op.bytes).sum::<usize>();
            let full =
                group.len() == BATCHES_MAX || operations > OPERATIONS_MAX || bytes > BYTES_MAX;
            if full && !group.is_empty() {
                break;
            }
            group.extend(queue.pop_front());
        }
        if group.is_empty() {
            queues.remove(user_id);
            return None;
        }
        Some(group)
    }
}

/// Ends the queue with its worker, however that ends.
struct Worker<'a> {
    queues: &'a Queues,
    user_id: &'a str,
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queues.lock().remove(self.user_id);
        }
    }
}

/// A group at work.
struct Group<'a> {
    user: &'a User,
    /// As the batches so far leave them.
    replicas: Vec<Replica>,
    loaded: &'a Loaded,
    ingest: Ingest<'a>,
    /// Those that wrote.
    wrote: Vec<Replica>,
    answers: HashMap<String, Identity>,
    /// The batches that showed that the server has lost something.
    lost: Vec<usize>,
}

impl SyncService {
    /// Waits for the answer to an upload.
    pub(super) async fn enqueue(&self, device: Device, batch: Batch) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let user_id = device.user.user_id.clone();
        if self.inner.queues.push(&user_id, Waiting { batch, device, answer })? {
            let service = self.clone();
            tokio::spawn(async move { service.work(&user_id).await });
        }
        answered.await.unwrap_or_else(|_| {
            let detail = "It may or may not have taken effect: send it again, with the same ids.";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", detail))
        })
    }

    async fn work(&self, user_id: &str) {
        let _worker = Worker { queues: &self.inner.queues, user_id };
        let mut first = true;
        while let Some(group) = self.inner.queues.take(user_id) {
            metrics::histogram!("sync_uploads_per_commit").record(group.len() as f64);
            let (mut batches, mut answers) = (Vec::new(), Vec::new());
            // What one request has just read is as good as new.
            let read = first && group.len() == 1;
            let mut device = None;
            for Waiting { batch, device: known, answer } in group {
                device = read.then_some(known);
                batches.push(batch);
                answers.push(answer);
            }
            first = false;
            let outcomes = self.group(user_id, &batches, device).await;
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // Whoever does not wait any more asks again.
                let _ = answer.send(outcome);
            }
        }
    }

    /// The outcomes of batches, in their order.
    async fn group(
        &self,
        user_id: &str,
        batches: &[Batch],
        device: Option<Device>,
    ) -> Vec<Outcome> {
        match self.together(user_id, batches, device).await {
            Ok(outcomes) => outcomes,
            // The store is there, and does not take this: find out which of them it is. (503: it is
            // not there, or nobody knows what became of the commit.)
            Err(problem) if problem.status != 503 && batches.len() > 1 => {
                let mut outcomes = Vec::with_capacity(batches.len());
                for batch in batches {
                    let alone = self.together(user_id, std::slice::from_ref(batch), None).await;
                    let alone = alone.map(|mut outcomes| outcomes.remove(0));
                    outcomes.push(alone.unwrap_or_else(Err));
                }
                outcomes
            }
            Err(problem) => batches.iter().map(|_| Err(problem.clone())).collect(),
        }
    }

    /// Batches in one commit. An error is one of all of them.
    async fn together(
        &self,
        user_id: &str,
        batches: &[Batch],
        device: Option<Device>,
    ) -> Result<Vec<Outcome>, Problem> {
        let ids: Vec<&str> = sorted(batches.iter().filter_map(|batch| batch.id.as_deref()));
        let devices: Vec<&str> = sorted(batches.iter().map(|batch| batch.device_id.as_str()));
        let operations = || batches.iter().flat_map(|batch| &batch.operations);
        let names = sorted(operations().filter_map(|op| op.name));
        let keys = sorted(operations().map(|op| &op.key));
        let keys: Vec<_> = keys.into_iter().cloned().collect();
        let store = &self.inner.store;
        let mut turn = self.turn(user_id).await;
        let mut known = device.filter(|_| turn.fresh).map(|known| (known.user, known.replicas));
        loop {
            let read = match known.take() {
                Some(known) => Some(known),
                None => store.devices(user_id, &devices).await?,
            };
            let (user, replicas) = read.ok_or_else(|| super::unknown_user(user_id))?;
            let loaded = store.load(user_id, user_id, &ids, &names, &keys).await?;
            let mut group = Group {
                user: &user,
                replicas,
                loaded: &loaded,
                ingest: Ingest::new(&user, &loaded),
                wrote: Vec::new(),
                answers: HashMap::new(),
                lost: Vec::new(),
            };
            let mut outcomes: Vec<Outcome> = batches
                .iter()
                .enumerate()
                .map(|(at, batch)| self.put(&mut group, at, batch))
                .collect();
            let Group { ingest, wrote, answers, lost, .. } = group;
            let mut commit = ingest.finish();
            let nothing = wrote.is_empty();
            commit.replicas = wrote;
            commit.identities = answers.into_values().collect();
            if nothing || turn.commit(&commit).await? {
                drop(turn);
                if !lost.is_empty()
                    && let Err(problem) = self.begin_epoch(&user).await
                {
                    // The others are committed, whatever this is.
                    lost.into_iter().for_each(|at| outcomes[at] = Err(problem.clone()));
                }
                return Ok(outcomes);
            }
        }
    }

    /// Puts one batch on those before it.
    fn put(&self, group: &mut Group<'_>, at: usize, batch: &Batch) -> Outcome {
        let stored = batch
            .id
            .as_ref()
            .and_then(|id| group.answers.get(id).or_else(|| group.loaded.identities.get(id)));
        if let Some(stored) = stored {
            if let Some(sequence) = batch.sequence.filter(|_| stored.hash != batch.hash) {
                return Err(stale(&batch.device_id, sequence));
            }
            return Self::given_before(stored, &batch.hash, batch.reused);
        }
        let of_device = |one: &&Replica| one.device_id == batch.device_id;
        let lives: Vec<_> = group.replicas.iter().filter(of_device).cloned().collect();
        let replica = replica_of(&lives, batch.incarnation)?;
        if has_lost(batch, group.user, replica)? {
            group.lost.push(at);
            return Err(epoch_changed());
        }
        let uploader = Uploader {
            user: group.user,
            device_id: &batch.device_id,
            incarnation: replica.incarnation,
            replica: Some(replica),
            now: self.now(),
        };
        let (results, replica) = group
            .ingest
            .batch(&uploader, &batch.operations)
            .map_err(|error| Problem::internal(&error))?;
        let answer = answer(batch, &uploader, results, group.ingest.head());
        let answer = serde_json::to_string(&answer).map_err(|error| Problem::internal(&error))?;
        if let Some(id) = &batch.id {
            let identity = Identity {
                scope: group.user.user_id.clone(),
                id: id.clone(),
                hash: batch.hash.clone(),
                answer: answer.clone(),
            };
            group.answers.insert(id.clone(), identity);
        }
        if let Some(mut replica) = replica {
            replica.last_sequence = batch.sequence.unwrap_or(replica.last_sequence);
            if let Some(theirs) = batch.device_time {
                let offset = theirs - uploader.now;
                replica.notes.clock_offset_ms = Some(offset.num_milliseconds());
            }
            group.wrote(replica);
        }
        Ok(answer)
    }
}

impl Group<'_> {
    /// The replica as it is from now on.
    fn wrote(&mut self, replica: Replica) {
        let same = |one: &Replica| {
            one.device_id == replica.device_id && one.incarnation == replica.incarnation
        };
        self.wrote.retain(|one| !same(one));
        if let Some(one) = self.replicas.iter_mut().find(|one| same(one)) {
            one.clone_from(&replica);
        }
        self.wrote.push(replica);
    }
}

fn sorted<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    all.dedup();
    all
}
