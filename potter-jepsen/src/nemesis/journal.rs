//! What has to be undone, written down before it is done.
//!
//! # Invariants
//!
//! 1. While a fault is in effect, its [`Undo`] is in the file: it is written and synced before the
//!    fault is made, and crossed out after it was undone and this was seen. So a runner that is
//!    killed at any point leaves a file that names all its faults, and perhaps one that it did not
//!    come to make; undoing that one does nothing.
//! 2. Faults are made under the journal's lock. Whoever undoes everything (a signal, a panic, a
//!    drop) waits for a fault that is just being made, and no fault can be made after it.
//! 3. The file of a living runner is locked (`flock`), and a lock ends with its process. So the next
//!    start undoes what dead runners left and never what a living one does; pids in the file carry
//!    their start time, so a reused pid is never touched.
//! 4. Undoing goes from the last to the first: a process that uses a file system ends before that is
//!    unmounted.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::procfs::boot_id;
use super::undo::Undo;
use crate::error::{Error, ErrorKind, Result};

/// The journal of one runner, one file in a directory that all runners of a machine can share.
///
/// When it is dropped, everything is undone that still stands in it.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    open: Vec<(u64, Undo)>,
    next: u64,
    closed: bool,
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Boot(String),
    Begin(u64, Undo),
    Done(u64),
}

/// The number of an entry, to cross it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// What [`Journal::open`] found of runners that were killed, and has undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// What was undone, in words. Empty: nothing was left.
    pub undone: Vec<String>,
}

impl Journal {
    /// Undoes what killed runners left in `directory`, and begins a journal of its own there. The
    /// directory is made if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Fault`] when the directory can't be used, or when something that was left can't
    /// be undone; its file stays and is tried again by the next start.
    pub fn open(directory: impl AsRef<Path>) -> Result<(Arc<Self>, Recovered)> {
        let directory = directory.as_ref();
        let failed = |error: std::io::Error| {
            let message = format!("no journal of faults can be kept in {}", directory.display());
            fault(message).with_source(error)
        };
        fs::create_dir_all(directory).map_err(failed)?;
        let directory = &directory.canonicalize().map_err(failed)?;
        // One start at a time, so that none takes a file for a dead runner's that is just created.
        let starts = File::create(directory.join("lock")).map_err(failed)?;
        starts.lock().map_err(failed)?;
        let recovered = recover(directory)?;
        let (path, file) = create(directory).map_err(failed)?;
        file.lock().map_err(failed)?;
        let state = State { file, open: Vec::new(), next: 1, closed: false };
        let journal = Self { path, state: Mutex::new(state) };
        journal.lock().append(&Line::Boot(boot_id()), true)?;
        drop(starts);
        Ok((Arc::new(journal), recovered))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path beside the journal's file, for what belongs to it.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.path.with_extension(name)
    }

    /// What is in effect now, in words.
    pub fn in_effect(&self) -> Vec<String> {
        self.lock().open.iter().map(|(_, undo)| undo.describe()).collect()
    }

    /// Writes down how to undo it, then makes the fault. When `make` fails the entry stays: half of
    /// the fault may be there.
    pub(crate) fn make<T>(
        &self,
        undo: Undo,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<(Ticket, T)> {
        let mut state = self.lock();
        let ticket = state.begin(undo)?;
        make().map(|made| (ticket, made))
    }

    /// The same where what is to be undone is found while it is made: `make` gets a function that
    /// writes down.
    pub(crate) fn make_stepwise<T>(
        &self,
        make: impl FnOnce(&mut dyn FnMut(Undo) -> Result<Ticket>) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.lock();
        make(&mut |undo| state.begin(undo))
    }

    /// Replaces an entry by a more exact one.
    pub(crate) fn replace(&self, ticket: Ticket, undo: Undo) -> Result<Ticket> {
        let mut state = self.lock();
        let next = state.begin(undo)?;
        state.done(ticket)?;
        Ok(next)
    }

    /// Undoes one entry, unless it was undone before.
    pub(crate) fn undo(&self, ticket: Ticket) -> Result<()> {
        let mut state = self.lock();
        let Some((_, undo)) = state.open.iter().find(|(id, _)| *id == ticket.0).cloned() else {
            return Ok(());
        };
        undo.run()?;
        state.done(ticket)
    }

    /// Crosses an entry out whose effect ended in another way.
    pub(crate) fn forget(&self, ticket: Ticket) -> Result<()> {
        self.lock().done(ticket)
    }

    /// Undoes everything, from the last to the first, and allows no fault after it. What can't be
    /// undone does not keep the rest from it.
    ///
    /// # Errors
    /// [`ErrorKind::Fault`] with all that could not be undone. The file keeps it.
    pub fn undo_all(&self) -> Result<Vec<String>> {
        let mut state = self.lock();
        state.closed = true;
        let (mut undone, mut failed) = (Vec::new(), Vec::new());
        for (id, undo) in state.open.clone().into_iter().rev() {
            match undo.run().and_then(|()| state.done(Ticket(id))) {
                Ok(()) => undone.push(undo.describe()),
                Err(error) => failed.push(format!("{}: {error}", undo.describe())),
            }
        }
        if failed.is_empty() { Ok(undone) } else { Err(left(&self.path, &failed)) }
    }

    /// Undoes everything on SIGTERM and SIGINT, then ends the process with status 128 + signal.
    ///
    /// For programs that have no shutdown of their own; a program that has one calls
    /// [`undo_all`](Self::undo_all) in it. The thread that waits does not keep the process alive.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when signals can't be waited for here.
    #[cfg(unix)]
    pub fn undo_on_signals(self: &Arc<Self>) -> Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "signals can't be waited for").with_source(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(failed)?;
        let entered = runtime.enter();
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        drop(entered);
        let journal = Arc::downgrade(self);
        // Its own thread: a runtime whose workers all hang must still heal.
        let wait = move || {
            let signal = runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => 15,
                    _ = interrupt.recv() => 2,
                }
            });
            if let Some(journal) = journal.upgrade() {
                match journal.undo_all() {
                    Ok(undone) => tracing::info!(?undone, "undone before the end"),
                    Err(error) => tracing::error!(%error, "not undone"),
                }
            }
            std::process::exit(128 + signal);
        };
        std::thread::Builder::new().name("undo-on-signals".into()).spawn(wait).map_err(failed)?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while a fault was made leaves its entry: that is what the journal is for.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        match self.undo_all() {
            Ok(_) => _ = fs::remove_file(&self.path),
            Err(error) => tracing::error!(%error, "the next start tries again"),
        }
    }
}

impl State {
    fn begin(&mut self, undo: Undo) -> Result<Ticket> {
        if self.closed {
            return Err(fault("everything was undone: no fault is made any more".to_owned()));
        }
        let id = self.next;
        self.append(&Line::Begin(id, undo.clone()), true)?;
        self.next += 1;
        self.open.push((id, undo));
        Ok(Ticket(id))
    }

    /// Not synced: undoing twice does no harm.
    fn done(&mut self, ticket: Ticket) -> Result<()> {
        self.append(&Line::Done(ticket.0), false)?;
        self.open.retain(|(id, _)| *id != ticket.0);
        Ok(())
    }

    fn append(&mut self, line: &Line, sync: bool) -> Result<()> {
        let failed = |error| fault("the journal can't be written".to_owned()).with_source(error);
        let mut text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(failed)?;
        if sync { self.file.sync_data().map_err(failed) } else { Ok(()) }
    }
}

fn fault(message: String) -> Error {
    Error::new(ErrorKind::Fault, message)
}

fn left(path: &Path, failed: &[String]) -> Error {
    let message = format!(
        "not undone: {}. It stays in {}: the next start tries again; or undo it by hand and delete \
         the file",
        failed.join("; "),
        path.display()
    );
    fault(message)
}

/// A new file that no other runner has.
fn create(directory: &Path) -> std::io::Result<(PathBuf, File)> {
    let mut number = 0_u32;
    loop {
        let path = directory.join(format!("{}-{number}.journal", std::process::id()));
        let file = OpenOptions::new().append(true).read(true).create_new(true).open(&path);
        match file {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Undoes what the files of dead runners say.
fn recover(directory: &Path) -> Result<Recovered> {
    let failed = |error: std::io::Error| {
        fault(format!("{} can't be read", directory.display())).with_source(error)
    };
    let mut recovered = Recovered::default();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "journal") {
            continue;
        }
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => file,
            // Its runner ended just now, with nothing left.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock() {
            Ok(()) => recover_file(&path, file, &mut recovered)?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Ok(recovered)
}

fn recover_file(path: &Path, mut file: File, recovered: &mut Recovered) -> Result<()> {
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.read_to_string(&mut text))
        .map_err(|error| fault(format!("{} can't be read", path.display())).with_source(error))?;
    let (boot, open) = parse(path, &text)?;
    let same_boot = boot == boot_id();
    let mut state = State { file, open, next: 0, closed: true };
    let mut failed = Vec::new();
    for (id, undo) in state.open.clone().into_iter().rev() {
        let undone = if same_boot || undo.survives_reboot() { undo.run() } else { Ok(()) };
        match undone.and_then(|()| state.done(Ticket(id))) {
            Ok(()) => recovered.undone.push(undo.describe()),
            Err(error) => failed.push(format!("{}: {error}", undo.describe())),
        }
    }
    if !failed.is_empty() {
        return Err(left(path, &failed));
    }
    fs::remove_file(path)
        .map_err(|error| fault(format!("{} can't be removed", path.display())).with_source(error))
}

/// The boot that the file is from, and the entries that are not crossed out. A last line without its
/// end was being written when the runner was killed: its fault was not made.
fn parse(path: &Path, text: &str) -> Result<(String, Vec<(u64, Undo)>)> {
    let (mut boot, mut open) = (String::new(), Vec::new());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let Some(line) = line.strip_suffix('\n') else { break };
        let parsed = serde_json::from_str(line).map_err(|error| {
            let message = format!(
                "line {} of {} is no entry of a journal: undo by hand what it says and delete the \
                 file",
                number + 1,
                path.display()
            );
            fault(message).with_source(error)
        })?;
        match parsed {
            Line::Boot(id) => boot = id,
            Line::Begin(id, undo) => open.push((id, undo)),
            Line::Done(id) => open.retain(|(entry, _)| *entry != id),
        }
    }
    Ok((boot, open))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remove(path: &Path) -> Undo {
        Undo::RemoveFile { path: path.to_owned() }
    }

    /// A journal whose runner was killed: its file, not locked, as it was at that moment.
    fn killed(journal: Arc<Journal>) {
        let text = fs::read(journal.path()).unwrap();
        let own = journal.path().to_owned();
        drop(journal);
        // There still if something could not be undone.
        let _ = fs::remove_file(&own);
        fs::write(own.with_file_name("dead.journal"), text).unwrap();
    }

    #[test]
    fn what_is_left_is_undone_by_the_next_start_only() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join("left");
        let (journal, recovered) = Journal::open(directory.path().join("j")).unwrap();
        assert_eq!(recovered.undone, Vec::<String>::new());
        journal.make(remove(&left), || Ok(())).unwrap();
        // A second runner does not touch what the first, which lives, has in effect.
        fs::write(&left, "fault").unwrap();
        let (second, recovered) = Journal::open(directory.path().join("j")).unwrap();
        assert!(recovered.undone.is_empty() && left.exists());
        drop(second);
        killed(journal);
        fs::write(&left, "fault").unwrap();
        let (third, recovered) = Journal::open(directory.path().join("j")).unwrap();
        assert_eq!(recovered.undone.len(), 1);
        assert!(!left.exists());
        drop(third);
        let files = fs::read_dir(directory.path().join("j")).unwrap().count();
        assert_eq!(files, 1, "only the lock stays");
    }

    #[test]
    fn a_drop_undoes_from_the_last_to_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("text");
        let (journal, _) = Journal::open(directory.path().join("j")).unwrap();
        for text in ["first", "second"] {
            let undo = Undo::WriteFile { path: file.clone(), text: text.to_owned() };
            journal.make(undo, || Ok(())).unwrap();
        }
        drop(journal);
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
    }

    #[test]
    fn nothing_is_made_after_everything_was_undone() {
        let directory = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(directory.path()).unwrap();
        journal.undo_all().unwrap();
        let made = journal.make(remove(&directory.path().join("x")), || Ok(()));
        assert_eq!(made.unwrap_err().kind(), ErrorKind::Fault);
    }

    #[test]
    fn a_torn_line_is_a_fault_that_was_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let keep = directory.path().join("keep");
        fs::write(&keep, "x").unwrap();
        let line = serde_json::to_string(&Line::Begin(1, remove(&keep))).unwrap();
        fs::write(directory.path().join("1.journal"), &line).unwrap();
        Journal::open(directory.path()).unwrap();
        assert!(keep.exists());
        fs::write(directory.path().join("1.journal"), line + "\n").unwrap();
        Journal::open(directory.path()).unwrap();
        assert!(!keep.exists());
    }

    #[test]
    fn what_can_not_be_undone_is_an_error_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let full = directory.path().join("full");
        fs::create_dir_all(full.join("inside")).unwrap();
        let (journal, _) = Journal::open(directory.path().join("j")).unwrap();
        let ticket = journal.make(remove(&full), || Ok(())).unwrap().0;
        assert_eq!(journal.undo(ticket).unwrap_err().kind(), ErrorKind::Fault);
        assert_eq!(journal.in_effect().len(), 1);
        killed(journal);
        let error = Journal::open(directory.path().join("j")).unwrap_err();
        assert!(error.to_string().contains("dead.journal"), "{error}");
        fs::remove_dir_all(&full).unwrap();
        // What is gone is undone.
        Journal::open(directory.path().join("j")).unwrap();
    }
}
