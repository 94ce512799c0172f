//! The spans in the order of the text.
//!
//! Invariant: chunks hold spans in order, each knows how many visible characters it has; `home` has
//! the chunk of every span by the span's first dot. So an index is found by adding up chunks, and a
//! dot by one look-up.

use std::collections::{BTreeMap, BTreeSet};

use super::span::{LIVE_MAX, Span, byte_of, plus};
use crate::ActorId;
use crate::actor::DotIx;

const SPANS_MAX: usize = 64;

#[derive(Clone, Debug, Default)]
struct Chunk {
    id: u32,
    visible: usize,
    spans: Vec<Span>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    chunks: Vec<Chunk>,
    home: BTreeMap<DotIx, u32>,
    visible: usize,
    next_id: u32,
}

/// Chunk and span.
type Place = (usize, usize);

impl Layout {
    pub(crate) fn visible(&self) -> usize {
        self.visible
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.chunks.iter().flat_map(|chunk| &chunk.spans)
    }

    /// The span and offset of the visible character at `index`.
    fn locate(&self, mut index: usize) -> Option<(Place, u64)> {
        let chunk = self.chunks.iter().position(|chunk| {
            let here = index < chunk.visible;
            if !here {
                index -= chunk.visible;
            }
            here
        })?;
        for (at, span) in self.chunks[chunk].spans.iter().enumerate() {
            let visible = span.visible();
            if index < visible {
                return Some(((chunk, at), index as u64));
            }
            index -= visible;
        }
        None
    }

    /// The span and offset of a dot.
    fn find(&self, dot: DotIx) -> Option<(Place, u64)> {
        let (&first, &id) = self.home.range(..=dot).next_back()?;
        if first.actor() != dot.actor() {
            return None;
        }
        let chunk = self.chunks.iter().position(|chunk| chunk.id == id)?;
        let at = self.chunks[chunk].spans.iter().position(|span| span.dot == first)?;
        let offset = dot.seq() - first.seq();
        (offset < self.chunks[chunk].spans[at].len).then_some(((chunk, at), offset))
    }

    pub(crate) fn dot_at(&self, index: usize) -> Option<DotIx> {
        let ((chunk, at), offset) = self.locate(index)?;
        Some(plus(self.chunks[chunk].spans[at].dot, offset))
    }

    /// How many visible characters are up to and with this one.
    pub(crate) fn index_after(&self, dot: DotIx) -> Option<usize> {
        let ((chunk, at), offset) = self.find(dot)?;
        let before: usize = self.chunks[..chunk].iter().map(|chunk| chunk.visible).sum();
        let spans = &self.chunks[chunk].spans;
        let within: usize = spans[..at].iter().map(Span::visible).sum();
        let own = usize::try_from(offset + 1).unwrap_or(usize::MAX).min(spans[at].visible());
        Some(before + within + own)
    }

    /// Inserts what was typed here: its time is above all others, so it comes right after its
    /// origin.
    pub(crate) fn insert_after_index(
        &mut self,
        index: usize,
        dot: DotIx,
        lamport: u64,
        text: &str,
    ) {
        let found = index.checked_sub(1).and_then(|before| self.locate(before));
        let mut origin = None;
        let mut place = (0, 0);
        if let Some(((chunk, at), offset)) = found {
            let span = &self.chunks[chunk].spans[at];
            origin = Some(plus(span.dot, offset));
            if offset + 1 < span.len {
                self.split((chunk, at), offset + 1);
            }
            place = (chunk, at + 1);
        }
        let (mut dot, mut lamport, mut rest) = (dot, lamport, text);
        while !rest.is_empty() {
            let bytes = byte_of(rest, LIVE_MAX);
            let (piece, more) = rest.split_at(bytes);
            let len = piece.chars().count() as u64;
            let span = Span { dot, len, lamport, origin, dead: None, text: piece.to_owned() };
            if !self.extend(place, &span) {
                place = self.put(place, span);
                place.1 += 1;
            }
            origin = Some(plus(dot, len - 1));
            if more.is_empty() {
                break;
            }
            (dot, lamport, rest) = (plus(dot, len), lamport + len, more);
        }
    }

    /// Adds a span to the one before `place`, if it goes on there.
    fn extend(&mut self, (chunk, at): Place, span: &Span) -> bool {
        let Some(chunk) = self.chunks.get_mut(chunk) else { return false };
        let Some(before) = at.checked_sub(1).and_then(|at| chunk.spans.get_mut(at)) else {
            return false;
        };
        if !before.continues(span) || before.len + span.len > LIVE_MAX {
            return false;
        }
        before.len += span.len;
        before.text.push_str(&span.text);
        chunk.visible += span.visible();
        self.visible += span.visible();
        true
    }

    /// Puts a span at a place; returns where it is.
    fn put(&mut self, (mut chunk, mut at): Place, span: Span) -> Place {
        if self.chunks.is_empty() {
            self.chunks.push(Chunk { id: 0, ..Chunk::default() });
            self.next_id = 1;
        }
        if self.chunks[chunk].spans.len() >= SPANS_MAX {
            self.halve(chunk);
            if at > self.chunks[chunk].spans.len() {
                at -= self.chunks[chunk].spans.len();
                chunk += 1;
            }
        }
        let into = &mut self.chunks[chunk];
        self.home.insert(span.dot, into.id);
        into.visible += span.visible();
        self.visible += span.visible();
        into.spans.insert(at, span);
        (chunk, at)
    }

    fn halve(&mut self, chunk: usize) {
        let id = self.next_id;
        self.next_id += 1;
        let spans = self.chunks[chunk].spans.split_off(SPANS_MAX / 2);
        let visible = spans.iter().map(Span::visible).sum();
        for span in &spans {
            self.home.insert(span.dot, id);
        }
        self.chunks[chunk].visible -= visible;
        self.chunks.insert(chunk + 1, Chunk { id, visible, spans });
    }

    /// Cuts a span in two. The chunk may pass its size by one until the next [`Layout::put`].
    fn split(&mut self, (chunk, at): Place, offset: u64) {
        let chunk = &mut self.chunks[chunk];
        let rest = chunk.spans[at].split_off(offset);
        self.home.insert(rest.dot, chunk.id);
        chunk.spans.insert(at + 1, rest);
    }

    /// Puts a span from elsewhere at its place; gives it back if its origin is not here.
    pub(crate) fn integrate<'a>(
        &mut self,
        span: Span,
        name: impl Fn(u32) -> &'a ActorId,
    ) -> Result<(), Span> {
        let mut place = (0, 0);
        if let Some(origin) = span.origin {
            let Some(((chunk, at), offset)) = self.find(origin) else { return Err(span) };
            if offset + 1 < self.chunks[chunk].spans[at].len {
                self.split((chunk, at), offset + 1);
            }
            place = (chunk, at + 1);
        }
        let key = (span.lamport, name(span.dot.actor()));
        loop {
            let (chunk, at) = place;
            let Some(here) = self.chunks.get(chunk) else { break };
            match here.spans.get(at) {
                Some(next) if (next.lamport, name(next.dot.actor())) > key => place.1 += 1,
                Some(_) => break,
                None if chunk + 1 < self.chunks.len() => place = (chunk + 1, 0),
                None => break,
            }
        }
        // Live spans stay short.
        let mut rest = span;
        while rest.dead.is_none() && rest.len > LIVE_MAX {
            let more = rest.split_off(LIVE_MAX);
            place = self.put(place, rest);
            place.1 += 1;
            rest = more;
        }
        if !self.extend(place, &rest) {
            self.put(place, rest);
        }
        Ok(())
    }

    /// Deletes up to `count` characters of the span at `index`; how many it was.
    pub(crate) fn kill_at_index(&mut self, index: usize, count: usize, by: DotIx) -> usize {
        let Some(((chunk, at), offset)) = self.locate(index) else { return count };
        let len = self.chunks[chunk].spans[at].len - offset;
        let count = len.min(count as u64);
        self.bury((chunk, at), offset, count, by);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// Marks `count` characters of a span from `offset` on as deleted.
    fn bury(&mut self, (chunk, mut at): Place, offset: u64, count: u64, by: DotIx) {
        if offset > 0 {
            self.split((chunk, at), offset);
            at += 1;
        }
        if count < self.chunks[chunk].spans[at].len {
            self.split((chunk, at), count);
        }
        let here = &mut self.chunks[chunk];
        let gone = here.spans[at].visible();
        here.visible -= gone;
        self.visible -= gone;
        here.spans[at].bury(by);
        // Deleting forward makes one span of many.
        if at > 0 && here.spans[at - 1].continues(&here.spans[at]) {
            let span = here.spans.remove(at);
            here.spans[at - 1].len += span.len;
            self.home.remove(&span.dot);
        }
        if self.chunks[chunk].spans.len() > SPANS_MAX {
            self.halve(chunk);
        }
    }

    /// Takes in that `len` characters from `dot` on were deleted by `dead` and the events after
    /// it; of two deletions the `earlier` one is kept.
    pub(crate) fn kill(
        &mut self,
        dot: DotIx,
        len: u64,
        dead: DotIx,
        earlier: &impl Fn(DotIx, DotIx) -> bool,
    ) -> bool {
        let mut changed = false;
        let mut done = 0;
        while done < len {
            let at = plus(dot, done);
            let Some(((chunk, span), offset)) = self.find(at) else {
                // Not here: on to the next span of this actor.
                let end = plus(dot, len - 1);
                match self.home.range(at..=end).next() {
                    Some((next, _)) if *next > at => done = next.seq() - dot.seq(),
                    _ => return changed,
                }
                continue;
            };
            let here = &self.chunks[chunk].spans[span];
            let count = (here.len - offset).min(len - done);
            let by = plus(dead, done);
            if here.dead.is_none_or(|old| earlier(by, plus(old, offset))) {
                self.bury((chunk, span), offset, count, by);
                changed = true;
            }
            done += count;
        }
        changed
    }

    /// Drops deleted tails that `known` says are stable and that are nobody's origin.
    pub(crate) fn reclaim(
        &mut self,
        known: &impl Fn(DotIx, u64) -> bool,
        mut origins: BTreeSet<DotIx>,
    ) -> u64 {
        let mut dropped = 0u64;
        // Backwards: what has an origin comes after it.
        for chunk in self.chunks.iter_mut().rev() {
            for at in (0..chunk.spans.len()).rev() {
                let span = &mut chunk.spans[at];
                let last = plus(span.dot, span.len - 1);
                let needed = origins
                    .range(span.dot..=last)
                    .next_back()
                    .map_or(0, |origin| origin.seq() - span.dot.seq() + 1);
                let free = span.len - needed;
                let gone = free > 0
                    && span.dead.is_some_and(|dead| {
                        known(plus(dead, needed), free) && known(plus(span.dot, needed), free)
                    });
                if gone && needed > 0 {
                    dropped = dropped.saturating_add(free);
                    span.len = needed;
                } else if gone {
                    dropped = dropped.saturating_add(free);
                    self.home.remove(&span.dot);
                    chunk.spans.remove(at);
                    continue;
                }
                origins.extend(chunk.spans[at].origin);
            }
        }
        self.chunks.retain(|chunk| !chunk.spans.is_empty());
        dropped
    }
}
