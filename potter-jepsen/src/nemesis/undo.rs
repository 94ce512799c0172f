//! How faults are undone, as data: the same for a heal, a signal, a panic and the next start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::procfs::{self, ProcessId, ProcessState, Signal};
use crate::error::{Error, ErrorKind, Result};

/// How long an effect may take to be seen.
pub(crate) const SEEN_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// One thing to undo. Each may be done although its fault was never made, and more than once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Undo {
    /// Let stopped processes run.
    Continue { name: String, processes: Vec<ProcessId> },
    /// Kill a process that the test started, with all below it.
    Kill { name: String, process: ProcessId },
    /// The same for one that is being started: it writes its `/proc/PID/stat` into this file.
    KillStarting { name: String, path: PathBuf },
    /// Take all rules out of a chain of a network namespace.
    FlushRules { namespace: String, chain: String },
    /// Delete a network namespace, with all interfaces in it.
    DeleteNamespace { namespace: String },
    /// Unmount a file system, and remove the directory.
    Unmount { path: PathBuf },
    /// Delete a file.
    RemoveFile { path: PathBuf },
    /// Delete a directory with all that is in it, if the file `mark` is in it.
    RemoveDirectory { path: PathBuf, mark: String },
    /// Put a file's text back.
    WriteFile { path: PathBuf, text: String },
    /// It ends with the process that made it; written down so that the next start can tell of it.
    EndsWithProcess { what: String },
}

impl Undo {
    /// What it undoes, for logs.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Continue { name, processes } => {
                let pids: Vec<_> = processes.iter().map(|p| p.pid().to_string()).collect();
                format!("'{name}' was stopped (pids {})", pids.join(", "))
            }
            Self::Kill { name, process } => format!("'{name}' was started (pid {})", process.pid()),
            Self::KillStarting { name, .. } => format!("'{name}' was being started"),
            Self::FlushRules { namespace, .. } => {
                format!("packets were dropped in the network namespace {namespace}")
            }
            Self::DeleteNamespace { namespace } => format!("the network namespace {namespace}"),
            Self::Unmount { path } => format!("the file system on {}", path.display()),
            Self::RemoveFile { path } => format!("the file {}", path.display()),
            Self::RemoveDirectory { path, .. } => format!("the directory {}", path.display()),
            Self::WriteFile { path, .. } => format!("the text of {}", path.display()),
            Self::EndsWithProcess { what } => what.clone(),
        }
    }

    /// Processes, namespaces and mounts are gone when the machine was started again; files are not.
    pub(crate) fn survives_reboot(&self) -> bool {
        matches!(
            self,
            Self::RemoveFile { .. } | Self::RemoveDirectory { .. } | Self::WriteFile { .. }
        )
    }

    /// Undoes it, and looks whether it is undone.
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Continue { processes, .. } => resume(processes),
            Self::Kill { process, .. } => kill(*process),
            Self::KillStarting { path, .. } => kill_starting(path),
            Self::FlushRules { namespace, chain } => {
                if !namespace_exists(namespace) {
                    return Ok(());
                }
                in_namespace(namespace, &["iptables", "-w", "-F", chain]).map(drop)
            }
            Self::DeleteNamespace { namespace } => {
                if !namespace_exists(namespace) {
                    return Ok(());
                }
                command(&["ip", "netns", "del", namespace]).map(drop)
            }
            Self::Unmount { path } => unmount(path),
            Self::RemoveFile { path } => gone(fs::remove_file(path), path),
            Self::RemoveDirectory { path, mark } if path.join(mark).is_file() => {
                gone(fs::remove_dir_all(path), path)
            }
            Self::RemoveDirectory { .. } => Ok(()),
            Self::WriteFile { path, text } => write_atomically(path, text),
            Self::EndsWithProcess { .. } => Ok(()),
        }
    }
}

fn fault(message: String) -> Error {
    Error::new(ErrorKind::Fault, message)
}

/// Whether `seen` becomes true within [`SEEN_WITHIN`].
pub(crate) fn wait_until(mut seen: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + SEEN_WITHIN;
    loop {
        if seen() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

fn resume(processes: &[ProcessId]) -> Result<()> {
    for process in processes {
        procfs::signal(*process, Signal::Continue).map_err(|error| {
            fault(format!("process {} can't be continued", process.pid())).with_source(error)
        })?;
    }
    let stopped = |p: &ProcessId| p.state() == ProcessState::Stopped;
    if wait_until(|| !processes.iter().any(stopped)) {
        return Ok(());
    }
    Err(fault("a process stays stopped although it was continued".to_owned()))
}

fn kill(process: ProcessId) -> Result<()> {
    let all = procfs::kill_tree(process)?;
    if wait_until(|| all.iter().all(|p| p.state() == ProcessState::Dead)) {
        return Ok(());
    }
    Err(fault(format!("process {} does not end although it was killed", process.pid())))
}

/// The file is empty for the moment between the start of the process and its first step, and stays
/// empty if there was no start.
fn kill_starting(path: &Path) -> Result<()> {
    let read = || fs::read_to_string(path).ok().and_then(|text| ProcessId::from_stat(&text));
    let mut found = read();
    for _ in 0..200 {
        if found.is_some() || !path.exists() {
            break;
        }
        std::thread::sleep(POLL);
        found = read();
    }
    if let Some(process) = found {
        kill(process)?;
    }
    gone(fs::remove_file(path), path)
}

fn gone(removed: io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(fault(format!("{} can't be removed", path.display())).with_source(error))
        }
        _ => Ok(()),
    }
}

/// A reader of the file sees the old text or the new one, never a part.
pub(crate) fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let failed =
        |error: io::Error| fault(format!("{} can't be written", path.display())).with_source(error);
    // The directory was deleted with all that could read the file.
    if path.parent().is_some_and(|parent| !parent.exists()) {
        return Ok(());
    }
    let beside = path.with_extension("new");
    fs::write(&beside, text).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

#[cfg(target_os = "linux")]
fn unmount(path: &Path) -> Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    if is_mounted(path) {
        unmount(path, UnmountFlags::empty())
            .or_else(|_| {
                // Something still has a file open in it. Detached it is out of the way at once and
                // freed with the last open file.
                unmount(path, UnmountFlags::DETACH)
            })
            .map_err(|error| {
                fault(format!("{} can't be unmounted", path.display()))
                    .with_source(io::Error::from(error))
            })?;
    }
    gone(fs::remove_dir(path), path)
}

#[cfg(not(target_os = "linux"))]
fn unmount(path: &Path) -> Result<()> {
    gone(fs::remove_dir(path), path)
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    let path = path.to_string_lossy();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(path.as_ref()))
}

fn namespace_exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists() || Path::new("/var/run/netns").join(name).exists()
}

/// Runs a command in a network namespace; its output.
pub(crate) fn in_namespace(namespace: &str, arguments: &[&str]) -> Result<String> {
    let mut all = vec!["ip", "netns", "exec", namespace];
    all.extend_from_slice(arguments);
    command(&all)
}

/// Runs a command; its output. What it says when it fails is in the error.
pub(crate) fn command(arguments: &[&str]) -> Result<String> {
    let shown = arguments.join(" ");
    let mut command = Command::new(arguments[0]);
    let output = command
        .args(&arguments[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| fault(format!("'{shown}' can't be run")).with_source(error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(fault(format!("'{shown}' failed: {}", said.trim())))
}
