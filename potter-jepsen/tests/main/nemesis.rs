//! Nemeses on real processes and real sockets: each effect is seen from outside, and so is its end.

mod cluster;
mod crash;
mod machine;
mod processes;
mod proxies;

use std::sync::Arc;
use std::time::{Duration, Instant};

use potter_jepsen::Value;
use potter_jepsen::nemesis::Journal;
use tempfile::TempDir;

/// How long something may take before it counts as hanging.
const DEADLINE: Duration = Duration::from_secs(60);

fn journal() -> (TempDir, Arc<Journal>) {
    let directory = tempfile::tempdir().unwrap();
    let (journal, recovered) = Journal::open(directory.path().join("journal")).unwrap();
    assert!(recovered.undone.is_empty());
    (directory, journal)
}

/// Some nemeses take root. Without it their tests check that they say so.
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    uid.split_whitespace().nth(1) == Some("0")
}

fn text(text: &str) -> Value {
    Value::Str(text.into())
}

/// `T` for a process that is stopped, `S` for any other; `None` when it is gone.
fn letter(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    match stat.rsplit_once(") ")?.1.chars().next()? {
        'Z' | 'X' => None,
        'T' => Some('T'),
        _ => Some('S'),
    }
}

/// Waits for what must come.
fn wait_for(what: &str, mut seen: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !seen() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
