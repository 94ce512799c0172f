//! The history on disk: JSON lines in blocks, so that a crash leaves a prefix that can be checked.
//!
//! After each block of events comes a line that counts and sums it (`{"block":…}`), then the file is
//! synced. [`read_history`] takes whole blocks only: a torn line, or zeros where the file system
//! promised data, end the prefix and are no error. The loader of recorded histories skips the block
//! lines, so the file is an ordinary history for everybody else.
//!
//! The prefix is one of the order of events, so it is consistent: whatever an operation in it saw
//! was written by an operation that had begun before, and whose invocation is in it too.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::history::{Event, History};
use crate::load::load_str;

/// A block ends after so many events or this time, whichever is first.
const BLOCK_EVENTS: usize = 1024;
const BLOCK_TIME: Duration = Duration::from_millis(500);
/// Events that may wait for the disk; beyond that the test waits.
const QUEUE: usize = 65_536;

/// FNV-1a: it finds torn and lost writes, which is all that it is for.
#[derive(Clone, Copy)]
struct Sum(u64);

impl Sum {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

struct Blocks<W: Write> {
    file: W,
    number: u64,
    events: usize,
    sum: Sum,
}

impl<W: Write> Blocks<W> {
    fn new(file: W) -> Self {
        Self { file, number: 0, events: 0, sum: Sum::new() }
    }

    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        let mut line = event.to_json();
        line.push('\n');
        self.sum.add(line.as_bytes());
        self.events += 1;
        self.file.write_all(line.as_bytes())
    }

    /// Ends the block, if there is anything in it.
    fn end(&mut self) -> std::io::Result<bool> {
        if self.events == 0 {
            return Ok(false);
        }
        let (number, events, sum) = (self.number, self.events, self.sum.0);
        writeln!(self.file, "{{\"block\":{number},\"events\":{events},\"fnv1a\":\"{sum:016x}\"}}")?;
        self.file.flush()?;
        self.number += 1;
        self.events = 0;
        self.sum = Sum::new();
        Ok(true)
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    let message = format!("{} can't be written: {error}", path.display());
    Error::new(ErrorKind::Write, message).with_source(error)
}

/// Writes a whole history in blocks.
///
/// # Errors
/// [`ErrorKind::Write`] with the path.
pub fn write_history(path: &Path, history: &History) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut blocks = Blocks::new(BufWriter::new(File::create(path)?));
        for (n, event) in history.events().iter().enumerate() {
            blocks.event(event)?;
            if (n + 1).is_multiple_of(BLOCK_EVENTS) {
                blocks.end()?;
            }
        }
        blocks.end()?;
        blocks.file.get_ref().sync_data()
    };
    write().map_err(|error| failed(path, error))
}

/// Reads what a test wrote, up to the last block that is whole.
///
/// # Errors
/// [`ErrorKind::Read`] with the path, [`ErrorKind::Syntax`] for a whole block that holds no events.
pub fn read_history(path: &Path) -> Result<History> {
    let unreadable = |error: std::io::Error| {
        let message = format!("{} can't be read: {error}", path.display());
        Error::new(ErrorKind::Read, message).with_source(error)
    };
    let mut input = BufReader::new(File::open(path).map_err(unreadable)?);
    let (mut events, mut block) = (Vec::new(), String::new());
    let (mut sum, mut line) = (Sum::new(), Vec::new());
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            break;
        }
        let Ok(text) = std::str::from_utf8(&line) else { break };
        if let Some(end) = text.strip_prefix("{\"block\":") {
            if !end.trim_end().ends_with(&format!("\"fnv1a\":\"{:016x}\"}}", sum.0)) {
                break;
            }
            events.extend_from_slice(load_str(&block)?.history.events());
            block.clear();
            sum = Sum::new();
        } else {
            sum.add(&line);
            block.push_str(text);
        }
    }
    History::new(events)
}

/// A thread that writes events as they come.
pub(crate) struct Writer {
    events: SyncSender<Event>,
    thread: JoinHandle<std::io::Result<()>>,
    path: std::path::PathBuf,
}

impl Writer {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|error| failed(path, error))?;
        let (events, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("potter-history".into())
            .spawn(move || write(file, &queue))
            .map_err(|error| failed(path, error))?;
        Ok(Self { events, thread, path: path.to_owned() })
    }

    /// Waits when the disk is slow. A writer that has failed says so in [`Writer::finish`].
    pub(crate) fn send(&self, event: &Event) {
        _ = self.events.send(event.clone());
    }

    /// Blocks until all is on disk.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.events);
        let written = self.thread.join();
        let written = written.unwrap_or_else(|_| Err(std::io::Error::other("the writer panicked")));
        written.map_err(|error| failed(&self.path, error))
    }
}

fn write(file: File, queue: &Receiver<Event>) -> std::io::Result<()> {
    let mut blocks = Blocks::new(BufWriter::with_capacity(1 << 18, file));
    let mut begun = Instant::now();
    loop {
        let left = BLOCK_TIME.saturating_sub(begun.elapsed());
        let ended = match queue.recv_timeout(left) {
            Ok(event) => {
                blocks.event(&event)?;
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        if ended || blocks.events >= BLOCK_EVENTS || begun.elapsed() >= BLOCK_TIME {
            if blocks.end()? {
                blocks.file.get_ref().sync_data()?;
            }
            begun = Instant::now();
        }
        if ended {
            return Ok(());
        }
    }
}
