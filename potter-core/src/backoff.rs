//! How long to wait before trying again, and when to give up.

use std::time::Duration;

/// A retry schedule: a shape (fixed or exponential), a cap, jitter, a limit on attempts and on
/// the time in all. Pure: the random number is an argument, so that a schedule can be replayed.
///
/// Defaults: exponential from 50 ms, doubled, capped at 30 s, full jitter, 10 attempts, no
/// deadline. Full jitter as in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
///
/// ```
/// use std::time::Duration;
/// use potter_core::Backoff;
///
/// let backoff = Backoff::exponential(Duration::from_millis(100))
///     .cap(Duration::from_secs(1))
///     .max_attempts(4)
///     .no_jitter();
/// let waits: Vec<_> = (1..=4).map(|failed| backoff.delay(failed, Duration::ZERO, 0.0)).collect();
/// assert_eq!(waits[0], Some(Duration::from_millis(100)));
/// assert_eq!(waits[2], Some(Duration::from_millis(400)));
/// assert_eq!(waits[3], None, "the fourth failure was the last attempt");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    factor: f64,
    cap: Duration,
    jitter: bool,
    attempts_max: Option<u32>,
    deadline: Option<Duration>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(50))
    }
}

impl Backoff {
    /// Doubles from `initial`, with full jitter, capped at 30 s, 10 attempts.
    pub fn exponential(initial: Duration) -> Self {
        Self {
            initial,
            factor: 2.0,
            cap: Duration::from_secs(30),
            jitter: true,
            attempts_max: Some(10),
            deadline: None,
        }
    }

    /// The same wait each time, without jitter, 10 attempts.
    pub fn fixed(delay: Duration) -> Self {
        Self { factor: 1.0, jitter: false, cap: delay, ..Self::exponential(delay) }
    }

    /// One attempt, no retry.
    pub fn never() -> Self {
        Self::fixed(Duration::ZERO).max_attempts(1)
    }

    /// What each wait is multiplied by (1.0 or more; less is taken as 1.0).
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        self
    }

    /// The longest wait.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Attempts in all, the first included (at least 1).
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.attempts_max = Some(attempts.max(1));
        self
    }

    /// No limit on attempts: set a [`deadline`](Self::deadline), or mean it.
    #[must_use]
    pub fn unlimited(mut self) -> Self {
        self.attempts_max = None;
        self
    }

    /// Gives up when the next attempt would start later than this after the first.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Waits the whole computed time.
    #[must_use]
    pub fn no_jitter(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// Waits a uniformly random part of the computed time ("full jitter").
    #[must_use]
    pub fn full_jitter(mut self) -> Self {
        self.jitter = true;
        self
    }

    /// Attempts in all, or `None` for no limit.
    pub fn attempts_max(&self) -> Option<u32> {
        self.attempts_max
    }

    /// The wait after `failed` attempts failed (1 or more), `elapsed` after the first began;
    /// `None` to give up. `random` is uniform in `[0, 1)`.
    pub fn delay(&self, failed: u32, elapsed: Duration, random: f64) -> Option<Duration> {
        if self.attempts_max.is_some_and(|max| failed >= max) {
            return None;
        }
        let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial.as_secs_f64() * self.factor.powi(exponent);
        let full = if seconds < self.cap.as_secs_f64() {
            Duration::try_from_secs_f64(seconds).unwrap_or(self.cap)
        } else {
            self.cap
        };
        let wait = if self.jitter { full.mul_f64(random.clamp(0.0, 1.0)) } else { full };
        if self.deadline.is_some_and(|deadline| elapsed.saturating_add(wait) > deadline) {
            return None;
        }
        Some(wait)
    }
}

/// A uniform random number in `[0, 1)` for [`Backoff::delay`] outside of replayed schedules.
pub fn jitter() -> f64 {
    // 53 random bits of a version 4 UUID: all that an f64 in [0, 1) can hold.
    let bits = (uuid::Uuid::new_v4().as_u128() & ((1 << 53) - 1)) as u64;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    let random = bits as f64 / (1u64 << 53) as f64;
    random
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop_assert, proptest};

    use super::*;

    #[test]
    fn exponential_really_is_exponential() {
        let backoff = Backoff::exponential(Duration::from_secs(1)).no_jitter();
        let waits: Vec<_> = (1..=6).filter_map(|n| backoff.delay(n, Duration::ZERO, 0.5)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30].map(Duration::from_secs));
    }

    #[test]
    fn a_deadline_counts_the_wait_to_come() {
        let backoff = Backoff::fixed(Duration::from_secs(2)).deadline(Duration::from_secs(5));
        assert!(backoff.delay(1, Duration::from_secs(3), 0.0).is_some());
        assert!(backoff.delay(1, Duration::from_secs(4), 0.0).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn never_panics_and_never_exceeds_the_cap(
            initial in 0u64..u64::MAX / 2, failed: u32, random in 0.0f64..1.0, factor: f64,
        ) {
            let cap = Duration::from_secs(30);
            let backoff = Backoff::exponential(Duration::from_nanos(initial)).factor(factor).unlimited();
            let wait = backoff.delay(failed, Duration::ZERO, random);
            prop_assert!(wait.is_some_and(|wait| wait <= cap));
        }
    }
}
