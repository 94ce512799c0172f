//! Faults, on purpose: killed and frozen processes, partitions, slow links, wrong clocks, full disks.
//!
//! A [`Nemesis`] makes faults of some kinds. Whoever runs a test asks three things of it:
//!
//! 1. [`probe`](Nemesis::probe): can it work here at all? A test that asks for a nemesis that can't
//!    fails and says why; it does not pass without faults.
//! 2. [`inject`](Nemesis::inject): makes a fault and looks whether it has the effect that it should
//!    have. [`Injected::verified`] is what was seen, not what was tried.
//! 3. [`heal`](Nemesis::heal): undoes all that it did. Healing twice is the same as healing once.
//!
//! A fault that was not verified proves nothing: a test's `Valid` becomes `Unknown`
//! ([`Analysis::with_unverified_fault`](crate::Analysis::with_unverified_fault)). So it does when an
//! injection is an error, and when a heal is one or is not verified.

mod clock;
mod compose;
mod disk;
mod journal;
mod namespaces;
mod params;
mod partition;
mod process;
mod procfs;
mod proxy;
mod undo;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::value::Value;

pub use clock::Clocks;
pub use compose::{Composed, compose};
pub use disk::{DISK_BYTES_MAX, Disk};
pub use journal::{Journal, Recovered};
pub use namespaces::Namespaces;
pub use partition::{Blocked, Shape};
pub use process::{ProcessCommand, ProcessInfo, Processes, Ready, Stop};
pub use procfs::{ProcessId, ProcessState};
pub use proxy::{ProxyNetwork, Rules};

/// Whether a nemesis can work here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It can.
    Available,
    /// It can't; the text says what is missing and how to get it.
    Unavailable(String),
}

impl Probe {
    /// `Ok`, or an error with the reason: what a test does that asks for this nemesis.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the nemesis can't work here.
    pub fn require(self, nemesis: &str) -> Result<()> {
        match self {
            Self::Available => Ok(()),
            Self::Unavailable(reason) => {
                let message = format!("the nemesis '{nemesis}' can't work here: {reason}");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }
}

/// One fault, as plain data: it can be in a schedule, in a history and in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fault {
    /// What to do: one of [`Nemesis::faults`].
    pub kind: String,
    /// To whom: names of nodes or processes that the nemesis knows. Empty: the nemesis's own choice,
    /// which is all of them unless it says otherwise.
    pub targets: Vec<String>,
    /// How: what each kind takes is in the documentation of its nemesis. An unknown name is an error.
    pub params: BTreeMap<String, Value>,
}

impl Fault {
    /// A fault of `kind` without targets and parameters.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), ..Self::default() }
    }

    /// The same, to one more target.
    #[must_use]
    pub fn target(mut self, name: impl Into<String>) -> Self {
        self.targets.push(name.into());
        self
    }

    /// The same, to these targets too.
    #[must_use]
    pub fn targets<I: IntoIterator<Item = S>, S: Into<String>>(mut self, names: I) -> Self {
        self.targets.extend(names.into_iter().map(Into::into));
        self
    }

    /// The same with a parameter.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: Value) -> Self {
        self.params.insert(name.into(), value);
        self
    }

    /// The fault as a value of a history: `{:kind … :targets […] :params {…}}`.
    pub fn to_value(&self) -> Value {
        let entry = |name: &str, value| (Value::Keyword(name.into()), value);
        let targets = self.targets.iter().map(|name| Value::Str(name.as_str().into())).collect();
        let params = self.params.iter().map(|(name, value)| entry(name, value.clone())).collect();
        Value::Map(thin_vec::thin_vec![
            entry("kind", Value::Str(self.kind.as_str().into())),
            entry("targets", Value::List(targets)),
            entry("params", Value::Map(params)),
        ])
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.targets.is_empty() {
            write!(f, " [{}]", self.targets.join(", "))?;
        }
        for (name, value) in &self.params {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// What an injection did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected {
    /// Its effect was seen.
    pub verified: bool,
    /// What was done and how it was seen, or what was seen instead.
    pub detail: String,
}

impl Injected {
    /// The effect was seen, and this is how.
    pub fn verified(detail: impl Into<String>) -> Self {
        Self { verified: true, detail: detail.into() }
    }

    /// The effect was not seen, and this is what was seen instead.
    pub fn unverified(detail: impl Into<String>) -> Self {
        Self { verified: false, detail: detail.into() }
    }
}

/// What a heal did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Healed {
    /// No effect of any fault is left, and this was seen. `false` also when a fault that waits for
    /// its occasion never had one.
    pub verified: bool,
    /// What was undone and how it was seen.
    pub detail: String,
}

impl Healed {
    /// Nothing is left of any fault.
    pub fn verified(detail: impl Into<String>) -> Self {
        Self { verified: true, detail: detail.into() }
    }

    /// Something is left, or a fault never had its occasion.
    pub fn unverified(detail: impl Into<String>) -> Self {
        Self { verified: false, detail: detail.into() }
    }
}

/// Makes faults and undoes them.
///
/// In a history a fault is an event of [`Process::NEMESIS`](crate::Process::NEMESIS) whose `f` is
/// the fault's kind, and a heal is one whose `f` is `heal`: that is how reports find the windows.
#[async_trait]
pub trait Nemesis: Send + Sync {
    /// A name for logs and reports.
    fn name(&self) -> &str;

    /// The kinds of fault that it can make, for generators.
    fn faults(&self) -> Vec<String>;

    /// Whether it can work here. Makes no fault.
    async fn probe(&self) -> Probe;

    /// Makes the fault and looks whether it has its effect. Several faults may be in effect at once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] for a fault that this nemesis does not make or understand;
    /// [`ErrorKind::Fault`] when it could not be made. Whatever was half made, `heal` undoes.
    async fn inject(&self, fault: &Fault) -> Result<Injected>;

    /// Undoes all faults and looks whether they are gone. Idempotent.
    ///
    /// # Errors
    /// [`ErrorKind::Fault`] when something could not be undone. It stays written down, and the next
    /// heal tries it again.
    async fn heal(&self) -> Result<Healed>;
}

/// An error if the fault has a parameter that its kind does not take.
fn no_params(fault: &Fault, but: &[&str]) -> Result<()> {
    match fault.params.keys().find(|name| !but.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let takes = if but.is_empty() { "none".to_owned() } else { but.join(", ") };
            let message =
                format!("'{}' takes no parameter '{name}'; it takes: {takes}", fault.kind);
            Err(Error::new(ErrorKind::InvalidFault, message))
        }
    }
}

/// The error for a kind that the nemesis does not make.
fn no_such_fault(nemesis: &(impl Nemesis + ?Sized), fault: &Fault) -> Error {
    let (name, kinds) = (nemesis.name(), nemesis.faults().join(", "));
    let message = format!("'{name}' makes no fault '{}'; it makes: {kinds}", fault.kind);
    Error::new(ErrorKind::InvalidFault, message)
}

/// Runs what waits for the system on a thread where it may. It runs to its end even if the caller
/// is dropped: a fault is never left half written down.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::new(ErrorKind::Fault, "a fault's thread ended early").with_source(error)
    })?
}

/// Makes a directory that is deleted on every exit, with all that is in it. `make` puts the file
/// `mark` into it: a directory without that file is never deleted.
pub(crate) fn delete_with_journal(
    journal: &Journal,
    directory: &std::path::Path,
    mark: &str,
    make: impl FnOnce() -> std::io::Result<()>,
) -> Result<()> {
    let undo = undo::Undo::RemoveDirectory { path: directory.to_owned(), mark: mark.to_owned() };
    let failed =
        |error: std::io::Error| Error::new(ErrorKind::Fault, error.to_string()).with_source(error);
    journal.make(undo, || make().map_err(failed)).map(drop)
}
