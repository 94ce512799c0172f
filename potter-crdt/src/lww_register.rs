//! A register in which the last writer wins.
//!
//! Invariant: the register holds the greatest of all writes in the total order (instant, counter,
//! node, canonical bytes of the value). Two different writes never tie, so replicas agree
//! whatever the order of merging.

use sha2::{Digest, Sha256};

use crate::{Delta, Hlc, Join, Result, Stamp, Timestamp, Value};

/// A last-writer-wins register.
///
/// ```
/// use potter_crdt::{ActorId, Join, LwwRegister, Stamp, Timestamp};
///
/// let at = |text: &str, node: &str| -> potter_crdt::Result<Stamp> {
///     Ok(Stamp::new(Timestamp::parse(text)?, ActorId::new(node)?))
/// };
/// let mut a = LwwRegister::new(at("2024-01-01T10:00:00Z", "device1")?, "one".to_owned());
/// let b = LwwRegister::new(at("2024-01-01T11:00:00Z", "device2")?, "two".to_owned());
/// a.join(&b)?;
/// assert_eq!(a.get().map(String::as_str), Some("two"));
/// # Ok::<(), potter_crdt::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LwwRegister<V> {
    pub(crate) entry: Option<(Stamp, V)>,
}

impl<V> Default for LwwRegister<V> {
    fn default() -> Self {
        Self { entry: None }
    }
}

impl<V: Value> LwwRegister<V> {
    /// One that holds `value`.
    pub fn new(stamp: Stamp, value: V) -> Self {
        Self { entry: Some((stamp, value)) }
    }

    /// Takes a write in; true if it wins.
    pub fn set(&mut self, stamp: Stamp, value: V) -> bool {
        let wins = self.entry.as_ref().is_none_or(|old| beats((&stamp, &value), (&old.0, &old.1)));
        if wins {
            self.entry = Some((stamp, value));
        }
        wins
    }

    /// Writes at `wall` with a stamp above what is read here: who reads and then writes wins,
    /// however slow its clock.
    pub fn write(&mut self, clock: &mut Hlc, wall: Timestamp, value: V) -> Result<Stamp> {
        let stamp = clock.now_after(wall, self.stamp())?;
        self.entry = Some((stamp.clone(), value));
        Ok(stamp)
    }

    /// The value.
    pub fn get(&self) -> Option<&V> {
        self.entry.as_ref().map(|entry| &entry.1)
    }

    /// When and by whom it was written.
    pub fn stamp(&self) -> Option<&Stamp> {
        self.entry.as_ref().map(|entry| &entry.0)
    }
}

/// The order of last-writer-wins.
pub(crate) fn beats<V: Value>(a: (&Stamp, &V), b: (&Stamp, &V)) -> bool {
    a.0.cmp(b.0).then_with(|| a.1.canonical_bytes().cmp(&b.1.canonical_bytes())).is_gt()
}

impl<V: Value> Join for LwwRegister<V> {
    fn join(&mut self, other: &Self) -> Result<bool> {
        Ok(match &other.entry {
            Some(theirs)
                if self
                    .entry
                    .as_ref()
                    .is_none_or(|mine| beats((&theirs.0, &theirs.1), (&mine.0, &mine.1))) =>
            {
                self.entry = Some(theirs.clone());
                true
            }
            _ => false,
        })
    }

    fn validate(&self, _: &Self) -> Result<()> {
        Ok(())
    }
}

/// Which write an [`LwwRegister`] holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LwwSummary(Option<(Stamp, [u8; 32])>);

impl<V: Value> Delta for LwwRegister<V> {
    type Summary = LwwSummary;

    fn summary(&self) -> LwwSummary {
        LwwSummary(
            self.entry.as_ref().map(|(stamp, value)| {
                (stamp.clone(), Sha256::digest(value.canonical_bytes()).into())
            }),
        )
    }

    fn delta(&self, since: &LwwSummary) -> Self {
        let lacks = match (&self.entry, &since.0) {
            (Some(mine), Some(theirs)) if mine.0 == theirs.0 => self.summary() != *since,
            (Some(mine), Some(theirs)) => mine.0 > theirs.0,
            (mine, _) => mine.is_some(),
        };
        if lacks { self.clone() } else { Self::default() }
    }

    fn delta_against(&self, other: &Self) -> Self {
        let mut joined = other.clone();
        match joined.join(self) {
            Ok(true) => self.clone(),
            _ => Self::default(),
        }
    }

    fn decompose(&self) -> Vec<Self> {
        self.entry.is_some().then(|| self.clone()).into_iter().collect()
    }

    fn is_bottom(&self) -> bool {
        self.entry.is_none()
    }
}
