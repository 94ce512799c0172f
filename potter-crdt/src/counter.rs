//! Counters. All are tables with one row an actor, in which only that actor counts up; the join
//! takes the greater of each number (Shapiro, Preguiça, Baquero, Zawirski: "A comprehensive study
//! of Convergent and Commutative Replicated Data Types", 2011).

pub(crate) mod bounded;
pub(crate) mod entries;
pub(crate) mod g_counter;
pub(crate) mod pn_counter;
pub(crate) mod resettable;
