//! The laws, for every type.

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;
use proptest::prelude::*;

use crate::worlds::{Action, Nested, Subject, actions, run, step, world};

fn joined<C: Subject>(states: &[&C]) -> C {
    let mut out = C::default();
    for state in states {
        out.join(state).unwrap();
    }
    out
}

/// Commutative, associative, idempotent; `join` says whether it changed something.
fn lattice<C: Subject>(a: &C, b: &C, c: &C) {
    assert_eq!(joined(&[a, b]), joined(&[b, a]), "commutative");
    assert_eq!(joined(&[a, &joined(&[b, c])]), joined(&[&joined(&[a, b]), c]), "associative");
    assert_eq!(joined(&[a, &joined(&[c, b])]), joined(&[c, a, b]), "any order");
    let mut again = a.clone();
    assert!(!again.join(a).unwrap(), "idempotent");
    assert_eq!(&again, a);
    let mut ab = a.clone();
    let changed = ab.join(b).unwrap();
    assert_eq!(changed, ab != *a, "the answer says whether it changed");
    assert!(!ab.join(b).unwrap() && !ab.join(a).unwrap(), "monotone: both are below");
    let mut bottom = a.clone();
    assert!(!bottom.join(&C::default()).unwrap(), "the empty state is the bottom");
    assert!(C::default().is_bottom());
    a.validate(b).unwrap();
    a.validate(a).unwrap();
}

/// A delta does what the state does, for who has seen `since`; it carries nothing else.
fn deltas<C: Subject>(a: &C, b: &C, c: &C) {
    let full = joined(&[b, a]);
    let delta = a.delta(&b.summary());
    b.validate(&delta).unwrap();
    assert_eq!(joined(&[b, &delta]), full, "delta = state");
    let bc = joined(&[b, c]);
    assert_eq!(joined(&[&bc, &delta]), joined(&[&bc, a]), "delta = state, for who saw more");
    let exact = a.delta_against(b);
    assert_eq!(joined(&[b, &exact]), full, "exact delta = state");
    assert!(full.delta_against(a).delta_against(b).is_bottom() || full != *b);
    assert!(a.delta_against(a).is_bottom(), "nothing is lacking");
    assert!(a.delta_against(&full).is_bottom(), "nothing is lacking of what is below");
    let parts = a.decompose();
    assert_eq!(joined(&parts.iter().collect::<Vec<_>>()), *a, "the parts make the whole");
    let mut shuffled: Vec<_> = parts.iter().rev().chain(&parts).collect();
    shuffled.push(b);
    assert_eq!(joined(&shuffled), full, "in any order, twice");
    assert!(parts.iter().all(|part| !part.is_bottom()));
    for part in &parts {
        assert_eq!(&joined(&[a, part]), a, "every part is below the whole");
    }
}

fn formats<C: Subject>(state: &C) {
    for state in [state].into_iter().chain(&state.decompose()) {
        let bytes = state.to_bytes();
        let back = C::from_bytes(&bytes).unwrap();
        assert_eq!(&back, state);
        assert_eq!(back.to_bytes(), bytes, "canonical bytes");
        let json = state.to_json();
        let back = C::from_json(&json).unwrap();
        assert_eq!(&back, state, "{json}");
        assert_eq!(back.to_json(), json, "canonical JSON");
    }
}

/// All replicas get all of one another: they agree, in bytes too.
fn convergence<C: Subject>(nodes: &mut [crate::worlds::Node<C>]) {
    for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
        step(nodes, Action::Delta(from, to));
    }
    for node in &nodes[1..] {
        assert_eq!(node.state, nodes[0].state);
        assert_eq!(node.state.to_bytes(), nodes[0].state.to_bytes());
        assert_eq!(node.state.to_json(), nodes[0].state.to_json());
    }
}

fn all<C: Subject>(actions: &[Action]) {
    let mut nodes = run::<C>(actions);
    let [a, b, c] = [0, 1, 2].map(|n: usize| nodes[n].state.clone());
    lattice(&a, &b, &c);
    deltas(&a, &b, &c);
    deltas(&c, &a, &b);
    formats(&a);
    formats(&b.delta(&a.summary()));
    formats(&b.delta_against(&a));
    convergence(&mut nodes);
    // Growing: what a replica had is below what it has.
    let mut nodes = world::<C>();
    for action in actions {
        let before = nodes[0].state.clone();
        step(&mut nodes, *action);
        if !matches!(action, Action::Write(..)) {
            assert!(!nodes[0].state.clone().join(&before).unwrap(), "merging only grows");
        }
    }
}

/// Operations sent one by one do what the states do.
#[test]
fn single_operations() {
    let mut writer = Writer::new(ActorId::from(1));
    let (mut here, mut there) = (OrSet::<u64>::new(), OrSet::<u64>::new());
    let mut log = Vec::new();
    for x in [1, 2, 3, 2, 1, 4] {
        log.push(here.add_delta(&mut writer, x).unwrap());
        if x == 3 {
            log.push(here.remove(&2).unwrap());
        }
    }
    assert!(here.remove(&9).unwrap().is_bottom());
    // Backwards, and twice.
    for delta in log.iter().rev().chain(&log) {
        there.join(delta).unwrap();
    }
    assert_eq!(there, here);
    // A remove takes an element with all its adds, also those that a later one replaced.
    there.join(&here.remove(&1).unwrap()).unwrap();
    assert_eq!(there, here);
    assert!(!there.contains(&1));

    let (mut here, mut there) = (MvRegister::new(), MvRegister::new());
    let mut writer = Writer::new(ActorId::from(1));
    for x in 0..5u64 {
        let (_, delta) = here.edit_delta(&mut writer, |store, txn| store.write(txn, x)).unwrap();
        there.join(&delta).unwrap();
        assert_eq!(there, here);
    }
    type Counters = OrMap<u64, CounterStore>;
    let (mut here, mut there) = (Counters::new(), Counters::new());
    let mut writer = Writer::new(ActorId::from(1));
    for x in 0..20u64 {
        let edit = |map: &mut MapStore<u64, CounterStore>, txn: &mut Txn<'_>| match x % 5 {
            4 => map.remove(txn, &(x % 3)).map(drop),
            _ => map.update(txn, x % 3, |counter, txn| counter.add(txn, 7)),
        };
        let ((), delta) = here.edit_delta(&mut writer, edit).unwrap();
        there.join(&delta).unwrap();
        assert_eq!(there, here);
    }
}

macro_rules! laws {
    ($($name:ident: $type:ty;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
            $(
                #[test]
                fn $name(actions in actions(40)) {
                    all::<$type>(&actions);
                }
            )*
        }
    };
}

laws! {
    vector_clock: VectorClock;
    g_counter: GCounter;
    pn_counter: PnCounter;
    resettable_counter: ResettableCounter;
    bounded_counter: BoundedCounter;
    lww_register: LwwRegister<String>;
    g_set: GSet<u64>;
    two_phase_set: TwoPhaseSet<u64>;
    or_set: OrSet<String>;
    mv_register: MvRegister<u64>;
    flag: EnableWinsFlag;
    lww_map: LwwMap<String, u64>;
    causal_counter: CausalCounter;
    map_of_counters: OrMap<String, CounterStore>;
    map_of_sets: OrMap<String, SetStore<u64>>;
    map_of_maps: Nested;
    rga: Rga;
}
