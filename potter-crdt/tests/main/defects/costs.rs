//! What costs more than it must: looked at by counting, not by the clock.

use std::cell::Cell;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;

use super::actor;
use crate::broken;

thread_local! {
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// A value that counts how often it is compared, hashed or cloned.
#[derive(Debug, Eq)]
pub(crate) struct Counted(pub(crate) u64);

fn look() {
    LOOKS.with(|looks| looks.set(looks.get() + 1));
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        look();
        Self(self.0)
    }
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        look();
        self.0 == other.0
    }
}

impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Counted {
    fn cmp(&self, other: &Self) -> Ordering {
        look();
        self.0.cmp(&other.0)
    }
}

impl Hash for Counted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        look();
        self.0.hash(state);
    }
}

impl Value for Counted {
    fn encode(&self, out: &mut Encoder) {
        out.uint(self.0);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        input.uint().map(Self)
    }

    fn to_json(&self) -> serde_json::Value {
        self.0.to_json()
    }

    fn from_json(json: &serde_json::Value) -> Result<Self> {
        u64::from_json(json).map(Self)
    }
}

fn looks(run: impl FnOnce()) -> u64 {
    let before = LOOKS.with(Cell::get);
    run();
    LOOKS.with(Cell::get) - before
}

fn counted_set(n: u64) -> (OrSet<Counted>, Writer) {
    let mut writer = Writer::new(actor("a"));
    let mut set = OrSet::new();
    for x in 0..n {
        set.add(&mut writer, Counted(x)).unwrap();
    }
    (set, writer)
}

/// crdts 7.3.2: `validate_merge` compares every element with every element, and finds fault with a
/// state beside itself.
#[test]
fn validation_is_linear_in_the_delta() {
    let (n, m) = (2_000, 20);
    let (mut set, mut writer) = counted_set(n);
    let before = set.clone();
    for x in 0..m {
        set.add(&mut writer, Counted(n + x)).unwrap();
    }
    let delta = set.delta(&before.summary());
    assert_eq!(delta.len() as u64, m);
    let few = |validate: &dyn Fn()| looks(validate) <= 4 * m;
    assert!(few(&|| before.validate(&delta).unwrap()));
    assert!(few(&|| set.validate(&set).unwrap()), "not even the whole state is looked at");
    let elements: Vec<_> = before.iter().cloned().collect();
    let new: Vec<_> = delta.iter().cloned().collect();
    assert!(!few(&|| broken::validate_all_pairs(&elements, &new)), "the broken copy is caught");
}

/// Merging identical states costs as much as merging different ones in crdts 7.3.2.
#[test]
fn joins_look_only_at_what_differs() {
    let (set, mut writer) = counted_set(2_000);
    let same = set.clone();
    let mut mine = set.clone();
    assert_eq!(looks(|| assert!(!mine.join(&same).unwrap())), 0, "nothing for identical states");
    let mut more = set;
    more.add(&mut writer, Counted(9_999)).unwrap();
    let seen = looks(|| assert!(mine.join(&more).unwrap()));
    assert!(seen < 10, "one element differs, {seen} looks");
}
