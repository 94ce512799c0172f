//! What happens to the bytes from one node to another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::random::Random;

/// TCP sends a lost segment again after this long, and doubles it for each further loss (RFC 6298
/// says a second; Linux takes 200 ms between near hosts).
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// How often a segment is lost in a row at most.
const LOSSES_MAX: u32 = 5;

/// What happens to bytes on their way from one node to another. The default is nothing.
///
/// A proxy sees streams, not packets. So `loss` is what TCP makes of a lost segment: a stall. A
/// chunk of bytes is lost with the given probability, again and again, and each time it waits for
/// the retransmission time-out, 200 ms first and then twice as long; bytes behind it wait too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Rules {
    /// Nothing passes: bytes wait, as TCP would send them again until the partition is healed.
    pub blocked: bool,
    /// Bytes arrive so much later.
    pub delay: Duration,
    /// And up to so much later still, chosen at random for each chunk; the order stays.
    pub jitter: Duration,
    /// How likely a chunk is lost, from 0 to 1 (without 1).
    pub loss: f64,
    /// Bytes a second at most.
    pub bytes_per_second: Option<u64>,
}

/// All connections' bytes from one node to another.
#[derive(Debug)]
pub(super) struct Flow {
    rules: RwLock<Rules>,
    changed: watch::Sender<u64>,
    random: Mutex<Random>,
    /// How often a chunk was lost.
    pub(super) stalls: AtomicU64,
}

impl Flow {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rules: RwLock::default(),
            changed: watch::Sender::new(0),
            random: Mutex::new(Random::new(seed)),
            stalls: AtomicU64::new(0),
        }
    }

    pub(super) fn rules(&self) -> Rules {
        *self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the return on, no byte passes that the rules do not let pass: bytes are only passed on
    /// while the lock is held for reading.
    pub(super) fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|version| *version += 1);
    }

    /// Does something that passes bytes, if they may pass now.
    pub(super) fn if_open<T>(&self, pass: impl FnOnce() -> T) -> Option<T> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        (!rules.blocked).then(pass)
    }

    /// Waits until bytes may pass.
    pub(super) async fn opened(&self) {
        let mut changed = self.changed.subscribe();
        while self.rules().blocked {
            // The sender lives as long as `self`.
            _ = changed.changed().await;
        }
    }

    /// How much later a chunk arrives, by delay and jitter.
    pub(super) fn delay(&self) -> Duration {
        let rules = self.rules();
        if rules.jitter.is_zero() {
            return rules.delay;
        }
        let unit = unit(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner));
        rules.delay + rules.jitter.mul_f64(unit)
    }

    /// How long a chunk stalls, because it is lost and sent again.
    pub(super) fn stall(&self) -> Duration {
        let rules = self.rules();
        if rules.loss <= 0.0 {
            return Duration::ZERO;
        }
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let mut losses = 0;
        while losses < LOSSES_MAX && unit(&mut random) < rules.loss {
            losses += 1;
        }
        if losses == 0 {
            return Duration::ZERO;
        }
        self.stalls.fetch_add(1, Ordering::Relaxed);
        RETRANSMISSION * (2_u32.pow(losses) - 1)
    }

    /// How long so many bytes take at the flow's bandwidth.
    pub(super) fn transmission(&self, bytes: usize) -> Duration {
        let Some(rate) = self.rules().bytes_per_second else { return Duration::ZERO };
        let nanos =
            u128::try_from(bytes).unwrap_or(u128::MAX) * 1_000_000_000 / u128::from(rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A number from 0 to 1, without 1.
#[allow(clippy::cast_precision_loss)] // 53 bits are what an f64 holds exactly.
fn unit(random: &mut Random) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A fault that waits for a request with certain bytes in it.
#[derive(Debug)]
pub(super) struct Trap {
    pub(super) when: Vec<u8>,
    pub(super) action: TrapAction,
    /// How often it is still to happen.
    pub(super) left: u64,
}

/// What happens to a request that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrapAction {
    /// It gets there, its answer does not get back, and the connection breaks.
    EatAnswer,
    /// It does not get there, and the connection breaks.
    DropRequest,
}

/// The traps of a link, and how often they were sprung.
#[derive(Debug, Default)]
pub(super) struct Traps {
    armed: Mutex<Vec<Trap>>,
    pub(super) sprung: AtomicU64,
}

impl Traps {
    pub(super) fn arm(&self, trap: Trap) {
        self.lock().push(trap);
    }

    /// Takes all traps off; how many did not happen as often as they should have.
    pub(super) fn disarm(&self) -> usize {
        let mut armed = self.lock();
        let left = armed.iter().filter(|trap| trap.left > 0).count();
        armed.clear();
        left
    }

    /// What is to happen to a request, given its bytes and the end of those before.
    pub(super) fn spring(&self, seen: &mut VecDeque<u8>, bytes: &[u8]) -> Option<TrapAction> {
        let mut armed = self.lock();
        let longest = armed.iter().map(|trap| trap.when.len()).max()?;
        seen.extend(bytes);
        let text = seen.make_contiguous();
        let found = armed.iter_mut().find(|trap| {
            trap.left > 0 && text.windows(trap.when.len().max(1)).any(|part| part == trap.when)
        });
        let action = found.map(|trap| {
            trap.left -= 1;
            trap.action
        });
        let keep = longest.saturating_sub(1).min(seen.len());
        seen.drain(..seen.len() - keep);
        action
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Trap>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_sees_what_comes_in_two_parts() {
        let traps = Traps::default();
        traps.arm(Trap { when: b"COMMIT".to_vec(), action: TrapAction::EatAnswer, left: 1 });
        let mut seen = VecDeque::new();
        assert_eq!(traps.spring(&mut seen, b"SELECT 1; COM"), None);
        assert_eq!(traps.spring(&mut seen, b"MIT"), Some(TrapAction::EatAnswer));
        assert_eq!(traps.spring(&mut seen, b"COMMIT"), None, "once is enough");
        assert_eq!(traps.disarm(), 0);
    }

    #[test]
    fn loss_is_a_stall() {
        let flow = Flow::new(1);
        assert_eq!(flow.stall(), Duration::ZERO);
        flow.change(|rules| rules.loss = 0.5);
        let stalls: Vec<_> = (0..100).map(|_| flow.stall()).collect();
        let stalled = stalls.iter().filter(|stall| **stall >= RETRANSMISSION).count();
        assert!((20..80).contains(&stalled), "{stalled}");
        assert_eq!(flow.stalls.load(Ordering::Relaxed), stalled as u64);
    }
}
