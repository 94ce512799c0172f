//! A text that many edit at once: a replicated growable array.
//!
//! Invariants: a character has a dot, a Lamport time and an origin, the character after which it
//! was typed; its time is above its origin's. The order is the preorder walk of the tree of
//! origins, later siblings first (Roh, Jeon, Kim, Lee: "Replicated abstract data types: Building
//! blocks for collaborative applications", 2011), so replicas with the same characters show the
//! same text. A deleted character stays as a nameless place until it is reclaimed; each deletion is
//! an event with a dot of its own, so deltas carry exactly the deletions that the other lacks, and
//! a stable context tells which places nobody needs.
//!
//! Runs that were typed in one go are one span. Spans whose origin has not come yet wait, unseen:
//! the join is total, in any order.

use std::collections::BTreeMap;

use crate::actor::{DotIx, SEQ_MAX};
use crate::ranges::Ranges;
use crate::{
    ActorId, Authored, Context, Delta, Dot, Error, ErrorKind, Join, Reclaim, Result, Writer,
};

mod codec;
mod layout;
mod span;

use layout::Layout;
use span::Span;

/// A replicated text. Indices count characters (Unicode scalar values).
///
/// ```
/// use potter_crdt::{ActorId, Join, Rga, Writer};
///
/// let mut alice = Writer::new(ActorId::new("alice")?);
/// let mut bob = Writer::new(ActorId::new("bob")?);
/// let mut here = Rga::new();
/// here.insert(&mut alice, 0, "Hello world")?;
/// let cursor = here.position(6)?; // before "world"
///
/// let mut there = here.clone();
/// there.delete(&mut bob, 0, 5)?;
/// there.insert(&mut bob, 0, "Goodbye")?;
/// here.insert(&mut alice, 11, "!")?;
/// here.join(&there)?;
/// assert_eq!(here.to_string(), "Goodbye world!");
/// assert_eq!(here.index_of(&cursor), Some(8));
/// # Ok::<(), potter_crdt::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Rga {
    ctx: Context,
    layout: Layout,
    /// Spans whose origin has not come.
    waiting: Vec<Span>,
    lamport: u64,
}

/// A place in a text that stays with its neighbour whatever others insert and delete.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The character before it; `None` is the beginning.
    pub after: Option<Dot>,
}

impl Rga {
    /// An empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it has seen.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// How many characters.
    pub fn len(&self) -> usize {
        self.layout.visible()
    }

    /// No characters?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many deleted characters are still kept as places.
    pub fn tombstones(&self) -> u64 {
        let dead = self.layout.spans().filter(|span| span.dead.is_some());
        dead.fold(0, |sum, span| sum.saturating_add(span.len))
    }

    /// Inserts `text` before the character at `index`. [`ErrorKind::InvalidInput`] if there are
    /// fewer characters.
    pub fn insert(&mut self, writer: &mut Writer, index: usize, text: &str) -> Result<()> {
        self.within(index)?;
        let length = text.chars().count() as u64;
        let ix = self.begin(writer)?;
        if length == 0 {
            return Ok(());
        }
        let lamport = self.lamport + 1;
        let end = lamport.checked_add(length).filter(|&end| end <= SEQ_MAX);
        let end = end.ok_or_else(|| Error::overflow("the time of a text"))?;
        let dot = self.mint(writer, ix, length)?;
        self.lamport = end - 1;
        self.layout.insert_after_index(index, dot, lamport, text);
        Ok(())
    }

    /// Deletes `count` characters from `index` on. [`ErrorKind::InvalidInput`] if there are fewer.
    pub fn delete(&mut self, writer: &mut Writer, index: usize, count: usize) -> Result<()> {
        self.within(index.saturating_add(count))?;
        let ix = self.begin(writer)?;
        if count == 0 {
            return Ok(());
        }
        let mut by = self.mint(writer, ix, count as u64)?;
        let mut left = count;
        while left > 0 {
            let done = self.layout.kill_at_index(index, left, by);
            left -= done.max(1);
            by = DotIx::new(ix, (by.seq() + done as u64).min(SEQ_MAX));
        }
        Ok(())
    }

    /// The place before the character at `index`.
    pub fn position(&self, index: usize) -> Result<Position> {
        self.within(index)?;
        let after = index.checked_sub(1).and_then(|before| self.layout.dot_at(before));
        Ok(Position { after: after.map(|dot| self.ctx.dot(dot)) })
    }

    /// The index of a place now; where its character was, if that was deleted. `None` if the
    /// character has not come yet or was reclaimed.
    pub fn index_of(&self, position: &Position) -> Option<usize> {
        let Some(dot) = &position.after else { return Some(0) };
        self.layout.index_after(self.ctx.dot_ix(dot)?)
    }

    fn within(&self, index: usize) -> Result<()> {
        if index <= self.len() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("the text has {} characters, not {index}", self.len()),
        ))
    }

    fn begin(&mut self, writer: &mut Writer) -> Result<u32> {
        let ix = self.ctx.intern(writer.actor())?;
        writer.expect(self.ctx.ranges(ix).last())?;
        Ok(ix)
    }

    /// The first of `count` new dots.
    fn mint(&mut self, writer: &mut Writer, ix: u32, count: u64) -> Result<DotIx> {
        let first = writer.seq() + 1;
        let last = writer.seq().checked_add(count).filter(|&last| last <= SEQ_MAX);
        let last = last.ok_or_else(|| Error::overflow("the sequence number of an actor"))?;
        self.ctx.ranges_mut(ix).insert(first, last);
        writer.advance(last);
        Ok(DotIx::new(ix, first))
    }

    fn all_spans(&self) -> impl Iterator<Item = &Span> {
        self.layout.spans().chain(&self.waiting)
    }

    /// Takes in spans with my numbers that are new here, and all that waited for them.
    fn integrate(&mut self, spans: Vec<Span>) {
        let mut spans = spans;
        spans.append(&mut self.waiting);
        spans.sort_by_key(|span| (span.lamport, span.dot));
        for span in spans {
            self.lamport = self.lamport.max(span.lamport + span.len - 1);
            let ctx = &self.ctx;
            if let Err(span) = self.layout.integrate(span, |ix| ctx.name(ix)) {
                self.waiting.push(span);
            }
        }
    }

    /// The deletions that `theirs` (with my numbers) knows of characters that are here.
    fn kill(&mut self, theirs: &Span) -> bool {
        let Some(dead) = theirs.dead else { return false };
        let ctx = &self.ctx;
        let earlier =
            |a: DotIx, b: DotIx| (ctx.name(a.actor()), a.seq()) < (ctx.name(b.actor()), b.seq());
        let mut changed = self.layout.kill(theirs.dot, theirs.len, dead, &earlier);
        let (from, to) = (theirs.dot.seq(), theirs.dot.seq() + theirs.len - 1);
        let mut pieces = Vec::new();
        for span in self.waiting.drain(..) {
            let apart = span.dot.actor() != theirs.dot.actor()
                || span.dot.seq() > to
                || span.last_seq() < from;
            if apart {
                pieces.push(span);
                continue;
            }
            let lo = from.max(span.dot.seq()) - span.dot.seq();
            let hi = to.min(span.last_seq()) - span.dot.seq() + 1;
            let at = DotIx::new(dead.actor(), dead.seq() + span.dot.seq() + lo - from);
            let mut hit = span.slice(lo, hi - lo);
            if hit.dead.is_none_or(|old| earlier(at, old)) {
                hit.bury(at);
                changed = true;
            }
            pieces.extend((lo > 0).then(|| span.slice(0, lo)));
            pieces.push(hit);
            pieces.extend((hi < span.len).then(|| span.slice(hi, span.len - hi)));
        }
        self.waiting = pieces;
        changed
    }

    /// Do the two agree on what is at each dot, and do times rise from origin to character?
    fn agree(&self, theirs: &Self, to_mine: &[u32]) -> Result<()> {
        let mine = self.by_dot();
        let by_dot = theirs.by_dot();
        for span in theirs.all_spans() {
            let span = span.renumber(to_mine);
            for other in overlapping(&mine, &span) {
                if !span.agrees(other) {
                    let actor = self.actor_of(theirs, &span, to_mine);
                    return Err(Error::new(
                        ErrorKind::ActorReused,
                        format!("{actor:?} names two different characters; nothing was merged"),
                    ));
                }
            }
        }
        for span in theirs.all_spans() {
            let Some(origin) = span.origin else { continue };
            let here = DotIx::new(to_mine[origin.actor() as usize], origin.seq());
            let time = time_at(&by_dot, origin).or_else(|| time_at(&mine, here));
            if time.is_some_and(|time| time >= span.lamport) {
                return Err(Error::malformed("a character is older than its origin"));
            }
        }
        Ok(())
    }

    fn actor_of(&self, theirs: &Self, span: &Span, to_mine: &[u32]) -> Dot {
        let at = to_mine.iter().position(|&ix| ix == span.dot.actor()).unwrap_or(0);
        let actor = theirs.ctx.name(u32::try_from(at).unwrap_or(0)).clone();
        Dot { actor, seq: span.dot.seq() }
    }

    fn by_dot(&self) -> BTreeMap<DotIx, &Span> {
        self.all_spans().map(|span| (span.dot, span)).collect()
    }

    fn unknown_parts(&self, span: &Span) -> Vec<Span> {
        let all = Ranges::from_iter([(span.dot.seq(), span.last_seq())]);
        let new = all.minus(self.ctx.ranges(span.dot.actor()));
        new.iter().map(|(lo, hi)| span.slice(lo - span.dot.seq(), hi - lo + 1)).collect()
    }
}

fn overlapping<'a>(
    spans: &'a BTreeMap<DotIx, &'a Span>,
    with: &Span,
) -> impl Iterator<Item = &'a Span> {
    let first = spans
        .range(..=with.dot)
        .next_back()
        .filter(|(dot, span)| dot.actor() == with.dot.actor() && span.last_seq() >= with.dot.seq())
        .map_or(with.dot, |(dot, _)| *dot);
    spans.range(first..=DotIx::new(with.dot.actor(), with.last_seq())).map(|(_, span)| *span)
}

fn time_at(spans: &BTreeMap<DotIx, &Span>, dot: DotIx) -> Option<u64> {
    let (_, span) = spans.range(..=dot).next_back()?;
    let holds = span.dot.actor() == dot.actor() && span.last_seq() >= dot.seq();
    holds.then(|| span.lamport + dot.seq() - span.dot.seq())
}

impl Authored for Rga {
    fn seq_of(&self, actor: &ActorId) -> u64 {
        self.ctx.seq(actor)
    }
}

impl Join for Rga {
    fn join(&mut self, other: &Self) -> Result<bool> {
        if self.ctx == other.ctx && self.waiting.is_empty() && other.waiting.is_empty() {
            // The same events, unless an actor was reused: compare, and change nothing.
            let to_mine = self.ctx.intern_all(&other.ctx)?;
            return self.agree(other, &to_mine).map(|()| false);
        }
        let to_mine = self.ctx.intern_all(&other.ctx)?;
        self.agree(other, &to_mine)?;
        let mut new = Vec::new();
        let mut changed = false;
        for span in other.all_spans() {
            let span = span.renumber(&to_mine);
            new.extend(self.unknown_parts(&span));
            changed |= self.kill(&span);
        }
        changed |= self.ctx.join_mapped(&other.ctx, &to_mine);
        self.integrate(new);
        Ok(changed)
    }

    fn validate(&self, incoming: &Self) -> Result<()> {
        let mut names = self.ctx.blank();
        let to_mine = names.intern_all(&incoming.ctx)?;
        self.agree(incoming, &to_mine)
    }
}

impl Delta for Rga {
    type Summary = Context;

    fn summary(&self) -> Context {
        self.ctx.clone()
    }

    fn delta(&self, since: &Context) -> Self {
        let nothing = Ranges::default();
        let known: Vec<&Ranges> = (0u32..)
            .take(self.ctx.actors())
            .map(|ix| since.ix(self.ctx.name(ix)).map_or(&nothing, |ix| since.ranges(ix)))
            .collect();
        let known = |actor: u32| known[actor as usize];
        let mut spans = Vec::new();
        for span in self.all_spans() {
            spans.extend(span.lacking(&known));
        }
        let mut ctx = self.ctx.blank();
        for ix in self.ctx.used() {
            *ctx.ranges_mut(ix) = self.ctx.ranges(ix).minus(known(ix));
        }
        Self::of(ctx, spans)
    }

    fn delta_against(&self, other: &Self) -> Self {
        self.delta(&other.ctx)
    }

    /// One part for each run typed in one go, and one for each other range of events.
    fn decompose(&self) -> Vec<Self> {
        let mut rest = self.ctx.clone();
        let mut out = Vec::new();
        for span in self.all_spans() {
            let part = Self::of(self.ctx.blank(), vec![span.clone()]);
            for ix in part.ctx.used() {
                *rest.ranges_mut(ix) = rest.ranges(ix).minus(part.ctx.ranges(ix));
            }
            out.push(part);
        }
        for ix in rest.used() {
            for range in rest.ranges(ix).iter() {
                let mut ctx = self.ctx.blank();
                *ctx.ranges_mut(ix) = Ranges::from_iter([range]);
                out.push(Self::of(ctx, Vec::new()));
            }
        }
        out
    }

    fn is_bottom(&self) -> bool {
        self.ctx.is_empty()
    }
}

impl Rga {
    /// A state of these spans; their dots are added to the context.
    fn of(mut ctx: Context, spans: Vec<Span>) -> Self {
        for span in &spans {
            for first in [Some(span.dot), span.dead].into_iter().flatten() {
                ctx.ranges_mut(first.actor()).insert(first.seq(), first.seq() + span.len - 1);
            }
        }
        let mut out = Self { ctx, ..Self::default() };
        out.integrate(spans);
        out
    }
}

impl Reclaim for Rga {
    /// Drops the places of deleted characters after which nobody can insert any more: their
    /// deletion is stable, and no character that is kept has them as its origin.
    fn reclaim(&mut self, stable: &Context) -> usize {
        let ctx = &self.ctx;
        let known = |first: DotIx, len: u64| {
            let wanted = Ranges::from_iter([(first.seq(), first.seq() + len - 1)]);
            let seen = stable.ix(ctx.name(first.actor())).map(|ix| stable.ranges(ix));
            seen.is_some_and(|seen| seen.covers(&wanted))
        };
        let origins = self.waiting.iter().filter_map(|span| span.origin).collect();
        usize::try_from(self.layout.reclaim(&known, origins)).unwrap_or(usize::MAX)
    }
}

impl PartialEq for Rga {
    fn eq(&self, other: &Self) -> bool {
        self.ctx == other.ctx && self.body() == other.body()
    }
}

impl Eq for Rga {}

impl std::fmt::Display for Rga {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.layout.spans().try_for_each(|span| f.write_str(&span.text))
    }
}

impl std::fmt::Debug for Rga {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rga")
            .field("context", &self.ctx)
            .field("spans", &self.layout.spans().collect::<Vec<_>>())
            .field("waiting", &self.waiting)
            .finish()
    }
}
