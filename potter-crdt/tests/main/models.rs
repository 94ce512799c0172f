//! Every type against a naive model: the set of all operations ever, merged by union. A model is
//! too simple to be wrong and too large to be used.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;
use proptest::prelude::*;

use crate::worlds::{Action, Node, Subject, actions, step, world};

/// What has happened, as one replica knows it.
pub(crate) trait Model: Clone + Default + Debug {
    type State: Subject;

    /// The same write as the state has just seen; `id` is new.
    fn write(&mut self, id: u64, after: &Node<Self::State>, kind: u8, x: u8);
    fn merge(&mut self, other: &Self);
    fn check(&self, state: &Self::State);
}

fn against<M: Model>(actions: &[Action]) {
    let mut nodes = world::<M::State>();
    let mut models = vec![M::default(); nodes.len()];
    for (id, action) in (1u64..).zip(actions) {
        step(&mut nodes, *action);
        match *action {
            Action::Write(n, kind, x) => models[n].write(id, &nodes[n], kind, x),
            Action::Full(a, b) | Action::Delta(a, b) | Action::Against(a, b) => {
                let from = models[a].clone();
                models[b].merge(&from);
            }
        }
        for (node, model) in nodes.iter().zip(&models) {
            model.check(&node.state);
        }
    }
}

/// Adds with unique ids and the ids that were removed.
#[derive(Clone, Debug)]
struct Tagged<T> {
    adds: BTreeSet<(T, u64)>,
    removed: BTreeSet<u64>,
}

impl<T> Default for Tagged<T> {
    fn default() -> Self {
        Self { adds: BTreeSet::new(), removed: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> Tagged<T> {
    fn remove(&mut self, gone: impl Fn(&T) -> bool) {
        let ids = self.adds.iter().filter(|(element, _)| gone(element)).map(|(_, id)| *id);
        self.removed.extend(ids);
    }

    fn merge(&mut self, other: &Self) {
        self.adds.extend(other.adds.iter().cloned());
        self.removed.extend(&other.removed);
    }

    fn live(&self) -> impl Iterator<Item = &T> {
        self.adds.iter().filter(|(_, id)| !self.removed.contains(id)).map(|(element, _)| element)
    }

    fn set(&self) -> BTreeSet<T> {
        self.live().cloned().collect()
    }
}

#[derive(Clone, Debug, Default)]
struct OrSetModel(Tagged<String>);

impl Model for OrSetModel {
    type State = OrSet<String>;

    fn write(&mut self, id: u64, _: &Node<Self::State>, kind: u8, x: u8) {
        let element = format!("e{}", x % 6);
        if kind.is_multiple_of(3) {
            self.0.remove(|other| *other == element);
        } else {
            self.0.adds.insert((element, id));
        }
    }

    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    fn check(&self, state: &Self::State) {
        assert_eq!(state.iter().cloned().collect::<BTreeSet<_>>(), self.0.set());
        assert_eq!(state.len(), self.0.set().len());
        for n in 0..6 {
            let element = format!("e{n}");
            assert_eq!(state.contains(&element), self.0.set().contains(&element));
        }
    }
}

#[derive(Clone, Debug, Default)]
struct FlagModel(Tagged<()>);

impl Model for FlagModel {
    type State = EnableWinsFlag;

    fn write(&mut self, id: u64, _: &Node<Self::State>, kind: u8, _: u8) {
        if kind.is_multiple_of(2) {
            self.0.adds.insert(((), id));
        } else {
            self.0.remove(|()| true);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    fn check(&self, state: &Self::State) {
        assert_eq!(state.is_enabled(), self.0.live().next().is_some());
    }
}

#[derive(Clone, Debug, Default)]
struct MvModel(Tagged<u64>);

impl Model for MvModel {
    type State = MvRegister<u64>;

    fn write(&mut self, id: u64, _: &Node<Self::State>, _: u8, x: u8) {
        self.0.remove(|_| true);
        self.0.adds.insert((u64::from(x), id));
    }

    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    fn check(&self, state: &Self::State) {
        let mut values: Vec<u64> = state.values().copied().collect();
        values.sort_unstable();
        let mut model: Vec<u64> = self.0.live().copied().collect();
        model.sort_unstable();
        assert_eq!(values, model);
    }
}

#[derive(Clone, Debug, Default)]
struct SetsModel(Tagged<(String, u64)>);

impl Model for SetsModel {
    type State = OrMap<String, SetStore<u64>>;

    fn write(&mut self, id: u64, _: &Node<Self::State>, kind: u8, x: u8) {
        let (key, element) = (format!("k{}", x % 3), u64::from(x / 3 % 4));
        match kind % 5 {
            0 => self.0.remove(|(other, _)| *other == key),
            1 => self.0.remove(|other| *other == (key.clone(), element)),
            _ => {
                self.0.adds.insert(((key, element), id));
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    fn check(&self, state: &Self::State) {
        let all: BTreeSet<(String, u64)> = state
            .iter()
            .flat_map(|(key, set)| set.iter().map(move |element| (key.clone(), *element)))
            .collect();
        assert_eq!(all, self.0.set());
        let keys: BTreeSet<String> = self.0.live().map(|(key, _)| key.clone()).collect();
        assert_eq!(state.len(), keys.len(), "a key is there while its value holds something");
    }
}

/// Single increments.
#[derive(Clone, Debug, Default)]
struct CountersModel(Tagged<(String, i64)>);

impl CountersModel {
    fn sum(&self, key: &str) -> i128 {
        self.0.live().filter(|(other, _)| other == key).map(|(_, by)| i128::from(*by)).sum()
    }
}

impl Model for CountersModel {
    type State = OrMap<String, CounterStore>;

    fn write(&mut self, id: u64, _: &Node<Self::State>, kind: u8, x: u8) {
        let key = format!("k{}", x % 3);
        if kind.is_multiple_of(4) {
            self.0.remove(|(other, _)| *other == key);
        } else {
            self.0.adds.insert(((key, i64::from(x) + 1), id));
        }
    }

    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    fn check(&self, state: &Self::State) {
        for key in ["k0", "k1", "k2"] {
            let value = state.get(&key.to_owned()).map_or(0, CounterStore::value);
            assert_eq!(value, self.sum(key));
            assert_eq!(state.get(&key.to_owned()).is_some(), self.sum(key) != 0);
        }
    }
}

macro_rules! counter_model {
    ($name:ident, $state:ty, $resets:expr) => {
        #[derive(Clone, Debug, Default)]
        struct $name(CountersModel);

        impl Model for $name {
            type State = $state;

            fn write(&mut self, id: u64, _: &Node<Self::State>, kind: u8, x: u8) {
                if $resets && kind.is_multiple_of(4) {
                    self.0.0.remove(|_| true);
                } else {
                    self.0.0.adds.insert(((String::new(), i64::from(x) - 100), id));
                }
            }

            fn merge(&mut self, other: &Self) {
                self.0.0.merge(&other.0.0);
            }

            fn check(&self, state: &Self::State) {
                assert_eq!(state.value(), self.0.sum(""));
            }
        }
    };
}

counter_model!(PnModel, PnCounter, false);
counter_model!(ResettableModel, ResettableCounter, true);
counter_model!(CausalCounterModel, CausalCounter, true);

#[derive(Clone, Debug, Default)]
struct GCounterModel(BTreeMap<u64, u64>);

impl Model for GCounterModel {
    type State = GCounter;

    fn write(&mut self, id: u64, _: &Node<Self::State>, _: u8, x: u8) {
        self.0.insert(id, u64::from(x));
    }

    fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    fn check(&self, state: &Self::State) {
        assert_eq!(state.value(), u128::from(self.0.values().sum::<u64>()));
    }
}

/// All writes of each key.
#[derive(Clone, Debug, Default)]
struct LwwMapModel(BTreeMap<String, BTreeSet<Stamped<u64>>>);

impl Model for LwwMapModel {
    type State = LwwMap<String, u64>;

    fn write(&mut self, _: u64, after: &Node<Self::State>, kind: u8, x: u8) {
        let key = format!("k{}", x % 4);
        let write = after.state.top(&key).unwrap().clone();
        assert_eq!(
            write.value,
            (!kind.is_multiple_of(3)).then_some(u64::from(x)),
            "a write wins at once"
        );
        self.0.entry(key).or_default().insert(write);
    }

    fn merge(&mut self, other: &Self) {
        for (key, writes) in &other.0 {
            self.0.entry(key.clone()).or_default().extend(writes.iter().cloned());
        }
    }

    fn check(&self, state: &Self::State) {
        for (key, writes) in &self.0 {
            assert_eq!(state.top(key), writes.last());
            assert_eq!(state.get(key), writes.last().and_then(|write| write.value.as_ref()));
        }
        assert_eq!(
            state.len(),
            self.0.values().filter(|writes| writes.last().unwrap().value.is_some()).count()
        );
    }
}

#[derive(Clone, Debug, Default)]
struct TwoPhaseModel(BTreeSet<u64>, BTreeSet<u64>);

impl Model for TwoPhaseModel {
    type State = TwoPhaseSet<u64>;

    fn write(&mut self, _: u64, _: &Node<Self::State>, kind: u8, x: u8) {
        let element = u64::from(x % 8);
        if !kind.is_multiple_of(3) {
            self.0.insert(element);
        } else if self.0.contains(&element) {
            self.1.insert(element);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
        self.1.extend(&other.1);
    }

    fn check(&self, state: &Self::State) {
        assert_eq!(state.iter().copied().collect::<BTreeSet<_>>(), &self.0 - &self.1);
        assert_eq!(state.len(), self.0.len() - self.1.len());
    }
}

/// Time and actor: the name of a character.
type Id = (u64, ActorId);

/// Every character with its origin, and the deleted ones.
#[derive(Clone, Debug, Default)]
struct TextModel {
    characters: BTreeMap<Id, (Option<Id>, char)>,
    deleted: BTreeSet<Id>,
}

impl TextModel {
    /// The preorder walk of the tree of origins, later siblings first.
    fn walk(&self) -> Vec<Id> {
        let mut out = Vec::new();
        let mut stack = vec![None];
        while let Some(at) = stack.pop() {
            // Rising order, so the greatest is on top of the stack.
            let children = self.characters.iter().filter(|(_, (origin, _))| *origin == at);
            stack.extend(children.map(|(id, _)| Some(id.clone())));
            out.extend(at);
        }
        out
    }

    fn visible(&self) -> Vec<Id> {
        self.walk().into_iter().filter(|id| !self.deleted.contains(id)).collect()
    }
}

impl Model for TextModel {
    type State = Rga;

    fn write(&mut self, _: u64, after: &Node<Self::State>, kind: u8, x: u8) {
        let visible = self.visible();
        let index = usize::from(x) % (visible.len() + 1);
        if kind.is_multiple_of(3) && index < visible.len() {
            let count = (1 + usize::from(kind) % 4).min(visible.len() - index);
            self.deleted.extend(visible[index..index + count].iter().cloned());
            return;
        }
        let mut origin = index.checked_sub(1).map(|before| visible[before].clone());
        let mut time = self.characters.keys().next_back().map_or(0, |id| id.0);
        for character in ["x", "ab", "häß", "€uro", "\u{1f600}"][usize::from(kind) % 5].chars()
        {
            time += 1;
            let id = (time, after.writer.actor().clone());
            self.characters.insert(id.clone(), (origin, character));
            origin = Some(id);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.characters.extend(other.characters.clone());
        self.deleted.extend(other.deleted.iter().cloned());
    }

    fn check(&self, state: &Self::State) {
        let text: String = self.visible().iter().map(|id| self.characters[id].1).collect();
        assert_eq!(state.to_string(), text);
        assert_eq!(state.len(), text.chars().count());
        assert_eq!(state.tombstones(), self.deleted.len() as u64);
        for index in 0..=state.len() {
            assert_eq!(state.index_of(&state.position(index).unwrap()), Some(index));
        }
    }
}

macro_rules! models {
    ($($name:ident: $type:ty;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
            $(
                #[test]
                fn $name(actions in actions(60)) {
                    against::<$type>(&actions);
                }
            )*
        }
    };
}

models! {
    or_set: OrSetModel;
    flag: FlagModel;
    mv_register: MvModel;
    map_of_sets: SetsModel;
    map_of_counters: CountersModel;
    pn_counter: PnModel;
    resettable_counter: ResettableModel;
    causal_counter: CausalCounterModel;
    g_counter: GCounterModel;
    lww_map: LwwMapModel;
    two_phase_set: TwoPhaseModel;
    text: TextModel;
}
