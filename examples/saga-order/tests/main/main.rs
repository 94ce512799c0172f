//! The program as its users see it: a process, a port, a database that can be looked into.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod bad_input;
mod books;
mod crash;
mod demo;
mod place;
mod process;
mod repeated;
mod requests;
mod takeover;

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
