//! The program as its users see it, and its parts where a port would only be in the way.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod clocks;
mod conflicts;
mod crash;
mod demo;
mod devices;
mod download;
mod gate;
mod group;
mod merge;
mod place;
#[cfg(feature = "redis")]
mod redis;
mod requests;
mod restored;
mod upkeep;
mod upload;

/// Writes the same test for each store.
macro_rules! on_every_store {
    ($($test:ident;)*) => {
        mod sqlite {
            $(#[test] fn $test() { super::$test(&crate::place::Place::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $test() { super::$test(&crate::place::Place::postgres()); })*
        }
        #[cfg(feature = "mongodb")]
        mod mongodb {
            $(#[test] fn $test() { super::$test(&crate::place::Place::mongodb()); })*
        }
    };
}
pub(crate) use on_every_store;
