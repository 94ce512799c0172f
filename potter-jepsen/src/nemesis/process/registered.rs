//! One process of a registry.

use std::ffi::OsString;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::command::{ProcessCommand, Ready, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::nemesis::journal::{Journal, Ticket};
use crate::nemesis::procfs::{self, ProcessId, ProcessState, Signal};
use crate::nemesis::undo::{SEEN_WITHIN, Undo, wait_until};
use crate::nemesis::{Healed, Injected, blocking};

const POLL: Duration = Duration::from_millis(20);

/// A process as [`Processes::list`](super::Processes::list) shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its name.
    pub name: String,
    /// Its pid, or the last that it had.
    pub pid: u32,
    /// What it does now.
    pub state: ProcessState,
    /// It can be started again: the registry started it.
    pub restartable: bool,
}

/// A process, how it is started, and what was done to it.
#[derive(Debug)]
pub(super) struct Registered {
    name: String,
    journal: Arc<Journal>,
    command: Option<ProcessCommand>,
    child: Option<Child>,
    process: Option<ProcessId>,
    /// The journal's entry that says it runs.
    started: Option<Ticket>,
    /// The journal's entries that say what is stopped.
    paused: Vec<Ticket>,
    killed: bool,
}

impl Registered {
    pub(super) fn new(name: &str, journal: Arc<Journal>, command: Option<ProcessCommand>) -> Self {
        Self {
            name: name.to_owned(),
            journal,
            command,
            child: None,
            process: None,
            started: None,
            paused: Vec::new(),
            killed: false,
        }
    }

    pub(super) fn running(mut self, process: ProcessId) -> Self {
        self.process = Some(process);
        self
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.map_or(0, ProcessId::pid)
    }

    pub(super) fn state(&mut self) -> ProcessState {
        self.process.map_or(ProcessState::Dead, ProcessId::state)
    }

    pub(super) fn info(&mut self) -> ProcessInfo {
        let (name, pid, state) = (self.name.clone(), self.pid(), self.state());
        ProcessInfo { name, pid, state, restartable: self.command.is_some() }
    }

    /// Starts it if it does not run, and waits until it is ready.
    pub(super) async fn start(&mut self) -> Result<()> {
        let Some(command) = self.command.clone() else {
            if self.state() == ProcessState::Running {
                return Ok(());
            }
            let message = format!(
                "'{}' was registered by its pid: how it is started is not known",
                self.name
            );
            return Err(Error::new(ErrorKind::InvalidFault, message));
        };
        let end = Instant::now() + command.ready_within();
        let mut ended = 0_u32;
        loop {
            if self.state() == ProcessState::Dead {
                self.reap();
                ended += 1;
                self.spawn(command.clone()).await?;
            }
            if self.is_ready(command.ready_when()).await {
                self.killed = false;
                return Ok(());
            }
            if Instant::now() > end {
                let message = format!(
                    "'{}' was started {ended} times and not ready within {:?}; it said: {}",
                    self.name,
                    command.ready_within(),
                    command.last_words()
                );
                return Err(Error::new(ErrorKind::Fault, message));
            }
            // One that ends at once is not started a thousand times.
            let pause = if self.state() == ProcessState::Dead { POLL * 10 } else { POLL };
            tokio::time::sleep(pause).await;
        }
    }

    async fn spawn(&mut self, command: ProcessCommand) -> Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        self.forget_started()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let told = self.journal.beside(&format!("{number}.starting"));
        let (journal, name) = (Arc::clone(&self.journal), self.name.clone());
        let (child, process, ticket) = blocking(move || {
            let undo = Undo::KillStarting { name: name.clone(), path: told.clone() };
            let (starting, child) = journal.make(undo, || command.spawn(&told))?;
            // It is not reaped before we say so: its pid can't be another's.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
            let process = stat.ok().and_then(|text| ProcessId::from_stat(&text));
            let process = process.ok_or_else(|| {
                Error::new(ErrorKind::Fault, format!("'{name}' can't be seen in /proc"))
            })?;
            let ticket = journal.replace(starting, Undo::Kill { name, process })?;
            _ = std::fs::remove_file(told);
            Ok((child, process, ticket))
        })
        .await?;
        (self.child, self.process, self.started) = (Some(child), Some(process), Some(ticket));
        Ok(())
    }

    async fn is_ready(&mut self, ready: &Ready) -> bool {
        let answers = match ready {
            Ready::Started => true,
            Ready::Accepts(address) => {
                let connect = TcpStream::connect(*address);
                matches!(tokio::time::timeout(SEEN_WITHIN, connect).await, Ok(Ok(_)))
            }
            Ready::Command(words) => run(words.clone()).await,
        };
        // What answered may be something else, if this process is not there any more.
        answers && self.state() == ProcessState::Running
    }

    pub(super) async fn kill(&mut self) -> Result<Injected> {
        let Some(process) = self.process.filter(|p| p.state() != ProcessState::Dead) else {
            self.reap();
            self.forget_started()?;
            return Ok(Injected::unverified(format!("{} did not run", self.name)));
        };
        let killed = self.freeze(process).await?;
        let all = killed.clone();
        let dead = blocking(move || {
            procfs::kill_all(&all)?;
            Ok(wait_until(|| all.iter().all(|p| p.state() == ProcessState::Dead)))
        })
        .await?;
        self.killed = true;
        let pids: Vec<_> = killed.iter().map(|p| p.pid().to_string()).collect();
        if !dead {
            let detail = format!("{} does not end: pids {}", self.name, pids.join(", "));
            return Ok(Injected::unverified(detail));
        }
        self.reap();
        self.forget_started()?;
        for ticket in std::mem::take(&mut self.paused) {
            self.journal.forget(ticket)?;
        }
        Ok(Injected::verified(format!("{} is killed: pids {}", self.name, pids.join(", "))))
    }

    pub(super) async fn pause(&mut self) -> Result<Injected> {
        let Some(process) = self.process.filter(|p| p.state() != ProcessState::Dead) else {
            return Ok(Injected::unverified(format!("{} did not run", self.name)));
        };
        let frozen = self.freeze(process).await?;
        let count = frozen.len();
        let stopped = blocking(move || {
            Ok(wait_until(|| frozen.iter().all(|p| p.state() != ProcessState::Running)))
        })
        .await?;
        let stopped = stopped && process.state() == ProcessState::Stopped;
        let detail =
            format!("{} (pid {}) is stopped with {count} processes", self.name, self.pid());
        Ok(if stopped { Injected::verified(detail) } else { Injected::unverified(detail) })
    }

    /// Sends SIGSTOP to it and all below it. What was stopped is written down before, also when it is
    /// stopped only to be killed.
    async fn freeze(&mut self, process: ProcessId) -> Result<Vec<ProcessId>> {
        let (journal, name) = (Arc::clone(&self.journal), self.name.clone());
        let mut tickets = std::mem::take(&mut self.paused);
        let (frozen, tickets) = blocking(move || {
            let frozen = journal.make_stepwise(|write_down| {
                procfs::freeze(process, |next| {
                    let undo = Undo::Continue { name: name.clone(), processes: next.to_vec() };
                    tickets.push(write_down(undo)?);
                    Ok(())
                })
            });
            Ok((frozen, tickets))
        })
        .await?;
        self.paused = tickets;
        frozen
    }

    pub(super) async fn resume(&mut self) -> Result<Injected> {
        if self.paused.is_empty() {
            return Ok(Injected::verified(format!("{} was not stopped", self.name)));
        }
        let (journal, tickets) = (Arc::clone(&self.journal), self.paused.clone());
        // From the last to the first: the root goes on when all below it do.
        blocking(move || tickets.into_iter().rev().try_for_each(|t| journal.undo(t))).await?;
        self.paused.clear();
        Ok(Injected::verified(format!("{} goes on", self.name)))
    }

    pub(super) async fn heal(&mut self) -> Result<Healed> {
        let mut seen = Vec::new();
        if !self.paused.is_empty() {
            seen.push(self.resume().await?.detail);
        }
        if self.killed && self.state() != ProcessState::Running {
            if self.command.is_none() {
                let detail = format!("{} was killed and can't be started again", self.name);
                return Ok(Healed::unverified(detail));
            }
            self.start().await?;
            seen.push(format!("{} runs again as pid {}", self.name, self.pid()));
        }
        self.killed = false;
        let detail = seen.join("; ");
        let runs = self.state() == ProcessState::Running;
        let detail = if runs { detail } else { format!("{} does not run", self.name) };
        Ok(Healed { verified: runs, detail })
    }

    pub(super) async fn stop(&mut self, patience: Duration) -> Result<()> {
        self.resume().await?;
        let Some(command) = &self.command else { return Ok(()) };
        let signal = match command.stop_signal() {
            Stop::Terminate => Signal::Terminate,
            Stop::Interrupt => Signal::Interrupt,
        };
        if let Some(process) = self.process {
            procfs::signal(process, signal).map_err(|error| {
                let message = format!("'{}' can't be asked to end", self.name);
                Error::new(ErrorKind::Fault, message).with_source(error)
            })?;
            let end = Instant::now() + patience;
            while process.state() != ProcessState::Dead && Instant::now() < end {
                tokio::time::sleep(POLL).await;
            }
        }
        self.kill().await.map(drop)
    }

    /// Takes a dead child out of the system's table.
    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It is dead, so this does not wait.
            _ = child.wait();
        }
    }

    fn forget_started(&mut self) -> Result<()> {
        self.started.take().map_or(Ok(()), |ticket| self.journal.forget(ticket))
    }
}

/// Whether a command ends with status 0.
async fn run(words: Vec<OsString>) -> bool {
    let status = move || {
        let mut command = std::process::Command::new(words.first().cloned().unwrap_or_default());
        command.args(&words[1..]).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        Ok(command.status().is_ok_and(|status| status.success()))
    };
    blocking(status).await.unwrap_or(false)
}
