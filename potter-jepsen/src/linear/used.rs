//! Which crashed operations a configuration has used, as counts of equal operations.
//!
//! Equal crashed operations are interchangeable, so only their number counts; and since a crashed
//! operation may always be left out, a configuration that used fewer of each can do all that one
//! that used more can.

use rustc_hash::FxHashMap;

use super::problem::index;

/// Sets of used operations, each a sorted list of (class, how many), stored once.
#[derive(Debug)]
pub(crate) struct UsedSets {
    sets: Vec<Box<[(u32, u32)]>>,
    ids: FxHashMap<Box<[(u32, u32)]>, u32>,
    added: FxHashMap<(u32, u32), u32>,
    totals: Vec<u32>,
    bytes: usize,
    kept: usize,
}

impl UsedSets {
    pub(crate) const EMPTY: u32 = 0;

    pub(crate) fn new() -> Self {
        let mut sets = Self {
            sets: Vec::new(),
            ids: FxHashMap::default(),
            added: FxHashMap::default(),
            totals: Vec::new(),
            bytes: 0,
            kept: 0,
        };
        sets.intern(Box::new([]));
        sets
    }

    pub(crate) fn intern(&mut self, set: Box<[(u32, u32)]>) -> u32 {
        if let Some(&id) = self.ids.get(&set) {
            return id;
        }
        let id = index(self.sets.len());
        self.bytes += 16 * set.len() + 64;
        self.totals.push(set.iter().map(|&(_, count)| count).sum());
        self.ids.insert(set.clone(), id);
        self.sets.push(set);
        id
    }

    /// How many operations are in it.
    pub(crate) fn total(&self, id: u32) -> u32 {
        self.totals[id as usize]
    }

    pub(crate) fn get(&self, id: u32) -> &[(u32, u32)] {
        &self.sets[id as usize]
    }

    pub(crate) fn count(&self, id: u32, class: u32) -> u32 {
        let set = &self.sets[id as usize];
        set.binary_search_by_key(&class, |&(c, _)| c).map_or(0, |at| set[at].1)
    }

    /// `id` with one more of `class`.
    pub(crate) fn add(&mut self, id: u32, class: u32) -> u32 {
        if let Some(&sum) = self.added.get(&(id, class)) {
            return sum;
        }
        let mut set = self.sets[id as usize].to_vec();
        match set.binary_search_by_key(&class, |&(c, _)| c) {
            Ok(at) => set[at].1 += 1,
            Err(at) => set.insert(at, (class, 1)),
        }
        let sum = self.intern(set.into());
        self.added.insert((id, class), sum);
        sum
    }

    /// Whether `few_id` used no more of anything than `many_id`.
    pub(crate) fn within(&self, few_id: u32, many_id: u32) -> bool {
        if few_id == many_id || few_id == Self::EMPTY {
            return true;
        }
        let (few, many) = (self.get(few_id), self.get(many_id));
        if few.len() > many.len() || self.total(few_id) > self.total(many_id) {
            return false;
        }
        let mut rest = many.iter();
        few.iter().all(|&(class, count)| {
            rest.by_ref()
                .find(|&&(c, _)| c >= class)
                .is_some_and(|&(c, n)| c == class && n >= count)
        })
    }

    /// Whether [`compact`](Self::compact) is worth its time.
    pub(crate) fn has_grown(&self) -> bool {
        self.sets.len() > 2 * self.kept + 10_000
    }

    /// Forgets sets that none of `ids` is. Counts of what every one has used stay, because they say
    /// which operation of a class is the next.
    pub(crate) fn compact<'i>(&mut self, ids: impl Iterator<Item = &'i mut u32>) {
        let mut fresh = Self::new();
        for id in ids {
            *id = fresh.intern(self.get(*id).into());
        }
        fresh.kept = fresh.sets.len();
        *self = fresh;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.added.len() * 24
    }
}
