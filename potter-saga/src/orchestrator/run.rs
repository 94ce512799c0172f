//! The loop that claims and runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use potter_core::jitter;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Inner, Orchestrator};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Executor, Left, Owned};
use crate::status::SagaStatus;
use crate::store::ClaimRequest;

/// A running orchestrator. Dropping it lets it run on; [`shutdown`](Self::shutdown) ends it.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    killed: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Running {
    /// Stops claiming, waits for the running steps, gives the sagas back.
    ///
    /// # Errors
    /// Those of [`Orchestrator::run`].
    pub async fn shutdown(self) -> Result<()> {
        self.stop.cancel();
        match self.task.await {
            Ok(ended) => ended,
            Err(error) => Err(Error::with_source(
                ErrorKind::Internal,
                "the orchestrator's task failed",
                error,
            )),
        }
    }

    /// Stops at once wherever it is, as a crash would: nothing is given back. For tests.
    pub async fn kill(self) {
        self.killed.cancel();
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A first heartbeat that failed, or was given up, was no beginning.
struct NotBegun<'a>(Option<&'a AtomicBool>);

impl Drop for NotBegun<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.0 {
            begun.store(false, Ordering::Release);
        }
    }
}

impl Orchestrator {
    /// Runs it in a task of its own. It begins to take sagas when its lease is in the database.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub async fn spawn(&self) -> Result<Running> {
        self.begin().await?;
        let stop = CancellationToken::new();
        let (this, token) = (self.clone(), stop.clone());
        let task = tokio::spawn(async move { this.work(token).await });
        Ok(Running { stop, killed: self.inner.killed.clone(), task })
    }

    /// Claims and runs sagas until `stop` is cancelled; then waits for running steps, at most
    /// the shutdown grace, and gives the rest back. An orchestrator runs once.
    ///
    /// # Errors
    /// When the database can't be reached for the first heartbeat: try again. Later failures are
    /// waited out. `InvalidState` when it runs already, `Closed` when it was shut down.
    pub async fn run(&self, stop: CancellationToken) -> Result<()> {
        self.begin().await?;
        self.work(stop).await
    }

    /// The first heartbeat, once.
    async fn begin(&self) -> Result<()> {
        let inner = &self.inner;
        if inner.draining.is_cancelled() {
            let message = "this orchestrator was shut down: build another one";
            return Err(Error::new(ErrorKind::Closed, message));
        }
        if inner.begun.swap(true, Ordering::AcqRel) {
            let message = "this orchestrator runs already: build another one to run a second";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        let mut unless_kept = NotBegun(Some(&inner.begun));
        inner.heartbeat().await?;
        unless_kept.0 = None;
        Ok(())
    }

    async fn work(&self, stop: CancellationToken) -> Result<()> {
        let inner = &self.inner;
        let helpers = CancellationToken::new();
        let _stop_helpers = helpers.clone().drop_guard();
        let (beating, beat_stop) = (Arc::clone(inner), helpers.clone());
        tokio::spawn(async move { beating.keep_alive(&beat_stop).await });
        let (listening, listen_stop) = (Arc::clone(inner), helpers.clone());
        tokio::spawn(async move { listening.hint.listen(&listening.wake, &listen_stop).await });

        self.claim_until(&stop).await;

        inner.draining.cancel();
        inner.tasks.close();
        let clean = tokio::time::timeout(inner.options.grace, inner.tasks.wait()).await.is_ok();
        inner.killed.cancel();
        helpers.cancel();
        inner.set_renewed(None);
        inner.store.retire(inner.node, clean).await?;
        inner.hint.send();
        Ok(())
    }

    async fn claim_until(&self, stop: &CancellationToken) {
        let inner = &self.inner;
        let mut swept: Option<Instant> = None;
        while !stop.is_cancelled() {
            let more = match self.claim_some().await {
                Ok(more) => more,
                Err(error) => {
                    tracing::warn!(%error, "due sagas can't be claimed at the moment");
                    false
                }
            };
            if swept.is_none_or(|at| at.elapsed() >= inner.options.unknown_version_grace / 2) {
                swept = Some(Instant::now());
                self.sweep().await;
            }
            if more {
                continue;
            }
            // Jitter keeps the polls of many processes apart.
            let pause = inner.options.poll_interval.mul_f64(0.75 + 0.5 * jitter());
            tokio::select! {
                () = stop.cancelled() => {}
                () = inner.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Claims as many as there is room for; answers whether there may be more at once.
    ///
    /// Looking comes first and takes no room: starts of new sagas need it meanwhile.
    async fn claim_some(&self) -> Result<bool> {
        const CLAIM_MAX: usize = 128;
        let inner = &self.inner;
        let room = inner.permits.available_permits().min(CLAIM_MAX);
        if room == 0 || !inner.alive() {
            return Ok(false);
        }
        let mut request = ClaimRequest {
            node: inner.node,
            registered: inner.registered(),
            lost: inner.lost_ids(),
            running: inner.running_ids(),
            limit: u32::try_from(room).unwrap_or(u32::MAX),
        };
        // Before looking: what comes due after it sets the flag again.
        inner.backlog.store(false, Ordering::Release);
        let due = inner.store.due(&request).await?;
        let mut permits = Vec::new();
        while permits.len() < due as usize {
            match Arc::clone(&inner.permits).try_acquire_owned() {
                Ok(permit) => permits.push(permit),
                Err(_) => break,
            }
        }
        if permits.len() < due as usize {
            inner.backlog.store(true, Ordering::Release);
        }
        if permits.is_empty() {
            return Ok(false);
        }
        request.limit = u32::try_from(permits.len()).unwrap_or(u32::MAX);
        let claimed = inner.store.claim(&request).await?;
        let full = due as usize == room;
        if full {
            inner.backlog.store(true, Ordering::Release);
        }
        for (claimed, permit) in claimed.into_iter().zip(permits) {
            let key = (claimed.record.name.as_str(), claimed.record.version);
            let definition =
                inner.definitions.iter().find(|((name, version), _)| (*name, *version) == key);
            if let Some((_, definition)) = definition {
                inner.find(claimed.record.id);
                inner.enter(claimed.record.id);
                self.launch(Owned::from_claim(Arc::clone(definition), claimed), permit);
            }
        }
        Ok(full)
    }

    async fn sweep(&self) {
        let inner = &self.inner;
        let grace = inner.options.unknown_version_grace;
        match inner.store.park_unknown(&inner.registered(), grace).await {
            Ok(0) => {}
            Ok(parked) => {
                tracing::warn!(parked, "sagas of a version that no process here knows were parked");
            }
            Err(error) => tracing::debug!(%error, "the sweep for unknown versions failed"),
        }
    }

    /// Runs a saga that is entered as running here.
    pub(super) fn launch(&self, mut saga: Owned, permit: OwnedSemaphorePermit) {
        let this = self.clone();
        let work = async move {
            let inner = &this.inner;
            let id = saga.progress.saga_id;
            let mut presence = Presence { inner: Arc::clone(inner), id, lost: true };
            let alive = Arc::clone(inner);
            let executor = Executor {
                store: Arc::clone(&inner.store),
                draining: inner.draining.clone(),
                alive: Arc::new(move || alive.alive()),
            };
            let left = tokio::select! {
                () = inner.killed.cancelled() => return,
                left = executor.drive(&mut saga) => left,
            };
            if left == Left::Lost {
                // Not at once: what failed may need a moment.
                tokio::time::sleep(Duration::from_millis(100).mul_f64(1.0 + jitter())).await;
            }
            presence.lost = matches!(left, Left::Lost | Left::Interrupted);
            drop(presence);
            drop(permit);
            inner.tell_waiters(id);
            this.after(&saga, left);
        };
        self.inner.tasks.spawn(work);
    }

    fn after(&self, saga: &Owned, left: Left) {
        let inner = &self.inner;
        match left {
            Left::AtRest(status) => {
                metrics::counter!("potter_saga_ended_total", "saga" => saga.definition.name(), "status" => status.as_str())
                    .increment(1);
                if status == SagaStatus::Failed {
                    tracing::warn!(saga_id = %saga.progress.saga_id, saga = saga.definition.name(),
                        "a saga can't go on by itself: see its history, then resume or cancel it");
                }
            }
            Left::Waiting(wait) => {
                // Polling would find it too, later.
                let (wake, stop) = (Arc::clone(&inner.wake), inner.draining.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(wait) => wake.notify_one(),
                    }
                });
            }
            Left::Lost | Left::Fenced | Left::Interrupted => {}
        }
        if left == Left::Lost || inner.backlog.load(Ordering::Acquire) {
            inner.wake.notify_one();
        }
    }
}

/// A saga that is run here. However its task ends, even by a panic of the engine, it is left; and
/// claimed again unless it came to a rest.
struct Presence {
    inner: Arc<Inner>,
    id: Uuid,
    lost: bool,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.inner.leave(self.id);
        if self.lost {
            self.inner.lose(self.id);
        }
    }
}

impl Inner {
    async fn heartbeat(&self) -> Result<()> {
        // The time before the call: the lease in the database lasts at least as long.
        let before = Instant::now();
        self.store.heartbeat(self.node, self.options.lease_ttl).await?;
        self.set_renewed(Some(before));
        Ok(())
    }

    async fn keep_alive(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.options.lease_ttl / 3) => {}
            }
            if stop.is_cancelled() || self.killed.is_cancelled() {
                return;
            }
            if let Err(error) = self.heartbeat().await {
                tracing::warn!(%error, "the lease of this process could not be renewed");
            }
        }
    }
}
