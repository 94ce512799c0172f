//! Transactions: which of them read from, overwrote and preceded which others, and what that says
//! about isolation.
//!
//! The dependency graph and its cycles are Adya's ("Weak consistency", 1999): `ww`, `wr` and `rw`
//! edges; G0, G1a, G1b, G1c, G-single and G2. How the edges are found in lists and registers is
//! Elle's (Kingsbury & Alvaro, 2020). Snapshot isolation is decided by Cerone & Gotsman's criterion
//! (2018), read committed in sessions, read atomic and causal consistency by Biswas & Enea's axioms
//! (2019), registers whose version order is unknown by a search over polygraphs (Papadimitriou,
//! 1979; as in Cobra and PolySI).

mod append;
mod compile;
mod cycle;
mod edges;
mod explain;
mod graph;
mod judge;
mod register;
mod scc;
mod serial;
mod solve;
mod versions;
mod weak;

use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result};
use crate::history::History;
use crate::load::Format;
use crate::verdict::{Analysis, Checker, no_evidence};

/// Isolation levels and consistency models, from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// PL-1: no G0.
    ReadUncommitted,
    /// PL-2: no G1. For histories of sessions, Biswas & Enea's axiom, which keeps session order.
    ReadCommitted,
    /// Transactions are seen as a whole or not at all. In histories of sessions, Biswas & Enea's
    /// axiom, which keeps session order.
    ReadAtomic,
    /// What causally precedes is seen. Causality begins with the order of each process, so a
    /// serializable history need not be causal.
    Causal,
    /// Reads from a snapshot, first committer wins.
    SnapshotIsolation,
    /// Snapshot isolation whose snapshots hold what the same process committed before.
    StrongSessionSnapshotIsolation,
    /// Snapshot isolation whose snapshots hold everything that was committed before they were taken.
    StrongSnapshotIsolation,
    /// PL-2.99: no G2-item.
    RepeatableRead,
    /// PL-3: some serial order explains everything.
    Serializable,
    /// Serializable in an order that keeps that of every process.
    StrongSessionSerializable,
    /// Serializable in an order that keeps real time.
    StrictSerializable,
}

impl Level {
    /// All levels, from weak to strong.
    pub const ALL: [Self; 11] = [
        Self::ReadUncommitted,
        Self::ReadCommitted,
        Self::ReadAtomic,
        Self::Causal,
        Self::SnapshotIsolation,
        Self::StrongSessionSnapshotIsolation,
        Self::StrongSnapshotIsolation,
        Self::RepeatableRead,
        Self::Serializable,
        Self::StrongSessionSerializable,
        Self::StrictSerializable,
    ];

    /// The name in words, with hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read-uncommitted",
            Self::ReadCommitted => "read-committed",
            Self::ReadAtomic => "read-atomic",
            Self::Causal => "causal",
            Self::SnapshotIsolation => "snapshot-isolation",
            Self::StrongSessionSnapshotIsolation => "strong-session-snapshot-isolation",
            Self::StrongSnapshotIsolation => "strong-snapshot-isolation",
            Self::RepeatableRead => "repeatable-read",
            Self::Serializable => "serializable",
            Self::StrongSessionSerializable => "strong-session-serializable",
            Self::StrictSerializable => "strict-serializable",
        }
    }

    /// The level with this name; common short and long forms are understood, and Elle's and Adya's.
    pub fn parse(name: &str) -> Option<Self> {
        let name =
            name.trim().trim_start_matches(':').to_ascii_lowercase().replace([' ', '_'], "-");
        Some(match name.as_str() {
            "ru" | "pl-1" => Self::ReadUncommitted,
            "rc" | "pl-2" => Self::ReadCommitted,
            "ra" => Self::ReadAtomic,
            "cc" | "tcc" | "causal-consistency" | "transactional-causal-consistency" => {
                Self::Causal
            }
            "si" | "pl-si" => Self::SnapshotIsolation,
            "strong-session-si" | "sssi" => Self::StrongSessionSnapshotIsolation,
            "strong-si" | "strict-snapshot-isolation" => Self::StrongSnapshotIsolation,
            "rr" | "pl-2.99" => Self::RepeatableRead,
            "ser"
            | "serializability"
            | "pl-3"
            | "1sr"
            | "conflict-serializable"
            | "conflict-serializability" => Self::Serializable,
            "strong-session-ser" | "strong-session-serializability" => {
                Self::StrongSessionSerializable
            }
            "ss"
            | "sser"
            | "pl-ss"
            | "strict-serializability"
            | "strong-serializable"
            | "strong-serializability"
            | "strict-1sr" => Self::StrictSerializable,
            other => return Self::ALL.into_iter().find(|level| level.name() == other),
        })
    }
}

/// What transactional histories leave open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The level that the verdict is about.
    pub level: Level,
    /// Whether a value that nobody in the history wrote is an anomaly. If not, it was written by
    /// someone outside, and reads of it prove nothing.
    pub unwritten_is_anomaly: bool,
    /// The history knows sessions and no times: Plume's and AWDIT's.
    pub sessions_only: bool,
    /// The value of every key before everything: `Nil`, unless the format says otherwise.
    pub initial: Option<crate::Value>,
    /// What is assumed of every single register, at whatever level.
    pub keys: Keys,
}

/// What a database is assumed to keep for every single key, so that the versions of registers stand
/// in an order: Elle's options of the same names. The verdict then counts on it. With one of them a
/// value that nobody in the history wrote was written once, by somebody outside; without, nothing is
/// concluded from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keys {
    /// Versions follow the order of each process: Elle's `sequential-keys?`.
    pub sequential: bool,
    /// Versions follow real time: Elle's `linearizable-keys?`.
    pub linearizable: bool,
    /// Who reads a key and writes it overwrites what it read: Elle's `wfr-keys?`.
    pub writes_follow_reads: bool,
}

impl Default for Options {
    /// Strict serializability of a complete history.
    fn default() -> Self {
        Self {
            level: Level::StrictSerializable,
            unwritten_is_anomaly: true,
            sessions_only: false,
            initial: Some(crate::Value::Nil),
            keys: Keys::default(),
        }
    }
}

impl Options {
    /// What is usual for histories of a format: Elle takes values that nobody wrote for written
    /// outside; Plume's keys hold 0 at first, AWDIT's nothing.
    pub fn of(format: Format) -> Self {
        let mut options = Self::default();
        match format {
            Format::Plume | Format::Awdit => {
                options.level = Level::Serializable;
                options.sessions_only = true;
                options.initial = (format == Format::Plume).then_some(crate::Value::Int(0));
            }
            _ => options.unwritten_is_anomaly = false,
        }
        options
    }

    /// The same for another level.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }
}

/// Checks transactions that append to lists and read them: `[[:append 5 1] [:r 6 [2 3]]]`.
#[derive(Clone, Debug, Default)]
pub struct ListAppend {
    options: Options,
}

/// Checks transactions that write and read registers: `[[:w 5 1] [:r 6 3]]`.
#[derive(Clone, Debug, Default)]
pub struct RwRegister {
    options: Options,
}

impl ListAppend {
    /// A checker with `options`.
    pub fn new(options: Options) -> Self {
        Self { options }
    }
}

impl RwRegister {
    /// A checker with `options`.
    pub fn new(options: Options) -> Self {
        Self { options }
    }
}

impl Checker for ListAppend {
    fn check(&self, history: &History, budget: &Budget) -> Result<Analysis> {
        let txns = compile::transactions(history, compile::Workload::Append)?;
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("list-append", verdict));
        }
        let facts = append::analyse(history, txns, &self.options);
        Ok(judge::judge("list-append", &facts, &self.options, budget))
    }
}

impl Checker for RwRegister {
    fn check(&self, history: &History, budget: &Budget) -> Result<Analysis> {
        if self.options.keys.linearizable && self.options.sessions_only {
            let message = "linearizable keys need times, and this history knows sessions only";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let txns = compile::transactions(history, compile::Workload::Register)?;
        if let Some(verdict) = no_evidence(history) {
            return Ok(Analysis::new("rw-register", verdict));
        }
        let facts = register::analyse(history, txns, &self.options);
        Ok(judge::judge("rw-register", &facts, &self.options, budget))
    }
}
