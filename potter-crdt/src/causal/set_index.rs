//! The live dots of a set, by actor.
//!
//! Invariant: runs are sorted by actor, a run's dots by sequence number. A dot whose slot is
//! [`DEAD`] is gone; such dots are swept out before they are a third of the run. The digest is that
//! of the live dots and their elements' fingerprints.

use crate::actor::DotIx;
use crate::keyed::{self, SetDigest};
use crate::{ActorId, Context};

pub(crate) const DEAD: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) seq: u64,
    pub(crate) slot: u32,
    /// Of the element, to notice two elements under one dot.
    pub(crate) print: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) actor: u32,
    key: u64,
    pub(crate) dots: Vec<Live>,
    dead: usize,
}

impl Run {
    /// Dots with sequence numbers `lo..=hi`, dead ones among them.
    pub(crate) fn within(&self, lo: u64, hi: u64) -> &[Live] {
        let from = if self.dots.first().is_none_or(|dot| dot.seq >= lo) {
            0
        } else {
            self.dots.partition_point(|dot| dot.seq < lo)
        };
        let to = if self.dots.last().is_none_or(|dot| dot.seq <= hi) {
            self.dots.len()
        } else {
            self.dots.partition_point(|dot| dot.seq <= hi)
        };
        self.dots.get(from..to).unwrap_or(&[])
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Live> {
        self.dots.iter().filter(|dot| dot.slot != DEAD)
    }

    fn find(&self, seq: u64) -> Option<usize> {
        self.dots.binary_search_by_key(&seq, |dot| dot.seq).ok()
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    runs: Vec<Run>,
    digest: SetDigest,
}

impl Index {
    pub(crate) fn digest(&self) -> SetDigest {
        self.digest
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(crate) fn run(&self, actor: u32) -> Option<&Run> {
        self.find(actor).ok().map(|at| &self.runs[at])
    }

    fn find(&self, actor: u32) -> Result<usize, usize> {
        self.runs.binary_search_by_key(&actor, |run| run.actor)
    }

    fn run_mut(&mut self, actor: u32, name: &ActorId) -> &mut Run {
        let at = match self.find(actor) {
            Ok(at) => at,
            Err(at) => {
                let run = Run { actor, key: keyed::hash(name), dots: Vec::new(), dead: 0 };
                self.runs.insert(at, run);
                at
            }
        };
        &mut self.runs[at]
    }

    /// Adds a dot that is not there.
    pub(crate) fn insert(&mut self, dot: DotIx, slot: u32, print: u32, ctx: &Context) {
        let run = self.run_mut(dot.actor(), ctx.name(dot.actor()));
        let key = run.key;
        let live = Live { seq: dot.seq(), slot, print };
        if run.dots.last().is_none_or(|last| last.seq < live.seq) {
            reserve(&mut run.dots);
            run.dots.push(live);
        } else {
            let at = run.dots.partition_point(|other| other.seq < live.seq);
            if run.dots[at].seq == live.seq {
                // The place of a dot that died: a dot does not come back, but a decoder may try.
                run.dead -= usize::from(run.dots[at].slot == DEAD);
                run.dots[at] = live;
            } else {
                run.dots.insert(at, live);
            }
        }
        self.digest.add(key ^ dot.seq(), u64::from(print));
    }

    /// Adds many dots of one actor, in any order.
    pub(crate) fn extend(&mut self, actor: u32, dots: &[Live], ctx: &Context) {
        let run = self.run_mut(actor, ctx.name(actor));
        let key = run.key;
        let behind = run.dots.last().map_or(0, |dot| dot.seq);
        run.dots.extend_from_slice(dots);
        if dots.first().is_some_and(|first| first.seq <= behind) {
            // Two rising runs: the stable sort merges them.
            run.dots.sort_by_key(|dot| dot.seq);
        }
        for dot in dots {
            self.digest.add(key ^ dot.seq, u64::from(dot.print));
        }
    }

    /// Takes a dot out; the slot it was at.
    pub(crate) fn remove(&mut self, dot: DotIx) -> Option<u32> {
        let at = self.find(dot.actor()).ok()?;
        let run = &mut self.runs[at];
        let place = run.find(dot.seq()).filter(|&place| run.dots[place].slot != DEAD)?;
        let Live { slot, print, .. } = run.dots[place];
        run.dots[place].slot = DEAD;
        run.dead += 1;
        self.digest.remove(run.key ^ dot.seq(), u64::from(print));
        if run.dead > 16 && run.dead * 3 > run.dots.len() {
            run.dots.retain(|dot| dot.slot != DEAD);
            run.dead = 0;
        }
        Some(slot)
    }

    /// The element of this dot has moved.
    pub(crate) fn moved(&mut self, dot: DotIx, slot: u32) {
        if let Ok(at) = self.find(dot.actor()) {
            let run = &mut self.runs[at];
            if let Some(place) = run.find(dot.seq()) {
                run.dots[place].slot = slot;
            }
        }
    }
}

/// Room for one more, a quarter at a time: doubling would leave up to half of the memory unused.
pub(crate) fn reserve<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        items.reserve_exact((items.len() / 4).max(4));
    }
}

impl Index {
    /// Is the dot live?
    pub(crate) fn has(&self, dot: DotIx) -> bool {
        self.get(dot).is_some()
    }

    /// A live dot and its run.
    pub(crate) fn get(&self, dot: DotIx) -> Option<(&Run, Live)> {
        let run = self.run(dot.actor())?;
        let live = run.dots[run.find(dot.seq())?];
        (live.slot != DEAD).then_some((run, live))
    }

    /// Adds a dot of another index's run, above all that are here.
    pub(crate) fn copy(&mut self, of: &Run, dot: Live) {
        if self.runs.last().is_none_or(|run| run.actor != of.actor) {
            self.runs.push(Run { actor: of.actor, key: of.key, dots: Vec::new(), dead: 0 });
        }
        if let Some(run) = self.runs.last_mut() {
            run.dots.push(dot);
            self.digest.add(of.key ^ dot.seq, u64::from(dot.print));
        }
    }
}
