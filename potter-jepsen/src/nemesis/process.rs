//! The processes of a test, and the faults that are made to them.
//!
//! Only a process that the test registered can be touched, and those below it: [`Processes::start`]
//! starts one, [`Processes::adopt`] registers one that runs. Each is known by its pid and its start
//! time, so a pid that the system gave to another process is never hit. A name is looked up here
//! and nowhere else: `postgres` is the process that the test called so, not the machine's.
//!
//! What was started here ends with the test, on every exit of the runner: it is in the
//! [`Journal`]. What is frozen is continued. A process that was killed is started again by
//! [`Nemesis::heal`], not by the next start after the runner itself was killed.

mod command;
mod registered;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Mutex as AsyncMutex;

pub use command::{ProcessCommand, Ready, Stop};
pub use registered::ProcessInfo;

use self::registered::Registered;
use super::journal::Journal;
use super::procfs::{ProcessId, ProcessState};
use super::{Fault, Healed, Injected, Nemesis, Probe};
use crate::error::{Error, ErrorKind, Result};

/// The registry of a test's processes; as a [`Nemesis`] it makes these faults:
///
/// | kind | effect | parameters |
/// |---|---|---|
/// | `kill` | SIGKILL to the process and all below it | none |
/// | `pause` | SIGSTOP to the process and all below it | none |
/// | `restart` | kill, then start again and wait until it is ready | none |
///
/// Without targets: all processes. `heal` continues what is stopped and starts what was killed.
#[derive(Debug)]
pub struct Processes {
    journal: Arc<Journal>,
    registered: Mutex<BTreeMap<String, Arc<AsyncMutex<Registered>>>>,
}

/// The faults of [`Processes`].
const FAULTS: [&str; 3] = ["kill", "pause", "restart"];

impl Processes {
    /// A registry without processes.
    pub fn new(journal: Arc<Journal>) -> Self {
        Self { journal, registered: Mutex::default() }
    }

    /// Starts a process under a name and waits until it is ready.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] when the name is taken; [`ErrorKind::Fault`] when it does not
    /// start or does not get ready in time: the error has the end of what it printed.
    pub async fn start(&self, name: &str, command: ProcessCommand) -> Result<()> {
        let registered = Registered::new(name, Arc::clone(&self.journal), Some(command));
        let registered = self.register(name, registered)?;
        let mut process = registered.lock().await;
        let started = process.start().await;
        if started.is_err() {
            // It was never there: its name is free again.
            let killed = process.kill().await;
            self.remove(name);
            killed?;
        }
        started
    }

    /// Registers a process that runs already. It can be killed and paused, but not be started again.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] when the name is taken, or when there is no such process.
    pub fn adopt(&self, name: &str, pid: u32) -> Result<()> {
        let Some(process) = ProcessId::of(pid) else {
            return Err(invalid(format!("there is no process with pid {pid} to register")));
        };
        let registered = Registered::new(name, Arc::clone(&self.journal), None);
        self.register(name, registered.running(process)).map(drop)
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.map().keys().cloned().collect()
    }

    /// All processes and what they do now.
    pub async fn list(&self) -> Vec<ProcessInfo> {
        let all: Vec<_> = self.map().values().cloned().collect();
        let mut list = Vec::with_capacity(all.len());
        for registered in all {
            list.push(registered.lock().await.info());
        }
        list
    }

    /// The process of this name.
    ///
    /// # Errors
    /// See [`state`](Self::state).
    pub async fn info(&self, name: &str) -> Result<ProcessInfo> {
        Ok(self.get(name)?.lock().await.info())
    }

    /// What the process of this name does now.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] when no process of this name is registered; so do all below.
    pub async fn state(&self, name: &str) -> Result<ProcessState> {
        Ok(self.get(name)?.lock().await.state())
    }

    /// Kills a process and all below it (SIGKILL), and waits until they are gone.
    ///
    /// # Errors
    /// [`ErrorKind::Fault`] when it can't be killed.
    pub async fn kill(&self, name: &str) -> Result<Injected> {
        self.get(name)?.lock().await.kill().await
    }

    /// Stops a process and all below it (SIGSTOP), and waits until none of their threads runs.
    ///
    /// # Errors
    /// [`ErrorKind::Fault`] when it can't be stopped.
    pub async fn pause(&self, name: &str) -> Result<Injected> {
        self.get(name)?.lock().await.pause().await
    }

    /// Continues a process that was paused. Does nothing to one that runs.
    ///
    /// # Errors
    /// [`ErrorKind::Fault`] when it can't be continued.
    pub async fn resume(&self, name: &str) -> Result<Injected> {
        self.get(name)?.lock().await.resume().await
    }

    /// Starts a process again that ended, and waits until it is ready. Does nothing to one that
    /// runs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] for an adopted one: how it is started is not known.
    /// [`ErrorKind::Fault`] when it does not get ready in time.
    pub async fn start_again(&self, name: &str) -> Result<Injected> {
        let registered = self.get(name)?;
        let mut process = registered.lock().await;
        process.resume().await?;
        process.start().await?;
        Ok(Injected::verified(format!("{name} runs as pid {}", process.pid())))
    }

    /// Asks a process to end, kills it if it does not within `patience`, and forgets it. One that
    /// was adopted is continued and left alone.
    ///
    /// # Errors
    /// [`ErrorKind::Fault`] when it does not end.
    pub async fn stop(&self, name: &str, patience: std::time::Duration) -> Result<()> {
        self.get(name)?.lock().await.stop(patience).await?;
        self.remove(name);
        Ok(())
    }

    fn register(&self, name: &str, process: Registered) -> Result<Arc<AsyncMutex<Registered>>> {
        let mut map = self.map();
        if map.contains_key(name) {
            return Err(invalid(format!("a process '{name}' is registered already")));
        }
        let process = Arc::new(AsyncMutex::new(process));
        map.insert(name.to_owned(), Arc::clone(&process));
        Ok(process)
    }

    fn get(&self, name: &str) -> Result<Arc<AsyncMutex<Registered>>> {
        let map = self.map();
        map.get(name).cloned().ok_or_else(|| {
            let names: Vec<_> = map.keys().map(String::as_str).collect();
            invalid(format!(
                "no process '{name}' is registered, and only those can be touched: {}",
                if names.is_empty() { "there are none".to_owned() } else { names.join(", ") }
            ))
        })
    }

    fn remove(&self, name: &str) {
        self.map().remove(name);
    }

    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<AsyncMutex<Registered>>>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidFault, message)
}

#[async_trait]
impl Nemesis for Processes {
    fn name(&self) -> &str {
        "processes"
    }

    fn faults(&self) -> Vec<String> {
        FAULTS.map(str::to_owned).into()
    }

    async fn probe(&self) -> Probe {
        if cfg!(target_os = "linux") {
            Probe::Available
        } else {
            Probe::Unavailable("processes are only touched on Linux".to_owned())
        }
    }

    async fn inject(&self, fault: &Fault) -> Result<Injected> {
        super::no_params(fault, &[])?;
        let names = if fault.targets.is_empty() { self.names() } else { fault.targets.clone() };
        // All names first: nothing is done for a fault that is half wrong.
        for name in &names {
            self.get(name)?;
        }
        if names.is_empty() {
            return Err(invalid("no process is registered: start or adopt one first".to_owned()));
        }
        let mut seen = Vec::new();
        let mut verified = true;
        for name in &names {
            let one = match fault.kind.as_str() {
                "kill" => self.kill(name).await?,
                "pause" => self.pause(name).await?,
                "restart" => {
                    let killed = self.kill(name).await?;
                    let started = self.start_again(name).await?;
                    let detail = format!("{}; {}", killed.detail, started.detail);
                    Injected { verified: killed.verified && started.verified, detail }
                }
                _ => return Err(super::no_such_fault(self, fault)),
            };
            verified &= one.verified;
            seen.push(one.detail);
        }
        Ok(Injected { verified, detail: seen.join("; ") })
    }

    async fn heal(&self) -> Result<Healed> {
        let mut seen = Vec::new();
        let mut verified = true;
        for name in self.names() {
            // Stopped and forgotten by another task in the meantime: nothing to heal.
            let Ok(registered) = self.get(&name) else { continue };
            let healed = registered.lock().await.heal().await?;
            verified &= healed.verified;
            if !healed.detail.is_empty() {
                seen.push(healed.detail);
            }
        }
        Ok(Healed { verified, detail: seen.join("; ") })
    }
}
