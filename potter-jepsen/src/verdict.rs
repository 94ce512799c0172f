//! What a checker answers.

use std::fmt;

use crate::history::History;

/// The answer of a checker. There is no fourth.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The history satisfies the model, and here is why.
    Valid {
        /// The proof.
        witness: Witness,
    },
    /// It does not, and here is why.
    Invalid {
        /// The proof.
        counterexample: Box<Counterexample>,
    },
    /// Not decided.
    Unknown {
        /// Why not.
        reason: Reason,
    },
}

impl Verdict {
    pub(crate) fn unknown(kind: ReasonKind, message: impl Into<String>) -> Self {
        Self::Unknown { reason: Reason::new(kind, message) }
    }

    pub(crate) fn invalid(counterexample: Counterexample) -> Self {
        Self::Invalid { counterexample: Box::new(counterexample) }
    }

    /// `Valid`?
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid { .. })
    }

    /// `Invalid`?
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid { .. })
    }

    /// `Unknown`?
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// `valid`, `invalid` or `unknown`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Valid { .. } => "valid",
            Self::Invalid { .. } => "invalid",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// The counterexample of an `Invalid`.
    pub fn counterexample(&self) -> Option<&Counterexample> {
        match self {
            Self::Invalid { counterexample } => Some(counterexample),
            _ => None,
        }
    }
}

/// Why a history is valid. Operations are indices into [`History::operations`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Witness {
    /// For each key an order in which the operations could have taken effect one after the other.
    /// Crashed operations that took no effect are not in it.
    Linearization(Vec<Vec<u32>>),
    /// A serial order of the transactions.
    SerialOrder(Vec<u32>),
    /// Everything that the model demands was looked at; the text counts it.
    Checked(String),
}

/// Why a history is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counterexample {
    /// The anomaly's name: `nonlinearizable`, `G0`, `G1a`, `lost-update`, …
    pub anomaly: String,
    /// One sentence that says what is wrong.
    pub message: String,
    /// The operations that it is about, as indices into [`History::operations`].
    pub operations: Vec<u32>,
    /// For anomalies that are cycles: the edges, each from one operation to the next.
    pub cycle: Vec<CycleEdge>,
    /// The key that it is about.
    pub key: Option<String>,
    /// What the search knew: the longest legal order it found, the states reached.
    pub details: Vec<String>,
}

impl Counterexample {
    pub(crate) fn new(anomaly: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            anomaly: anomaly.into(),
            message: message.into(),
            operations: Vec::new(),
            cycle: Vec::new(),
            key: None,
            details: Vec::new(),
        }
    }

    pub(crate) fn about(mut self, operations: impl IntoIterator<Item = u32>) -> Self {
        self.operations = operations.into_iter().collect();
        self
    }
}

/// One edge of a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CycleEdge {
    /// The operation that comes first.
    pub from: u32,
    /// The operation that comes after it.
    pub to: u32,
    /// Why: `ww`, `wr`, `rw`, `process`, `realtime`, `session`, `forced`.
    pub relation: &'static str,
    /// The same in words, with key and values.
    pub why: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    kind: ReasonKind,
    message: String,
}

impl Reason {
    /// A reason of `kind`.
    pub fn new(kind: ReasonKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The kind, to match on.
    pub fn kind(&self) -> ReasonKind {
        self.kind
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The kinds of [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReasonKind {
    /// The budget's time is used up.
    TimeLimit,
    /// The budget's bytes are used up.
    MemoryLimit,
    /// [`Budget::cancel_flag`](crate::Budget::cancel_flag) was set.
    Cancelled,
    /// The history says nothing: it is empty, or nothing in it succeeded.
    NoEvidence,
    /// A fault was asked for and not verified to be in effect.
    FaultNotVerified,
    /// The history leaves open what happened: values that are not unique, for instance.
    Ambiguous,
    /// A checker's answer did not pass the independent replay: a defect of this crate.
    NotVerified,
}

/// A verdict with everything else that a checker found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Analysis {
    /// The model's name.
    pub model: String,
    /// The verdict.
    pub verdict: Verdict,
    /// For transactional models: each isolation level, from weak to strong, with its verdict.
    pub levels: Vec<(crate::txn::Level, Verdict)>,
    /// All kinds of anomalies that were found, one example each.
    pub anomalies: Vec<Counterexample>,
    /// What is worth knowing beside the verdict.
    pub notes: Vec<String>,
}

impl Analysis {
    pub(crate) fn new(model: impl Into<String>, verdict: Verdict) -> Self {
        let anomalies = verdict.counterexample().cloned().into_iter().collect();
        Self { model: model.into(), verdict, levels: Vec::new(), anomalies, notes: Vec::new() }
    }

    /// The same with a verdict that a fault which could not be verified allows: `Unknown` in place
    /// of `Valid`. What is `Invalid` stays so.
    #[must_use]
    pub fn with_unverified_fault(mut self, fault: &str) -> Self {
        if self.verdict.is_valid() {
            let message = format!("the fault '{fault}' was not verified to be in effect");
            self.verdict = Verdict::unknown(ReasonKind::FaultNotVerified, message);
        }
        self
    }
}

/// A checker: history in, analysis out, within a budget.
pub trait Checker {
    /// Checks `history`. An error means that the history is none of this checker's model.
    fn check(&self, history: &History, budget: &crate::Budget) -> crate::Result<Analysis>;
}

/// `Some(Unknown)` if the history proves nothing because nothing in it succeeded.
pub(crate) fn no_evidence(history: &History) -> Option<Verdict> {
    let operations = history.operations();
    if operations.is_empty() {
        return Some(Verdict::unknown(ReasonKind::NoEvidence, "the history is empty"));
    }
    let any = operations.iter().any(|op| op.outcome == crate::history::Outcome::Ok);
    (!any).then(|| {
        let message = format!("none of the {} operations succeeded", operations.len());
        Verdict::unknown(ReasonKind::NoEvidence, message)
    })
}
