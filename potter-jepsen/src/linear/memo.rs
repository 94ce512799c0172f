//! States and steps as numbers: each step of the model is computed once.

use rustc_hash::FxHashMap;

use super::model::{Merge, Model};
use super::problem::{Problem, index};
use crate::budget::Meter;

/// The answer "impossible here".
pub(crate) const NONE: u32 = u32::MAX;

/// Not computed yet.
const UNSET: u32 = u32::MAX - 1;

/// So many steps are kept in a plain table, those of the first states; all others in a map.
const TABLE: usize = 1 << 18;

pub(crate) struct Memo<'m, M: Model> {
    model: &'m M,
    kinds: &'m [M::Op],
    merge: Option<Merge<M::State>>,
    states: Vec<M::State>,
    ids: FxHashMap<M::State, u32>,
    table: Vec<u32>,
    tabled: usize,
    steps: FxHashMap<(u32, u32), u32>,
    meter: Meter,
    bytes: usize,
}

impl<'m, M: Model> Memo<'m, M> {
    pub(crate) fn new(model: &'m M, problem: &'m Problem<M::Op>, meter: Meter) -> Self {
        let mut memo = Self {
            model,
            kinds: &problem.kinds,
            merge: model.merge(&problem.kinds),
            states: Vec::new(),
            ids: FxHashMap::default(),
            table: Vec::new(),
            tabled: TABLE / problem.kinds.len().max(1),
            steps: FxHashMap::default(),
            meter,
            bytes: 0,
        };
        memo.intern(model.initial(problem.key.as_ref()));
        memo
    }

    /// The number of the state before everything.
    pub(crate) const INITIAL: u32 = 0;

    fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.meter.grow(bytes);
    }

    fn intern(&mut self, state: M::State) -> u32 {
        let state = match &self.merge {
            Some(merge) => merge(state),
            None => state,
        };
        if let Some(&id) = self.ids.get(&state) {
            return id;
        }
        let id = index(self.states.len());
        let mut bytes = 2 * self.model.state_bytes(&state) + 24;
        if (id as usize) < self.tabled {
            self.table.resize((id as usize + 1) * self.kinds.len(), UNSET);
            bytes += 4 * self.kinds.len();
        }
        self.grow(bytes);
        self.ids.insert(state.clone(), id);
        self.states.push(state);
        id
    }

    /// The state after an operation of `kind` in `state`, or [`NONE`].
    pub(crate) fn step(&mut self, state: u32, kind: u32) -> u32 {
        let place = state as usize * self.kinds.len() + kind as usize;
        if (state as usize) < self.tabled {
            let known = self.table[place];
            if known != UNSET {
                return known;
            }
        } else if let Some(&next) = self.steps.get(&(state, kind)) {
            return next;
        }
        let next = self.model.step(&self.states[state as usize], &self.kinds[kind as usize]);
        let next = next.map_or(NONE, |next| self.intern(next));
        if (state as usize) < self.tabled {
            self.table[place] = next;
        } else {
            self.steps.insert((state, kind), next);
            self.grow(24);
        }
        next
    }

    /// How many states are known.
    pub(crate) fn states(&self) -> usize {
        self.states.len()
    }

    pub(crate) fn state(&self, id: u32) -> &M::State {
        &self.states[id as usize]
    }
}

impl<M: Model> Drop for Memo<'_, M> {
    fn drop(&mut self) {
        self.meter.shrink(self.bytes);
    }
}
