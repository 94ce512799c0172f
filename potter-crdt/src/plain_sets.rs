//! Sets without clocks.
//!
//! Invariants: a [`GSet`] only grows. In a [`TwoPhaseSet`] both the added and the removed only
//! grow, the removed are a subset of the added, and what was removed never comes back.

use std::collections::BTreeSet;

use crate::{Delta, Join, Result, Value};

/// A grow-only set.
///
/// It has no dots, so what another replica lacks is worked out from its whole state; use
/// [`crate::OrSet`] where deltas matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GSet<T> {
    pub(crate) elements: BTreeSet<T>,
}

impl<T> Default for GSet<T> {
    fn default() -> Self {
        Self { elements: BTreeSet::new() }
    }
}

impl<T: Value> GSet<T> {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `element`; true if it is new.
    pub fn insert(&mut self, element: T) -> bool {
        self.elements.insert(element)
    }

    /// Is it there?
    pub fn contains(&self, element: &T) -> bool {
        self.elements.contains(element)
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.elements.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}

impl<T: Value> FromIterator<T> for GSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Self { elements: elements.into_iter().collect() }
    }
}

fn union<T: Value>(mine: &mut BTreeSet<T>, theirs: &BTreeSet<T>) -> bool {
    let before = mine.len();
    for element in theirs {
        if !mine.contains(element) {
            mine.insert(element.clone());
        }
    }
    mine.len() > before
}

fn missing<T: Value>(mine: &BTreeSet<T>, theirs: &BTreeSet<T>) -> BTreeSet<T> {
    mine.difference(theirs).cloned().collect()
}

impl<T: Value> Join for GSet<T> {
    fn join(&mut self, other: &Self) -> Result<bool> {
        Ok(union(&mut self.elements, &other.elements))
    }

    fn validate(&self, _: &Self) -> Result<()> {
        Ok(())
    }
}

impl<T: Value> Delta for GSet<T> {
    type Summary = Self;

    fn summary(&self) -> Self {
        self.clone()
    }

    fn delta(&self, since: &Self) -> Self {
        Self { elements: missing(&self.elements, &since.elements) }
    }

    fn delta_against(&self, other: &Self) -> Self {
        self.delta(other)
    }

    fn decompose(&self) -> Vec<Self> {
        self.elements.iter().map(|element| Self::from_iter([element.clone()])).collect()
    }

    fn is_bottom(&self) -> bool {
        self.elements.is_empty()
    }
}

/// A set in which an element is added once and removed once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TwoPhaseSet<T> {
    pub(crate) added: BTreeSet<T>,
    pub(crate) removed: BTreeSet<T>,
}

impl<T> Default for TwoPhaseSet<T> {
    fn default() -> Self {
        Self { added: BTreeSet::new(), removed: BTreeSet::new() }
    }
}

impl<T: Value> TwoPhaseSet<T> {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `element`; false if it was added before, even if it was removed since.
    pub fn insert(&mut self, element: T) -> bool {
        self.added.insert(element)
    }

    /// Removes `element` for ever; false if it is not there.
    pub fn remove(&mut self, element: &T) -> bool {
        self.added.contains(element) && self.removed.insert(element.clone())
    }

    /// Is it there?
    pub fn contains(&self, element: &T) -> bool {
        self.added.contains(element) && !self.removed.contains(element)
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.added.difference(&self.removed)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.added.len() - self.removed.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Value> Join for TwoPhaseSet<T> {
    fn join(&mut self, other: &Self) -> Result<bool> {
        let added = union(&mut self.added, &other.added);
        Ok(union(&mut self.removed, &other.removed) || added)
    }

    fn validate(&self, _: &Self) -> Result<()> {
        Ok(())
    }
}

impl<T: Value> Delta for TwoPhaseSet<T> {
    type Summary = Self;

    fn summary(&self) -> Self {
        self.clone()
    }

    fn delta(&self, since: &Self) -> Self {
        let removed = missing(&self.removed, &since.removed);
        let mut added = missing(&self.added, &since.added);
        // A delta is a state too: what it removes, it adds.
        added.extend(removed.iter().cloned());
        Self { added, removed }
    }

    fn delta_against(&self, other: &Self) -> Self {
        self.delta(other)
    }

    fn decompose(&self) -> Vec<Self> {
        let single = |element: &T, removed: bool| Self {
            added: BTreeSet::from([element.clone()]),
            removed: removed.then(|| element.clone()).into_iter().collect(),
        };
        let removed = |element| self.removed.contains(element);
        self.added.iter().map(|element| single(element, removed(element))).collect()
    }

    fn is_bottom(&self) -> bool {
        self.added.is_empty()
    }
}
