//! A program as a process.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::place::Place;

/// Nothing takes so long, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program, as cargo builds it before it runs the tests of the workspace.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    let build = format!("run: cargo build -p example-{name} --example {name}");
    assert!(program.exists(), "{} is not there; {build}", program.display());
    program
}

/// The environment of who runs the tests must not matter.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    for name in ["DATABASE_URL", "ONCE", "EVENTS", "BATCH_SIZE", "DELAY_MS", "LEASE_MS", "MODE"] {
        command.env_remove(name);
    }
    for name in ["PARTITION_KEY", "TOTAL_PARTITIONS", "WORKERS", "WORKER_ID", "TOTAL_WORKERS"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn command(name: &str, place: &Place, flags: &str) -> Command {
    let mut command = Command::new(program(name));
    clean(&mut command).current_dir(place.folder.path()).env("DATABASE_URL", &place.url);
    command.args(flags.split_whitespace());
    command
}

/// Runs it to its end, which must be good; gives what it printed.
pub(crate) fn output(name: &str, place: &Place, flags: &str) -> String {
    let output = command(name, place, flags).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {flags}: {text}{error}");
    text
}

/// A running program; it ends with this value.
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(name: &str, place: &Place, flags: &str) -> Self {
        let mut child = command(name, place, flags).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                seen.lock().unwrap().push(line);
            }
        });
        Self { child, lines, reader: Some(reader) }
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }

    /// Waits until it has printed so many lines with `part` in them.
    #[track_caller]
    pub(crate) fn printed(&mut self, part: &str, times: usize) {
        let begin = Instant::now();
        while self.count(part) < times {
            let lines = || self.lines.lock().unwrap().join("\n");
            assert!(begin.elapsed() < PATIENCE, "\"{part}\" did not come:\n{}", lines());
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended ({status}) before \"{part}\" came:\n{}", lines());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ctrl-C; the program must end well. Gives what it printed.
    #[track_caller]
    pub(crate) fn interrupt(mut self) -> String {
        self.signal("INT");
        self.ended_well()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end, which must be a good one.
    #[track_caller]
    pub(crate) fn ended_well(&mut self) -> String {
        let status = self.ended();
        let text = self.lines.lock().unwrap().join("\n");
        assert!(status.success(), "{status}\n{text}");
        text
    }

    fn ended(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.ended();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
