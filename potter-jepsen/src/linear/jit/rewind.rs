//! Ways back for a narrow pass: where it dies, it returns to an earlier moment and tries again with
//! more configurations, for as long as the hard part lasts.

use super::config::Config;

/// A moment to which a pass can return.
pub(super) struct Checkpoint<L> {
    /// The event that came next.
    pub(super) event: usize,
    pub(super) live: L,
}

/// So many events lie between two checkpoints, at least.
const APART: usize = 48;

/// So many checkpoints are kept; the older, the further apart.
const KEPT: usize = 12;

/// How often in a row a pass may return before it gives up.
const RETURNS: u32 = 3;

/// How much wider a pass is after each return.
const WIDER: usize = 4;

pub(super) struct Rewind<L> {
    checkpoints: Vec<Checkpoint<L>>,
    /// How often it returned because of the part that it is in.
    returns: u32,
    /// Behind this event that part is over.
    until: usize,
}

impl<L> Rewind<L> {
    pub(super) fn new() -> Self {
        Self { checkpoints: Vec::new(), returns: 0, until: 0 }
    }

    /// How many configurations to keep at `event`, if it is `width` in easy parts.
    pub(super) fn width(&mut self, event: usize, width: usize) -> usize {
        if event > self.until {
            self.returns = 0;
        }
        width.saturating_mul(WIDER.pow(self.returns))
    }

    pub(super) fn due(&self, event: usize) -> bool {
        self.checkpoints.last().is_none_or(|last| event >= last.event + APART)
    }

    pub(super) fn remember(&mut self, event: usize, live: L) {
        self.checkpoints.push(Checkpoint { event, live });
        if self.checkpoints.len() > KEPT {
            // Of three neighbours that are close for their age, the middle one goes.
            let gap = |n: usize| self.checkpoints[n + 1].event - self.checkpoints[n - 1].event;
            let age = |n: usize| event - self.checkpoints[n].event;
            let close = (1..KEPT - 1).rev().find(|&n| gap(n) <= age(n));
            self.checkpoints.remove(close.unwrap_or(1));
        }
    }

    /// Where to go on after `event` could not be explained: the further back, the more often that
    /// happened. The checkpoint stays.
    pub(super) fn back(&mut self, event: usize) -> Option<&Checkpoint<L>> {
        if event > self.until {
            self.returns = 0;
        }
        self.returns += 1;
        if self.returns > RETURNS {
            return None;
        }
        self.until = self.until.max(event + APART);
        // The last one may be too close to what went wrong.
        let depth = self.returns as usize + usize::from(self.returns > 1);
        let at = self.checkpoints.len().saturating_sub(depth);
        self.checkpoints.truncate(at + 1);
        self.checkpoints.last()
    }

    /// The configurations of all checkpoints.
    pub(super) fn frontiers<const N: usize>(
        &mut self,
        of: fn(&mut L) -> &mut Vec<Config<N>>,
    ) -> impl Iterator<Item = &mut Config<N>> {
        self.checkpoints.iter_mut().flat_map(move |checkpoint| of(&mut checkpoint.live).iter_mut())
    }
}
