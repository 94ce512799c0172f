//! Who waits for news of a user, in this process.
//!
//! # Invariants
//! - The log is the truth, and a cursor says how much of it a device has. Everything here is a hint to
//!   look at the log, and may be lost, late, doubled or forged: who waits also looks from time to time,
//!   and at the end of the wait; who is told looks, and believes what it sees.
//! - A waiter listens before it looks. So what is committed after its look is told after it listens.
//! - Names, not users: a name is a keyed hash, so that what is told over a messenger says nothing.
//!
//! # Interleavings
//! | what happens | what holds |
//! |---|---|
//! | a commit between the look and the wait | the waiter was listening: it does not wait at all |
//! | a commit by another process, and a messenger | as above, when the message comes |
//! | the message is lost, or there is no messenger | the next look finds it |
//! | the messenger goes away during a wait | all are told: they look, and look more often from then on |
//! | it comes back | all are told, in all processes: what was lost meanwhile is found |
//! | the program stops | all are told, and answer with what there is |

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The waiters of a process, by the names of their users.
#[derive(Debug, Default)]
pub struct News {
    waiting: Mutex<HashMap<String, watch::Sender<()>>>,
    ended: AtomicBool,
}

/// Someone who listens; it is forgotten when this value goes.
#[derive(Debug)]
pub(super) struct Listener<'a> {
    news: &'a News,
    name: String,
    /// `None` while it goes.
    told: Option<watch::Receiver<()>>,
}

impl News {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who waits for this name.
    pub fn tell(&self, name: &str) {
        if let Some(waiting) = self.lock().get(name) {
            waiting.send_replace(());
        }
    }

    /// Wakes everybody.
    pub fn tell_all(&self) {
        for waiting in self.lock().values() {
            waiting.send_replace(());
        }
    }

    /// The program stops: nobody waits any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.tell_all();
    }

    /// Is there nothing to wait for any more?
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Listens from now on.
    pub(super) fn listen(&self, name: String) -> Listener<'_> {
        let told = {
            let mut waiting = self.lock();
            waiting.entry(name.clone()).or_insert_with(|| watch::Sender::new(())).subscribe()
        };
        Listener { news: self, name, told: Some(told) }
    }
}

impl Listener<'_> {
    /// What was told until now is looked at now.
    pub(super) fn looks(&mut self) {
        if let Some(told) = &mut self.told {
            told.mark_unchanged();
        }
    }

    /// Until it is told something.
    pub(super) async fn told(&mut self) {
        if let Some(told) = &mut self.told {
            // The sender is there as long as somebody listens.
            let _ = told.changed().await;
        }
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut waiting = self.news.lock();
        self.told = None;
        if waiting.get(&self.name).is_some_and(|sender| sender.receiver_count() == 0) {
            waiting.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_told(listener: &mut Listener<'_>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), listener.told()).await.is_ok()
    }

    #[tokio::test]
    async fn only_who_waits_for_a_name_is_told_and_nothing_is_left_behind() {
        let news = News::default();
        news.tell("nobody");
        let mut one = news.listen("ada".to_owned());
        let mut two = news.listen("ada".to_owned());
        let mut other = news.listen("bob".to_owned());
        // Told between the look and the wait.
        news.tell("ada");
        assert!(is_told(&mut one).await && is_told(&mut two).await && !is_told(&mut other).await);
        one.looks();
        assert!(!is_told(&mut one).await, "told once");
        news.tell_all();
        assert!(is_told(&mut one).await && is_told(&mut other).await);
        drop(one);
        news.tell("ada");
        assert!(is_told(&mut two).await, "the other still listens");
        drop((two, other));
        assert!(news.lock().is_empty());
    }
}
