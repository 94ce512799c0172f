//! Small worlds: three replicas that write and merge as a random list of actions says. The states
//! that they reach are the inputs of the laws, so every law holds for what can really happen.

use std::fmt::Debug;

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;
use proptest::prelude::*;

/// One replica.
pub(crate) struct Node<C> {
    pub(crate) state: C,
    pub(crate) writer: Writer,
    pub(crate) clock: Hlc,
    pub(crate) wall: u64,
}

/// What a replica does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    /// Replica, kind, argument.
    Write(usize, u8, u8),
    /// From, to: the whole state.
    Full(usize, usize),
    /// From, to: what the other's summary lacks.
    Delta(usize, usize),
    /// From, to: what the other's state lacks.
    Against(usize, usize),
}

pub(crate) const NODES: usize = 3;

pub(crate) fn actions(length: usize) -> impl Strategy<Value = Vec<Action>> {
    let node = || 0..NODES;
    let action = prop_oneof![
        6 => (node(), any::<u8>(), any::<u8>()).prop_map(|(n, k, x)| Action::Write(n, k, x)),
        1 => (node(), node()).prop_map(|(a, b)| Action::Full(a, b)),
        1 => (node(), node()).prop_map(|(a, b)| Action::Delta(a, b)),
        1 => (node(), node()).prop_map(|(a, b)| Action::Against(a, b)),
    ];
    proptest::collection::vec(action, 0..length)
}

/// A type under test.
pub(crate) trait Subject:
    Delta + Codec + Clone + Default + Debug + PartialEq + 'static
{
    fn write(node: &mut Node<Self>, kind: u8, x: u8);
}

pub(crate) fn world<C: Subject>() -> Vec<Node<C>> {
    (0..NODES)
        .map(|n| {
            let actor = ActorId::new(["c", "a", "b"][n]).unwrap();
            Node {
                state: C::default(),
                writer: Writer::new(actor.clone()),
                clock: Hlc::new(actor),
                wall: 1_000 * n as u64, // skewed
            }
        })
        .collect()
}

pub(crate) fn run<C: Subject>(actions: &[Action]) -> Vec<Node<C>> {
    let mut nodes = world::<C>();
    for action in actions {
        step(&mut nodes, *action);
    }
    nodes
}

pub(crate) fn step<C: Subject>(nodes: &mut [Node<C>], action: Action) {
    let (to, incoming) = match action {
        Action::Write(n, kind, x) => {
            nodes[n].wall += u64::from(kind % 3);
            C::write(&mut nodes[n], kind, x);
            return;
        }
        Action::Full(a, b) => (b, nodes[a].state.clone()),
        Action::Delta(a, b) => (b, nodes[a].state.delta(&nodes[b].state.summary())),
        Action::Against(a, b) => (b, nodes[a].state.delta_against(&nodes[b].state)),
    };
    nodes[to].state.join(&incoming).unwrap();
}

pub(crate) fn at(wall: u64) -> Timestamp {
    Timestamp::from_unix_millis(1_700_000_000_000 + i64::try_from(wall).unwrap()).unwrap()
}

impl Subject for VectorClock {
    fn write(node: &mut Node<Self>, _: u8, _: u8) {
        node.state.increment(&mut node.writer).unwrap();
    }
}

impl Subject for GCounter {
    fn write(node: &mut Node<Self>, _: u8, x: u8) {
        node.state.increment(&mut node.writer, u64::from(x)).unwrap();
    }
}

impl Subject for PnCounter {
    fn write(node: &mut Node<Self>, _: u8, x: u8) {
        node.state.add(&mut node.writer, i64::from(x) - 100).unwrap();
    }
}

impl Subject for ResettableCounter {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        if kind.is_multiple_of(4) {
            node.state.reset();
        } else {
            node.state.add(&mut node.writer, i64::from(x) - 100).unwrap();
        }
    }
}

impl Subject for BoundedCounter {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        let by = u64::from(x % 8);
        let done = match kind % 3 {
            0 => node.state.increment(&mut node.writer, by),
            1 => node.state.decrement(&mut node.writer, by),
            _ => {
                let to = ActorId::new(["a", "b", "c"][usize::from(kind) % 3]).unwrap();
                if to == *node.writer.actor() {
                    return;
                }
                node.state.transfer(&mut node.writer, &to, by)
            }
        };
        if let Err(error) = done {
            assert_eq!(error.kind(), ErrorKind::InsufficientRights);
        }
    }
}

impl Subject for LwwRegister<String> {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        let value = format!("v{}", x % 4);
        if kind.is_multiple_of(2) {
            let wall = at(node.wall);
            node.state.write(&mut node.clock, wall, value).unwrap();
        } else {
            // A plain timestamp, often the same.
            let stamp = Stamp::new(at(u64::from(x % 3)), node.writer.actor().clone());
            node.state.set(stamp, value);
        }
    }
}

impl Subject for GSet<u64> {
    fn write(node: &mut Node<Self>, _: u8, x: u8) {
        node.state.insert(u64::from(x % 16));
    }
}

impl Subject for TwoPhaseSet<u64> {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        if kind.is_multiple_of(3) {
            node.state.remove(&u64::from(x % 8));
        } else {
            node.state.insert(u64::from(x % 8));
        }
    }
}

impl Subject for OrSet<String> {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        let element = format!("e{}", x % 6);
        if kind.is_multiple_of(3) {
            node.state.remove(&element).unwrap();
        } else {
            node.state.add(&mut node.writer, element).unwrap();
        }
    }
}

impl Subject for MvRegister<u64> {
    fn write(node: &mut Node<Self>, _: u8, x: u8) {
        node.state.write(&mut node.writer, u64::from(x)).unwrap();
    }
}

impl Subject for EnableWinsFlag {
    fn write(node: &mut Node<Self>, kind: u8, _: u8) {
        if kind.is_multiple_of(2) {
            node.state.enable(&mut node.writer).unwrap();
        } else {
            node.state.disable();
        }
    }
}

impl Subject for LwwMap<String, u64> {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        let key = format!("k{}", x % 4);
        let (wall, Node { state, writer, clock, .. }) = (at(node.wall), node);
        if kind.is_multiple_of(3) {
            state.delete(writer, clock, wall, key).unwrap();
        } else {
            state.put(writer, clock, wall, key, u64::from(x)).unwrap();
        }
    }
}

impl Subject for CausalCounter {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        if kind.is_multiple_of(4) {
            node.state.reset(&mut node.writer).unwrap();
        } else {
            node.state.add(&mut node.writer, i64::from(x) - 100).unwrap();
        }
    }
}

impl Subject for OrMap<String, CounterStore> {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        let key = format!("k{}", x % 3);
        if kind.is_multiple_of(4) {
            node.state.remove(&mut node.writer, &key).unwrap();
        } else {
            node.state
                .update(&mut node.writer, key, |counter, txn| counter.add(txn, i64::from(x) + 1))
                .unwrap();
        }
    }
}

impl Subject for OrMap<String, SetStore<u64>> {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        let key = format!("k{}", x % 3);
        let element = u64::from(x / 3 % 4);
        match kind % 5 {
            0 => {
                node.state.remove(&mut node.writer, &key).unwrap();
            }
            1 => {
                node.state
                    .update(&mut node.writer, key, |set, _| {
                        set.remove(&element);
                        Ok(())
                    })
                    .unwrap();
            }
            _ => {
                node.state.update(&mut node.writer, key, |set, txn| set.add(txn, element)).unwrap();
            }
        }
    }
}

/// Maps in a map, with a last-writer-wins register at the bottom.
pub(crate) type Nested = OrMap<String, MapStore<u64, LwwStore<String>>>;

impl Subject for Nested {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        let (outer, inner) = (format!("o{}", x % 2), u64::from(x / 2 % 3));
        let (wall, Node { state, writer, clock, .. }) = (at(node.wall), node);
        match kind % 6 {
            0 => {
                state.remove(writer, &outer).unwrap();
            }
            1 => {
                state.update(writer, outer, |map, txn| map.remove(txn, &inner)).unwrap();
            }
            _ => {
                state
                    .update(writer, outer, |map, txn| {
                        map.update(txn, inner, |register, txn| {
                            register.set(txn, clock, wall, Some(format!("v{x}")))
                        })
                    })
                    .unwrap();
            }
        }
    }
}

impl Subject for Rga {
    fn write(node: &mut Node<Self>, kind: u8, x: u8) {
        let length = node.state.len();
        let index = usize::from(x) % (length + 1);
        if kind.is_multiple_of(3) && index < length {
            let count = (1 + usize::from(kind) % 4).min(length - index);
            node.state.delete(&mut node.writer, index, count).unwrap();
        } else {
            let text = ["x", "ab", "häß", "€uro", "\u{1f600}"][usize::from(kind) % 5];
            node.state.insert(&mut node.writer, index, text).unwrap();
        }
    }
}
