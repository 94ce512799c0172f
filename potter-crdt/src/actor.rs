//! Who writes, and the names of single events.
//!
//! Invariant: an actor id is 1 to [`ActorId::BYTES_MAX`] bytes of UTF-8 and is used by one writer
//! at a time. A dot `(actor, seq)` names one event for ever; `seq` counts from 1.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// The id of a replica that writes. Cheap to clone; ordered by its bytes.
///
/// A replica that was restored from an older copy or cloned must go on under a new id:
/// [`ActorId::incarnation`] makes one from its name and a number that the restore raises.
#[derive(Clone)]
pub struct ActorId(Arc<str>);

impl ActorId {
    /// The longest id, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// An actor of that id. [`ErrorKind::InvalidInput`] if it is empty or too long.
    pub fn new(id: impl AsRef<str>) -> Result<Self> {
        let id = id.as_ref();
        if id.is_empty() || id.len() > Self::BYTES_MAX {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("an actor id has 1 to {} bytes, not {}", Self::BYTES_MAX, id.len()),
            ));
        }
        Ok(Self(Arc::from(id)))
    }

    /// The actor of replica `name` in its `number`-th life: `name#number`.
    pub fn incarnation(name: impl AsRef<str>, number: u64) -> Result<Self> {
        Self::new(format!("{}#{number}", name.as_ref()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<u64> for ActorId {
    fn from(id: u64) -> Self {
        Self(Arc::from(id.to_string()))
    }
}

impl PartialEq for ActorId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for ActorId {}

impl PartialOrd for ActorId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ActorId {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl Hash for ActorId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl std::fmt::Display for ActorId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for ActorId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.0, f)
    }
}

/// The name of one event: the `seq`-th of `actor`, counted from 1.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dot {
    /// Who.
    pub actor: ActorId,
    /// The how-manieth event of that actor in this document.
    pub seq: u64,
}

impl std::fmt::Debug for Dot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.actor, self.seq)
    }
}

/// A dot inside a document: the actor's number in the document's table and the sequence number in
/// one word. Limits: 2^20 - 1 actors a document, 2^44 - 1 events an actor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DotIx(u64);

pub(crate) const SEQ_BITS: u32 = 44;
/// The most events of one actor in one document.
pub const SEQ_MAX: u64 = (1 << SEQ_BITS) - 1;
/// The most actors in one document.
pub const ACTORS_MAX: usize = (1 << (64 - SEQ_BITS)) - 1;

impl DotIx {
    pub(crate) fn new(actor: u32, seq: u64) -> Self {
        debug_assert!(seq <= SEQ_MAX && (actor as usize) <= ACTORS_MAX);
        Self((u64::from(actor) << SEQ_BITS) | seq)
    }

    pub(crate) fn actor(self) -> u32 {
        (self.0 >> SEQ_BITS) as u32
    }

    pub(crate) fn seq(self) -> u64 {
        self.0 & SEQ_MAX
    }
}

impl std::fmt::Debug for DotIx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.actor(), self.seq())
    }
}
