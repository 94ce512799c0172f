//! Saving, off the command's path.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{NewSnapshot, SnapshotStore};
use crate::stream_id::StreamId;

/// More streams than this do not wait for a snapshot: the next command asks again.
const WAITING_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Keeper {
    store: Arc<dyn SnapshotStore>,
    keep: u32,
    waiting: Mutex<Waiting>,
    at_work: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The newest of each stream.
    snapshots: BTreeMap<StreamId, NewSnapshot>,
    at_work: bool,
}

impl Keeper {
    pub(super) fn new(store: Arc<dyn SnapshotStore>, keep: u32) -> Self {
        let at_work = watch::Sender::new(false);
        Self { store, keep, waiting: Mutex::default(), at_work }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Needs a Tokio runtime; without one the snapshot is left out.
    pub(crate) fn save_soon(self: &Arc<Self>, snapshot: NewSnapshot) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut waiting = self.lock();
        let known = waiting.snapshots.get(&snapshot.stream_id);
        if known.is_some_and(|known| known.version >= snapshot.version)
            || (known.is_none() && waiting.snapshots.len() >= WAITING_MAX)
        {
            return;
        }
        waiting.snapshots.insert(snapshot.stream_id.clone(), snapshot);
        if !waiting.at_work {
            waiting.at_work = true;
            self.at_work.send_replace(true);
            runtime.spawn(Arc::clone(self).work());
        }
    }

    async fn work(self: Arc<Self>) {
        let mut done = Done { keeper: Arc::clone(&self), finished: false };
        while let Some((stream, snapshot)) = self.next(&mut done) {
            if let Err(error) = self.store.save(snapshot, self.keep).await {
                tracing::warn!(%stream, %error, "a snapshot was not saved");
            }
        }
    }

    /// What is saved next. Without any, the task is done, before another could come in.
    fn next(&self, done: &mut Done) -> Option<(StreamId, NewSnapshot)> {
        let mut waiting = self.lock();
        let next = waiting.snapshots.pop_first();
        if next.is_none() {
            waiting.at_work = false;
            done.finished = true;
            self.at_work.send_replace(false);
        }
        next
    }

    pub(super) async fn flush(&self) {
        let mut at_work = self.at_work.subscribe();
        let _ = at_work.wait_for(|at_work| !at_work).await;
    }
}

/// A task that is dropped half way (its runtime ends) leaves nobody waiting.
struct Done {
    keeper: Arc<Keeper>,
    finished: bool,
}

impl Drop for Done {
    fn drop(&mut self) {
        if !self.finished {
            self.keeper.lock().at_work = false;
            self.keeper.at_work.send_replace(false);
        }
    }
}
