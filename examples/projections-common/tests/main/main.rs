//! The seven programs as their users see them: processes on a terminal, which are stopped, killed
//! and added, and a read model that is compared with a fold over the log.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod flags;
mod place;
mod process;
mod readmes;
mod restarts;
mod several;

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
