//! An entity: a CRDT whose type is known by name at run time.
//!
//! Invariant: a document of a kind stays of that kind. [`Document::apply`] either changes the state
//! or refuses and changes nothing; all changes are joins, so deltas may come again and in any order.

mod operate;
mod operation;
mod view;

use potter_crdt::{
    BoundedCounter, Codec, Context, Delta, EnableWinsFlag, GCounter, GSet, Join, JsonValue, LwwMap,
    LwwStore, MvRegister, OrMap, OrSet, PnCounter, Reclaim, ResettableCounter, Result, Rga,
    Stamped, TwoPhaseSet,
};
use serde_json::Value;

pub use operate::{Applied, Author, Refused};
pub use operation::{Operation, Seen};
pub use view::Sibling;

/// Writes that no other write has seen, each with its stamp.
pub type Register = MvRegister<Stamped<JsonValue>>;

macro_rules! kinds {
    ($($kind:ident($state:ty) = $name:literal,)*) => {
        /// The types of CRDT that the service keeps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = $name] $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Its name in requests.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }

        /// The state of an entity.
        #[derive(Clone, Debug)]
        pub enum Document {
            $(#[doc = $name] $kind($state),)*
        }

        impl Document {
            /// An empty one.
            pub fn new(kind: Kind) -> Self {
                match kind {
                    $(Kind::$kind => Self::$kind(Default::default()),)*
                }
            }

            /// Its type.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// Compact bytes, the same for equal states.
            pub fn to_bytes(&self) -> Vec<u8> {
                match self {
                    $(Self::$kind(state) => state.to_bytes(),)*
                }
            }

            /// Reads them.
            ///
            /// # Errors
            /// `Malformed` and `WrongType` for bytes of anything else.
            pub fn from_bytes(kind: Kind, bytes: &[u8]) -> Result<Self> {
                Ok(match kind {
                    $(Kind::$kind => Self::$kind(Codec::from_bytes(bytes)?),)*
                })
            }

            /// The state as JSON, as `potter-crdt` writes it.
            pub fn to_json(&self) -> Value {
                match self {
                    $(Self::$kind(state) => state.body_to_json(),)*
                }
            }

            /// Reads it.
            ///
            /// # Errors
            /// `Malformed` with the reason.
            pub fn from_json(kind: Kind, body: &Value) -> Result<Self> {
                Ok(match kind {
                    $(Kind::$kind => Self::$kind(Codec::body_from_json(body)?),)*
                })
            }

            /// Takes in another state or delta; true if that changed anything.
            ///
            /// # Errors
            /// `ActorReused` if the two have two histories of one actor, `WrongType` if they are of
            /// two types. Nothing is changed then.
            pub fn join(&mut self, other: &Self) -> Result<bool> {
                match (self, other) {
                    $((Self::$kind(mine), Self::$kind(theirs)) => mine.join(theirs),)*
                    (mine, theirs) => Err(mine.other_kind(theirs)),
                }
            }

            /// What `other` lacks of this.
            ///
            /// # Errors
            /// `WrongType` if they are of two types.
            pub fn delta_against(&self, other: &Self) -> Result<Self> {
                match (self, other) {
                    $((Self::$kind(mine), Self::$kind(theirs)) => {
                        Ok(Self::$kind(mine.delta_against(theirs)))
                    })*
                    (mine, theirs) => Err(mine.other_kind(theirs)),
                }
            }

            /// Nothing in it?
            pub fn is_bottom(&self) -> bool {
                match self {
                    $(Self::$kind(state) => state.is_bottom(),)*
                }
            }
        }
    };
}

kinds! {
    LwwRegister(Register) = "LWWRegister",
    MvRegister(Register) = "MVRegister",
    GCounter(GCounter) = "GCounter",
    PnCounter(PnCounter) = "PNCounter",
    ResettableCounter(ResettableCounter) = "ResettableCounter",
    BoundedCounter(BoundedCounter) = "BoundedCounter",
    GSet(GSet<JsonValue>) = "GSet",
    TwoPhaseSet(TwoPhaseSet<JsonValue>) = "TwoPhaseSet",
    OrSet(OrSet<JsonValue>) = "ORSet",
    LwwMap(LwwMap<String, JsonValue>) = "LWWMap",
    OrMap(OrMap<String, LwwStore<JsonValue>>) = "ORMap",
    EwFlag(EnableWinsFlag) = "EWFlag",
    Rga(Rga) = "RGA",
}

impl Kind {
    /// The type of that name; case and `-`, `_`, ` ` do not matter.
    pub fn parse(name: &str) -> Option<Self> {
        let plain = |text: &str| -> String {
            text.chars()
                .filter(|c| !matches!(c, '-' | '_' | ' '))
                .map(|c| c.to_ascii_lowercase())
                .collect()
        };
        let wanted = plain(name);
        Self::ALL.iter().copied().find(|kind| plain(kind.name()) == wanted)
    }

    /// All names, for an error.
    pub fn names() -> String {
        Self::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
    }
}

impl Document {
    /// The causal context, of the types that have one.
    pub fn context(&self) -> Option<&Context> {
        Some(match self {
            Self::LwwRegister(state) | Self::MvRegister(state) => state.context(),
            Self::OrSet(state) => state.context(),
            Self::LwwMap(state) => state.context(),
            Self::OrMap(state) => state.context(),
            Self::EwFlag(state) => state.context(),
            Self::Rga(state) => state.context(),
            _ => return None,
        })
    }

    /// Drops what is only kept for replicas that have not heard of it, when all have seen the whole
    /// state; how many things were dropped.
    pub fn reclaim(&mut self) -> usize {
        let Some(stable) = self.context().cloned() else { return 0 };
        match self {
            Self::LwwMap(state) => state.reclaim(&stable),
            Self::OrMap(state) => state.reclaim(&stable),
            Self::Rga(state) => state.reclaim(&stable),
            _ => 0,
        }
    }

    fn other_kind(&self, other: &Self) -> potter_crdt::Error {
        potter_crdt::Error::new(
            potter_crdt::ErrorKind::WrongType,
            format!("a {} and a {} do not merge", self.kind().name(), other.kind().name()),
        )
    }
}
