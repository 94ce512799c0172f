//! The crate's tests, in one program.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers")]
#![expect(clippy::cast_sign_loss, reason = "small numbers")]

mod brute_linear;
mod brute_txn;
mod conventions;
#[cfg(feature = "runner")]
mod generators;
mod loaders;
mod mutations;
#[cfg(feature = "postgres")]
mod postgres;
mod random;
#[cfg(feature = "runner")]
mod runner;
mod shrink;
#[cfg(feature = "runner")]
mod sim;
mod simulate;
mod traps;

#[cfg(feature = "runner")]
mod nemesis;
