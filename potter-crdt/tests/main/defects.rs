//! The defects that are known from other libraries, one by one.
//!
//! Each is a check that is run twice: on this crate, where it must hold, and on a copy that has the
//! defect on purpose ([`crate::broken`]), where it must not. So none of them is a check that can't
//! fail.

mod actors;
mod clocks;
pub(crate) mod costs;
mod formats;
mod removes;

use potter_crdt::{ActorId, Join, Timestamp};
pub(crate) fn actor(name: &str) -> ActorId {
    ActorId::new(name).unwrap()
}

pub(crate) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn ours<C: Join + Clone>(a: &C, b: &C) -> C {
    let mut out = a.clone();
    out.join(b).unwrap();
    out
}
