//! The program as its users see it, and its parts where a port would only be in the way.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod clocks;
mod conflicts;
mod crash;
mod demo;
mod devices;
mod download;
mod merge;
mod place;
mod requests;
mod restored;
mod upkeep;
mod upload;

/// Writes the same test for SQLite and PostgreSQL.
macro_rules! on_both_engines {
    ($($test:ident;)*) => {
        mod sqlite {
            $(#[test] fn $test() { super::$test(&crate::place::Place::sqlite()); })*
        }
        mod postgres {
            $(#[test] fn $test() { super::$test(&crate::place::Place::postgres()); })*
        }
    };
}
pub(crate) use on_both_engines;
