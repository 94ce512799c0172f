//! Simulation: the same workloads, generators and nemeses on a virtual clock, in one thread.
//!
//! A [`Simulation`] runs clients against a system that lives in memory and asks [`Env`] for time,
//! chance and background tasks. Nothing else decides what happens when, so *one seed is one history,
//! byte for byte*, on every machine. Ten simulated seconds take some milliseconds: thousands of
//! seeds can be tried, and a seed that fails is a bug report that replays.
//!
//! The system may be a model of your own, written as a [`Workload`](crate::runner::Workload) whose
//! clients use `Env`, or [`Database`], a small replicated store with a choice of famous [`Bug`]s: it
//! shows what checkers catch, and is how this crate tests itself.
//!
//! ```
//! use potter_jepsen::sim::{Bug, Scenario};
//!
//! # fn main() -> potter_jepsen::Result<()> {
//! let healthy = Scenario::register(Bug::None).seed(7).run()?;
//! assert!(healthy.analysis.verdict.is_valid());
//! let again = Scenario::register(Bug::None).seed(7).run()?;
//! assert_eq!(healthy.history.to_json_lines(), again.history.to_json_lines());
//!
//! let stale = Scenario::register(Bug::StaleReads).seed(7).run()?;
//! assert!(stale.analysis.verdict.is_invalid());
//! # Ok(())
//! # }
//! ```
//!
//! What follows from the seed ends at the edge of this process: a real database's timing does not.
//! There, only the plan repeats ([`crate::generator`]).

mod client;
mod database;
mod env;
mod faults;
mod network;
mod run;
mod scenario;
mod shrink;

pub use database::{Bug, Database};
pub use env::Env;
pub use faults::SimNemesis;
pub use network::Network;
pub use run::{Setting, Simulation};
pub use scenario::{Kind, Scenario};
pub use shrink::Smaller;
