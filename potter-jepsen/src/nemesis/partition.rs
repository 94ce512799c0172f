//! Which node does not hear which: the shapes of partitions, without a network.

use std::collections::BTreeSet;

use super::Fault;
use crate::error::{Error, ErrorKind, Result};
use crate::random::Random;
use crate::value::Value;

/// Pairs (from, to): what `from` sends does not get to `to`.
pub type Blocked = BTreeSet<(String, String)>;

/// The shapes of partitions, as Jepsen knows them. A fault of the kind `partition` names one in its
/// parameter `shape`; `seed` chooses among the many of that shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Shape {
    /// Two sides of (almost) the same size that hear nothing of each other.
    Halves,
    /// One node alone, and all others.
    One,
    /// Each node hears a majority, and no two hear the same. Needs four nodes or more; fewer can't
    /// disagree in this way.
    Ring,
    /// Two sides, and one node that hears both and is heard by both. Needs three nodes.
    Bridge,
    /// As halves, but only in one direction: the second side hears the first, not the other way
    /// round.
    OneWay,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 5] = [Self::Halves, Self::One, Self::Ring, Self::Bridge, Self::OneWay];

    /// The name that faults use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Halves => "halves",
            Self::One => "one",
            Self::Ring => "ring",
            Self::Bridge => "bridge",
            Self::OneWay => "one-way",
        }
    }

    /// The shape of this name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] with the names that there are.
    pub fn parse(name: &str) -> Result<Self> {
        let name = name.replace('_', "-");
        Self::ALL.into_iter().find(|shape| shape.name() == name).ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(", ");
            invalid(format!("there is no partition of the shape '{name}'; there are: {all}"))
        })
    }

    /// A partition of this shape. The same nodes and seed give the same one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] when there are too few nodes for the shape.
    pub fn partition(self, nodes: &[String], seed: u64) -> Result<Blocked> {
        let least = match self {
            Self::Halves | Self::One | Self::OneWay => 2,
            Self::Bridge => 3,
            Self::Ring => 4,
        };
        if nodes.len() < least {
            let (shape, count) = (self.name(), nodes.len());
            let message = format!(
                "a partition of the shape '{shape}' takes {least} nodes or more, \
                                   not {count}"
            );
            return Err(invalid(message));
        }
        let mut nodes = nodes.to_vec();
        shuffle(&mut nodes, seed);
        Ok(match self {
            Self::Halves => cut(nodes.split_at(nodes.len() / 2)),
            Self::One => cut(nodes.split_at(1)),
            Self::Bridge => cut(nodes[1..].split_at((nodes.len() - 1) / 2)),
            Self::OneWay => one_way(nodes.split_at(nodes.len() / 2)),
            Self::Ring => ring(&nodes),
        })
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidFault, message)
}

fn shuffle(nodes: &mut [String], seed: u64) {
    let mut random = Random::new(seed);
    for at in (1..nodes.len()).rev() {
        nodes.swap(at, random.index(at + 1));
    }
}

/// Nothing from the second side gets to the first.
fn one_way((first, second): (&[String], &[String])) -> Blocked {
    let pairs = second.iter().flat_map(|from| first.iter().map(move |to| (from, to)));
    pairs.map(|(from, to)| (from.clone(), to.clone())).collect()
}

fn cut((first, second): (&[String], &[String])) -> Blocked {
    let mut blocked = one_way((first, second));
    blocked.append(&mut one_way((second, first)));
    blocked
}

/// On a ring each hears itself and its nearest neighbours up to a majority.
fn ring(nodes: &[String]) -> Blocked {
    let count = nodes.len();
    let majority = count / 2 + 1;
    let mut blocked = Blocked::new();
    for (at, node) in nodes.iter().enumerate() {
        // A majority that begins `majority / 2` before the node.
        let begin = at + count - (majority - 1) / 2;
        for step in majority..count {
            let other = &nodes[(begin + step) % count];
            blocked.insert((other.clone(), node.clone()));
        }
    }
    blocked
}

/// What a fault of the kind `partition` blocks, of these nodes.
///
/// | parameter | value |
/// |---|---|
/// | `shape` | see [`Shape`]; `halves` if not said |
/// | `seed` | a whole number; 0 if not said |
/// | `sides` | in place of a shape: two or more lists of nodes that hear nothing of each other |
///
/// Targets are the nodes that take part; with `shape` `one` and a single target, that one is alone.
pub(crate) fn blocked(fault: &Fault, nodes: &[String]) -> Result<Blocked> {
    super::no_params(fault, &["shape", "seed", "sides"])?;
    for name in &fault.targets {
        known(name, nodes)?;
    }
    if let Some(sides) = fault.params.get("sides") {
        if fault.params.contains_key("shape") || !fault.targets.is_empty() {
            return Err(invalid(
                "a partition has either 'sides' or a shape and targets".to_owned(),
            ));
        }
        return from_sides(sides, nodes);
    }
    let shape = match fault.params.get("shape") {
        None => Shape::Halves,
        Some(value) => Shape::parse(value.as_name().unwrap_or_default())?,
    };
    let seed = match fault.params.get("seed") {
        None => 0,
        Some(Value::Int(seed)) => seed.cast_unsigned(),
        Some(other) => return Err(invalid(format!("'seed' is a whole number, not {other}"))),
    };
    match &fault.targets[..] {
        [] => shape.partition(nodes, seed),
        [alone] if shape == Shape::One => {
            let others: Vec<_> = nodes.iter().filter(|node| *node != alone).cloned().collect();
            Ok(cut((std::slice::from_ref(alone), &others)))
        }
        some => shape.partition(some, seed),
    }
}

fn from_sides(sides: &Value, nodes: &[String]) -> Result<Blocked> {
    let wrong = || invalid("'sides' is a list of two or more lists of nodes".to_owned());
    let mut named: Vec<Vec<String>> = Vec::new();
    for side in sides.as_items().ok_or_else(wrong)? {
        let items = side.as_items().ok_or_else(wrong)?;
        let names = items.iter().map(|item| item.as_name().map(str::to_owned).ok_or_else(wrong));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        for name in &names {
            known(name, nodes)?;
            if named.iter().flatten().any(|other| other == name) {
                return Err(invalid(format!("node '{name}' is on two sides")));
            }
        }
        named.push(names);
    }
    if named.len() < 2 {
        return Err(wrong());
    }
    let mut blocked = Blocked::new();
    for (at, side) in named.iter().enumerate() {
        for other in &named[at + 1..] {
            blocked.append(&mut cut((side, other)));
        }
    }
    Ok(blocked)
}

pub(crate) fn known(name: &str, nodes: &[String]) -> Result<()> {
    if nodes.iter().any(|node| node == name) {
        return Ok(());
    }
    Err(invalid(format!("there is no node '{name}'; there are: {}", nodes.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("n{n}")).collect()
    }

    /// Whom `node` hears, itself included.
    fn hears(node: &str, all: &[String], blocked: &Blocked) -> BTreeSet<String> {
        let heard =
            all.iter().filter(|from| !blocked.contains(&((*from).clone(), node.to_owned())));
        heard.cloned().collect()
    }

    #[test]
    fn shapes_are_what_they_are_called() {
        for count in 2..9 {
            let all = nodes(count);
            for seed in 0..50 {
                let blocked = Shape::Halves.partition(&all, seed).unwrap();
                let mut sizes: Vec<_> =
                    all.iter().map(|node| hears(node, &all, &blocked).len()).collect();
                sizes.sort_unstable();
                assert_eq!(sizes[0], count / 2);
                assert_eq!(sizes[count - 1], count - count / 2);

                let blocked = Shape::One.partition(&all, seed).unwrap();
                let alone = all.iter().filter(|node| hears(node, &all, &blocked).len() == 1);
                assert_eq!(alone.count(), if count == 2 { 2 } else { 1 });

                let blocked = Shape::OneWay.partition(&all, seed).unwrap();
                assert_eq!(blocked.len(), (count / 2) * (count - count / 2));
                assert!(!blocked.iter().any(|(a, b)| blocked.contains(&(b.clone(), a.clone()))));
            }
        }
    }

    #[test]
    fn a_bridge_hears_both_sides() {
        for count in 3..9 {
            let all = nodes(count);
            let blocked = Shape::Bridge.partition(&all, 3).unwrap();
            let whole = all.iter().filter(|node| hears(node, &all, &blocked).len() == count);
            assert_eq!(whole.count(), 1);
            assert!(!blocked.is_empty());
        }
    }

    #[test]
    fn on_a_ring_each_hears_another_majority() {
        for count in 4..10 {
            let all = nodes(count);
            let blocked = Shape::Ring.partition(&all, 5).unwrap();
            let heard: Vec<_> = all.iter().map(|node| hears(node, &all, &blocked)).collect();
            for (node, set) in all.iter().zip(&heard) {
                assert!(set.contains(node));
                assert_eq!(set.len(), count / 2 + 1);
            }
            assert_eq!(heard.iter().collect::<BTreeSet<_>>().len(), count);
        }
        assert!(Shape::Ring.partition(&nodes(3), 0).is_err());
    }

    #[test]
    fn a_seed_chooses() {
        let all = nodes(6);
        let first = Shape::Halves.partition(&all, 1).unwrap();
        assert_eq!(first, Shape::Halves.partition(&all, 1).unwrap());
        assert!((2..20).any(|seed| Shape::Halves.partition(&all, seed).unwrap() != first));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let all = nodes(3);
        let partition = || Fault::new("partition");
        let text = |text: &str| Value::Str(text.into());
        let sides = |sides: &[&[&str]]| {
            let side = |names: &&[&str]| Value::List(names.iter().map(|n| text(n)).collect());
            Value::List(sides.iter().map(side).collect())
        };
        let alone = partition().param("shape", text("one")).target("n1");
        assert_eq!(blocked(&alone, &all).unwrap().len(), 4);
        let both = partition().param("sides", sides(&[&["n0"], &["n1"]]));
        assert_eq!(blocked(&both, &all).unwrap().len(), 2);
        for wrong in [
            partition().target("n9"),
            partition().target("n1"),
            partition().param("shape", text("star")),
            partition().param("seed", text("x")),
            partition().param("side", sides(&[])),
            partition().param("sides", sides(&[&["n0"]])),
            partition().param("sides", sides(&[&["n0"], &["n0"]])),
            partition().param("sides", sides(&[&["n0"], &["n9"]])),
            partition().param("sides", sides(&[&["n0"], &["n1"]])).target("n2"),
        ] {
            let error = blocked(&wrong, &all).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidFault, "{wrong}: {error}");
        }
    }
}
