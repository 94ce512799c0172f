//! A program as a process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// The example `name`, as cargo builds it before it runs the tests.
///
/// # Panics
/// When it is not there.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is not there; run: cargo build -p example-{name} --example {name}",
        program.display()
    );
    program
}

/// A service that listens; it is killed when this value goes.
#[derive(Debug)]
pub struct Program {
    child: Child,
    pub(crate) address: String,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts the service `name` in `folder` on a free port, with these variables and no others,
    /// and waits until it listens.
    ///
    /// # Panics
    /// When it ends before, or does not listen within a minute.
    pub fn start(name: &str, folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(program(name))
            .env_clear()
            .current_dir(folder)
            .env("PORT", "0")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let log = Arc::<Mutex<Vec<String>>>::default();
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let mut program = Self { child, address: String::new(), log, reader: Some(reader) };
        let began = Instant::now();
        while program.address.is_empty() {
            assert!(began.elapsed() < PATIENCE, "{name} does not listen");
            if let Some(status) = program.child.try_wait().unwrap() {
                panic!("{name} ended before it listened: {status}");
            }
            program.address = program.listens_at().unwrap_or_default();
            std::thread::sleep(Duration::from_millis(5));
        }
        program
    }

    fn listens_at(&self) -> Option<String> {
        let log = self.log.lock().unwrap();
        let mut lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["message"] == "listening")?;
        Some(line["address"].as_str()?.to_owned())
    }

    /// Where it listens: `127.0.0.1:8080`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a signal by its name (`TERM`).
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.ended();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
