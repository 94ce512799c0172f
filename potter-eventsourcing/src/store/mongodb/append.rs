//! Appends: read, decide, insert at the end; again when somebody was quicker. Why that is right is
//! in the docs of the module above.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mongodb::bson::RawDocumentBuf;
use mongodb::error::ErrorKind as Driver;
use potter_core::{Signal, jitter};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::clock::ServerClock;
use super::connect::Mongo;
use super::document::{Encoding, encode};
use super::failure::{Asked, DUPLICATE_KEY, meaning};
use super::read::Events;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Appended;
use crate::store::append::Append;
use crate::store::commit_queue::Commit;
use crate::store::condition::Batch;
use crate::store::plan::{Insert, Known, Planned, plan, plan_batch};

/// How long others may be quicker before it is given up.
const CONTENTION_MAX: Duration = Duration::from_secs(60);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(64);
/// How often a position may be taken without anybody having it.
const IMPOSSIBLE_MAX: u32 = 20;
/// What is sent at once, in bytes; one document may be more.
const SENT_MAX: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Writer {
    mongo: Mongo,
    /// All that was written: who appends competes with it, final or not.
    newest: Events,
    /// What a change of the primary can't take back.
    durable: Events,
    clock: ServerClock,
    changed: Signal,
    /// Whose turn it is in this process, and where the log ended after its last append: nothing
    /// less than final, as that append was confirmed.
    tail: Mutex<Option<u64>>,
}

/// The append that writes, and its document.
struct Write {
    append: usize,
    document: RawDocumentBuf,
}

/// How many documents were inserted before somebody else's was found at their place.
enum Inserted {
    All,
    Before(usize),
}

impl Writer {
    pub(super) fn new(mongo: &Mongo, changed: Signal) -> Self {
        Self {
            newest: Events::new(mongo, false),
            durable: Events::new(mongo, true),
            mongo: mongo.clone(),
            clock: ServerClock::default(),
            changed,
            tail: Mutex::new(None),
        }
    }

    async fn append(&self, appends: &[Append]) -> Result<Vec<Result<Appended>>> {
        let mut tail = self.tail.lock().await;
        let mut race = Race::default();
        let mut answers: Vec<Result<Appended>> = Vec::with_capacity(appends.len());
        // The first appends are answered before the later ones: each decision stands on those
        // before it.
        loop {
            let open = &appends[answers.len()..];
            let head = self.attempt(open, &mut tail, &mut answers).await?;
            if answers.len() >= appends.len() {
                return Ok(answers);
            }
            race.lost(head).await?;
        }
    }

    /// One append on a condition. The inner result is the answer.
    pub(super) async fn append_if(&self, batch: &Batch) -> Result<Result<Vec<Appended>>> {
        let mut tail = self.tail.lock().await;
        let mut race = Race::default();
        loop {
            let behind = tail.take();
            let known = self.known(&batch.appends, behind).await?;
            let head = known.last_position;
            let broken = self.newest.breaks(&batch.condition, head).await?;
            let (answers, inserts) = match plan_batch(batch, known, broken) {
                Ok(planned) => planned,
                // A refusal stands on what was read in order.
                Err(_) if behind.is_some() => continue,
                Err(refused) => return Ok(Err(refused)),
            };
            let Some(last) = inserts.last().map(|insert| insert.global_position) else {
                let ids = batch.appends.iter().flat_map(ids).collect();
                self.wait_for_repeated(ids).await?;
                return Ok(Ok(answers));
            };
            let document = encode(&inserts, self.encoding().await?)?;
            if let Inserted::All = self.insert(&[Write { append: 0, document }]).await? {
                *tail = Some(last);
                self.changed.send();
                return Ok(Ok(answers));
            }
            race.lost(head).await?;
        }
    }

    async fn known(&self, appends: &[Append], behind: Option<u64>) -> Result<Known> {
        let ids: Vec<Uuid> = appends.iter().flat_map(ids).collect();
        let streams = appends.iter().map(|append| &append.stream).collect();
        match behind {
            Some(tail) => self.newest.known_behind(tail, streams, &ids).await,
            None => self.newest.known(streams, &ids).await,
        }
    }

    /// Decides about all of `open` and writes; answers those of whom the decision is final, and
    /// the head that it was made on. `tail` is known only after an attempt in which nobody was in
    /// the way.
    async fn attempt(
        &self,
        open: &[Append],
        tail: &mut Option<u64>,
        answers: &mut Vec<Result<Appended>>,
    ) -> Result<u64> {
        let behind = tail.take();
        let mut planned = plan(open, self.known(open, behind).await?);
        if behind.is_some() && planned.answers.iter().any(Result::is_err) {
            // A refusal stands on what was read in order.
            planned = plan(open, self.known(open, None).await?);
        }
        let first = planned.inserts.first().map(|insert| insert.global_position);
        let last = planned.inserts.last().map(|insert| insert.global_position);
        self.wait_for_repeated(repeated(open, &planned)).await?;
        let writes = self.writes(&planned).await?;
        let is_final = match self.insert(&writes).await? {
            Inserted::All => {
                *tail = last.or(behind);
                open.len()
            }
            Inserted::Before(inserted) => writes.get(inserted).map_or(open.len(), |one| one.append),
        };
        answers.extend(planned.answers.into_iter().take(is_final));
        Ok(first.unwrap_or(1) - 1)
    }

    /// "It is there already" must stay true if the primary changes.
    async fn wait_for_repeated(&self, ids: HashSet<Uuid>) -> Result<()> {
        let ids: Vec<_> = ids.into_iter().collect();
        let began = Instant::now();
        while !ids.is_empty() && !self.durable.are_there(&ids).await? {
            if began.elapsed() > self.mongo.options.timeout {
                let message = "the same events were appended before, and a majority of the \
                               servers has not confirmed them: append them again later";
                return Err(Error::new(ErrorKind::Unknown, message));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn encoding(&self) -> Result<Encoding> {
        Ok(Encoding {
            recorded_at: self.clock.about_now(&self.mongo).await?,
            copies: self.mongo.options.queryable,
            nested_arrays: self.mongo.nested_arrays,
        })
    }

    /// The documents to insert, in order.
    async fn writes(&self, planned: &Planned<'_>) -> Result<Vec<Write>> {
        if planned.inserts.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.encoding().await?;
        let mut rest: &[Insert<'_>] = &planned.inserts;
        let mut writes = Vec::new();
        for (append, answer) in planned.answers.iter().enumerate() {
            let Ok(appended) = answer else { continue };
            if appended.duplicate {
                continue;
            }
            let events = appended.last_version + 1 - appended.first_version;
            let events = usize::try_from(events).unwrap_or(rest.len()).min(rest.len());
            let (own, others) = rest.split_at(events);
            rest = others;
            writes.push(Write { append, document: encode(own, encoding)? });
        }
        Ok(writes)
    }

    /// Inserts in order, until one's place is taken.
    async fn insert(&self, writes: &[Write]) -> Result<Inserted> {
        let mut done = 0;
        while done < writes.len() {
            let mut bytes = 0;
            let fits = |write: &&Write| {
                bytes += write.document.as_bytes().len();
                bytes <= SENT_MAX
            };
            let many = writes[done..].iter().take_while(fits).count().max(1);
            let documents = writes[done..done + many].iter().map(|write| &write.document);
            let insert = self.newest.collection().insert_many(documents).ordered(true);
            let timeout = self.mongo.options.timeout;
            let error = match tokio::time::timeout(timeout, insert).await {
                Ok(Ok(_)) => {
                    done += many;
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    let message = format!("no answer to an append came within {timeout:?}");
                    return Err(Error::new(ErrorKind::Unknown, message));
                }
            };
            return match first_taken(&error) {
                Some(first) => Ok(Inserted::Before(done + first)),
                None => Err(meaning(Asked::Write, error)),
            };
        }
        Ok(Inserted::All)
    }
}

/// The event ids that were found, without those that are written now.
fn repeated(appends: &[Append], planned: &Planned<'_>) -> HashSet<Uuid> {
    let written: HashSet<_> = planned.inserts.iter().map(|one| one.event.event.event_id).collect();
    let answered = appends.iter().zip(&planned.answers);
    let repeated = answered.filter(|(_, answer)| answer.as_ref().is_ok_and(|one| one.duplicate));
    repeated.flat_map(|(append, _)| ids(append)).filter(|id| !written.contains(id)).collect()
}

fn ids(append: &Append) -> impl Iterator<Item = Uuid> + '_ {
    append.events.iter().map(|new| new.event.event_id)
}

/// For the end of the log, with other processes.
#[derive(Debug)]
struct Race {
    began: Instant,
    lost: u32,
    /// How often nobody was ahead.
    impossible: u32,
    head: Option<u64>,
}

impl Default for Race {
    fn default() -> Self {
        Self { began: Instant::now(), lost: 0, impossible: 0, head: None }
    }
}

impl Race {
    /// The place after `head` was taken. Waits a while, longer each time.
    async fn lost(&mut self, head: u64) -> Result<()> {
        self.lost += 1;
        self.impossible = if self.head == Some(head) { self.impossible + 1 } else { 0 };
        self.head = Some(head);
        if self.impossible > IMPOSSIBLE_MAX {
            let message = format!(
                "position {} is taken, and position {head} is the last: the collection or its \
                 indexes were changed by hand",
                head + 1
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        if self.began.elapsed() > CONTENTION_MAX {
            let lost = self.lost;
            let message =
                format!("{lost} times others appended first; nothing was appended: try again");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let pause = Duration::from_millis(1 << self.lost.min(6)).min(PAUSE_MAX);
        tokio::time::sleep(pause.mul_f64(jitter())).await;
        Ok(())
    }
}

/// The first document whose place was taken, if that is all that is wrong.
fn first_taken(error: &mongodb::error::Error) -> Option<usize> {
    let Driver::InsertMany(many) = &*error.kind else { return None };
    if many.write_concern_error.is_some() {
        return None;
    }
    let first = many.write_errors.as_ref()?.first()?;
    (first.code == DUPLICATE_KEY).then_some(first.index)
}

#[async_trait]
impl Commit for Writer {
    async fn commit(&self, appends: &[Append]) -> Result<Vec<Result<Appended>>> {
        let answers = self.append(appends).await;
        self.changed.send();
        answers
    }
}
