//! How many operations a second are accepted durably: this program as a service of its own process,
//! asked over its port by clients that each keep a connection and wait for each answer.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use examples_common::StartError;
use potter_core::new_id;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Operations of one upload.
const BATCH: usize = 100;
/// Entities that an upload touches.
const ENTITIES: usize = 10;
/// Uploads of one client in one round.
const UPLOADS: usize = 60;
const CLIENTS: usize = 8;
const ROUNDS: usize = 5;

/// What clients do.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    /// All devices are of one user, so their uploads are one after the other.
    one_user: bool,
    /// Every operation has an id, not only the batch.
    op_ids: bool,
}

const LOADS: [Load; 3] = [
    Load { name: "8 users, a device each, batch_id and op_ids", one_user: false, op_ids: true },
    Load { name: "8 users, a device each, batch_id", one_user: false, op_ids: false },
    Load { name: "1 user, 8 devices, batch_id and op_ids", one_user: true, op_ids: true },
];

/// The service; it ends with this value.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Result<Self, StartError> {
        let mut child = Command::new(std::env::current_exe()?)
            .env("PORT", "0")
            .env("LOG_LEVEL", "info")
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the service has no output")?;
        let mut server = Self { child, address: String::new() };
        let (found, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            use std::io::BufRead;
            // All of it is read, or the service would wait for its reader.
            for line in std::io::BufReader::new(stdout).lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(address) = line["address"].as_str() {
                    let _ = found.send(address.to_owned());
                }
            }
        });
        let waited = address.recv_timeout(Duration::from_secs(60));
        server.address = waited.map_err(|_| "the service does not listen")?;
        Ok(server)
    }

    /// Processor time that it has used, seconds; 0 where there is no `/proc`.
    fn processor_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0.0);
        // utime and stime, in the 100 ticks a second that Linux shows.
        (ticks(12) + ticks(13)) / 100.0
    }
}

/// A connection that is kept.
struct Client {
    stream: BufReader<TcpStream>,
    device: String,
}

impl Client {
    async fn new(address: &str, device: String, user: &str) -> Result<Self, StartError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::new(stream), device };
        let body = json!({ "device_id": client.device, "user_id": user }).to_string();
        client.post("/api/v1/sync/register-device", &body).await?;
        Ok(client)
    }

    async fn post(&mut self, path: &str, body: &str) -> Result<Value, StartError> {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err("the service closed the connection".into());
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Bodies are made before the clock starts.
    fn bodies(&self, load: Load) -> Vec<String> {
        let upload = |_| {
            let changes: Vec<Value> = (0..ENTITIES).map(|at| changes(at, load)).collect();
            let batch = new_id().to_string();
            json!({ "device_id": self.device, "batch_id": batch, "changes": changes }).to_string()
        };
        (0..UPLOADS).map(upload).collect()
    }

    async fn run(mut self, bodies: Vec<String>) -> Result<(Self, Vec<Duration>), StartError> {
        let mut took = Vec::with_capacity(bodies.len());
        for body in &bodies {
            let began = Instant::now();
            let answer = self.post("/api/v1/sync/upload", body).await?;
            took.push(began.elapsed());
            if answer["accepted"] != BATCH {
                return Err(format!("not all was accepted: {answer:.300}").into());
            }
        }
        Ok((self, took))
    }
}

/// Ten operations on one entity: counters, registers and sets in turn.
fn changes(at: usize, load: Load) -> Value {
    let now = chrono::Utc::now().to_rfc3339();
    let operations: Vec<Value> = (0..BATCH / ENTITIES)
        .map(|n| {
            let mut op = match at % 3 {
                0 => json!({ "type": "increment", "value": 1 }),
                1 => json!({ "type": "set", "value": format!("value {n}"), "timestamp": now }),
                _ => json!({ "type": "add", "value": format!("element {n}") }),
            };
            if load.op_ids {
                op["op_id"] = json!(new_id().to_string());
            }
            op
        })
        .collect();
    let kind = ["PNCounter", "LWWRegister", "ORSet"][at % 3];
    json!({ "entity_id": format!("entity-{at}"), "crdt_type": kind, "operations": operations })
}

/// Runs all loads and prints a table to `out`. The database is the one of `DATABASE_URL`.
///
/// # Errors
/// When the service can't be started, or does not accept everything.
pub fn bench(out: &mut dyn Write) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Server::start()?;
    writeln!(
        out,
        "| load | op/s (min–max) | an upload of {BATCH}: median, 99 % | service, µs an op |"
    )?;
    writeln!(out, "|---|---|---|---|")?;
    for load in LOADS {
        let line = runtime.block_on(measure(&server, load))?;
        writeln!(out, "{line}")?;
    }
    Ok(())
}

async fn measure(server: &Server, load: Load) -> Result<String, StartError> {
    let run = new_id().simple().to_string();
    let mut clients = Vec::new();
    for at in 0..CLIENTS {
        let user = if load.one_user { run.clone() } else { format!("{run}-{at}") };
        clients.push(Client::new(&server.address, format!("{run}-d{at}"), &user).await?);
    }
    let operations = f64::from(u32::try_from(CLIENTS * UPLOADS * BATCH)?);
    let (mut rates, mut took, mut spent) = (Vec::new(), Vec::new(), 0.0);
    // The first round warms up.
    for round in 0..=ROUNDS {
        let bodies: Vec<_> = clients.iter().map(|client| client.bodies(load)).collect();
        let before = server.processor_seconds();
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for (client, bodies) in clients.drain(..).zip(bodies) {
            tasks.spawn(client.run(bodies));
        }
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (client, each) = done??;
            clients.push(client);
            times.extend(each);
        }
        if round > 0 {
            rates.push(operations / began.elapsed().as_secs_f64());
            spent += server.processor_seconds() - before;
            took.extend(times);
        }
    }
    rates.sort_by(f64::total_cmp);
    took.sort_unstable();
    let ms = |at: usize| took[at].as_secs_f64() * 1000.0;
    let rounds = f64::from(u32::try_from(ROUNDS)?);
    Ok(format!(
        "| {} | **{:.0}** ({:.0}–{:.0}) | {:.1} ms, {:.1} ms | {:.1} |",
        load.name,
        rates[ROUNDS / 2],
        rates[0],
        rates[ROUNDS - 1],
        ms(took.len() / 2),
        ms(took.len() * 99 / 100),
        spent * 1e6 / (operations * rounds),
    ))
}
