//! A table by actor.
//!
//! Invariant: sorted by actor, one row each. A missing row is the bottom row.

use crate::{ActorId, Error, ErrorKind, Result, Writer};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entries<T>(Vec<(ActorId, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone + Default> Entries<T> {
    /// Rows that are in order, one an actor.
    pub(crate) fn from_sorted(rows: Vec<(ActorId, T)>) -> Self {
        Self(rows)
    }

    pub(crate) fn get(&self, actor: &ActorId) -> Option<&T> {
        self.find(actor).ok().map(|at| &self.0[at].1)
    }

    fn find(&self, actor: &ActorId) -> std::result::Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| name.cmp(actor))
    }

    /// The row of the writer's actor; the writer remembers where it was.
    pub(crate) fn slot(&self, writer: &mut Writer) -> Option<usize> {
        let hint = writer.slot as usize;
        if self.0.get(hint).is_some_and(|(name, _)| name == writer.actor()) {
            return Some(hint);
        }
        let at = self.find(writer.actor()).ok()?;
        writer.slot = u32::try_from(at).unwrap_or(0);
        Some(at)
    }

    pub(crate) fn at(&self, at: usize) -> &T {
        &self.0[at].1
    }

    /// The row found by [`Entries::slot`], or a new one.
    pub(crate) fn at_or_insert(&mut self, at: Option<usize>, writer: &Writer) -> &mut T {
        match at {
            Some(at) => &mut self.0[at].1,
            None => self.entry(writer.actor()),
        }
    }

    pub(crate) fn entry(&mut self, actor: &ActorId) -> &mut T {
        let at = match self.find(actor) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (actor.clone(), T::default()));
                at
            }
        };
        &mut self.0[at].1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ActorId, &T)> {
        self.0.iter().map(|(actor, row)| (actor, row))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rows of both tables, side by side.
    pub(crate) fn walk<'a>(
        &'a self,
        other: &'a Self,
        mut each: impl FnMut(Option<&'a T>, Option<&'a T>),
    ) {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let order = match (mine.peek(), theirs.peek()) {
                (Some(a), Some(b)) => a.0.cmp(&b.0),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return,
            };
            let a = if order.is_le() { mine.next() } else { None };
            let b = if order.is_ge() { theirs.next() } else { None };
            each(a.map(|row| &row.1), b.map(|row| &row.1));
        }
    }

    /// Row by row; `raise` says whether it changed mine.
    pub(crate) fn join(&mut self, other: &Self, mut raise: impl FnMut(&mut T, &T) -> bool) -> bool {
        let mut changed = false;
        let mut missing = Vec::new();
        let mut at = 0;
        for (actor, theirs) in &other.0 {
            // Most often the tables have the same actors; else look the place up.
            if self.0.get(at).is_none_or(|(name, _)| name != actor) {
                at += self.0[at.min(self.0.len())..].partition_point(|(name, _)| name < actor);
            }
            match self.0.get_mut(at) {
                Some((name, mine)) if name == actor => {
                    changed |= raise(mine, theirs);
                    at += 1;
                }
                _ => missing.push((actor.clone(), theirs.clone())),
            }
        }
        if missing.is_empty() {
            return changed;
        }
        self.0.extend(missing);
        self.0.sort_by(|a, b| a.0.cmp(&b.0));
        true
    }

    /// One actor has one history, so of two versions of its row one is the later in every number.
    /// [`ErrorKind::ActorReused`] if `ordered` says that they are not.
    pub(crate) fn one_history(&self, other: &Self, ordered: impl Fn(&T, &T) -> bool) -> Result<()> {
        for (actor, theirs) in &other.0 {
            if let Some(mine) = self.get(actor)
                && !ordered(mine, theirs)
            {
                return Err(Error::new(
                    ErrorKind::ActorReused,
                    format!(
                        "{actor} counted in two histories: it was restored from an older copy, \
                         cloned, or used by two writers; nothing was merged"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The rows for which `newer(mine, theirs)` holds.
    pub(crate) fn newer_than<U: Clone + Default>(
        &self,
        since: &Entries<U>,
        newer: impl Fn(&T, &U) -> bool,
    ) -> Self {
        let none = U::default();
        Self(
            self.0
                .iter()
                .filter(|(actor, mine)| newer(mine, since.get(actor).unwrap_or(&none)))
                .cloned()
                .collect(),
        )
    }

    pub(crate) fn singles(&self) -> impl Iterator<Item = Self> {
        self.0.iter().map(|row| Self(vec![row.clone()]))
    }

    pub(crate) fn map<U>(&self, with: impl Fn(&T) -> U) -> Entries<U> {
        Entries(self.0.iter().map(|(actor, row)| (actor.clone(), with(row))).collect())
    }
}
