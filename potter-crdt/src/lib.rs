//! CRDTs that merge right and fast.
//!
//! States of one type that were written apart merge to the same result in any order
//! ([`Join`]), send each other only what is missing ([`Delta`]), travel as canonical JSON or
//! compact bytes ([`Codec`]), and forget what nobody needs ([`Reclaim`]). A [`Replica`] keeps a
//! state together with its [`Writer`], and notices an actor that is used twice.
//!
//! ```
//! use potter_crdt::{ActorId, Codec, Delta, OrSet, Replica};
//!
//! let mut phone: Replica<OrSet<String>> = Replica::new(ActorId::new("phone")?);
//! let mut laptop: Replica<OrSet<String>> = Replica::new(ActorId::new("laptop")?);
//! phone.write(|list, writer| list.add(writer, "milk".to_owned()))?;
//!
//! // What the laptop has seen goes to the phone, what it lacks comes back.
//! let delta = phone.state().delta(&laptop.state().summary()).to_bytes();
//! assert!(laptop.merge(&OrSet::from_bytes(&delta)?)?);
//! assert!(laptop.state().contains(&"milk".to_owned()));
//! # Ok::<(), potter_crdt::Error>(())
//! ```
//!
//! Types: [`GCounter`], [`PnCounter`], [`ResettableCounter`], [`BoundedCounter`],
//! [`LwwRegister`], [`MvRegister`], [`EnableWinsFlag`], [`GSet`], [`TwoPhaseSet`], [`OrSet`],
//! [`LwwMap`], [`OrMap`], [`Rga`]; and what they stand on: [`VectorClock`],
//! [`DottedVersionVector`], [`Context`], [`Hlc`], [`Timestamp`].
//!
//! The algebra is pure: no async runtime, no I/O, no clock. A writer can't be shared:
//!
//! ```compile_fail
//! use potter_crdt::{ActorId, Writer};
//!
//! let writer = Writer::new(ActorId::from(1));
//! let second = writer.clone();
//! ```
//!
//! Feature `serde`: `Serialize` and `Deserialize` for every type, as its canonical JSON.

mod actor;
mod causal;
mod codec;
mod context;
mod counter;
mod error;
mod hlc;
mod keyed;
mod lww_register;
mod plain_sets;
mod ranges;
mod replica;
mod sequence;
mod timestamp;
mod traits;
mod vector_clock;
mod writer;

pub use actor::{ACTORS_MAX, ActorId, Dot, SEQ_MAX};
pub use causal::counter::{CausalCounter, CounterStore};
pub use causal::flag::{EnableWinsFlag, FlagStore};
pub use causal::lww_map::{LwwMap, LwwMapStore};
pub use causal::map::{MapStore, OrMap};
pub use causal::register::{LwwStore, MvRegister, MvStore, Stamped};
pub use causal::set::{OrSet, SetStore};
pub use causal::{Causal, DotStore, Txn};
pub use codec::value::{JsonValue, Value};
pub use codec::{Codec, Decoder, Encoder, FORMAT_VERSION, INPUT_BYTES_MAX};
pub use context::Context;
pub use counter::bounded::BoundedCounter;
pub use counter::g_counter::GCounter;
pub use counter::pn_counter::PnCounter;
pub use counter::resettable::{ResetSummary, ResettableCounter};
pub use error::{Error, ErrorKind, Result};
pub use hlc::{Admitted, Hlc, SkewGuard, Stamp};
pub use lww_register::{LwwRegister, LwwSummary};
pub use plain_sets::{GSet, TwoPhaseSet};
pub use replica::Replica;
pub use sequence::{Position, Rga};
pub use timestamp::Timestamp;
pub use traits::{Delta, Join, Reclaim};
pub use vector_clock::{Causality, DottedVersionVector, VectorClock};
pub use writer::{Authored, Writer};

/// The examples of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
