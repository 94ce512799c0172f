//! Configurations, and which of them are worth keeping.

use rustc_hash::{FxHashMap, FxHashSet};

use super::super::problem::index;
use super::super::used::UsedSets;

/// A set of slots. A slot holds one running operation.
pub(super) type Mask<const N: usize> = [u64; N];

pub(super) fn has<const N: usize>(mask: &Mask<N>, slot: usize) -> bool {
    mask[slot / 64] >> (slot % 64) & 1 == 1
}

pub(super) fn put<const N: usize>(mask: &mut Mask<N>, slot: usize) {
    mask[slot / 64] |= 1 << (slot % 64);
}

pub(super) fn take<const N: usize>(mask: &mut Mask<N>, slot: usize) {
    mask[slot / 64] &= !(1 << (slot % 64));
}

/// The slots in a mask, from low to high.
pub(super) fn slots<const N: usize>(mask: Mask<N>) -> impl Iterator<Item = usize> {
    mask.into_iter().enumerate().flat_map(|(word, mut bits)| {
        std::iter::from_fn(move || {
            let slot = (bits != 0).then_some(word * 64 + bits.trailing_zeros() as usize);
            bits &= bits.wrapping_sub(1);
            slot
        })
    })
}

/// What may have happened so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config<const N: usize> {
    pub(super) state: u32,
    /// The crashed operations that were used.
    pub(super) used: u32,
    pub(super) trail: u32,
    /// The running operations that took effect.
    pub(super) placed: Mask<N>,
    /// The running operations that are settled without having been placed: there was a moment when
    /// they could have taken effect without a trace. They may still be placed, and need not.
    pub(super) free: Mask<N>,
}

/// The slots in use, by what their operations are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots<const N: usize> {
    /// They change nothing: better placed than not.
    pub(super) reads: Mask<N>,
    /// They are legal everywhere, so that they can hide before one that overwrites.
    pub(super) total: Mask<N>,
    /// All others.
    pub(super) hard: Mask<N>,
}

impl<const N: usize> Slots<N> {
    /// Whether `a` can do whatever `b` can, both in the same state with the same hard ones placed.
    fn covers(&self, a: &Config<N>, b: &Config<N>) -> bool {
        (0..N).all(|w| {
            let unread = self.reads[w] & b.placed[w] & !a.placed[w];
            let differ = (a.placed[w] ^ b.placed[w]) | b.free[w];
            unread | (self.total[w] & !a.free[w] & differ) == 0
        })
    }

    fn place(&self, config: &Config<N>) -> (u32, Mask<N>) {
        (config.state, std::array::from_fn(|w| config.placed[w] & self.hard[w]))
    }

    /// How much a configuration has left to do and has used up: less is more likely to live.
    pub(super) fn cost(&self, config: &Config<N>, crashed: u32) -> u32 {
        let count = |w: usize| {
            let all = self.reads[w] | self.total[w] | self.hard[w];
            let open = all & !config.placed[w] & !config.free[w];
            let spent = self.total[w] & config.placed[w];
            2 * open.count_ones() + spent.count_ones()
        };
        (0..N).map(count).sum::<u32>() + 4 * crashed
    }
}

/// Configurations of which none makes another superfluous, as far as that is looked for.
///
/// Those of one place (a state and the hard operations placed) form a list through `next`, so that
/// a place costs no allocation of its own.
pub(super) struct Antichain<const N: usize> {
    pub(super) all: Vec<Config<N>>,
    /// The next one of the same place, or [`END`]; [`DEAD`] for one that was made superfluous.
    next: Vec<u32>,
    heads: FxHashMap<(u32, Mask<N>), u32>,
    /// All that were ever here, from the moment on when the lists are long.
    known: FxHashSet<(u32, u32, Mask<N>, Mask<N>)>,
    dead: usize,
}

const END: u32 = u32::MAX;
const DEAD: u32 = u32::MAX - 1;

/// So many of one place are compared with a new one. Beyond that only equal ones are dropped.
const COMPARED: usize = 256;

impl<const N: usize> Antichain<N> {
    pub(super) fn new() -> Self {
        Self {
            all: Vec::new(),
            next: Vec::new(),
            heads: FxHashMap::default(),
            known: FxHashSet::default(),
            dead: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        // Emptying a table costs its capacity: one large step must not slow all later ones down.
        if self.heads.capacity() > 256 && self.heads.len() < self.heads.capacity() / 16 {
            self.heads = FxHashMap::default();
        }
        if self.known.capacity() > 0 {
            self.known = FxHashSet::default();
        }
        self.all.clear();
        self.next.clear();
        self.heads.clear();
        self.dead = 0;
    }

    pub(super) fn alive(&self, at: usize) -> bool {
        self.next[at] != DEAD
    }

    pub(super) fn living(&self) -> usize {
        self.all.len() - self.dead
    }

    /// Whether `config` is worth keeping; if so, what it makes superfluous is gone, and
    /// [`push`](Self::push) has to follow.
    pub(super) fn admits(&mut self, config: &Config<N>, slots: &Slots<N>, sets: &UsedSets) -> bool {
        let exact = |c: &Config<N>| (c.state, c.used, c.placed, c.free);
        if self.all.len() >= 4 * COMPARED {
            if self.known.is_empty() {
                self.known.extend(self.all.iter().map(exact));
            }
            if !self.known.insert(exact(config)) {
                return false;
            }
        }
        let Some(&head) = self.heads.get(&slots.place(config)) else { return true };
        let covers =
            |a: &Config<N>, b: &Config<N>| slots.covers(a, b) && sets.within(a.used, b.used);
        let (mut at, mut any) = (head, false);
        for _ in 0..COMPARED {
            if at == END {
                break;
            }
            if covers(&self.all[at as usize], config) {
                return false;
            }
            any |= covers(config, &self.all[at as usize]);
            at = self.next[at as usize];
        }
        if !any {
            return true;
        }
        let (mut first, mut last, mut at) = (END, END, head);
        for _ in 0..COMPARED {
            if at == END {
                break;
            }
            let after = self.next[at as usize];
            if covers(config, &self.all[at as usize]) {
                self.next[at as usize] = DEAD;
                self.dead += 1;
            } else {
                match last {
                    END => first = at,
                    _ => self.next[last as usize] = at,
                }
                last = at;
            }
            at = after;
        }
        match last {
            END => first = at,
            _ => self.next[last as usize] = at,
        }
        match first {
            END => _ = self.heads.remove(&slots.place(config)),
            _ => _ = self.heads.insert(slots.place(config), first),
        }
        true
    }

    pub(super) fn push(&mut self, config: Config<N>, slots: &Slots<N>) {
        let head = self.heads.insert(slots.place(&config), index(self.all.len()));
        self.all.push(config);
        self.next.push(head.unwrap_or(END));
    }

    pub(super) fn drain_alive(&mut self, into: &mut Vec<Config<N>>) {
        into.clear();
        let all = self.all.iter().zip(&self.next);
        into.extend(all.filter(|(_, next)| **next != DEAD).map(|(config, _)| *config));
    }

    pub(super) fn bytes(&self) -> usize {
        self.all.capacity() * (size_of::<Config<N>>() + 4)
            + self.heads.capacity() * (size_of::<(u32, Mask<N>)>() + 8)
            + self.known.capacity() * (size_of::<(u32, u32, Mask<N>, Mask<N>)>() + 1)
    }
}
