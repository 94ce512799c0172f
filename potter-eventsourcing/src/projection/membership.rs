//! A worker's lease, and its share of the segments.
//!
//! A task of its own renews the lease, so that a long batch does not lose it, and looks who else
//! is there. Each elastic worker works out its share from the same list: the one at place r of n
//! gets floor(segments / n) and one more while r is below the remainder. Who has more gives some
//! up between two batches, who has less takes what is free; nobody coordinates.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::checkpoints::{Checkpoints, Membership, WorkerId};
use super::options::Partition;
use crate::error::Result;

/// After how long a worker first looks who else came.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// Keeps a worker's lease until it is dropped.
#[derive(Debug)]
pub(super) struct Heart {
    task: tokio::task::JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    seen: watch::Receiver<Membership>,
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who beats.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) checkpoints: Arc<dyn Checkpoints>,
    pub(super) projection: String,
    pub(super) version: u32,
    pub(super) id: Uuid,
    pub(super) partition: Option<Partition>,
    pub(super) lease: Duration,
}

impl Member {
    pub(super) fn worker(&self) -> WorkerId<'_> {
        WorkerId { projection: &self.projection, version: self.version, id: self.id }
    }

    async fn beat(&self) -> Result<Membership> {
        self.checkpoints.heartbeat(self.worker(), self.partition, self.lease).await
    }
}

impl Heart {
    /// The first beat, and a task for the others.
    pub(super) async fn start(member: Member) -> Result<Self> {
        let (tell, seen) = watch::channel(member.beat().await?);
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let interval = (member.lease / 5).min(Duration::from_secs(2));
            // Who comes together finds together soon; then there is less to see.
            let mut wait = FIRST_LOOK.min(interval);
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    () = tokio::time::sleep(wait) => {}
                }
                match member.beat().await {
                    Ok(now) => {
                        let changed = tell.send_if_modified(|before| {
                            let changed = *before != now;
                            *before = now;
                            changed
                        });
                        wait = if changed { FIRST_LOOK } else { wait * 2 }.min(interval);
                    }
                    Err(error) => {
                        tracing::warn!(projection = member.projection, %error, "a worker's lease was not renewed");
                    }
                }
            }
        });
        Ok(Self { task, stop: Some(stop), seen })
    }

    /// Ends with the beat under way: one that came after the worker has left would bring it back,
    /// until that lease ends.
    pub(super) async fn stop(&mut self) {
        self.stop = None;
        let _ = (&mut self.task).await;
    }

    pub(super) fn seen(&self) -> Membership {
        self.seen.borrow().clone()
    }

    /// Returns when somebody came or went, or the projection was told something.
    pub(super) async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// How many segments worker `id` should own.
pub(super) fn share(
    membership: &Membership,
    id: Uuid,
    partition: Option<Partition>,
    segments: u16,
) -> usize {
    if let Some(Partition { key, total }) = partition {
        return (0..segments).filter(|segment| segment % total == key).count();
    }
    let place = membership.elastic.iter().position(|worker| *worker == id);
    let (Some(place), workers) = (place, membership.elastic.len()) else { return 0 };
    let segments = usize::from(segments);
    segments / workers + usize::from(place < segments % workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_even() {
        for workers in 1..=70_u128 {
            let elastic: Vec<_> = (1..=workers).map(Uuid::from_u128).collect();
            let membership = Membership { elastic: elastic.clone(), ..Membership::default() };
            let shares: Vec<_> =
                elastic.iter().map(|id| share(&membership, *id, None, 64)).collect();
            assert_eq!(shares.iter().sum::<usize>(), 64, "{workers} workers");
            let (most, least) = (shares.iter().max().unwrap(), shares.iter().min().unwrap());
            assert!(most - least <= 1, "{shares:?}");
        }
    }

    #[test]
    fn partitions_add_up() {
        let none = Membership::default();
        for total in 1..=70 {
            let of = |key| share(&none, Uuid::nil(), Some(Partition { key, total }), 64);
            assert_eq!((0..total).map(of).sum::<usize>(), 64, "{total} partitions");
        }
    }
}
