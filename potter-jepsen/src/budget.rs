//! Bounds on time and memory that every checker keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::verdict::{Reason, ReasonKind};

/// How much a check may cost. At a limit the verdict is `Unknown`, never a guess.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Budget {
    /// Wall time for one check.
    pub time: Duration,
    /// Bytes that the search may hold, beside the history itself.
    pub bytes: usize,
    cancel: Arc<AtomicBool>,
}

impl Default for Budget {
    /// One minute, 1 GiB.
    fn default() -> Self {
        Self::new(Duration::from_secs(60), 1 << 30)
    }
}

impl Budget {
    /// A budget of `time` and `bytes`.
    pub fn new(time: Duration, bytes: usize) -> Self {
        Self { time, bytes, cancel: Arc::default() }
    }

    /// A flag that ends every check with this budget, from any thread, as soon as it is set.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.cancel.clone()
    }

    pub(crate) fn start(&self) -> Meter {
        Meter {
            deadline: Instant::now().checked_add(self.time),
            bytes_max: self.bytes,
            bytes: Arc::default(),
            cancel: self.cancel.clone(),
            lost: Vec::new(),
            ticks: 0,
        }
    }
}

/// A started budget. Clones share the bytes and the stop flag, and count their own ticks.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    deadline: Option<Instant>,
    bytes_max: usize,
    bytes: Arc<AtomicUsize>,
    cancel: Arc<AtomicBool>,
    /// Another thread has the answer: of the races that this search takes part in.
    lost: Vec<Arc<AtomicBool>>,
    ticks: u32,
}

impl Meter {
    /// To be called at every step of a search; looks at the clock at every 256th.
    pub(crate) fn tick(&mut self) -> Result<(), Reason> {
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(256) { self.check() } else { Ok(()) }
    }

    /// Looks at the clock, the bytes and the flags now.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Reason::new(ReasonKind::Cancelled, "the check was cancelled"));
        }
        if self.lost.iter().any(|lost| lost.load(Ordering::Relaxed)) {
            return Err(Reason::new(ReasonKind::Cancelled, "another search was faster"));
        }
        if self.bytes.load(Ordering::Relaxed) > self.bytes_max {
            let message = format!("the search needs more than {} bytes", self.bytes_max);
            return Err(Reason::new(ReasonKind::MemoryLimit, message));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Reason::new(ReasonKind::TimeLimit, "the time limit was reached"));
        }
        Ok(())
    }

    pub(crate) fn grow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn shrink(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A meter for one of several racing searches, with the flag that stops only those.
    pub(crate) fn racer(&self) -> (Self, Arc<AtomicBool>) {
        let lost = Arc::new(AtomicBool::new(false));
        let mut racer = self.clone();
        racer.lost.push(lost.clone());
        (racer, lost)
    }

    /// This clock with the bytes and flags of `other`.
    pub(crate) fn sharing(&self, other: &Self) -> Self {
        Self { deadline: self.deadline, ..other.clone() }
    }

    pub(crate) fn left(&self) -> Duration {
        match self.deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }
}
