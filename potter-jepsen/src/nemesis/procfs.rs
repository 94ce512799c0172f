//! Processes as `/proc` shows them, and signals that can only reach the one that was meant.
//!
//! A pid is reused; a pid with its start time is not. [`signal`] first opens a descriptor of the
//! process (`pidfd`), then compares the start time, then signals through the descriptor: if the
//! process died in between, the signal goes nowhere.

#[cfg(target_os = "linux")]
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// One process for ever: its pid, and when it started in clock ticks since the machine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    pid: i32,
    start: u64,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessState {
    /// It runs, or would if there was something to do.
    Running,
    /// It is stopped, with all its threads.
    Stopped,
    /// There is no such process any more (one that only waits for its parent counts as none).
    Dead,
}

impl ProcessState {
    /// `running`, `stopped` or `dead`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Dead => "dead",
        }
    }
}

/// The signals that a registry sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Kill,
    Stop,
    Continue,
    Terminate,
    Interrupt,
}

impl ProcessId {
    /// The pid alone.
    pub fn pid(self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// The process with this pid, if there is one now.
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let stat = Stat::read(&format!("/proc/{pid}/stat"))?;
        (!stat.dead()).then_some(Self { pid, start: stat.start })
    }

    /// From the text of a `/proc/PID/stat`.
    pub(crate) fn from_stat(text: &str) -> Option<Self> {
        let stat = Stat::parse(text)?;
        Some(Self { pid: stat.pid, start: stat.start })
    }

    /// What it does now.
    pub fn state(self) -> ProcessState {
        let Some(stat) = self.stat() else { return ProcessState::Dead };
        if stat.dead() {
            return ProcessState::Dead;
        }
        if stat.stopped() && threads_stopped(self.pid) {
            return ProcessState::Stopped;
        }
        ProcessState::Running
    }

    fn stat(self) -> Option<Stat> {
        let stat = Stat::read(&format!("/proc/{}/stat", self.pid))?;
        (stat.start == self.start).then_some(stat)
    }
}

/// What is needed of a line of `/proc/PID/stat`.
struct Stat {
    pid: i32,
    state: u8,
    parent: i32,
    group: i32,
    start: u64,
}

impl Stat {
    #[cfg(target_os = "linux")]
    fn read(path: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    #[cfg(not(target_os = "linux"))]
    fn read(_path: &str) -> Option<Self> {
        None
    }

    /// `PID (NAME) STATE PPID PGRP … START …`; the name may have spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let pid = head.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<_> = tail.split_whitespace().collect();
        Some(Self {
            pid,
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }

    fn dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

#[cfg(target_os = "linux")]
fn threads_stopped(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat"));
        // A thread that ended while we looked does not run.
        stat.ok().and_then(|text| Stat::parse(&text)).is_none_or(|s| s.stopped() || s.dead())
    })
}

#[cfg(not(target_os = "linux"))]
fn threads_stopped(_pid: i32) -> bool {
    false
}

/// The processes below `root`, and those of its process group. Empty when `root` is gone: whose
/// children they were can't be known then.
#[cfg(target_os = "linux")]
pub(crate) fn descendants(root: ProcessId) -> Vec<ProcessId> {
    if root.stat().is_none() {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let all: Vec<_> = pids.filter_map(|pid| Stat::read(&format!("/proc/{pid}/stat"))).collect();
    let mut found = vec![root.pid];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        for stat in &all {
            let below = stat.parent == parent || (at == 0 && stat.group == root.pid);
            if below && !stat.dead() && !found.contains(&stat.pid) {
                found.push(stat.pid);
            }
        }
        at += 1;
    }
    let own = |stat: &&Stat| stat.pid != root.pid && found.contains(&stat.pid);
    all.iter().filter(own).map(|s| ProcessId { pid: s.pid, start: s.start }).collect()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn descendants(_root: ProcessId) -> Vec<ProcessId> {
    Vec::new()
}

/// Sends a signal to exactly this process. `false` if it is gone.
#[cfg(target_os = "linux")]
pub(crate) fn signal(process: ProcessId, signal: Signal) -> io::Result<bool> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(false) };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if process.state() == ProcessState::Dead {
        return Ok(false);
    }
    let signal = match signal {
        Signal::Kill => rustix::process::Signal::KILL,
        Signal::Stop => rustix::process::Signal::STOP,
        Signal::Continue => rustix::process::Signal::CONT,
        Signal::Terminate => rustix::process::Signal::TERM,
        Signal::Interrupt => rustix::process::Signal::INT,
    };
    match pidfd_send_signal(descriptor, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn signal(_process: ProcessId, _signal: Signal) -> io::Result<bool> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "processes are only touched on Linux"))
}

/// What tells one start of the machine from another.
pub(crate) fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Stops a process and all below it, the root first so that it starts no more. `before` is called
/// with each set of processes before they are stopped.
pub(crate) fn freeze(
    root: ProcessId,
    mut before: impl FnMut(&[ProcessId]) -> crate::Result<()>,
) -> crate::Result<Vec<ProcessId>> {
    let failed = |error: io::Error| {
        let message = format!("process {} can't be stopped", root.pid);
        crate::Error::new(crate::ErrorKind::Fault, message).with_source(error)
    };
    let mut frozen = Vec::new();
    let mut next = vec![root];
    while !next.is_empty() {
        before(&next)?;
        for process in &next {
            signal(*process, Signal::Stop).map_err(failed)?;
        }
        frozen.append(&mut next);
        // What a process that was not stopped yet has started in the meantime.
        next = descendants(root).into_iter().filter(|p| !frozen.contains(p)).collect();
    }
    Ok(frozen)
}

/// Kills a process and all below it, frozen first so that none slips through.
pub(crate) fn kill_tree(root: ProcessId) -> crate::Result<Vec<ProcessId>> {
    let all = freeze(root, |_| Ok(()))?;
    kill_all(&all)?;
    Ok(all)
}

/// Sends SIGKILL to each.
pub(crate) fn kill_all(processes: &[ProcessId]) -> crate::Result<()> {
    processes.iter().try_for_each(|process| {
        signal(*process, Signal::Kill).map(drop).map_err(|error| {
            let message = format!("process {} can't be killed", process.pid);
            crate::Error::new(crate::ErrorKind::Fault, message).with_source(error)
        })
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_read() {
        let text = "42 (a) b (c) S 7 41 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.group, stat.start), (42, 7, 41, 12345));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert_eq!(own.state(), ProcessState::Running);
        let earlier = ProcessId { start: own.start - 1, ..own };
        assert_eq!(earlier.state(), ProcessState::Dead);
        // A terminate that reached this process would end the test.
        assert!(!signal(earlier, Signal::Kill).unwrap());
    }
}
