//! What a system should do, one operation after the other.

use std::fmt::Debug;
use std::hash::Hash;

use crate::history::Outcome;
use crate::value::Value;

/// One operation of a history as a model sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'h> {
    /// What was done.
    pub f: &'h str,
    /// What it was done to.
    pub key: Option<&'h Value>,
    /// What it was invoked with.
    pub input: &'h Value,
    /// What it returned; meaningful if the outcome is `Ok`, `Nil` otherwise.
    pub output: &'h Value,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the completion says why it failed: a time-out is no refusal.
    pub has_error: bool,
}

impl<'h> Call<'h> {
    /// A call without an error.
    pub fn new(
        f: &'h str,
        key: Option<&'h Value>,
        input: &'h Value,
        output: &'h Value,
        outcome: Outcome,
    ) -> Self {
        Self { f, key, input, output, outcome, has_error: false }
    }
}

/// Whether operations on different keys can be checked apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Partition {
    /// It only touches this key.
    Key(Value),
    /// It touches several: the history can't be split.
    Whole,
}

/// The answer of [`Model::merge`].
pub type Merge<S> = Box<dyn Fn(S) -> S>;

/// What an operation is to the monitors that decide in log-linear time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// None of these: the searches decide. Only on a stack, one that crashed is left out first, and
    /// the searches are asked if nothing explains the rest.
    Other,
    /// Sets a register.
    Write(Value),
    /// Saw a register.
    Read(Value),
    /// Set a register that held the first value to the second one.
    Cas(Value, Value),
    /// Put at the end of a text that was empty at first.
    Append(Value),
    /// Put into a queue.
    Enqueue(Value),
    /// Taken from a queue; `None` if it was empty.
    Dequeue(Option<Value>),
    /// Put on a stack.
    Push(Value),
    /// Taken from a stack; `None` if it was empty.
    Pop(Option<Value>),
}

/// A sequential specification: the states of an object and what operations do to it.
///
/// ```
/// use potter_jepsen::linear::{Call, Linearizability, Model, Partition};
/// use potter_jepsen::{Budget, Checker, Outcome, Value, load_str};
///
/// /// A ticket machine: every call gets the next number.
/// struct Tickets;
///
/// impl Model for Tickets {
///     type State = i64;
///     type Op = Option<i64>;
///
///     fn name(&self) -> String {
///         "tickets".into()
///     }
///     fn initial(&self, _: Option<&Value>) -> i64 {
///         0
///     }
///     fn prepare(&self, call: &Call<'_>) -> Result<Option<Option<i64>>, String> {
///         Ok(match call.outcome {
///             Outcome::Fail => None,              // it did not happen
///             Outcome::Info => Some(None),        // it may have taken any number
///             Outcome::Ok => Some(call.output.as_int()),
///         })
///     }
///     fn step(&self, next: &i64, got: &Option<i64>) -> Option<i64> {
///         got.is_none_or(|got| got == *next).then_some(next + 1)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let twice = load_str(
///     "{:process 0 :type :invoke :f :take} {:process 0 :type :ok :f :take :value 0}
///      {:process 1 :type :invoke :f :take} {:process 1 :type :ok :f :take :value 0}",
/// )?;
/// let analysis = Linearizability::new(Tickets).check(&twice.history, &Budget::default())?;
/// assert!(analysis.verdict.is_invalid());
/// # Ok(())
/// # }
/// ```
pub trait Model: Sync {
    /// The object's state.
    type State: Clone + Eq + Hash + Debug + Send;
    /// An operation with its result.
    type Op: Clone + Eq + Hash + Debug + Send + Sync;

    /// The name for reports.
    fn name(&self) -> String;

    /// The state before everything, for an object under `key`.
    fn initial(&self, key: Option<&Value>) -> Self::State;

    /// The operation, or `None` if it says nothing (it failed without effect, a read that crashed).
    /// The error text says what is wrong with its values.
    fn prepare(&self, call: &Call<'_>) -> Result<Option<Self::Op>, String>;

    /// The state after `op`, or `None` if `op` with its result is impossible in `state`.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// [`step`](Self::step) in place; false if it is impossible, with any state left behind. Worth
    /// writing for large states: the witness of a million operations is replayed with it.
    fn apply(&self, state: &mut Self::State, op: &Self::Op) -> bool {
        match self.step(state, op) {
            Some(next) => {
                *state = next;
                true
            }
            None => false,
        }
    }

    /// Whether `op` never changes any state. Such operations are never worth delaying, which saves
    /// most of the search; the default is safe.
    fn reads_only(&self, _op: &Self::Op) -> bool {
        false
    }

    /// Whether `op` is legal in every state and leaves the same one behind, whatever was there: a
    /// write. What runs at the same time may have taken effect just before it, without a trace.
    /// The default is safe.
    fn overwrites(&self, _op: &Self::Op) -> bool {
        false
    }

    /// Whether `op` is legal in every state, so that it can hide before one that
    /// [`overwrites`](Self::overwrites). The default is safe.
    fn always_legal(&self, op: &Self::Op) -> bool {
        self.overwrites(op)
    }

    /// What makes one of states that no operation of `ops` can tell apart: values that nobody ever
    /// reads, for instance. For states that it maps to the same one, every operation of `ops` has to
    /// be legal in all or in none, and to lead to states that it maps to the same one again.
    fn merge(&self, _ops: &[Self::Op]) -> Option<Merge<Self::State>> {
        None
    }

    /// What can be checked apart: by default, what has another key.
    fn partition(&self, call: &Call<'_>) -> Partition {
        call.key.map_or(Partition::Whole, |key| Partition::Key(key.clone()))
    }

    /// What `op` is to the monitors. Only for models that are exactly a register, queue or stack.
    fn role(&self, _op: &Self::Op) -> Role {
        Role::Other
    }

    /// About how many bytes a state holds.
    fn state_bytes(&self, _state: &Self::State) -> usize {
        size_of::<Self::State>()
    }
}
