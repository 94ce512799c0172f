//! How a configuration came about: the operations in their order, shared by all configurations that
//! begin alike.

use super::super::memo::Memo;
use super::super::model::Model;
use super::super::problem::{Problem, index};
use super::config::Config;

pub(super) const NO_TRAIL: u32 = u32::MAX;

/// One operation of an order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    before: u32,
    n: u32,
    /// The position in the history at which the search placed it.
    at: u32,
    /// It completed without having been placed: it hides somewhere between its invocation and here.
    hidden: bool,
}

/// The steps of all configurations, as lists that run backwards.
#[derive(Default)]
pub(super) struct Trails {
    steps: Vec<Step>,
    kept: usize,
    /// The steps before those that are in the lists: the same for all.
    committed: Vec<Step>,
}

impl Trails {
    pub(super) fn push(&mut self, before: u32, n: u32, at: u32, hidden: bool) -> u32 {
        self.steps.push(Step { before, n, at, hidden });
        index(self.steps.len() - 1)
    }

    pub(super) fn bytes(&self) -> usize {
        self.steps.capacity() * size_of::<Step>()
    }

    /// With a single configuration there is nothing to choose any more.
    pub(super) fn commit_if_certain<const N: usize>(&mut self, frontier: &mut [Config<N>]) {
        if let [config] = frontier
            && self.steps.len() > 64
        {
            self.commit(config.trail);
            config.trail = NO_TRAIL;
        }
    }

    /// Whether [`compact`](Self::compact) is worth its time.
    pub(super) fn has_grown(&self) -> bool {
        self.steps.len() > 2 * self.kept + 100_000
    }

    fn commit(&mut self, trail: u32) {
        let start = self.committed.len();
        let mut at = trail;
        while let Some(step) = self.steps.get(at as usize) {
            self.committed.push(*step);
            at = step.before;
        }
        self.committed[start..].reverse();
        self.steps.clear();
        self.kept = 0;
    }

    /// Forgets what none of `configs` needs.
    pub(super) fn compact<'c, const N: usize>(
        &mut self,
        configs: impl Iterator<Item = &'c mut Config<N>>,
    ) {
        let mut moved = vec![NO_TRAIL; self.steps.len()];
        let mut ends: Vec<&mut u32> = configs.map(|config| &mut config.trail).collect();
        for end in &ends {
            let mut at = **end;
            while at != NO_TRAIL && moved[at as usize] == NO_TRAIL {
                moved[at as usize] = 0;
                at = self.steps[at as usize].before;
            }
        }
        let mut kept = Vec::new();
        for (at, step) in self.steps.iter().enumerate() {
            if moved[at] == NO_TRAIL {
                continue;
            }
            moved[at] = index(kept.len());
            let before = match step.before {
                NO_TRAIL => NO_TRAIL,
                before => moved[before as usize],
            };
            kept.push(Step { before, ..*step });
        }
        for end in &mut ends {
            if **end != NO_TRAIL {
                **end = moved[**end as usize];
            }
        }
        self.kept = kept.len();
        self.steps = kept;
    }

    pub(super) fn length(&self, trail: u32) -> usize {
        let step = |at: u32| self.steps.get(at as usize);
        std::iter::successors(step(trail), |step_now| step(step_now.before)).count()
    }

    /// The order that leads to `trail`. What hid is put where it left no trace: before an operation
    /// that overwrites, or into a state that it does not change, while it was running.
    pub(super) fn order<M: Model>(
        mut self,
        trail: u32,
        problem: &Problem<M::Op>,
        memo: &mut Memo<'_, M>,
        overwrites: &[bool],
    ) -> Vec<u32> {
        self.commit(trail);
        let kind = |n: u32| problem.ops[n as usize].kind;
        // (operation, position, the state before it)
        let mut plain: Vec<(u32, u32, u32)> = Vec::with_capacity(self.committed.len());
        let mut hidden: Vec<(usize, u32)> = Vec::new();
        let mut state = Memo::<M>::INITIAL;
        for step in &self.committed {
            if !step.hidden {
                plain.push((step.n, step.at, state));
                state = memo.step(state, kind(step.n));
                continue;
            }
            let begin = problem.ops[step.n as usize].begin;
            let mut place = plain.len();
            let mut here = state;
            while memo.step(here, kind(step.n)) != here
                && let Some(&(next, at, before)) = place.checked_sub(1).and_then(|p| plain.get(p))
                && at >= begin
            {
                place -= 1;
                here = before;
                if overwrites[kind(next) as usize] {
                    break;
                }
            }
            hidden.push((place, step.n));
        }
        hidden.sort_by_key(|&(place, _)| place);
        let mut order = Vec::with_capacity(plain.len() + hidden.len());
        let mut rest = hidden.into_iter().peekable();
        for (place, &(n, ..)) in plain.iter().enumerate() {
            while let Some((_, hides)) = rest.next_if(|&(before, _)| before == place) {
                order.push(hides);
            }
            order.push(n);
        }
        order.extend(rest.map(|(_, n)| n));
        order
    }
}
