//! Reading recorded histories in the formats of Jepsen, Elle, Knossos, Porcupine, Plume and AWDIT.

mod jepsen;
mod porcupine;
mod text;

use std::io::{BufRead, Cursor, Read};

use rustc_hash::FxHashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::history::{Event, EventKind, History, Process};

/// How a history was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Operation maps in EDN: one a line, over several lines, or in one vector or list. Jepsen,
    /// Knossos, Elle, and Porcupine's key-value logs. Also Knossos' short form, a vector
    /// `[process :type :f value error]` a line.
    Edn,
    /// The same maps in JSON, one a line or in one array.
    Json,
    /// Jepsen's log lines as Porcupine keeps them: `INFO jepsen.util - 3 :invoke :cas [1 2]`.
    JepsenLog,
    /// `r(key,value,session,transaction)` and `w(…)` a line: Plume, PolySI, IsoVista. Transaction
    /// -1 is an aborted write; 0 is the initial value of every key.
    Plume,
    /// `r key value` and `w key value` a line, `-----` between transactions, `=====` between
    /// sessions: AWDIT. Keys have no initial value.
    Awdit,
}

impl Format {
    /// Whether transactions of one session are ordered and nothing else is known of their times.
    pub fn has_sessions(self) -> bool {
        matches!(self, Self::Plume | Self::Awdit)
    }

    /// Guesses the format from the beginning of a text.
    pub fn detect(text: &str) -> Option<Self> {
        for line in text.lines() {
            let line = line.trim_start_matches('\u{FEFF}').trim();
            if is_remark(line) {
                continue;
            }
            if jepsen::is_rows(line) {
                return Some(Self::Edn);
            }
            if text::is_plume(line) {
                return Some(Self::Plume);
            }
            if text::is_awdit(line) {
                return Some(Self::Awdit);
            }
            if porcupine::is_log(line) {
                return Some(Self::JepsenLog);
            }
            if line.starts_with(['{', '[', '(', '#']) {
                // A JSON object begins with a string and a colon, an EDN operation with a keyword.
                let start = text.find('{').map_or("", |at| text[at + 1..].trim_start());
                return Some(if start.starts_with('"') { Self::Json } else { Self::Edn });
            }
        }
        None
    }
}

/// Whether a line says nothing in any format.
fn is_remark(line: &str) -> bool {
    line.is_empty() || line.starts_with(';') || line.starts_with("//") || line.starts_with("# ")
}

fn says_nothing(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    text.lines().all(|line| is_remark(line.trim_start_matches('\u{FEFF}').trim()))
}

/// Who has an operation running, and since which line.
#[derive(Default)]
struct Open(FxHashMap<Process, u64>);

impl Open {
    /// A process does one thing at a time: if it invokes again, two clients share its name or lines
    /// are missing, and nothing can be said of such a history.
    fn event(&mut self, event: &Event, line: u64) -> Result<()> {
        let Event { process, kind, .. } = event;
        if process.0 < 0 {
            return Ok(());
        }
        if *kind != EventKind::Invoke {
            self.0.remove(process);
            return Ok(());
        }
        match self.0.insert(*process, line) {
            None => Ok(()),
            Some(before) => {
                let message = format!(
                    "process {} invokes {} while its operation of line {before} is running: it has \
                     to complete first, with info if nobody knows how it ended",
                    process.0, event.f
                );
                Err(Error::at(ErrorKind::InvalidHistory, line, message))
            }
        }
    }
}

/// A history with the format that it came in.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The history.
    pub history: History,
    /// What it was written in.
    pub format: Format,
}

/// Reads a history, guessing its format from the first 64 KiB if none is given. Only one operation
/// of the text is held in memory at a time.
pub fn load(mut input: impl BufRead, format: Option<Format>) -> Result<Loaded> {
    let mut head = Vec::new();
    let read = input.by_ref().take(64 * 1024).read_to_end(&mut head);
    read.map_err(|error| Error::read(error, 1))?;
    let detected = || Format::detect(&String::from_utf8_lossy(&head));
    let format = match format.or_else(detected) {
        Some(format) => format,
        None if says_nothing(&head) => Format::Edn,
        None => {
            let message = "this is in no format that can be recognised: EDN or JSON operation maps, \
                           Jepsen log lines, r(k,v,session,txn) or r k v lines are";
            return Err(Error::at(ErrorKind::Unsupported, 1, message));
        }
    };
    let rows = format == Format::Edn && jepsen::is_rows(&String::from_utf8_lossy(&head));
    let input = Cursor::new(head).chain(input);
    let history = match format {
        Format::Edn if rows => jepsen::load_rows(input)?,
        Format::Edn => jepsen::load(input, false)?,
        Format::Json => jepsen::load(input, true)?,
        Format::JepsenLog => porcupine::load(input)?,
        Format::Plume => text::load_plume(input)?,
        Format::Awdit => text::load_awdit(input)?,
    };
    Ok(Loaded { history, format })
}

/// [`load`] of a text in memory.
pub fn load_str(text: &str) -> Result<Loaded> {
    load(Cursor::new(text), None)
}
