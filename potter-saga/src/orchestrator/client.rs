//! Starting sagas and looking after them.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use potter_core::{IdempotencyStore, Json, Metadata, Tx, new_id};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use uuid::Uuid;

use super::{Inner, Orchestrator};
use crate::definition::{Definition, Saga};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::Owned;
use crate::history::{StepHistory, step_history};
use crate::progress::Progress;
use crate::status::SagaStatus;
use crate::store::{Inserted, NewSaga, SagaFilter, SagaRecord};

/// The largest input, in bytes of JSON.
const INPUT_BYTES_MAX: usize = 1 << 20;
const KEY_BYTES_MAX: usize = 255;

/// A start in the making: set what you need and `.await` it.
#[must_use = "await it to start the saga"]
pub struct Start<'a, S: Saga> {
    orchestrator: &'a Orchestrator,
    input: &'a S::Input,
    id: Option<Uuid>,
    key: Option<String>,
    metadata: Metadata,
    saga: PhantomData<fn() -> S>,
}

/// A started saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// The saga: the same one for every start with its key.
    pub id: Uuid,
    /// This call stored it; otherwise it was there before.
    pub created: bool,
}

impl<'a, S: Saga> Start<'a, S> {
    /// The idempotency key: starts of one saga with the same key and input are one start. 1 to
    /// 255 bytes. Without it every call starts another saga.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The saga's id, when the caller wants to choose it.
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// Correlation id, tenant, trace.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Starts it in the caller's transaction: it exists if that commits. Call
    /// [`Orchestrator::wake`] after the commit, or let polling find it.
    ///
    /// # Errors
    /// As awaiting it.
    pub async fn in_tx(self, tx: &mut Tx) -> Result<Started> {
        let store = Arc::clone(&self.orchestrator.inner.store);
        let (saga, _) = self.new_saga()?;
        let inserted = store.insert(Some(tx), &saga).await?;
        Ok(started(inserted, saga.id))
    }

    fn new_saga(&self) -> Result<(NewSaga, Arc<Definition>)> {
        let definition =
            self.orchestrator.inner.definitions.get(&(S::NAME, S::VERSION)).ok_or_else(|| {
                let message = format!(
                    "saga \"{}\" version {} is not registered with this orchestrator",
                    S::NAME,
                    S::VERSION
                );
                Error::new(ErrorKind::NotRegistered, message)
            })?;
        let input = Json::of(self.input)?;
        let bytes = input.as_str().len();
        if bytes > INPUT_BYTES_MAX {
            let message = format!(
                "the input of saga \"{}\" has {bytes} bytes; {INPUT_BYTES_MAX} at most",
                S::NAME
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let id = self.id.unwrap_or_else(new_id);
        let key = self.key.clone().unwrap_or_else(|| id.to_string());
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let message = format!("a saga's key has 1 to {KEY_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let saga = NewSaga {
            id,
            name: S::NAME,
            version: S::VERSION,
            definition_hash: definition.hash.clone(),
            key,
            input_hash: IdempotencyStore::request_hash(&input)?,
            input,
            metadata: self.metadata.clone(),
            steps_total: definition.nodes.len(),
            timeout: definition.timeout,
            owner: None,
        };
        Ok((saga, Arc::clone(definition)))
    }
}

async fn send(
    orchestrator: &Orchestrator,
    mut saga: NewSaga,
    definition: Arc<Definition>,
) -> Result<Started> {
    let inner = &orchestrator.inner;
    // With room here, it is stored as ours and runs at once: no claim, one commit less.
    // Another start with this id may be under way here: the entry is its own, not ours to leave.
    let permit = inner.room().filter(|_| inner.enter(saga.id));
    if permit.is_some() {
        saga.owner = Some(inner.node);
    }
    let mut guard = LeaveUnlessKept { inner, id: saga.id, kept: permit.is_none() };
    let inserted = inner.store.insert(None, &saga).await?;
    let started = started(inserted, saga.id);
    metrics::counter!("potter_saga_started_total", "saga" => definition.name)
        .increment(u64::from(started.created));
    match permit {
        Some(permit) if started.created => {
            guard.kept = true;
            orchestrator.launch(fresh(definition, saga), permit);
        }
        Some(_) => {
            // It was there before, and is run elsewhere or here under its own entry.
            guard.kept = true;
            inner.leave(saga.id);
        }
        None if started.created => {
            inner.backlog.store(true, Ordering::Release);
            orchestrator.wake();
        }
        None => {}
    }
    Ok(started)
}

/// When the insert fails or is dropped half way, the row may be there with us as its owner: it
/// must not count as running here, so that it is claimed.
struct LeaveUnlessKept<'a> {
    inner: &'a Inner,
    id: Uuid,
    kept: bool,
}

impl Drop for LeaveUnlessKept<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.inner.leave(self.id);
            self.inner.lose(self.id);
        }
    }
}

impl<'a, S: Saga> IntoFuture for Start<'a, S> {
    type Output = Result<Started>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let prepared = self.new_saga();
        let orchestrator = self.orchestrator;
        Box::pin(async move {
            let (saga, definition) = prepared?;
            send(orchestrator, saga, definition).await
        })
    }
}

fn started(inserted: Inserted, id: Uuid) -> Started {
    match inserted {
        Inserted::Created => Started { id, created: true },
        Inserted::Existing(id) => Started { id, created: false },
    }
}

fn fresh(definition: Arc<Definition>, saga: NewSaga) -> Owned {
    let progress = Progress::new(saga.id, saga.input, definition.nodes.len());
    Owned {
        definition,
        progress,
        fence: 1,
        metadata: saga.metadata,
        cancel_requested: false,
        cancel_refused: false,
        overdue: false,
        edited: false,
    }
}

impl Inner {
    fn room(&self) -> Option<OwnedSemaphorePermit> {
        if self.draining.is_cancelled() || !self.alive() {
            return None;
        }
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    async fn record(&self, id: Uuid) -> Result<SagaRecord> {
        let record = self.store.get(id).await?;
        record.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no saga {id}")))
    }
}

impl Orchestrator {
    /// Starts a saga: `orchestrator.start::<PlaceOrder>(&order).key("order-42").await?`. When it
    /// returns the saga is durable and will be finished, here or elsewhere.
    ///
    /// # Errors
    /// `KeyReused` when the key was used with another input; `NotRegistered`; `InvalidInput` for
    /// a key or input out of bounds; `Unknown` when the database did not answer: start it again
    /// with the same key.
    pub fn start<'a, S: Saga>(&'a self, input: &'a S::Input) -> Start<'a, S> {
        Start {
            orchestrator: self,
            input,
            id: None,
            key: None,
            metadata: Metadata::new(),
            saga: PhantomData,
        }
    }

    /// Looks for due sagas now, here and in other processes.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
        self.inner.hint.send();
    }

    /// Asks for a saga to be cancelled: what was done is undone. The step that runs is waited
    /// for.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` when it is finished or past its pivot. (A request that arrives
    /// while the pivot runs is taken, and refused in the history if the pivot is done then.)
    pub async fn cancel(&self, id: Uuid) -> Result<()> {
        self.inner.store.request_cancel(id).await?;
        self.wake();
        Ok(())
    }

    /// Lets a parked saga go on from where it stopped, or one that waits for its next attempt go
    /// on now.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` when it is finished.
    pub async fn resume(&self, id: Uuid) -> Result<()> {
        self.inner.store.resume(id).await?;
        self.wake();
        Ok(())
    }

    /// The saga.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, id: Uuid) -> Result<SagaRecord> {
        self.inner.record(id).await
    }

    /// The attempts of its steps, in order.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn history(&self, id: Uuid) -> Result<Vec<StepHistory>> {
        let record = self.inner.record(id).await?;
        let log = self.inner.store.log(id).await?;
        let definition = self.definition(&record.name, record.version);
        Ok(step_history(&record, &log, definition.into_iter().flat_map(Definition::step_names)))
    }

    /// Sagas, newest first, and how many match in all.
    ///
    /// # Errors
    /// `Unavailable` when the database is.
    pub async fn list(&self, filter: &SagaFilter) -> Result<(Vec<SagaRecord>, u64)> {
        self.inner.store.list(filter).await
    }

    /// Waits until a saga is finished or parked.
    ///
    /// # Errors
    /// `NotFound`; `Timeout` after `limit`: the saga goes on.
    pub async fn wait(&self, id: Uuid, limit: Duration) -> Result<SagaRecord> {
        let waiter = self.inner.waiter(id);
        let ended = self.wait_with(&waiter, id, limit).await;
        self.inner.forget_waiter(id);
        ended
    }

    async fn wait_with(&self, waiter: &Notify, id: Uuid, limit: Duration) -> Result<SagaRecord> {
        // Another process that ends it tells no one here.
        const LOOK_AGAIN_MIN: Duration = Duration::from_millis(20);
        const LOOK_AGAIN_MAX: Duration = Duration::from_millis(500);
        let give_up = tokio::time::Instant::now() + limit;
        let mut pause = LOOK_AGAIN_MIN;
        loop {
            let told = waiter.notified();
            tokio::pin!(told);
            // From here on a notification counts, also one that comes before the await.
            told.as_mut().enable();
            let here = self.inner.runs_here(id);
            if !here || tokio::time::Instant::now() >= give_up {
                let record = self.inner.record(id).await?;
                if record.status.is_final() || record.status == SagaStatus::Failed {
                    return Ok(record);
                }
                if tokio::time::Instant::now() >= give_up {
                    let message =
                        format!("saga {id} is {} after {limit:?}; it goes on", record.status);
                    return Err(Error::new(ErrorKind::Timeout, message));
                }
            }
            let wake = (tokio::time::Instant::now() + if here { LOOK_AGAIN_MAX } else { pause })
                .min(give_up);
            let _ = tokio::time::timeout_at(wake, told).await;
            pause = (pause * 2).min(LOOK_AGAIN_MAX);
        }
    }

    /// What a completed saga gave, or `None` while it is not completed.
    ///
    /// # Errors
    /// `NotFound`; `NotRegistered` when this version is not known here; `Corrupt` when the
    /// result can't be read as `S::Output`.
    pub async fn result<S: Saga>(&self, id: Uuid) -> Result<Option<S::Output>> {
        let record = self.inner.record(id).await?;
        if record.status != SagaStatus::Completed {
            return Ok(None);
        }
        let definition = self.definition(S::NAME, record.version).ok_or_else(|| {
            let message =
                format!("saga \"{}\" version {} is not registered here", S::NAME, record.version);
            Error::new(ErrorKind::NotRegistered, message)
        })?;
        let mut progress = Progress::new(id, record.input, definition.nodes.len());
        for row in self.inner.store.log(id).await? {
            progress.apply(definition, &row.entry);
        }
        let result = definition.result(&progress.outputs);
        Ok(result.map(|json| json.get()).transpose()?)
    }
}
