//! Instants, stamps and the hybrid logical clock.
//!
//! Invariant: a clock's stamps rise strictly, whatever the wall clock does, and are above every
//! stamp that it took in (Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks",
//! 2014). A stamp too far in the future is refused and does not move the clock.

use std::time::Duration;

use crate::{ActorId, Error, ErrorKind, Result, Timestamp};

/// When and by whom something was written; the order of last-writer-wins.
///
/// Ordered by instant, then counter, then node. [`crate::LwwRegister`] adds the bytes of the value
/// as the last resort, so two writes never tie.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// The instant by the writer's clock.
    pub at: Timestamp,
    /// Tells stamps of one instant apart.
    pub counter: u32,
    /// Who wrote.
    pub node: ActorId,
}

impl Stamp {
    /// A stamp of a plain timestamp, counter 0.
    pub fn new(at: Timestamp, node: ActorId) -> Self {
        Self { at, counter: 0, node }
    }

    /// The smallest stamp of `node` that is above `other`.
    fn after(at: Timestamp, counter: u32, node: ActorId) -> Result<Self> {
        Ok(match counter.checked_add(1) {
            Some(counter) => Self { at, counter, node },
            // The counter carries into the instant.
            None => Self { at: at.plus(Duration::from_nanos(1))?, counter: 0, node },
        })
    }
}

/// A hybrid logical clock.
///
/// Pure: the caller reads the wall clock. Persist [`Hlc::last`] and give it back to [`Hlc::resume`]
/// so that stamps rise across restarts too.
#[derive(Debug)]
pub struct Hlc {
    node: ActorId,
    last: Option<(Timestamp, u32)>,
    ahead_max: Duration,
}

impl Hlc {
    /// How far ahead of the wall clock a stamp from elsewhere may be by default: 60 s.
    pub const AHEAD_MAX: Duration = Duration::from_secs(60);

    /// A clock of `node`.
    pub fn new(node: ActorId) -> Self {
        Self { node, last: None, ahead_max: Self::AHEAD_MAX }
    }

    /// A clock that goes on above `last`.
    pub fn resume(node: ActorId, last: &Stamp) -> Self {
        Self { node, last: Some((last.at, last.counter)), ahead_max: Self::AHEAD_MAX }
    }

    /// Sets how far ahead a stamp from elsewhere may be.
    #[must_use]
    pub fn with_ahead_max(mut self, ahead_max: Duration) -> Self {
        self.ahead_max = ahead_max;
        self
    }

    /// The last stamp given or taken in.
    pub fn last(&self) -> Option<Stamp> {
        self.last.map(|(at, counter)| Stamp { at, counter, node: self.node.clone() })
    }

    /// A stamp above all before; `wall` is what the wall clock shows. A wall clock that stands or
    /// goes back is no error: the counter goes on.
    pub fn now(&mut self, wall: Timestamp) -> Result<Stamp> {
        let stamp = match self.last {
            Some((at, counter)) if at >= wall => Stamp::after(at, counter, self.node.clone())?,
            _ => Stamp::new(wall, self.node.clone()),
        };
        self.last = Some((stamp.at, stamp.counter));
        Ok(stamp)
    }

    /// A stamp above all before and above what was `read`, however far in the future that is: who
    /// reads and then writes wins over what it read.
    pub fn now_after(&mut self, wall: Timestamp, read: Option<&Stamp>) -> Result<Stamp> {
        let before = self.last;
        self.last = before.max(read.map(|stamp| (stamp.at, stamp.counter)));
        self.now(wall).inspect_err(|_| self.last = before)
    }

    /// Takes in a stamp from elsewhere: what is written here from now on is above it.
    /// [`ErrorKind::ClockAhead`] if it is too far ahead of `wall`; the clock does not move then.
    pub fn observe(&mut self, wall: Timestamp, stamp: &Stamp) -> Result<()> {
        if stamp.at > wall.plus(self.ahead_max).unwrap_or(Timestamp::MAX) {
            return Err(Error::new(
                ErrorKind::ClockAhead,
                format!(
                    "the stamp {} of {} is more than {:?} ahead of {wall}",
                    stamp.at, stamp.node, self.ahead_max
                ),
            ));
        }
        self.last = self.last.max(Some((stamp.at, stamp.counter)));
        Ok(())
    }
}

/// What a server makes of the stamps of one device: the past is accepted, a future beyond the
/// bound is set back to the server's time in the device's own order.
///
/// Invariant: of two stamps that were set back, the one that the device gave the greater stamp gets
/// the greater one. Keep one guard a device, and persist it, or ask [`SkewGuard::admit`] once an
/// operation and store the answer.
#[derive(Clone, Debug)]
pub struct SkewGuard {
    ahead_max: Duration,
    clamped: Option<(Stamp, Stamp)>,
}

/// The stamp under which an operation counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The stamp to store.
    pub effective: Stamp,
    /// How far the claimed stamp was ahead of the server, if it was set back.
    pub clamped_by: Option<Duration>,
}

impl Default for SkewGuard {
    fn default() -> Self {
        Self::new(Hlc::AHEAD_MAX)
    }
}

impl SkewGuard {
    /// A guard that accepts stamps up to `ahead_max` in the future.
    pub fn new(ahead_max: Duration) -> Self {
        Self { ahead_max, clamped: None }
    }

    /// A guard that goes on from [`SkewGuard::last`].
    ///
    /// ```
    /// use potter_crdt::{ActorId, SkewGuard, Stamp, Timestamp};
    ///
    /// let now = Timestamp::parse("2024-01-01T10:00:00Z")?;
    /// let wild = |at: &str| -> potter_crdt::Result<Stamp> {
    ///     Ok(Stamp::new(Timestamp::parse(at)?, ActorId::new("phone")?))
    /// };
    /// let mut guard = SkewGuard::default();
    /// let first = guard.admit(now, &wild("9999-01-01T00:00:00Z")?)?.effective;
    /// let mut guard = SkewGuard::default().resume(guard.last().cloned()); // after a restart
    /// let second = guard.admit(now, &wild("9999-01-01T00:00:01Z")?)?.effective;
    /// assert!(first < second && second.at == now);
    /// # Ok::<(), potter_crdt::Error>(())
    /// ```
    #[must_use]
    pub fn resume(mut self, last: Option<(Stamp, Stamp)>) -> Self {
        self.clamped = last;
        self
    }

    /// The greatest stamp that was set back, and what it was set to: to persist.
    pub fn last(&self) -> Option<&(Stamp, Stamp)> {
        self.clamped.as_ref()
    }

    /// What counts for a stamp that a device `claimed`, at the server's time `now`.
    pub fn admit(&mut self, now: Timestamp, claimed: &Stamp) -> Result<Admitted> {
        if claimed.at <= now.plus(self.ahead_max).unwrap_or(Timestamp::MAX) {
            return Ok(Admitted { effective: claimed.clone(), clamped_by: None });
        }
        let clamped_by = Some(claimed.at.since(now));
        let mut effective = Stamp::new(now, claimed.node.clone());
        if let Some((before, given)) = &self.clamped {
            if before == claimed {
                return Ok(Admitted { effective: given.clone(), clamped_by });
            }
            if before < claimed && *given >= effective {
                effective = Stamp::after(given.at, given.counter, claimed.node.clone())?;
            }
        }
        if self.clamped.as_ref().is_none_or(|(before, _)| before < claimed) {
            self.clamped = Some((claimed.clone(), effective.clone()));
        }
        Ok(Admitted { effective, clamped_by })
    }
}
