//! Workloads for real databases, ready to run.
//!
//! They are the classics of Jepsen: each drives one kind of object, and its checker knows what must
//! be true of it. They only use what any client of the database can use.

pub mod postgres;
