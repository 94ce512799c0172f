//! Checks what a distributed system really promises.
//!
//! A [`History`] is what clients observed. A [`Checker`] says whether a model explains it, within a
//! [`Budget`] of time and memory: [`Verdict::Valid`] with a witness, [`Verdict::Invalid`] with a
//! counterexample, or [`Verdict::Unknown`] with a reason.

pub mod checkers;
pub mod linear;
pub mod report;
pub mod txn;

mod budget;
mod error;
mod history;
mod load;
mod shrink;
mod spec;
mod syntax;
mod value;
mod verdict;

pub use budget::Budget;
pub use error::{Error, ErrorKind, Result};
pub use history::{Event, EventKind, History, Operation, Outcome, Process};
pub use load::{Format, Loaded, load, load_str};
pub use shrink::{Shrunk, shrink};
pub use spec::Spec;
pub use value::Value;
pub use verdict::{
    Analysis, Checker, Counterexample, CycleEdge, Reason, ReasonKind, Verdict, Witness,
};

/// Histories have fewer than 2³² events, so every index into one fits.
pub(crate) fn index(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
