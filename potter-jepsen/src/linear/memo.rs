//! States and steps as numbers: each step of the model is computed once.

use rustc_hash::FxHashMap;

use super::model::Model;
use super::problem::{Problem, index};
use crate::budget::Meter;

/// The answer "impossible here".
pub(crate) const NONE: u32 = u32::MAX;

pub(crate) struct Memo<'m, M: Model> {
    model: &'m M,
    kinds: &'m [M::Op],
    states: Vec<M::State>,
    ids: FxHashMap<M::State, u32>,
    steps: FxHashMap<(u32, u32), u32>,
    meter: Meter,
}

impl<'m, M: Model> Memo<'m, M> {
    pub(crate) fn new(model: &'m M, problem: &'m Problem<M::Op>, meter: Meter) -> Self {
        let mut memo = Self {
            model,
            kinds: &problem.kinds,
            states: Vec::new(),
            ids: FxHashMap::default(),
            steps: FxHashMap::default(),
            meter,
        };
        memo.intern(model.initial(problem.key.as_ref()));
        memo
    }

    /// The number of the state before everything.
    pub(crate) const INITIAL: u32 = 0;

    fn intern(&mut self, state: M::State) -> u32 {
        if let Some(&id) = self.ids.get(&state) {
            return id;
        }
        let id = index(self.states.len());
        self.meter.grow(2 * self.model.state_bytes(&state) + 24);
        self.ids.insert(state.clone(), id);
        self.states.push(state);
        id
    }

    pub(crate) fn step(&mut self, state: u32, kind: u32) -> u32 {
        if let Some(&next) = self.steps.get(&(state, kind)) {
            return next;
        }
        let next = self.model.step(&self.states[state as usize], &self.kinds[kind as usize]);
        let next = next.map_or(NONE, |next| self.intern(next));
        self.steps.insert((state, kind), next);
        self.meter.grow(24);
        next
    }

    pub(crate) fn state(&self, id: u32) -> &M::State {
        &self.states[id as usize]
    }

    /// About how many bytes this holds; given back when a search ends.
    pub(crate) fn bytes(&self) -> usize {
        let states: usize = self.states.iter().map(|s| 2 * self.model.state_bytes(s) + 24).sum();
        states + self.steps.len() * 24
    }
}

impl<M: Model> Drop for Memo<'_, M> {
    fn drop(&mut self) {
        self.meter.shrink(self.bytes());
    }
}
