//! The program as a process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::place::Place;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program, as cargo builds it before it runs the tests.
fn program() -> PathBuf {
    const BUILD: &str = "run: cargo build -p example-saga-order --example saga-order";
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join("saga-order");
    let modified = |path: &PathBuf| path.metadata().and_then(|about| about.modified());
    let built = modified(&program)
        .unwrap_or_else(|error| panic!("{} is not there ({error}); {BUILD}", program.display()));
    let newest = sources(env!("CARGO_MANIFEST_DIR").into())
        .iter()
        .map(|path| modified(path).unwrap())
        .fold(SystemTime::UNIX_EPOCH, SystemTime::max);
    assert!(built >= newest, "{} is older than its source; {BUILD}", program.display());
    program
}

/// The program's own files, without its tests.
fn sources(folder: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let folders = folders.into_iter().filter(|path| !path.ends_with("tests"));
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    files.chain(folders.flat_map(sources)).collect()
}

/// The program on this database, on a free port.
pub(crate) fn command(place: &Place, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program());
    command
        .env_clear()
        .current_dir(place.folder.path())
        .envs([("PORT", "0"), ("DATABASE_URL", &place.url)])
        .envs(variables.iter().copied());
    command
}

/// The running program; it ends with this value.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    log: Arc<Mutex<Vec<Value>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    /// Starts it and waits until it listens.
    pub(crate) fn start(place: &Place, variables: &[(&str, &str)]) -> Self {
        let process = Self::launch(place, variables);
        process.listening(PATIENCE).expect("the program listens")
    }

    /// Starts it, and does not wait.
    pub(crate) fn launch(place: &Place, variables: &[(&str, &str)]) -> Self {
        let mut child = command(place, variables).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The last line of a process that was killed may be cut off.
                let line = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "cut": line }));
                lines.lock().unwrap().push(line);
            }
        });
        Self { child, address: String::new(), log, reader: Some(reader) }
    }

    /// Waits until it listens; `None` if it does not within `limit`.
    pub(crate) fn listening(mut self, limit: Duration) -> Option<Self> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            let line = self.log_lines("listening").into_iter().next();
            if let Some(address) = line.as_ref().and_then(|line| line["address"].as_str()) {
                address.clone_into(&mut self.address);
                return Some(self);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the program ended before it listened: {status}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    pub(crate) fn log_lines(&self, message: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line["message"] == message).cloned().collect()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.ended();
    }

    /// Sends a request. An error when the process is gone.
    pub(crate) fn send(&self, head: &str, body: &[u8]) -> std::io::Result<Answer> {
        exchange(&self.address, head, body)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1"), b"").unwrap()
    }

    pub(crate) fn post(&self, path: &str) -> Answer {
        self.send(&format!("POST {path} HTTP/1.1"), b"").unwrap()
    }

    /// Places an order, with an idempotency key if there is one.
    pub(crate) fn place(&self, key: &str, body: &str) -> std::io::Result<Answer> {
        self.send(&order_head(key), body.as_bytes())
    }

    /// Places an order and waits for its end; gives its saga.
    pub(crate) fn order(&self, items: &Value) -> Value {
        let body = json!({ "customer_id": "customer-123", "items": items }).to_string();
        let answer = self.place("", &body).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
        self.finished(answer.json()["saga_id"].as_str().unwrap())
    }

    /// Waits for the end of a saga.
    pub(crate) fn finished(&self, saga_id: &str) -> Value {
        let begin = Instant::now();
        loop {
            let saga = self.get(&format!("/api/v1/sagas/{saga_id}")).json();
            if ["completed", "compensated", "cancelled"].iter().any(|end| saga["status"] == *end) {
                return saga;
            }
            assert!(begin.elapsed() < PATIENCE, "not finished in time: {saga}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn stock(&self, product_id: &str) -> (i64, i64) {
        let stock = self.get(&format!("/api/v1/stock/{product_id}")).json();
        (stock["available"].as_i64().unwrap(), stock["reserved"].as_i64().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn order_head(key: &str) -> String {
    let head = "POST /api/v1/orders HTTP/1.1\r\ncontent-type: application/json";
    if key.is_empty() { head.to_owned() } else { format!("{head}\r\nidempotency-key: {key}") }
}

/// One request on a connection of its own.
pub(crate) fn exchange(address: &str, head: &str, body: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let request =
        format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.write_all(body)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned() })
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// A problem of that status and code; gives its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        body["detail"].as_str().unwrap().to_owned()
    }
}
