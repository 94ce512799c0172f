//! The just-in-time search (Lowe, "Testing for linearizability", 2017) over all configurations at
//! once: event by event, an operation is placed only when a completion demands it.
//!
//! Three things keep the configurations few. Operations that only read are placed as soon as they
//! are legal, since that can't hurt. Crashed operations that are equal are one class with a count.
//! Of two configurations in the same state with the same open operations placed, the one that used
//! no more crashed operations can do whatever the other can, so the other is dropped.

use rustc_hash::FxHashMap;

use super::memo::{Memo, NONE};
use super::model::Model;
use super::problem::{Problem, index};
use super::used::UsedSets;
use super::{Outcome, Stuck};
use crate::budget::Meter;
use crate::verdict::{Reason, ReasonKind};

/// Which slots of running operations are placed already.
type Mask<const N: usize> = [u64; N];

const NO_TRAIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Config<const N: usize> {
    state: u32,
    used: u32,
    trail: u32,
    mask: Mask<N>,
}

fn has<const N: usize>(mask: &Mask<N>, slot: usize) -> bool {
    mask[slot / 64] >> (slot % 64) & 1 == 1
}

fn put<const N: usize>(mask: &mut Mask<N>, slot: usize) {
    mask[slot / 64] |= 1 << (slot % 64);
}

fn take<const N: usize>(mask: &mut Mask<N>, slot: usize) {
    mask[slot / 64] &= !(1 << (slot % 64));
}

/// Configurations of which none makes another superfluous.
///
/// Those of one place (state and mask) form a list through `next`, so that a place costs no
/// allocation of its own: most hold one configuration.
struct Antichain<const N: usize> {
    all: Vec<Config<N>>,
    /// The next one of the same place, or [`END`]; [`DEAD`] for one that was made superfluous.
    next: Vec<u32>,
    heads: FxHashMap<(u32, Mask<N>), u32>,
}

const END: u32 = u32::MAX;
const DEAD: u32 = u32::MAX - 1;

impl<const N: usize> Antichain<N> {
    fn new() -> Self {
        Self { all: Vec::new(), next: Vec::new(), heads: FxHashMap::default() }
    }

    fn clear(&mut self) {
        // Emptying a table costs its capacity: one large step must not slow all later ones down.
        if self.heads.capacity() > 256 && self.heads.len() < self.heads.capacity() / 16 {
            self.heads = FxHashMap::default();
        }
        self.all.clear();
        self.next.clear();
        self.heads.clear();
    }

    fn alive(&self, at: usize) -> bool {
        self.next[at] != DEAD
    }

    fn insert(&mut self, config: Config<N>, sets: &UsedSets) {
        let new = index(self.all.len());
        let mut first = END;
        if let Some(head) = self.heads.insert((config.state, config.mask), new) {
            let mut at = head;
            while at != END {
                if sets.within(self.all[at as usize].used, config.used) {
                    self.heads.insert((config.state, config.mask), head);
                    return;
                }
                at = self.next[at as usize];
            }
            first = self.without_dominated(head, config.used, sets);
        }
        self.all.push(config);
        self.next.push(first);
    }

    /// Takes those out of the list from `head` on that used at least `used`. Gives its new head.
    fn without_dominated(&mut self, head: u32, used: u32, sets: &UsedSets) -> u32 {
        let (mut first, mut last, mut at) = (END, END, head);
        while at != END {
            let after = self.next[at as usize];
            if sets.within(used, self.all[at as usize].used) {
                self.next[at as usize] = DEAD;
            } else {
                match last {
                    END => first = at,
                    _ => self.next[last as usize] = at,
                }
                last = at;
            }
            at = after;
        }
        if last != END {
            self.next[last as usize] = END;
        }
        first
    }

    fn drain_alive(&mut self, into: &mut Vec<Config<N>>) {
        into.clear();
        let all = self.all.iter().zip(&self.next);
        into.extend(all.filter(|(_, next)| **next != DEAD).map(|(config, _)| *config));
    }

    fn bytes(&self) -> usize {
        self.all.capacity() * (size_of::<Config<N>>() + 4)
            + self.heads.capacity() * (size_of::<(u32, Mask<N>)>() + 8)
    }
}

struct Search<'p, M: Model, const N: usize> {
    problem: &'p Problem<M::Op>,
    memo: Memo<'p, M>,
    frontier: Vec<Config<N>>,
    /// Slot → the running operation.
    slots: Vec<Option<u32>>,
    free: Vec<usize>,
    slot_of: FxHashMap<u32, usize>,
    /// Kind → its class of crashed operations.
    class_of: FxHashMap<u32, u32>,
    /// Class → kind, and the crashed operations invoked so far.
    classes: Vec<(u32, Vec<u32>)>,
    sets: UsedSets,
    /// (before, operation) lists; those of all configurations share their beginnings.
    trails: Vec<(u32, u32)>,
    trails_kept: usize,
    committed: Vec<u32>,
    next: Antichain<N>,
    explored: Antichain<N>,
    meter: Meter,
    accounted: usize,
}

/// Searches with masks as wide as the history's concurrency asks for.
pub(crate) fn search<M: Model>(
    model: &M,
    problem: &Problem<M::Op>,
    meter: Meter,
) -> Result<Outcome, Reason> {
    match concurrency(problem) {
        0..=64 => Search::<M, 1>::new(model, problem, meter).run(),
        65..=128 => Search::<M, 2>::new(model, problem, meter).run(),
        129..=512 => Search::<M, 8>::new(model, problem, meter).run(),
        513..=2048 => Search::<M, 32>::new(model, problem, meter).run(),
        more => {
            let message = format!("{more} operations run at the same time; 2048 can be searched");
            Err(Reason::new(ReasonKind::MemoryLimit, message))
        }
    }
}

fn concurrency<O: Clone>(problem: &Problem<O>) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for (_, n, end) in problem.events() {
        if end {
            now -= 1;
        } else if !problem.ops[n as usize].crashed() {
            now += 1;
            most = most.max(now);
        }
    }
    most
}

impl<'p, M: Model, const N: usize> Search<'p, M, N> {
    fn new(model: &'p M, problem: &'p Problem<M::Op>, meter: Meter) -> Self {
        let start = Config {
            state: Memo::<M>::INITIAL,
            used: UsedSets::EMPTY,
            trail: NO_TRAIL,
            mask: [0; N],
        };
        Self {
            problem,
            memo: Memo::new(model, problem, meter.clone()),
            frontier: vec![start],
            slots: Vec::new(),
            free: Vec::new(),
            slot_of: FxHashMap::default(),
            class_of: FxHashMap::default(),
            classes: Vec::new(),
            sets: UsedSets::new(),
            trails: Vec::new(),
            trails_kept: 0,
            committed: Vec::new(),
            next: Antichain::new(),
            explored: Antichain::new(),
            meter,
            accounted: 0,
        }
    }

    fn run(mut self) -> Result<Outcome, Reason> {
        for (_, n, end) in self.problem.events() {
            self.meter.tick()?;
            if !end {
                self.invoked(n);
                continue;
            }
            if !self.completed(n)? {
                let stuck = self.stuck(n);
                self.meter.shrink(self.accounted);
                return Ok(Outcome::Stuck(stuck));
            }
            self.tidy()?;
        }
        self.commit(self.frontier[0].trail);
        self.meter.shrink(self.accounted);
        Ok(Outcome::Order(std::mem::take(&mut self.committed)))
    }

    fn invoked(&mut self, n: u32) {
        let op = self.problem.ops[n as usize];
        if op.crashed() {
            let classes = &mut self.classes;
            let class = *self.class_of.entry(op.kind).or_insert_with(|| {
                classes.push((op.kind, Vec::new()));
                index(classes.len() - 1)
            });
            self.classes[class as usize].1.push(n);
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(n);
        self.slot_of.insert(n, slot);
        if op.pure {
            for config in &mut self.frontier {
                if self.memo.step(config.state, op.kind) != NONE {
                    put(&mut config.mask, slot);
                    config.trail = push(&mut self.trails, config.trail, n);
                }
            }
        }
    }

    /// Places every running read that is legal in the configuration's state.
    fn place_reads(&mut self, config: &mut Config<N>) {
        for (slot, running) in self.slots.iter().enumerate() {
            let Some(n) = *running else { continue };
            let op = self.problem.ops[n as usize];
            if op.pure && !has(&config.mask, slot) && self.memo.step(config.state, op.kind) != NONE
            {
                put(&mut config.mask, slot);
                config.trail = push(&mut self.trails, config.trail, n);
            }
        }
    }

    /// Keeps what explains the completion of `n`; false if nothing does.
    fn completed(&mut self, n: u32) -> Result<bool, Reason> {
        let Some(slot) = self.slot_of.remove(&n) else { return Ok(true) };
        if self.frontier.iter().all(|config| has(&config.mask, slot)) {
            for config in &mut self.frontier {
                take(&mut config.mask, slot);
            }
            self.retire(slot);
            return Ok(true);
        }
        self.next.clear();
        self.explored.clear();
        for mut config in std::mem::take(&mut self.frontier) {
            if has(&config.mask, slot) {
                take(&mut config.mask, slot);
                self.next.insert(config, &self.sets);
            } else {
                self.explored.insert(config, &self.sets);
            }
        }
        let mut at = 0;
        while at < self.explored.all.len() {
            if self.explored.alive(at) {
                self.expand(self.explored.all[at], slot)?;
            }
            at += 1;
            if at % 1024 == 0 {
                self.account();
            }
        }
        self.next.drain_alive(&mut self.frontier);
        if self.frontier.is_empty() {
            self.explored.drain_alive(&mut self.frontier);
            return Ok(false);
        }
        self.retire(slot);
        Ok(true)
    }

    fn retire(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.free.push(slot);
    }

    /// All that `config` can do next, up to placing the operation that has to be.
    fn expand(&mut self, config: Config<N>, target: usize) -> Result<(), Reason> {
        for slot in 0..self.slots.len() {
            let Some(n) = self.slots[slot] else { continue };
            let op = self.problem.ops[n as usize];
            if op.pure || has(&config.mask, slot) {
                continue;
            }
            let state = self.memo.step(config.state, op.kind);
            if state == NONE {
                continue;
            }
            let mut after = Config { state, ..config };
            after.trail = push(&mut self.trails, config.trail, n);
            put(&mut after.mask, slot);
            self.meter.tick()?;
            self.reach(after, config.state, target);
        }
        for class in 0..self.classes.len() {
            let kind = self.classes[class].0;
            let count = self.sets.count(config.used, index(class)) as usize;
            if count >= self.classes[class].1.len() {
                continue;
            }
            let state = self.memo.step(config.state, kind);
            if state == NONE || state == config.state {
                continue;
            }
            let mut after = Config { state, ..config };
            after.used = self.sets.add(config.used, index(class));
            after.trail = push(&mut self.trails, config.trail, self.classes[class].1[count]);
            self.meter.tick()?;
            self.reach(after, config.state, target);
        }
        Ok(())
    }

    fn reach(&mut self, mut after: Config<N>, before: u32, target: usize) {
        if after.state != before {
            self.place_reads(&mut after);
        }
        if has(&after.mask, target) {
            take(&mut after.mask, target);
            self.next.insert(after, &self.sets);
        } else {
            self.explored.insert(after, &self.sets);
        }
    }

    /// Between events: commits what is certain and throws away what no configuration needs.
    fn tidy(&mut self) -> Result<(), Reason> {
        if self.frontier.len() == 1 && self.trails.len() > 64 {
            self.commit(self.frontier[0].trail);
            self.frontier[0].trail = NO_TRAIL;
        }
        if self.trails.len() > 2 * self.trails_kept + 100_000 {
            self.compact_trails();
        }
        if self.sets.len() > 8 * self.frontier.len() + 10_000 {
            self.compact_sets();
        }
        self.account();
        if self.accounted > 1 << 20 { self.meter.check() } else { Ok(()) }
    }

    fn account(&mut self) {
        let now = self.trails.capacity() * 8
            + self.sets.bytes()
            + self.next.bytes()
            + self.explored.bytes()
            + self.frontier.capacity() * size_of::<Config<N>>();
        self.meter.grow(now);
        self.meter.shrink(self.accounted);
        self.accounted = now;
    }

    fn commit(&mut self, trail: u32) {
        let start = self.committed.len();
        let mut at = trail;
        while at != NO_TRAIL {
            let (before, n) = self.trails[at as usize];
            self.committed.push(n);
            at = before;
        }
        self.committed[start..].reverse();
        self.trails.clear();
        self.trails_kept = 0;
    }

    fn compact_trails(&mut self) {
        let mut moved = vec![NO_TRAIL; self.trails.len()];
        for config in &self.frontier {
            let mut at = config.trail;
            while at != NO_TRAIL && moved[at as usize] == NO_TRAIL {
                moved[at as usize] = 0;
                at = self.trails[at as usize].0;
            }
        }
        let mut kept = Vec::new();
        for (at, &(before, n)) in self.trails.iter().enumerate() {
            if moved[at] == NO_TRAIL {
                continue;
            }
            moved[at] = index(kept.len());
            let before = if before == NO_TRAIL { NO_TRAIL } else { moved[before as usize] };
            kept.push((before, n));
        }
        for config in &mut self.frontier {
            if config.trail != NO_TRAIL {
                config.trail = moved[config.trail as usize];
            }
        }
        self.trails_kept = kept.len();
        self.trails = kept;
    }

    /// Forgets sets that no configuration has. Counts of what every one has used stay, because they
    /// say which operation of a class is the next.
    fn compact_sets(&mut self) {
        let mut fresh = UsedSets::new();
        for config in &mut self.frontier {
            config.used = fresh.intern(self.sets.get(config.used).into());
        }
        self.sets = fresh;
    }

    fn stuck(&mut self, n: u32) -> Stuck {
        let length = |mut at: u32| {
            let mut length = 0_usize;
            while at != NO_TRAIL {
                length += 1;
                at = self.trails[at as usize].0;
            }
            length
        };
        let best = self.frontier.iter().take(64).max_by_key(|config| length(config.trail));
        let trail = best.map_or(NO_TRAIL, |config| config.trail);
        let mut states: Vec<u32> = self.frontier.iter().map(|config| config.state).collect();
        states.sort_unstable();
        states.dedup();
        let some: Vec<String> =
            states.iter().take(8).map(|&id| format!("{:?}", self.memo.state(id))).collect();
        let why = vec![format!(
            "{} configurations were possible, in {} states: {}{}",
            self.frontier.len(),
            states.len(),
            some.join(", "),
            if states.len() > some.len() { ", …" } else { "" },
        )];
        self.commit(trail);
        Stuck { at: n, prefix: std::mem::take(&mut self.committed), why, ..Stuck::default() }
    }
}

fn push(trails: &mut Vec<(u32, u32)>, before: u32, n: u32) -> u32 {
    trails.push((before, n));
    index(trails.len() - 1)
}
