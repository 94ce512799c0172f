//! Nodes that can't be reached: how long a client waits before it tries again, and what the log says.
//!
//! A server that is down refuses at once. Clients that try again at once would fill the history and the
//! log with refusals, use up the operations of the test, and take the processor that whoever heals the
//! server needs. So:
//!
//! 1. A client waits after each failure in a row, twice as long as the last time and up to
//!    [`PAUSE_MAX`], less a random part, so that they do not all come back at once.
//! 2. It waits before its operation counts as completed: until then its thread gets no other, and those
//!    that can be done go to clients that reach their node. Heal waits for no client.
//! 3. The log tells when a node is lost and when it is there again, not each refusal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use crate::random::Random;

/// The longest pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// A node that comes and goes is told of at most so often.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The pauses of one client.
#[derive(Debug)]
pub(super) struct Pauses {
    failures: u32,
    random: Random,
}

impl Pauses {
    pub(super) fn new(seed: u64) -> Self {
        Self { failures: 0, random: Random::new(seed) }
    }

    /// How long to wait after one more failure: from half of the step to all of it.
    pub(super) fn next(&mut self) -> Duration {
        let step = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        let half = u64::try_from(step.as_micros() / 2).unwrap_or(u64::MAX);
        Duration::from_micros(half + self.random.below(half + 1))
    }

    /// The node was reached. `true`: it was not, the last time.
    pub(super) fn reset(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

/// What all clients know of all nodes, for the log.
#[derive(Debug)]
pub(super) struct Reach {
    log: broadcast::Sender<Arc<str>>,
    nodes: Mutex<BTreeMap<String, Node>>,
}

#[derive(Debug, Default)]
struct Node {
    refusals: u64,
    /// When the log was told that it is lost.
    told: Option<Instant>,
    lost: bool,
}

impl Reach {
    pub(super) fn new(log: broadcast::Sender<Arc<str>>) -> Self {
        Self { log, nodes: Mutex::default() }
    }

    pub(super) fn lost(&self, name: &str, why: &str) {
        self.change(name, |node| {
            node.refusals += 1;
            let told_lately = node.told.is_some_and(|told| told.elapsed() < TELL_EVERY);
            if node.lost || told_lately {
                return None;
            }
            (node.lost, node.told) = (true, Some(Instant::now()));
            Some(format!("{name} can't be reached: {why}"))
        });
    }

    pub(super) fn found(&self, name: &str) {
        self.change(name, |node| {
            if !std::mem::take(&mut node.lost) {
                return None;
            }
            let refusals = std::mem::take(&mut node.refusals);
            Some(format!("{name} is reached again, after {refusals} tries that failed"))
        });
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Node) -> Option<String>) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let line = change(nodes.entry(name.to_owned()).or_default());
        drop(nodes);
        if let Some(line) = line {
            tracing::info!(target: "potter_jepsen::runner", "{line}");
            _ = self.log.send(line.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let pauses = |seed| {
            let mut pauses = Pauses::new(seed);
            let all: Vec<Duration> = (0..40).map(|_| pauses.next()).collect();
            assert!(pauses.reset() && !pauses.reset());
            assert!(pauses.next() <= PAUSE_FIRST, "from the beginning again");
            all
        };
        let (one, other) = (pauses(1), pauses(2));
        for (n, pause) in one.iter().enumerate() {
            let step = PAUSE_FIRST.saturating_mul(1 << n.min(20)).min(PAUSE_MAX);
            assert!((step / 2..=step).contains(pause), "{n}: {pause:?}");
        }
        assert_eq!(one.iter().zip(&other).filter(|(a, b)| a == b).count(), 0);
    }

    #[test]
    fn the_log_is_told_of_changes_only() {
        let (log, mut lines) = broadcast::channel(100);
        let reach = Reach::new(log);
        for _ in 0..1000 {
            reach.lost("n1", "refused");
        }
        reach.lost("n2", "no route");
        reach.found("n1");
        reach.found("n1");
        // It comes and goes: not told again so soon.
        for _ in 0..1000 {
            reach.lost("n1", "refused");
            reach.found("n1");
        }
        let said: Vec<String> =
            std::iter::from_fn(|| lines.try_recv().ok()).map(|line| line.to_string()).collect();
        assert_eq!(
            said,
            [
                "n1 can't be reached: refused",
                "n2 can't be reached: no route",
                "n1 is reached again, after 1000 tries that failed",
            ]
        );
    }
}
