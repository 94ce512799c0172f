//! Virtual time, chance, and tasks: a small executor that does the same each time.
//!
//! Tasks are polled in the order in which they were woken; timers fire by time, then by the order in
//! which they were set. Nothing depends on addresses, hash seeds, threads or real clocks.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::random::Random;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a simulated system has in place of a machine. Clones are the same.
#[derive(Clone)]
pub struct Env {
    inner: Arc<Mutex<Inner>>,
    ready: Arc<Mutex<VecDeque<u64>>>,
}

struct Inner {
    now: Duration,
    random: Random,
    timers: BTreeMap<(Duration, u64), Waker>,
    next_timer: u64,
    /// `None` while the task is being polled.
    tasks: BTreeMap<u64, Option<Task>>,
    next_task: u64,
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Env {
    pub(super) fn new(seed: u64) -> Self {
        let inner = Inner {
            now: Duration::ZERO,
            random: Random::new(seed),
            timers: BTreeMap::new(),
            next_timer: 0,
            tasks: BTreeMap::new(),
            next_task: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), ready: Arc::default() }
    }

    /// The time since the simulation began.
    pub fn now(&self) -> Duration {
        lock(&self.inner).now
    }

    /// Chance: the numbers that follow from the seed.
    pub fn random<T>(&self, take: impl FnOnce(&mut Random) -> T) -> T {
        take(&mut lock(&self.inner).random)
    }

    /// A random time from `low` to `high`.
    pub fn between(&self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX - 1);
        low + Duration::from_nanos(self.random(|random| random.below(span.saturating_add(1))))
    }

    /// Waits, in virtual time.
    pub async fn sleep(&self, length: Duration) {
        let due = self.now().saturating_add(length);
        Sleep { env: self.clone(), due, set: false }.await;
    }

    /// Waits for `work`, at most this long; `None` if it took longer, and `work` is dropped.
    pub async fn timeout<T>(
        &self,
        length: Duration,
        work: impl Future<Output = T> + Send,
    ) -> Option<T> {
        let due = self.now().saturating_add(length);
        let sleep = Sleep { env: self.clone(), due, set: false };
        Timeout { work: Box::pin(work), sleep }.await
    }

    /// Runs `work` on its own, whether or not anybody waits for what is returned here.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let task: Task = Box::pin(async move { _ = sender.send(work.await) });
        let mut inner = lock(&self.inner);
        let id = inner.next_task;
        inner.next_task += 1;
        inner.tasks.insert(id, Some(task));
        lock(&self.ready).push_back(id);
        receiver
    }

    /// Polls the next task that is ready; `false` if none is.
    pub(super) fn poll_one(&self) -> bool {
        let Some(id) = lock(&self.ready).pop_front() else { return false };
        let Some(mut task) = lock(&self.inner).tasks.get_mut(&id).and_then(Option::take) else {
            return true;
        };
        let waker = Waker::from(Arc::new(Ready { id, ready: self.ready.clone() }));
        let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut inner = lock(&self.inner);
        if done {
            inner.tasks.remove(&id);
        } else if let Some(place) = inner.tasks.get_mut(&id) {
            *place = Some(task);
        }
        true
    }

    /// Moves time to the first timer, but not beyond `limit`, and wakes who waits for it. `false` if
    /// there is neither.
    pub(super) fn advance(&self, limit: Option<Duration>) -> bool {
        let mut inner = lock(&self.inner);
        let timer = inner.timers.first_key_value().map(|((due, _), _)| *due);
        let Some(next) = [timer, limit].into_iter().flatten().min() else { return false };
        inner.now = inner.now.max(next);
        let mut woken = Vec::new();
        while let Some(first) = inner.timers.first_entry() {
            if first.key().0 > next {
                break;
            }
            woken.push(first.remove());
        }
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
        true
    }

    /// Drops all tasks. They hold clones of this, and would keep each other alive.
    pub(super) fn clear(&self) {
        let tasks = std::mem::take(&mut lock(&self.inner).tasks);
        drop(tasks);
        lock(&self.inner).timers.clear();
    }
}

struct Ready {
    id: u64,
    ready: Arc<Mutex<VecDeque<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).push_back(self.id);
    }
}

struct Sleep {
    env: Env,
    due: Duration,
    set: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = lock(&self.env.inner);
        if inner.now >= self.due {
            return Poll::Ready(());
        }
        if !self.set {
            let timer = (self.due, inner.next_timer);
            inner.next_timer += 1;
            inner.timers.insert(timer, context.waker().clone());
            drop(inner);
            self.set = true;
        }
        Poll::Pending
    }
}

struct Timeout<'w, T> {
    work: Pin<Box<dyn Future<Output = T> + Send + 'w>>,
    sleep: Sleep,
}

impl<T> Future for Timeout<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Poll::Ready(value) = self.work.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| None)
    }
}
