//! Checks what a distributed system really promises.
//!
//! A [`History`] is what clients observed. A [`Checker`] says whether a model explains it, within a
//! [`Budget`] of time and memory: [`Verdict::Valid`] with a witness, [`Verdict::Invalid`] with a
//! counterexample, or [`Verdict::Unknown`] with a reason.
//!
//! ```
//! use potter_jepsen::txn::{Level, ListAppend, Options};
//! use potter_jepsen::{Budget, Checker, load_str};
//!
//! # fn main() -> potter_jepsen::Result<()> {
//! // Both read an empty list, and both appended: one of them did not see the other.
//! let loaded = load_str(
//!     "{:process 0 :type :invoke :f :txn :value [[:r 1 nil] [:append 1 7]]}
//!      {:process 1 :type :invoke :f :txn :value [[:r 1 nil] [:append 1 8]]}
//!      {:process 0 :type :ok     :f :txn :value [[:r 1 []] [:append 1 7]]}
//!      {:process 1 :type :ok     :f :txn :value [[:r 1 []] [:append 1 8]]}",
//! )?;
//! let checker = ListAppend::new(Options::default().level(Level::SnapshotIsolation));
//! let analysis = checker.check(&loaded.history, &Budget::default())?;
//! assert_eq!(analysis.verdict.counterexample().unwrap().anomaly, "lost-update");
//! # Ok(())
//! # }
//! ```

pub mod checkers;
#[cfg(feature = "runner")]
pub mod db;
#[cfg(feature = "runner")]
pub mod generator;
pub mod linear;
#[cfg(feature = "runner")]
pub mod nemesis;
pub mod report;
#[cfg(feature = "runner")]
pub mod runner;
#[cfg(feature = "runner")]
pub mod sim;
pub mod txn;
#[cfg(feature = "postgres")]
pub mod workloads;

mod budget;
mod error;
mod history;
mod load;
#[cfg(feature = "runner")]
mod random;
mod shrink;
mod spec;
mod syntax;
mod value;
mod verdict;

pub use budget::Budget;
pub use error::{Error, ErrorKind, Result};
pub use history::{Event, EventKind, History, Operation, Outcome, Process};
pub use load::{Format, Loaded, load, load_str};
#[cfg(feature = "runner")]
pub use random::Random;
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

#[cfg(all(doctest, feature = "postgres"))]
#[doc = include_str!("../README.md")]
struct Readme;
