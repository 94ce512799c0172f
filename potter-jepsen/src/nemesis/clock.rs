//! Wrong clocks, for single processes: `libfaketime` between the program and the system.
//!
//! The machine's own clock is never touched: it is everybody's. A process whose command went through
//! [`Clocks::wrap`] reads its wall clock through a file that says how wrong it is; its monotonic
//! clock stays right, as it does when a real clock is set. Programs that are linked statically, or
//! ask the kernel by themselves (Go), do not see it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::journal::{Journal, Ticket};
use super::params::Params;
use super::process::{ProcessCommand, Processes};
use super::procfs::ProcessState;
use super::undo::{Undo, write_atomically};
use super::{Fault, Healed, Injected, Nemesis, Probe, blocking, no_params, no_such_fault};
use crate::error::{Error, ErrorKind, Result};

/// How wrong a clock may be: ten years.
const SECONDS_MAX: i64 = 10 * 365 * 86_400;
/// How far the time that a program prints may be from what was expected, for rounding.
const ROUNDING: f64 = 1.0;
const RIGHT: &str = "+0";

/// The clocks of a test's processes; as a [`Nemesis`] it makes this fault:
///
/// | kind | effect | parameters |
/// |---|---|---|
/// | `clock-skew` | the wall clock jumps, ahead or back | `seconds`, from the true time |
///
/// Targets are the names that [`wrap`](Self::wrap) got; without targets, all. `heal` sets the clocks
/// right again. Needs `libfaketime` (Debian's package of this name, 0.9.10 or later).
#[derive(Debug)]
pub struct Clocks {
    journal: Arc<Journal>,
    processes: Arc<Processes>,
    directory: PathBuf,
    wrapped: Mutex<BTreeMap<String, Option<Ticket>>>,
}

impl Clocks {
    /// The clocks of these processes. The files are kept in `directory`, which must be one that the
    /// processes' users can read, and that nobody else writes to.
    pub fn new(
        journal: Arc<Journal>,
        processes: Arc<Processes>,
        directory: impl Into<PathBuf>,
    ) -> Self {
        let directory = directory.into();
        Self { journal, processes, directory, wrapped: Mutex::default() }
    }

    /// Whether this machine can have them; tried with a file in `directory`.
    pub async fn available(directory: &Path) -> Probe {
        let file = directory.join(format!("probe-{}.clock", std::process::id()));
        let tried = blocking(move || {
            library()?;
            write_atomically(&file, "-300")?;
            let wrong = wrong_by(&file);
            _ = std::fs::remove_file(&file);
            Ok(verdict("a probe", -300, wrong?))
        });
        match tried.await {
            Ok(Injected { verified: true, .. }) => Probe::Available,
            Ok(seen) => Probe::Unavailable(format!("libfaketime has no effect: {}", seen.detail)),
            Err(error) => Probe::Unavailable(error.to_string()),
        }
    }

    /// The same command, with a clock that can be wrong. `name` is the one that the process will
    /// have in the registry.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] without `libfaketime`; [`ErrorKind::Fault`] when the file can't be
    /// written; [`ErrorKind::InvalidFault`] for a name with other characters than letters, digits,
    /// `-`, `_` and `.`, or that is there already.
    pub fn wrap(&self, name: &str, command: ProcessCommand) -> Result<ProcessCommand> {
        let library = library()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let mut wrapped = self.wrapped.lock().unwrap_or_else(PoisonError::into_inner);
        if name.is_empty() || !name.chars().all(plain) || wrapped.contains_key(name) {
            let message = format!("'{name}' can't be the name of a clock, or there is one already");
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        let file = self.file(name);
        write_atomically(&file, RIGHT)?;
        wrapped.insert(name.to_owned(), None);
        Ok(environment(&library, &file).into_iter().fold(command, |c, (k, v)| c.env(k, v)))
    }

    /// The same for a process of a name that was wrapped before.
    pub(crate) fn wrap_again(&self, name: &str, command: ProcessCommand) -> Result<ProcessCommand> {
        self.wrapped.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.wrap(name, command)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.clock"))
    }

    fn names(&self) -> Vec<String> {
        let wrapped = self.wrapped.lock().unwrap_or_else(PoisonError::into_inner);
        wrapped.keys().cloned().collect()
    }

    /// Writes how wrong the clock is, and looks at it with a program that reads the same file.
    async fn skew(&self, name: &str, seconds: i64) -> Result<Injected> {
        let file = self.file(name);
        let wrapped = || self.wrapped.lock().unwrap_or_else(PoisonError::into_inner);
        let known = wrapped().get(name).copied().flatten();
        let (journal, path) = (Arc::clone(&self.journal), file.clone());
        let ticket = blocking(move || {
            let text = format!("{seconds:+}");
            if known.is_some() {
                return write_atomically(&path, &text).map(|()| known);
            }
            let undo = Undo::WriteFile { path: path.clone(), text: RIGHT.to_owned() };
            journal.make(undo, || write_atomically(&path, &text)).map(|(ticket, ())| Some(ticket))
        })
        .await?;
        wrapped().insert(name.to_owned(), ticket);
        let info = self.processes.info(name).await?;
        if info.state == ProcessState::Dead {
            return Ok(Injected::unverified(format!("{name} does not run")));
        }
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", info.pid)).unwrap_or_default();
        if !maps.contains("libfaketime") {
            let detail = format!("{name} (pid {}) does not use libfaketime", info.pid);
            return Ok(Injected::unverified(detail));
        }
        let wrong = blocking(move || wrong_by(&file)).await?;
        Ok(verdict(name, seconds, wrong))
    }
}

#[allow(clippy::cast_precision_loss)] // Ten years of seconds are exact in an f64.
fn verdict(name: &str, seconds: i64, wrong: (f64, f64)) -> Injected {
    let wanted = seconds as f64;
    let (least, most) = (wrong.0 - ROUNDING, wrong.1 + ROUNDING);
    if (least..=most).contains(&wanted) {
        Injected::verified(format!("the clock of {name} is {seconds:+} s wrong"))
    } else {
        Injected::unverified(format!(
            "the clock of {name} should be {seconds:+} s wrong, and is {:.1} s",
            wrong.0
        ))
    }
}

/// How wrong a program's clock is that reads this file, from and to: what it said, less the time
/// after and before.
fn wrong_by(file: &Path) -> Result<(f64, f64)> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Fault, "'date' can't be run with libfaketime").with_source(error)
    };
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut command = Command::new("date");
    let command = command.arg("+%s.%N").envs(environment(&library()?, file));
    let before = now();
    let output = command.output().map_err(failed)?;
    let after = now();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let said: f64 = text.parse().map_err(|_| {
        Error::new(ErrorKind::Fault, format!("'date' printed '{text}' with libfaketime"))
    })?;
    Ok((said - after, said - before))
}

fn environment(library: &Path, file: &Path) -> [(&'static str, PathBuf); 4] {
    [
        ("LD_PRELOAD", library.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_owned()),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ]
}

/// The library for programs with threads.
fn library() -> Result<PathBuf> {
    const NAME: &str = "faketime/libfaketimeMT.so.1";
    let mut places = vec![PathBuf::from("/usr/lib"), "/usr/local/lib".into(), "/usr/lib64".into()];
    let below = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    places.extend(below.map(|entry| entry.path()));
    places.into_iter().map(|place| place.join(NAME)).find(|path| path.is_file()).ok_or_else(|| {
        let message = "there is no libfaketimeMT.so.1: install it (apt-get install libfaketime)";
        Error::new(ErrorKind::Unavailable, message)
    })
}

#[async_trait]
impl Nemesis for Clocks {
    fn name(&self) -> &str {
        "clocks"
    }

    fn faults(&self) -> Vec<String> {
        vec!["clock-skew".to_owned()]
    }

    async fn probe(&self) -> Probe {
        Self::available(&self.directory).await
    }

    async fn inject(&self, fault: &Fault) -> Result<Injected> {
        if fault.kind != "clock-skew" {
            return Err(no_such_fault(self, fault));
        }
        no_params(fault, &["seconds"])?;
        let seconds = Params(fault).signed("seconds", -SECONDS_MAX..=SECONDS_MAX)?;
        let known = self.names();
        let names = if fault.targets.is_empty() { known.clone() } else { fault.targets.clone() };
        if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
            let known = known.join(", ");
            let message =
                format!("the clock of '{unknown}' can't be changed, only those of: {known}");
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        if names.is_empty() {
            let message = "no process was started with a clock of its own: wrap its command";
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        let (mut verified, mut details) = (true, Vec::new());
        for name in names {
            let injected = self.skew(&name, seconds).await?;
            verified &= injected.verified;
            details.push(injected.detail);
        }
        Ok(Injected { verified, detail: details.join("; ") })
    }

    async fn heal(&self) -> Result<Healed> {
        let (mut verified, mut details) = (true, Vec::new());
        let wrapped = || self.wrapped.lock().unwrap_or_else(PoisonError::into_inner);
        for name in self.names() {
            let Some(ticket) = wrapped().get(&name).copied().flatten() else { continue };
            let (journal, file) = (Arc::clone(&self.journal), self.file(&name));
            let wrong = blocking(move || {
                journal.undo(ticket)?;
                wrong_by(&file)
            })
            .await?;
            wrapped().insert(name.clone(), None);
            let seen = verdict(&name, 0, wrong);
            verified &= seen.verified;
            details.push(if seen.verified {
                format!("the clock of {name} is right")
            } else {
                seen.detail
            });
        }
        Ok(Healed { verified, detail: details.join("; ") })
    }
}
