//! One pass of the search.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::super::Stuck;
use super::super::memo::{Memo, NONE};
use super::super::model::Model;
use super::super::problem::{Problem, index};
use super::super::used::UsedSets;
use super::config::{Antichain, Config, Slots, has, put, slots, take};
use super::live::{Effects, Gain, Live, New, Running};
use super::rewind::Rewind;
use super::trail::{NO_TRAIL, Trails};
use super::{Ended, Pass};
use crate::budget::Meter;
use crate::verdict::Reason;

/// Narrower than this, one crashed operation is not used just to use another.
const CHAINED: usize = 64;

pub(super) struct Search<'p, M: Model, const N: usize> {
    problem: &'p Problem<M::Op>,
    memo: Memo<'p, M>,
    pass: Pass,
    /// How many configurations are kept just now.
    width: usize,
    live: Live<N>,
    rewind: Rewind<Live<N>>,
    /// Kind → what the model says of it.
    overwrites: Vec<bool>,
    total: Vec<bool>,
    /// State → what the running operations would do there; valid if as new as `changes`.
    effects: Vec<Effects<N>>,
    changes: u32,
    /// Kind → its class of crashed operations.
    class_of: FxHashMap<u32, u32>,
    /// Class → kind, and its crashed operations by invocation.
    classes: Vec<(u32, Vec<u32>)>,
    /// Kind → the last expansion that tried a running operation of it.
    tried: Vec<u32>,
    expansions: u32,
    sets: UsedSets,
    trails: Trails,
    next: Antichain<N>,
    explored: Antichain<N>,
    /// Those of `explored` that were not expanded, the cheapest first.
    queue: BinaryHeap<Reverse<(u32, u32)>>,
    /// For each of `explored`, what its last step was good for.
    gains: Vec<Gain>,
    /// The position of the event that is looked at.
    now: u32,
    meter: Meter,
    accounted: usize,
}

impl<'p, M: Model, const N: usize> Search<'p, M, N> {
    pub(super) fn new(model: &'p M, problem: &'p Problem<M::Op>, meter: Meter, pass: Pass) -> Self {
        let start = Config {
            state: Memo::<M>::INITIAL,
            used: UsedSets::EMPTY,
            trail: NO_TRAIL,
            placed: [0; N],
            free: [0; N],
        };
        let mut class_of = FxHashMap::default();
        let mut classes: Vec<(u32, Vec<u32>)> = Vec::new();
        for (n, op) in (0..).zip(&problem.ops).filter(|(_, op)| op.crashed()) {
            let class = *class_of.entry(op.kind).or_insert_with(|| {
                classes.push((op.kind, Vec::new()));
                index(classes.len() - 1)
            });
            classes[class as usize].1.push(n);
        }
        let live = Live {
            frontier: vec![start],
            dropped: false,
            slots: Slots { reads: [0; N], total: [0; N], hard: [0; N] },
            holds: Vec::new(),
            free_slots: Vec::new(),
            slot_of: FxHashMap::default(),
            running: Vec::new(),
            invoked: vec![0; classes.len()],
        };
        Self {
            problem,
            memo: Memo::new(model, problem, meter.clone()),
            pass,
            width: pass.width,
            live,
            rewind: Rewind::new(),
            overwrites: problem.kinds.iter().map(|op| model.overwrites(op)).collect(),
            total: problem.kinds.iter().map(|op| model.always_legal(op)).collect(),
            effects: Vec::new(),
            changes: 1,
            class_of,
            classes,
            tried: vec![0; problem.kinds.len()],
            expansions: 0,
            sets: UsedSets::new(),
            trails: Trails::default(),
            next: Antichain::new(),
            explored: Antichain::new(),
            queue: BinaryHeap::new(),
            gains: Vec::new(),
            now: 0,
            meter,
            accounted: 0,
        }
    }

    pub(super) fn run(mut self) -> Result<Ended, Reason> {
        let ended = self.events();
        self.meter.shrink(self.accounted);
        Ok(match ended? {
            Some(_) if self.live.dropped && !self.pass.narrow => Ended::Nothing(Stuck::default()),
            Some(n) if self.live.dropped => Ended::Nothing(self.stuck(n)),
            Some(n) => Ended::Stuck(self.stuck(n)),
            None if self.pass.generous => Ended::Nothing(Stuck::default()),
            None => {
                let trail = self.live.frontier[0].trail;
                Ended::Order(self.order(trail))
            }
        })
    }

    /// Goes through all events; gives the operation that can't be placed, if there is one.
    fn events(&mut self) -> Result<Option<u32>, Reason> {
        let events = self.problem.events();
        let mut at = 0;
        while let Some(&(position, n, end)) = events.get(at) {
            self.meter.tick()?;
            self.now = position;
            if !end {
                self.invoked(n);
                at += 1;
                continue;
            }
            if self.pass.narrow {
                self.width = self.rewind.width(at, self.pass.width);
                if self.rewind.due(at) {
                    self.rewind.remember(at, self.live.clone());
                }
            }
            if self.completed(n)? {
                self.tidy()?;
                at += 1;
            } else if self.live.dropped
                && self.pass.narrow
                && let Some(back) = self.rewind.back(at)
            {
                at = back.event;
                self.live = back.live.clone();
                self.changes += 1;
            } else {
                return Ok(Some(n));
            }
        }
        Ok(None)
    }

    fn invoked(&mut self, n: u32) {
        let op = self.problem.ops[n as usize];
        if op.crashed() {
            self.live.invoked[self.class_of[&op.kind] as usize] += 1;
            return;
        }
        let slot = self.live.free_slots.pop().unwrap_or_else(|| {
            self.live.holds.push(0);
            self.live.holds.len() - 1
        });
        self.live.holds[slot] = n;
        self.live.slot_of.insert(n, slot);
        self.changes += 1;
        let total = self.total[op.kind as usize];
        if op.pure {
            put(&mut self.live.slots.reads, slot);
        } else {
            put(if total { &mut self.live.slots.total } else { &mut self.live.slots.hard }, slot);
            let new = Running { kind: op.kind, end: op.end, slot, n };
            let at = self.live.running.partition_point(|r| (r.kind, r.end) < (new.kind, new.end));
            self.live.running.insert(at, new);
        }
        if !op.pure && !total {
            return;
        }
        for at in 0..self.live.frontier.len() {
            let Config { state, trail, .. } = self.live.frontier[at];
            let after = self.memo.step(state, op.kind);
            if op.pure && after != NONE {
                if !self.pass.generous {
                    self.live.frontier[at].trail = self.trails.push(trail, n, self.now, false);
                }
                put(&mut self.live.frontier[at].placed, slot);
            } else if !op.pure && after == state {
                put(&mut self.live.frontier[at].free, slot);
            }
        }
    }

    /// Which running operations could be placed in `state` without a change.
    fn effects(&mut self, state: u32) -> Effects<N> {
        let none = Effects { at: 0, legal: [0; N], idle: [0; N] };
        if self.effects.len() <= state as usize {
            self.effects.resize(state as usize + 1, none);
        }
        if self.effects[state as usize].at != self.changes {
            let mut effects = Effects { at: self.changes, ..none };
            for slot in slots(self.live.slots.reads) {
                let kind = self.problem.ops[self.live.holds[slot] as usize].kind;
                if self.memo.step(state, kind) != NONE {
                    put(&mut effects.legal, slot);
                }
            }
            for running in &self.live.running {
                if self.total[running.kind as usize] && self.memo.step(state, running.kind) == state
                {
                    put(&mut effects.idle, running.slot);
                }
            }
            self.effects[state as usize] = effects;
        }
        self.effects[state as usize]
    }

    /// Keeps what explains the completion of `n`; false if nothing does.
    fn completed(&mut self, n: u32) -> Result<bool, Reason> {
        let Some(slot) = self.live.slot_of.remove(&n) else { return Ok(true) };
        let placed = self.live.frontier.iter().filter(|config| has(&config.placed, slot)).count();
        if placed == self.live.frontier.len() {
            for config in &mut self.live.frontier {
                take(&mut config.placed, slot);
            }
            self.retire(n, slot);
            return Ok(true);
        }
        self.next.clear();
        self.explored.clear();
        self.queue.clear();
        self.gains.clear();
        for config in std::mem::take(&mut self.live.frontier) {
            self.reach(config, None, false, slot);
        }
        let mut steps = 0;
        while let Some(Reverse((_, at))) = self.queue.pop() {
            if !self.explored.alive(at as usize) {
                continue;
            }
            if self.full(steps) {
                self.live.dropped = true;
                break;
            }
            self.expand(self.explored.all[at as usize], self.gains[at as usize], slot)?;
            steps += 1;
            if steps % 1024 == 0 {
                self.account();
            }
        }
        self.next.drain_alive(&mut self.live.frontier);
        if self.live.frontier.is_empty() {
            self.explored.drain_alive(&mut self.live.frontier);
            return Ok(false);
        }
        self.retire(n, slot);
        if self.live.frontier.len() > self.width {
            self.live.dropped = true;
            if !self.pass.narrow {
                return Ok(false);
            }
            let (slots, sets) = (self.live.slots, &self.sets);
            let cost = |config: &Config<N>| slots.cost(config, sets.total(config.used));
            self.live.frontier.select_nth_unstable_by_key(self.width - 1, cost);
            self.live.frontier.truncate(self.width);
        }
        Ok(true)
    }

    /// Whether this pass has seen enough at this event.
    fn full(&self, explored: usize) -> bool {
        let width = self.width;
        match self.pass.narrow {
            true => self.next.living() >= width || explored > width.saturating_mul(8),
            // Operations that happen any number of times can make more and more states for ever.
            false => {
                let endless = self.memo.states() > 64 + 4 * self.problem.kinds.len();
                self.next.living().max(explored / 16) > width || (self.pass.generous && endless)
            }
        }
    }

    fn retire(&mut self, n: u32, slot: usize) {
        take(&mut self.live.slots.reads, slot);
        take(&mut self.live.slots.total, slot);
        take(&mut self.live.slots.hard, slot);
        let op = self.problem.ops[n as usize];
        if !op.pure {
            self.live.running.retain(|running| running.slot != slot);
        }
        self.live.free_slots.push(slot);
    }

    /// All that `config` can do next, up to settling the operation that has to be.
    fn expand(&mut self, config: Config<N>, last: Gain, target: usize) -> Result<(), Reason> {
        self.expansions += 1;
        for at in 0..self.live.running.len() {
            let Running { kind, slot, n, .. } = self.live.running[at];
            if self.tried[kind as usize] == self.expansions || has(&config.placed, slot) {
                continue;
            }
            self.tried[kind as usize] = self.expansions;
            self.meter.tick()?;
            // What was placed last would have been placed for nothing.
            if last != Gain::Some && self.overwrites[kind as usize] {
                continue;
            }
            let total = self.total[kind as usize];
            let state = self.memo.step(config.state, kind);
            if state == NONE || (total && self.idle(&config, kind, state)) {
                continue;
            }
            let mut after = Config { state, ..config };
            put(&mut after.placed, slot);
            let gain = if total { Gain::None } else { Gain::Some };
            self.place(after, (n, gain), &config, target);
        }
        if last == Gain::Crashed && self.pass.narrow && self.width < CHAINED {
            self.live.dropped = true;
            return Ok(());
        }
        for class in 0..self.classes.len() {
            let kind = self.classes[class].0;
            if self.tried[kind as usize] == self.expansions
                || (last != Gain::Some && self.overwrites[kind as usize])
            {
                continue;
            }
            let used = match self.pass.generous {
                true => 0,
                false => self.sets.count(config.used, index(class)) as usize,
            };
            if used >= self.live.invoked[class] as usize {
                continue;
            }
            let n = self.classes[class].1[used];
            self.meter.tick()?;
            let state = self.memo.step(config.state, kind);
            if state == NONE || self.idle(&config, kind, state) {
                continue;
            }
            let mut after = Config { state, ..config };
            if !self.pass.generous {
                after.used = self.sets.add(config.used, index(class));
            }
            self.place(after, (n, Gain::Crashed), &config, target);
        }
        Ok(())
    }

    /// Whether placing an operation of `kind` in `config` changes nothing at all. One that writes what
    /// is there already can still be good for those that hide before it.
    fn idle(&self, config: &Config<N>, kind: u32, state: u32) -> bool {
        let open = |w: usize| self.live.slots.total[w] & !config.placed[w] & !config.free[w];
        state == config.state && !(self.overwrites[kind as usize] && (0..N).any(|w| open(w) != 0))
    }

    /// What follows from placing `n`, which led to `after`: reads that are legal now, and what may
    /// have happened without a trace.
    fn place(
        &mut self,
        mut after: Config<N>,
        (n, gain): (u32, Gain),
        before: &Config<N>,
        target: usize,
    ) {
        let kind = self.problem.ops[n as usize].kind;
        let effects = match after.state == before.state {
            true => Effects { at: 0, legal: [0; N], idle: [0; N] },
            false => self.effects(after.state),
        };
        let mut reads = [0; N];
        for (w, seen) in reads.iter_mut().enumerate() {
            *seen = effects.legal[w] & self.live.slots.reads[w] & !after.placed[w];
            after.placed[w] |= *seen;
            let hides = if self.overwrites[kind as usize] { u64::MAX } else { effects.idle[w] };
            after.free[w] = (after.free[w] | hides & self.live.slots.total[w]) & !after.placed[w];
        }
        let gain = if reads == [0; N] { gain } else { Gain::Some };
        self.reach(after, Some((n, reads, gain)), has(&before.free, target), target);
    }

    /// Keeps `config`, which came about from one where the target was `free` or not by placing `new`
    /// and then reads, where it belongs: it settled the operation that had to be, or has still to.
    ///
    /// An operation that is free may be left out, but only now may it still be placed: both.
    fn reach(&mut self, config: Config<N>, new: Option<New<N>>, was_free: bool, target: usize) {
        let (placed, free) = (has(&config.placed, target), has(&config.free, target));
        if placed || (free && !was_free) {
            let mut left = config;
            take(&mut left.placed, target);
            take(&mut left.free, target);
            if self.next.admits(&left, &self.live.slots, &self.sets) {
                left.trail = self.follow(left.trail, new, free.then_some(target));
                self.next.push(left, &self.live.slots);
            }
        }
        if !placed && self.explored.admits(&config, &self.live.slots, &self.sets) {
            let trail = self.follow(config.trail, new, None);
            let cost = self.live.slots.cost(&config, self.sets.total(config.used));
            self.queue.push(Reverse((cost, index(self.explored.all.len()))));
            self.explored.push(Config { trail, ..config }, &self.live.slots);
            self.gains.push(new.map_or(Gain::Some, |(.., gain)| gain));
        }
    }

    /// The trail with one placed operation more, the reads that follow from it, and one that hid.
    fn follow(&mut self, before: u32, new: Option<New<N>>, hidden: Option<usize>) -> u32 {
        let mut trail = before;
        if self.pass.generous {
            return trail;
        }
        if let Some((n, reads, _)) = new {
            trail = self.trails.push(trail, n, self.now, false);
            for slot in slots(reads) {
                trail = self.trails.push(trail, self.live.holds[slot], self.now, false);
            }
        }
        match hidden {
            Some(slot) => self.trails.push(trail, self.live.holds[slot], self.now, true),
            None => trail,
        }
    }

    /// Between events: commits what is certain and throws away what no configuration needs.
    fn tidy(&mut self) -> Result<(), Reason> {
        let live = &mut self.live.frontier;
        // A narrow pass may go back to where it was not certain.
        if !self.pass.narrow {
            self.trails.commit_if_certain(live);
        }
        if self.trails.has_grown() {
            let old = self.rewind.frontiers(|live| &mut live.frontier);
            self.trails.compact(live.iter_mut().chain(old));
        }
        if self.sets.has_grown() {
            let old = self.rewind.frontiers(|live| &mut live.frontier);
            self.sets.compact(live.iter_mut().chain(old).map(|config| &mut config.used));
        }
        self.account();
        if self.accounted > 1 << 20 { self.meter.check() } else { Ok(()) }
    }

    fn account(&mut self) {
        let now = self.trails.bytes()
            + self.sets.bytes()
            + self.next.bytes()
            + self.explored.bytes()
            + self.effects.capacity() * size_of::<Effects<N>>()
            + self.live.frontier.capacity() * size_of::<Config<N>>();
        self.meter.grow(now);
        self.meter.shrink(self.accounted);
        self.accounted = now;
    }

    fn order(&mut self, trail: u32) -> Vec<u32> {
        let trails = std::mem::take(&mut self.trails);
        trails.order(trail, self.problem, &mut self.memo, &self.overwrites)
    }

    fn stuck(&mut self, n: u32) -> Stuck {
        let best = self.live.frontier.iter().take(64);
        let best = best.max_by_key(|config| self.trails.length(config.trail));
        let trail = best.map_or(NO_TRAIL, |config| config.trail);
        let mut states: Vec<u32> = self.live.frontier.iter().map(|config| config.state).collect();
        states.sort_unstable();
        states.dedup();
        let some: Vec<String> =
            states.iter().take(8).map(|&id| format!("{:?}", self.memo.state(id))).collect();
        let many = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let why = vec![format!(
            "possible before it: {}, with {}: {}{}",
            many(self.live.frontier.len(), "configuration"),
            many(states.len(), "state"),
            some.join(", "),
            if states.len() > some.len() { ", …" } else { "" },
        )];
        Stuck { at: n, prefix: self.order(trail), why, ..Stuck::default() }
    }
}
