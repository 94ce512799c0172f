//! Documents with one causal context.
//!
//! Invariant: a document is a set of seen dots (the context) and a store of live ones; every live
//! dot is seen. Seen and not live means removed or overwritten. The join keeps a dot if both have
//! it, or one has it and the other has not seen it (optimised OR-Set: Bieniusa et al. 2012;
//! generalised to dot stores: Almeida, Shoker, Baquero 2018). So there are no tombstones, and a
//! remove that comes before its add needs no buffer: the context remembers it.

use crate::actor::DotIx;
use crate::codec::{Decoder, Encoder};
use crate::keyed::SetDigest;
use crate::ranges::Ranges;
use crate::{
    ActorId, Authored, Context, Delta, Dot, Error, ErrorKind, Join, Reclaim, Result, Writer,
};

pub(crate) mod codec;
pub(crate) mod counter;
pub(crate) mod flag;
pub(crate) mod lww_map;
pub(crate) mod map;
pub(crate) mod register;
pub(crate) mod set;
mod set_index;

/// A document: one store and the context of all that it has seen.
#[derive(Clone, Default)]
pub struct Causal<S> {
    pub(crate) ctx: Context,
    pub(crate) store: S,
}

/// What a document holds: sets, registers, flags, counters, and maps of them. Sealed.
pub trait DotStore: Clone + Default + std::fmt::Debug {
    #[doc(hidden)]
    const TYPE: &'static str;
    #[doc(hidden)]
    const TAG: u8;

    /// Nothing to see?
    fn is_empty(&self) -> bool;

    /// Nothing kept at all?
    #[doc(hidden)]
    fn is_bottom(&self) -> bool {
        self.is_empty()
    }

    #[doc(hidden)]
    fn each_dot(&self, each: &mut dyn FnMut(DotIx));

    /// All dots that the store refers to, live or not.
    #[doc(hidden)]
    fn mentions(&self, each: &mut dyn FnMut(DotIx)) {
        self.each_dot(each);
    }

    /// Are the dots that both have the same events?
    #[doc(hidden)]
    fn check(&self, theirs: &Self, cx: &JoinCx<'_>) -> Result<()>;

    /// The join; true if this store changed.
    #[doc(hidden)]
    fn merge(&mut self, theirs: &Self, cx: &JoinCx<'_>) -> bool;

    /// The entries with a dot to keep.
    #[doc(hidden)]
    fn part(&self, keep: &dyn Fn(DotIx) -> bool) -> Self;

    /// The entry of one dot.
    #[doc(hidden)]
    fn pick(&self, dot: DotIx) -> Self {
        self.part(&|other| other == dot)
    }

    /// Removes all that is seen here.
    #[doc(hidden)]
    fn clear(&mut self, txn: &mut Txn<'_>) -> Result<()>;

    /// Drops what is only kept for replicas that have not seen `stable`.
    #[doc(hidden)]
    fn reclaim(&mut self, _stable: &dyn Fn(DotIx) -> bool) -> usize {
        0
    }

    /// A digest of the live dots and what they carry, if the store keeps one.
    #[doc(hidden)]
    fn digest(&self) -> Option<SetDigest> {
        None
    }

    #[doc(hidden)]
    fn encode(&self, out: &mut Encoder, cx: &codec::Order<'_>);
    #[doc(hidden)]
    fn decode(input: &mut Decoder<'_>, ctx: &Context) -> Result<Self>;
    #[doc(hidden)]
    fn to_json(&self, cx: &codec::Order<'_>) -> serde_json::Value;
    #[doc(hidden)]
    fn from_json(json: &serde_json::Value, ctx: &Context) -> Result<Self>;
}

/// The two contexts of a join.
#[derive(Debug)]
pub struct JoinCx<'a> {
    pub(crate) mine: &'a Context,
    pub(crate) theirs: &'a Context,
    pub(crate) to_mine: &'a [u32],
    to_theirs: Vec<u32>,
}

const UNKNOWN: u32 = u32::MAX;

impl<'a> JoinCx<'a> {
    fn new(mine: &'a Context, theirs: &'a Context, to_mine: &'a [u32]) -> Self {
        let mut to_theirs = vec![UNKNOWN; mine.actors()];
        for ix in theirs.used() {
            to_theirs[to_mine[ix as usize] as usize] = ix;
        }
        Self { mine, theirs, to_mine, to_theirs }
    }

    /// Their dot in my numbers.
    pub(crate) fn import(&self, dot: DotIx) -> DotIx {
        DotIx::new(self.to_mine[dot.actor() as usize], dot.seq())
    }

    /// Have they seen this dot of mine?
    pub(crate) fn theirs_saw(&self, dot: DotIx) -> bool {
        match self.to_theirs[dot.actor() as usize] {
            UNKNOWN => false,
            actor => self.theirs.ranges(actor).contains(dot.seq()),
        }
    }

    pub(crate) fn mine_saw(&self, dot: DotIx) -> bool {
        self.mine.has(dot)
    }

    pub(crate) fn reused(&self, dot: DotIx) -> Error {
        Error::new(
            ErrorKind::ActorReused,
            format!(
                "{:?} names two different events: its actor was restored from an older copy, \
                 cloned, or used by two writers; nothing was merged",
                self.mine.dot(dot)
            ),
        )
    }
}

/// The right to write to a document, for the length of one call.
#[derive(Debug)]
pub struct Txn<'a> {
    pub(crate) ctx: &'a mut Context,
    writer: &'a mut Writer,
    pub(crate) ix: u32,
}

impl Txn<'_> {
    /// Names the next event.
    pub(crate) fn mint(&mut self) -> Result<DotIx> {
        let dot = self.ctx.mint(self.ix)?;
        self.writer.advance(dot.seq());
        Ok(dot)
    }

    pub(crate) fn dot(&self, dot: DotIx) -> Dot {
        Dot { actor: self.writer.actor().clone(), seq: dot.seq() }
    }
}

impl<S: DotStore> Causal<S> {
    /// An empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it has seen.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// What it holds.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Writes as `writer`. [`ErrorKind::ActorReused`] or [`ErrorKind::StaleState`] if the writer
    /// and the document do not belong together.
    pub fn edit<R>(
        &mut self,
        writer: &mut Writer,
        edit: impl FnOnce(&mut S, &mut Txn<'_>) -> Result<R>,
    ) -> Result<R> {
        let ix = self.slot(writer)?;
        writer.expect(self.ctx.ranges(ix).last())?;
        edit(&mut self.store, &mut Txn { ctx: &mut self.ctx, writer, ix })
    }

    fn slot(&mut self, writer: &mut Writer) -> Result<u32> {
        let hint = writer.slot;
        if (hint as usize) < self.ctx.actors() && self.ctx.name(hint) == writer.actor() {
            return Ok(hint);
        }
        writer.slot = self.ctx.intern(writer.actor())?;
        Ok(writer.slot)
    }

    /// Writes as [`Causal::edit`] does, and returns the delta of just this write: what it made, and
    /// what it replaced or removed. Takes time linear in the document; [`crate::OrSet::add_delta`]
    /// does not.
    pub fn edit_delta<R>(
        &mut self,
        writer: &mut Writer,
        edit: impl FnOnce(&mut S, &mut Txn<'_>) -> Result<R>,
    ) -> Result<(R, Self)> {
        let (before, seen) = (self.live(), self.ctx.clone());
        let done = self.edit(writer, edit)?;
        let live = self.live();
        let mut ctx = self.ctx.blank();
        for ix in self.ctx.used() {
            *ctx.ranges_mut(ix) = match seen.ix(self.ctx.name(ix)) {
                Some(old) => self.ctx.ranges(ix).minus(seen.ranges(old)),
                None => self.ctx.ranges(ix).clone(),
            };
        }
        for dot in before.into_iter().filter(|dot| live.binary_search(dot).is_err()) {
            ctx.ranges_mut(dot.actor()).insert(dot.seq(), dot.seq());
        }
        Ok((done, self.with_part(ctx, &|dot| !seen.has(dot))))
    }

    /// The entry of one event.
    pub(crate) fn entry_of(&self, dot: &Dot) -> Self {
        let mut ctx = self.ctx.blank();
        let Some(at) = self.ctx.dot_ix(dot) else { return Self { ctx, store: S::default() } };
        ctx.ranges_mut(at.actor()).insert(at.seq(), at.seq());
        Self { ctx, store: self.store.pick(at) }
    }

    /// A delta that removes `dots` wherever they are.
    pub(crate) fn removal_of(&self, dots: impl IntoIterator<Item = DotIx>) -> Self {
        let mut ctx = self.ctx.blank();
        for dot in dots {
            ctx.ranges_mut(dot.actor()).insert(dot.seq(), dot.seq());
        }
        Self { ctx, store: S::default() }
    }

    /// This document as someone knows it who has seen only `seen`: its live events that are in
    /// `seen`, in the context of what both have seen.
    ///
    /// For a server that writes on behalf of a device: a write to this document, joined to the whole
    /// one, replaces and removes what the device had seen, and nothing else. (What was overwritten
    /// or removed since is not here: the whole document knows that it is gone.)
    ///
    /// ```
    /// use potter_crdt::{ActorId, Join, MvRegister, Writer};
    ///
    /// let mut server = MvRegister::new();
    /// server.write(&mut Writer::new(ActorId::new("laptop")?), "one".to_owned())?;
    /// let seen = server.context().clone(); // what the phone downloads
    /// server.write(&mut Writer::new(ActorId::new("tablet")?), "two".to_owned())?;
    ///
    /// // The phone's write comes: it replaces "one", and "two" only if that was seen.
    /// let mut phone = server.seen_by(&seen);
    /// assert_eq!(phone.values().count(), 0); // "two" had seen "one", so that is gone
    /// phone.write(&mut Writer::new(ActorId::new("phone")?), "three".to_owned())?;
    /// server.join(&phone)?;
    /// let mut values: Vec<&String> = server.values().collect();
    /// values.sort();
    /// assert_eq!(values, ["three", "two"]);
    /// # Ok::<(), potter_crdt::Error>(())
    /// ```
    #[must_use]
    pub fn seen_by(&self, seen: &Context) -> Self {
        let numbers = numbers(&self.ctx, seen);
        let store = self.store.part(&|dot| in_other(&numbers, seen, dot));
        Self { ctx: self.ctx.meet(seen), store }
    }

    fn live(&self) -> Vec<DotIx> {
        let mut out = Vec::new();
        self.store.each_dot(&mut |dot| out.push(dot));
        out.sort_unstable();
        out.dedup();
        out
    }

    /// A context of these dots, with this document's numbers.
    fn context_of(&self, sorted: &[DotIx]) -> Context {
        let mut out = self.ctx.blank();
        let mut at = 0;
        while let Some(&first) = sorted.get(at) {
            let mut last = first.seq();
            at += 1;
            while sorted.get(at).is_some_and(|d| d.actor() == first.actor() && d.seq() == last + 1)
            {
                last += 1;
                at += 1;
            }
            out.ranges_mut(first.actor()).push(first.seq(), last);
        }
        out
    }

    fn with_part(&self, mut ctx: Context, keep: &dyn Fn(DotIx) -> bool) -> Self {
        let store = self.store.part(keep);
        store.mentions(&mut |dot| ctx.ranges_mut(dot.actor()).insert(dot.seq(), dot.seq()));
        Self { ctx, store }
    }

    fn same_as(&self, other: &Self) -> bool {
        matches!((self.store.digest(), other.store.digest()), (Some(a), Some(b)) if a == b)
            && self.ctx == other.ctx
    }
}

/// Which actors of `a` are which of `b`.
fn numbers(a: &Context, b: &Context) -> Vec<Option<u32>> {
    (0..a.actors()).map(|ix| b.ix(a.name(u32::try_from(ix).unwrap_or(0)))).collect()
}

fn in_other(numbers: &[Option<u32>], other: &Context, dot: DotIx) -> bool {
    numbers[dot.actor() as usize].is_some_and(|ix| other.ranges(ix).contains(dot.seq()))
}

impl<S: DotStore> Authored for Causal<S> {
    fn seq_of(&self, actor: &ActorId) -> u64 {
        self.ctx.seq(actor)
    }
}

impl<S: DotStore> Join for Causal<S> {
    fn join(&mut self, other: &Self) -> Result<bool> {
        if self.same_as(other) {
            return Ok(false);
        }
        let to_mine = self.ctx.intern_all(&other.ctx)?;
        let changed = {
            let cx = JoinCx::new(&self.ctx, &other.ctx, &to_mine);
            self.store.check(&other.store, &cx)?;
            self.store.merge(&other.store, &cx)
        };
        Ok(self.ctx.join_mapped(&other.ctx, &to_mine) || changed)
    }

    fn validate(&self, incoming: &Self) -> Result<()> {
        let mut mine = Context::new();
        let to_mine;
        let known = incoming.ctx.used().all(|ix| self.ctx.ix(incoming.ctx.name(ix)).is_some());
        let cx = if known {
            to_mine = incoming_numbers(&incoming.ctx, &self.ctx);
            JoinCx::new(&self.ctx, &incoming.ctx, &to_mine)
        } else {
            mine.clone_from(&self.ctx);
            to_mine = mine.intern_all(&incoming.ctx)?;
            JoinCx::new(&mine, &incoming.ctx, &to_mine)
        };
        self.store.check(&incoming.store, &cx)
    }
}

/// Actors without events may be unknown; nothing refers to them.
fn incoming_numbers(incoming: &Context, mine: &Context) -> Vec<u32> {
    numbers(incoming, mine).into_iter().map(|ix| ix.unwrap_or(0)).collect()
}

impl<S: DotStore> Delta for Causal<S> {
    type Summary = Context;

    fn summary(&self) -> Context {
        self.ctx.clone()
    }

    /// Carries what is not in `since`, and which of the events in `since` are no longer live. The
    /// second part is as long as the history of removals is ragged; with both states at hand
    /// [`Delta::delta_against`] is exact.
    fn delta(&self, since: &Context) -> Self {
        let numbers = numbers(&self.ctx, since);
        let seen = |dot: DotIx| in_other(&numbers, since, dot);
        let known: Vec<DotIx> = self.live().into_iter().filter(|&dot| seen(dot)).collect();
        let known = self.context_of(&known);
        let mut ctx = self.ctx.blank();
        for ix in self.ctx.used() {
            *ctx.ranges_mut(ix) = self.ctx.ranges(ix).minus(known.ranges(ix));
        }
        self.with_part(ctx, &|dot| !seen(dot))
    }

    fn delta_against(&self, other: &Self) -> Self {
        let here = numbers(&self.ctx, &other.ctx);
        let there = numbers(&other.ctx, &self.ctx);
        let live = self.live();
        let mut ctx = self.ctx.blank();
        for ix in self.ctx.used() {
            let mine = self.ctx.ranges(ix);
            *ctx.ranges_mut(ix) = match here[ix as usize] {
                Some(theirs) => mine.minus(other.ctx.ranges(theirs)),
                None => mine.clone(),
            };
        }
        other.store.each_dot(&mut |dot| {
            let Some(ix) = there[dot.actor() as usize] else { return };
            let mine = DotIx::new(ix, dot.seq());
            if self.ctx.has(mine) && live.binary_search(&mine).is_err() {
                ctx.ranges_mut(ix).insert(dot.seq(), dot.seq());
            }
        });
        self.with_part(ctx, &|dot| !in_other(&here, &other.ctx, dot))
    }

    /// One part for each live dot, and one for each range of events that are no longer live.
    fn decompose(&self) -> Vec<Self> {
        let live = self.live();
        let mut out: Vec<Self> =
            live.iter().map(|&dot| self.with_part(self.ctx.blank(), &|at| at == dot)).collect();
        let mut mentioned = Vec::new();
        self.store.mentions(&mut |dot| mentioned.push(dot));
        mentioned.sort_unstable();
        mentioned.dedup();
        let alive = self.context_of(&mentioned);
        for ix in self.ctx.used() {
            for (lo, hi) in self.ctx.ranges(ix).minus(alive.ranges(ix)).iter() {
                let mut ctx = self.ctx.blank();
                *ctx.ranges_mut(ix) = Ranges::from_iter([(lo, hi)]);
                out.push(Self { ctx, store: S::default() });
            }
        }
        out
    }

    fn is_bottom(&self) -> bool {
        self.ctx.is_empty() && self.store.is_bottom()
    }
}

impl<S: DotStore> Reclaim for Causal<S> {
    fn reclaim(&mut self, stable: &Context) -> usize {
        let numbers = numbers(&self.ctx, stable);
        self.store.reclaim(&|dot| in_other(&numbers, stable, dot))
    }
}

impl<S: DotStore> std::fmt::Debug for Causal<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(S::TYPE).field("context", &self.ctx).field("store", &self.store).finish()
    }
}
