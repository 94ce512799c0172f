//! Characters typed in one go.
//!
//! Invariant: the characters have consecutive dots and times, and each one's origin is the one
//! before. Either all are live, and `text` has `len` characters, or all are deleted, by consecutive
//! events, and `text` is empty.

use crate::actor::DotIx;
use crate::ranges::Ranges;

/// The most characters of a live span: what an insert in its middle has to copy.
pub(crate) const LIVE_MAX: u64 = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) dot: DotIx,
    pub(crate) len: u64,
    pub(crate) lamport: u64,
    pub(crate) origin: Option<DotIx>,
    /// The event that deleted the first character.
    pub(crate) dead: Option<DotIx>,
    pub(crate) text: String,
}

pub(crate) fn plus(dot: DotIx, by: u64) -> DotIx {
    DotIx::new(dot.actor(), dot.seq() + by)
}

/// Where the `at`-th character begins.
pub(crate) fn byte_of(text: &str, at: u64) -> usize {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    if text.len() <= at {
        return text.len();
    }
    text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
}

impl Span {
    pub(crate) fn last_seq(&self) -> u64 {
        self.dot.seq() + self.len - 1
    }

    pub(crate) fn visible(&self) -> usize {
        if self.dead.is_some() { 0 } else { usize::try_from(self.len).unwrap_or(0) }
    }

    /// `len` characters from the `from`-th on.
    pub(crate) fn slice(&self, from: u64, len: u64) -> Self {
        let text = if self.dead.is_some() {
            String::new()
        } else {
            let begin = byte_of(&self.text, from);
            let end = begin + byte_of(&self.text[begin..], len);
            self.text[begin..end].to_owned()
        };
        Self {
            dot: plus(self.dot, from),
            len,
            lamport: self.lamport + from,
            origin: if from == 0 { self.origin } else { Some(plus(self.dot, from - 1)) },
            dead: self.dead.map(|dead| plus(dead, from)),
            text,
        }
    }

    /// Keeps the first `at` characters and returns the rest.
    pub(crate) fn split_off(&mut self, at: u64) -> Self {
        let rest = self.slice(at, self.len - at);
        if self.dead.is_none() {
            self.text.truncate(byte_of(&self.text, at));
        }
        self.len = at;
        rest
    }

    pub(crate) fn bury(&mut self, by: DotIx) {
        self.dead = Some(by);
        self.text = String::new();
    }

    /// Does `next` go on where this ends, as if typed in one go?
    pub(crate) fn continues(&self, next: &Self) -> bool {
        next.dot.actor() == self.dot.actor()
            && next.dot.seq() == self.dot.seq() + self.len
            && next.lamport == self.lamport + self.len
            && next.origin == Some(plus(self.dot, self.len - 1))
            && match (self.dead, next.dead) {
                (None, None) => true,
                (Some(a), Some(b)) => a.actor() == b.actor() && b.seq() == a.seq() + self.len,
                _ => false,
            }
    }

    pub(crate) fn renumber(&self, to_mine: &[u32]) -> Self {
        let map = |dot: DotIx| DotIx::new(to_mine[dot.actor() as usize], dot.seq());
        Self {
            dot: map(self.dot),
            origin: self.origin.map(map),
            dead: self.dead.map(map),
            ..self.clone()
        }
    }

    /// Where both have characters of one dot, are they the same?
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let from = self.dot.seq().max(other.dot.seq());
        let to = self.last_seq().min(other.last_seq());
        if from > to {
            return true;
        }
        let (a, b) = (from - self.dot.seq(), from - other.dot.seq());
        if self.lamport + a != other.lamport + b {
            return false;
        }
        let origin = |span: &Self, at: u64| {
            if at == 0 { span.origin } else { Some(plus(span.dot, at - 1)) }
        };
        if origin(self, a) != origin(other, b) {
            return false;
        }
        self.dead.is_some()
            || other.dead.is_some()
            || self.text[byte_of(&self.text, a)..]
                .chars()
                .zip(other.text[byte_of(&other.text, b)..].chars())
                .take(usize::try_from(to - from + 1).unwrap_or(usize::MAX))
                .all(|(x, y)| x == y)
    }

    /// The parts of which `known` lacks the insertion or the deletion.
    pub(crate) fn lacking<'a>(&self, known: &impl Fn(u32) -> &'a Ranges) -> Vec<Self> {
        let all = Ranges::from_iter([(self.dot.seq(), self.last_seq())]);
        let mut wanted = all.minus(known(self.dot.actor()));
        if let Some(dead) = self.dead {
            let deletions = Ranges::from_iter([(dead.seq(), dead.seq() + self.len - 1)]);
            for (lo, hi) in deletions.minus(known(dead.actor())).iter() {
                let first = self.dot.seq() + (lo - dead.seq());
                wanted.insert(first, first + (hi - lo));
            }
        }
        wanted.iter().map(|(lo, hi)| self.slice(lo - self.dot.seq(), hi - lo + 1)).collect()
    }
}
