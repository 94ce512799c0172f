//! A set in which an add wins over a concurrent remove, without tombstones.
//!
//! Invariant: an element is in the set as long as one of its dots is live; each live dot belongs to
//! exactly one element, and both know of each other. An add replaces the dots of its element that
//! it has seen, so an element has several dots only after concurrent adds.
//!
//! Layout: elements lie in one slab, their one dot beside them in a word (several are in a side
//! table). An index holds the dots by actor in order, so that a join walks two sorted arrays and
//! touches elements only where the sides differ. A keyed digest makes equal sets cost nothing.

use hashbrown::HashTable;
use serde_json::Value as Json;

use crate::actor::{ACTORS_MAX, DotIx};
use crate::causal::codec::{self, Order};
use crate::causal::set_index::{DEAD, Index, Live, reserve};
use crate::causal::{Causal, DotStore, JoinCx, Txn};
use crate::codec::{Decoder, Encoder, json};
use crate::keyed::{self, SetDigest};
use crate::{Context, Dot, Error, ErrorKind, Join, Result, Value, Writer};

/// An add-wins observed-remove set.
///
/// ```
/// use potter_crdt::{ActorId, Join, OrSet, Writer};
///
/// let mut a = Writer::new(ActorId::new("a")?);
/// let mut here = OrSet::new();
/// here.add(&mut a, "milk".to_owned())?;
/// let mut there = here.clone();
/// there.remove(&"milk".to_owned())?; // has seen the first add,
/// here.add(&mut a, "milk".to_owned())?; // and not this one.
/// here.join(&there)?;
/// assert!(here.contains(&"milk".to_owned()));
/// # Ok::<(), potter_crdt::Error>(())
/// ```
pub type OrSet<T> = Causal<SetStore<T>>;

/// The elements of an [`OrSet`].
#[derive(Clone)]
pub struct SetStore<T> {
    entries: Vec<Entry<T>>,
    table: HashTable<u32>,
    index: Index,
    /// The dots of elements that have several.
    many: Vec<Vec<DotIx>>,
    many_free: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    element: T,
    /// The dot; for an element with several, the marker [`MANY`] and the place in `many`.
    dot: DotIx,
}

/// No document has so many actors.
#[expect(clippy::cast_possible_truncation, reason = "2^20 - 1")]
const MANY: u32 = ACTORS_MAX as u32;

impl<T> Default for SetStore<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            table: HashTable::new(),
            index: Index::default(),
            many: Vec::new(),
            many_free: Vec::new(),
        }
    }
}

impl<T: Value> SetStore<T> {
    /// Adds `element`.
    pub fn add(&mut self, txn: &mut Txn<'_>, element: T) -> Result<Dot> {
        if self.entries.len() >= DEAD as usize - 1 {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "a set has at most 2^32 - 2 elements",
            ));
        }
        let hash = keyed::hash(&element);
        let dot = txn.mint()?;
        match self.find(hash, &element) {
            Some(slot) => {
                for old in self.dots_at(slot) {
                    self.index.remove(old);
                }
                self.forget(slot);
                self.entries[slot as usize].dot = dot;
                self.index.insert(dot, slot, keyed::fingerprint(hash), txn.ctx);
            }
            None => {
                let slot = self.push(element, hash, dot);
                self.index.insert(dot, slot, keyed::fingerprint(hash), txn.ctx);
            }
        }
        Ok(txn.dot(dot))
    }

    /// Removes `element` as it is seen here; true if it was there.
    pub fn remove(&mut self, element: &T) -> bool {
        let Some(slot) = self.find(keyed::hash(element), element) else { return false };
        for dot in self.dots_at(slot) {
            self.index.remove(dot);
        }
        self.drop_slot(slot);
        true
    }

    /// Is it there?
    pub fn contains(&self, element: &T) -> bool {
        self.find(keyed::hash(element), element).is_some()
    }

    /// The elements, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.element)
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn dots_of(&self, element: &T) -> Vec<DotIx> {
        self.find(keyed::hash(element), element).map_or(Vec::new(), |slot| self.dots_at(slot))
    }

    fn find(&self, hash: u64, element: &T) -> Option<u32> {
        let same = |&slot: &u32| self.entries[slot as usize].element == *element;
        self.table.find(hash, same).copied()
    }

    fn dots_at(&self, slot: u32) -> Vec<DotIx> {
        let dot = self.entries[slot as usize].dot;
        if dot.actor() == MANY { self.many[place(dot)].clone() } else { vec![dot] }
    }

    fn push(&mut self, element: T, hash: u64, dot: DotIx) -> u32 {
        let slot = u32::try_from(self.entries.len()).unwrap_or(DEAD);
        let entries = &self.entries;
        let rehash = |&at: &u32| keyed::hash(&entries[at as usize].element);
        self.table.insert_unique(hash, slot, rehash);
        reserve(&mut self.entries);
        self.entries.push(Entry { element, dot });
        slot
    }

    /// Adds one more dot to the element at `slot`.
    fn attach(&mut self, slot: u32, dot: DotIx) {
        let old = self.entries[slot as usize].dot;
        if old.actor() == MANY {
            self.many[place(old)].push(dot);
            return;
        }
        let dots = vec![old, dot];
        let at = match self.many_free.pop() {
            Some(at) => {
                self.many[at as usize] = dots;
                u64::from(at)
            }
            None => {
                self.many.push(dots);
                self.many.len() as u64 - 1
            }
        };
        self.entries[slot as usize].dot = DotIx::new(MANY, at);
    }

    /// Takes one dot from the element at `slot`, and the element with its last.
    fn detach(&mut self, slot: u32, dot: DotIx) {
        let own = self.entries[slot as usize].dot;
        if own.actor() != MANY {
            self.drop_slot(slot);
            return;
        }
        let dots = &mut self.many[place(own)];
        dots.retain(|&other| other != dot);
        if let [last] = dots[..] {
            self.forget(slot);
            self.entries[slot as usize].dot = last;
        }
    }

    /// Frees the side table's row of `slot`.
    fn forget(&mut self, slot: u32) {
        let dot = self.entries[slot as usize].dot;
        if dot.actor() == MANY {
            self.many[place(dot)] = Vec::new();
            self.many_free.push(u32::try_from(place(dot)).unwrap_or(0));
        }
    }

    /// Takes an element out; the last one of the slab moves to its place.
    fn drop_slot(&mut self, slot: u32) {
        self.forget(slot);
        let hash = keyed::hash(&self.entries[slot as usize].element);
        if let Ok(found) = self.table.find_entry(hash, |&at| at == slot) {
            found.remove();
        }
        let last = u32::try_from(self.entries.len() - 1).unwrap_or(DEAD);
        self.entries.swap_remove(slot as usize);
        if slot == last {
            return;
        }
        let hash = keyed::hash(&self.entries[slot as usize].element);
        if let Some(at) = self.table.find_mut(hash, |&at| at == last) {
            *at = slot;
        }
        let dot = self.entries[slot as usize].dot;
        if dot.actor() == MANY {
            for &dot in &self.many[place(dot)] {
                self.index.moved(dot, slot);
            }
        } else {
            self.index.moved(dot, slot);
        }
    }

    /// Adds dots of one actor with their elements.
    fn graft<'a>(
        &mut self,
        actor: u32,
        dots: impl Iterator<Item = (u64, u32, &'a T)>,
        ctx: &Context,
    ) where
        T: 'a,
    {
        let mut added = Vec::new();
        for (seq, print, element) in dots {
            let hash = keyed::hash(element);
            let dot = DotIx::new(actor, seq);
            let slot = match self.find(hash, element) {
                Some(slot) => {
                    self.attach(slot, dot);
                    slot
                }
                None => self.push(element.clone(), hash, dot),
            };
            added.push(Live { seq, slot, print });
        }
        if !added.is_empty() {
            self.index.extend(actor, &added, ctx);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an index of a vector")]
fn place(dot: DotIx) -> usize {
    dot.seq() as usize
}

/// A live dot that one side has and the other has not.
enum Meets {
    Mine(Live),
    Theirs(Live),
}

/// Walks all dots that `theirs` has seen, run by run; actors by my number.
fn walk<T>(
    mine: &SetStore<T>,
    theirs: &SetStore<T>,
    cx: &JoinCx<'_>,
    mut each: impl FnMut(u32, Meets),
) {
    for actor in cx.theirs.used() {
        let own = cx.to_mine[actor as usize];
        let (my_run, their_run) = (mine.index.run(own), theirs.index.run(actor));
        if my_run.is_none() && their_run.is_none() {
            continue;
        }
        for (lo, hi) in cx.theirs.ranges(actor).iter() {
            let mut a = my_run.map_or(&[][..], |run| run.within(lo, hi)).iter().peekable();
            let mut b = their_run.map_or(&[][..], |run| run.within(lo, hi)).iter().peekable();
            loop {
                while a.next_if(|dot| dot.slot == DEAD).is_some() {}
                while b.next_if(|dot| dot.slot == DEAD).is_some() {}
                let (Some(&x), Some(&y)) = (a.peek(), b.peek()) else { break };
                if x.seq <= y.seq {
                    a.next();
                }
                if y.seq <= x.seq {
                    b.next();
                }
                match x.seq.cmp(&y.seq) {
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Less => each(own, Meets::Mine(*x)),
                    std::cmp::Ordering::Greater => each(own, Meets::Theirs(*y)),
                }
            }
            a.filter(|dot| dot.slot != DEAD).for_each(|dot| each(own, Meets::Mine(*dot)));
            b.filter(|dot| dot.slot != DEAD).for_each(|dot| each(own, Meets::Theirs(*dot)));
        }
    }
}

impl<T: Value> DotStore for SetStore<T> {
    const TYPE: &'static str = "ORSet";
    const TAG: u8 = 7;

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn each_dot(&self, each: &mut dyn FnMut(DotIx)) {
        for run in self.index.runs() {
            run.live().for_each(|dot| each(DotIx::new(run.actor, dot.seq)));
        }
    }

    fn check(&self, theirs: &Self, cx: &JoinCx<'_>) -> Result<()> {
        // Only dots that both have can clash: walk theirs, look mine up.
        for run in theirs.index.runs() {
            let actor = cx.to_mine[run.actor as usize];
            let Some(mine) = self.index.run(actor) else { continue };
            let mut rest = &mine.dots[..];
            for dot in run.live() {
                // Near by in most cases, so gallop.
                let mut step = 1;
                while rest.get(step).is_some_and(|other| other.seq < dot.seq) {
                    step *= 2;
                }
                let upto = rest.len().min(step + 1);
                let skip = rest[..upto].partition_point(|other| other.seq < dot.seq);
                rest = &rest[skip..];
                if let Some(other) = rest.first()
                    && other.seq == dot.seq
                    && other.slot != DEAD
                    && other.print != dot.print
                {
                    return Err(cx.reused(DotIx::new(actor, dot.seq)));
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, theirs: &Self, cx: &JoinCx<'_>) -> bool {
        let mut gone: Vec<DotIx> = Vec::new();
        let mut new: Vec<(u32, Live)> = Vec::new();
        walk(self, theirs, cx, |actor, meets| match meets {
            Meets::Mine(dot) => gone.push(DotIx::new(actor, dot.seq)),
            Meets::Theirs(dot) => {
                if !cx.mine_saw(DotIx::new(actor, dot.seq)) {
                    new.push((actor, dot));
                }
            }
        });
        for &dot in &gone {
            if let Some(slot) = self.index.remove(dot) {
                self.detach(slot, dot);
            }
        }
        for group in new.chunk_by(|a, b| a.0 == b.0) {
            let dots = group
                .iter()
                .map(|(_, dot)| (dot.seq, dot.print, &theirs.entries[dot.slot as usize].element));
            self.graft(group[0].0, dots, cx.mine);
        }
        !gone.is_empty() || !new.is_empty()
    }

    fn part(&self, keep: &dyn Fn(DotIx) -> bool) -> Self {
        let mut out = Self::default();
        for run in self.index.runs() {
            for dot in run.live().filter(|dot| keep(DotIx::new(run.actor, dot.seq))) {
                let element = &self.entries[dot.slot as usize].element;
                let hash = keyed::hash(element);
                let at = DotIx::new(run.actor, dot.seq);
                let slot = match out.find(hash, element) {
                    Some(slot) => {
                        out.attach(slot, at);
                        slot
                    }
                    None => out.push(element.clone(), hash, at),
                };
                out.index.copy(run, Live { slot, ..*dot });
            }
        }
        out
    }

    fn pick(&self, dot: DotIx) -> Self {
        let mut out = Self::default();
        if let Some((run, live)) = self.index.get(dot) {
            let element = &self.entries[live.slot as usize].element;
            let slot = out.push(element.clone(), keyed::hash(element), dot);
            out.index.copy(run, Live { slot, ..live });
        }
        out
    }

    fn clear(&mut self, _: &mut Txn<'_>) -> Result<()> {
        *self = Self::default();
        Ok(())
    }

    fn digest(&self) -> Option<SetDigest> {
        Some(self.index.digest())
    }

    fn encode(&self, out: &mut Encoder, order: &Order<'_>) {
        let mut runs: Vec<_> =
            self.index.runs().iter().filter(|run| run.live().next().is_some()).collect();
        runs.sort_unstable_by_key(|run| order.place(run.actor));
        out.length(runs.len());
        for run in runs {
            out.uint(u64::from(order.place(run.actor)));
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for dot in run.live() {
                match ranges.last_mut() {
                    Some(last) if last.1 + 1 == dot.seq => last.1 = dot.seq,
                    _ => ranges.push((dot.seq, dot.seq)),
                }
            }
            codec::put_ranges(ranges.into_iter(), out);
            for dot in run.live() {
                self.entries[dot.slot as usize].element.encode(out);
            }
        }
    }

    fn decode(input: &mut Decoder<'_>, ctx: &Context) -> Result<Self> {
        let mut out = Self::default();
        let mut before = None;
        for _ in 0..input.length()? {
            let actor = codec::actor_place(input, ctx)?;
            if before.is_some_and(|before| before >= actor) {
                return Err(Error::malformed("the actors of a set are not in order"));
            }
            before = Some(actor);
            for (lo, hi) in codec::get_ranges(input)? {
                for seq in lo..=hi {
                    let dot = codec::seen(ctx, actor, seq)?;
                    out.read(dot, T::decode(input)?, ctx);
                }
            }
        }
        Ok(out)
    }

    fn to_json(&self, order: &Order<'_>) -> Json {
        let mut entries: Vec<(Vec<DotIx>, u32)> = (0u32..)
            .zip(&self.entries)
            .map(|(slot, _)| {
                let mut dots = self.dots_at(slot);
                dots.sort_unstable_by_key(|&dot| order.export(dot));
                (dots, slot)
            })
            .collect();
        entries.sort_unstable_by_key(|(dots, _)| order.export(dots[0]));
        let entry = |(dots, slot): (Vec<DotIx>, u32)| {
            json::make_object([
                ("dots", Json::Array(dots.into_iter().map(|dot| order.json(dot)).collect())),
                ("value", self.entries[slot as usize].element.to_json()),
            ])
        };
        Json::Array(entries.into_iter().map(entry).collect())
    }

    fn from_json(value: &Json, ctx: &Context) -> Result<Self> {
        let mut out = Self::default();
        for entry in json::array(value)? {
            let entry = json::object(entry)?;
            let element = T::from_json(json::field(entry, "value")?)?;
            for dot in json::array(json::field(entry, "dots")?)? {
                let dot = codec::get_json(dot, ctx)?;
                if out.index.has(dot) {
                    return Err(Error::malformed("an event is live twice"));
                }
                out.read(dot, element.clone(), ctx);
            }
        }
        Ok(out)
    }
}

impl<T: Value> SetStore<T> {
    /// One decoded dot.
    fn read(&mut self, dot: DotIx, element: T, ctx: &Context) {
        let hash = keyed::hash(&element);
        let slot = match self.find(hash, &element) {
            Some(slot) => {
                self.attach(slot, dot);
                slot
            }
            None => self.push(element, hash, dot),
        };
        self.index.insert(dot, slot, keyed::fingerprint(hash), ctx);
    }
}

impl<T: Value> std::fmt::Debug for SetStore<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows = (0u32..).zip(&self.entries);
        f.debug_map().entries(rows.map(|(at, entry)| (&entry.element, self.dots_at(at)))).finish()
    }
}

impl<T: Value> OrSet<T> {
    /// Adds `element`; its dot names the add.
    pub fn add(&mut self, writer: &mut Writer, element: T) -> Result<Dot> {
        self.edit(writer, |set, txn| set.add(txn, element))
    }

    /// Adds `element`, and returns the delta to send: the add, and the adds that it replaces.
    pub fn add_delta(&mut self, writer: &mut Writer, element: T) -> Result<Self> {
        let replaced = self.store.dots_of(&element);
        let dot = self.add(writer, element)?;
        let mut delta = self.entry_of(&dot);
        for old in replaced {
            delta.ctx.ranges_mut(old.actor()).insert(old.seq(), old.seq());
        }
        Ok(delta)
    }

    /// Removes `element` as it is seen here, and returns the delta to send; empty if it was not
    /// there.
    pub fn remove(&mut self, element: &T) -> Result<Self> {
        let delta = self.removal(element);
        self.store.remove(element);
        Ok(delta)
    }

    /// The delta that removes `element` as it is seen here, without removing it here.
    pub fn removal(&self, element: &T) -> Self {
        self.removal_of(self.store.dots_of(element))
    }

    /// Removes what another replica saw of its element, also before the adds have come here (a
    /// deferred remove).
    pub fn remove_dots(&mut self, seen: &[Dot]) -> Result<bool> {
        let mut delta = Self::new();
        for dot in seen {
            delta.ctx.insert(dot)?;
        }
        self.join(&delta)
    }

    /// The adds that keep `element` in the set.
    pub fn dots(&self, element: &T) -> Vec<Dot> {
        self.store.dots_of(element).into_iter().map(|dot| self.ctx.dot(dot)).collect()
    }

    /// Is it there?
    pub fn contains(&self, element: &T) -> bool {
        self.store.contains(element)
    }

    /// The elements, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.store.iter()
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }
}
