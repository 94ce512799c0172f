//! PostgreSQL: a primary and streaming replicas, private to a test.

mod machine;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::machine::{Machine, run};
use crate::error::{Error, ErrorKind, Result};
use crate::nemesis::{ProcessCommand, Processes, Ready, Stop};
use crate::runner::{Db, Failure, Node};

const USER: &str = "potter";
const DATABASE: &str = "postgres";
/// How long a server may take to end before it is killed, and replicas to follow.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a log is kept, from its end.
const LOG_BYTES: usize = 1 << 20;

/// A primary and streaming replicas on free ports of `127.0.0.1`, from the PostgreSQL that is
/// installed (15 or later; `POTTER_POSTGRES_BIN` names another folder of programs). Run by root, the
/// servers belong to the user `postgres`, or `nobody`.
///
/// The servers are registered with [`Processes`] as `primary`, `replica-1`, `replica-2`, …: so they
/// can be killed, paused and restarted as faults, and they end with the test however it ends. Their
/// data is in a new folder of the system's temporary one, and deleted by [`Db::stop`]. Clones are the
/// same cluster.
#[derive(Clone, Debug)]
pub struct PostgresCluster {
    processes: Arc<Processes>,
    settings: BTreeMap<String, String>,
    replica_settings: BTreeMap<String, String>,
    addresses: Vec<SocketAddr>,
    replication: Option<SocketAddr>,
    directory: PathBuf,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl PostgresCluster {
    /// A primary with so many replicas; nothing is started yet, but their addresses are known.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] if there are no free ports.
    pub fn new(processes: Arc<Processes>, replicas: usize) -> Result<Self> {
        let addresses = free_addresses(replicas + 1)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("potter-postgres-{}-{number}", std::process::id());
        Ok(Self {
            processes,
            settings: BTreeMap::new(),
            replica_settings: BTreeMap::new(),
            addresses,
            replication: None,
            directory: std::env::temp_dir().join(name),
        })
    }

    /// A setting of all servers, as in `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// A setting of the replicas.
    #[must_use]
    pub fn replica_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.replica_settings.insert(name.into(), value.into());
        self
    }

    /// Where replicas find the primary: a proxy, so that the two can be parted.
    #[must_use]
    pub fn replication_via(mut self, address: SocketAddr) -> Self {
        self.replication = Some(address);
        self
    }

    /// The names of the servers, the primary first.
    pub fn names(&self) -> Vec<String> {
        (0..self.addresses.len()).map(name).collect()
    }

    /// Where the server of this name listens.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTest`] with the names that there are.
    pub fn address(&self, server: &str) -> Result<SocketAddr> {
        let at = self.names().iter().position(|name| name == server);
        at.map(|at| self.addresses[at]).ok_or_else(|| {
            let message =
                format!("there is no server {server}; there are {}", self.names().join(", "));
            Error::new(ErrorKind::InvalidTest, message)
        })
    }

    /// The URL of a server at `address`, which may be a proxy's.
    pub fn url(address: SocketAddr) -> String {
        format!("postgres://{USER}@{address}/{DATABASE}")
    }

    /// The nodes without proxies, as [`Db::start`] returns them.
    pub fn nodes(&self) -> Vec<Node> {
        let nodes = self.names().into_iter().zip(&self.addresses);
        nodes.map(|(name, address)| Node::new(name, Self::url(*address))).collect()
    }

    fn data(&self, n: usize) -> PathBuf {
        self.directory.join(name(n))
    }

    fn log(&self, n: usize) -> PathBuf {
        self.directory.join(format!("{}.log", name(n)))
    }

    /// Makes the primary's data.
    fn init(&self, machine: &Machine) -> Result<()> {
        machine.make(&self.directory)?;
        let mut command = machine.command("initdb");
        command.arg("-D").arg(self.data(0)).args(["-U", USER, "-A", "trust", "-E", "UTF8"]);
        run(command.args(["--no-locale", "--no-sync"]))?;
        self.configure(0)
    }

    /// Copies the running primary.
    fn copy(&self, machine: &Machine, n: usize) -> Result<()> {
        let from = self.replication.unwrap_or(self.addresses[0]);
        let mut command = machine.command("pg_basebackup");
        command.arg("-D").arg(self.data(n)).args(["-U", USER, "-h", &from.ip().to_string()]);
        command.args(["-p", &from.port().to_string(), "-R", "-X", "stream", "-c", "fast"]);
        run(command.args(["--no-sync", "-w"]))?;
        self.configure(n)
    }

    /// The last word in the configuration is what counts.
    fn configure(&self, n: usize) -> Result<()> {
        let path = self.data(n).join("postgresql.conf");
        let own = [
            ("listen_addresses", self.addresses[n].ip().to_string()),
            ("port", self.addresses[n].port().to_string()),
            ("unix_socket_directories", String::new()),
            ("cluster_name", name(n)),
            ("timezone", "UTC".into()),
            ("log_timezone", "UTC".into()),
        ];
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        let replica = self.replica_settings.iter().filter(|_| n > 0);
        let others = self.settings.iter().chain(replica);
        let others = others.map(|(name, value)| (name.as_str(), value.as_str()));
        let mut text = String::from("\n");
        for (name, value) in own.chain(others) {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        let append = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new().append(true).open(&path)?;
            std::io::Write::write_all(&mut file, text.as_bytes())
        };
        append().map_err(|error| {
            let message = format!("{} can't be written", path.display());
            Error::new(ErrorKind::Setup, message).with_source(error)
        })
    }

    fn process(&self, machine: &Machine, n: usize) -> ProcessCommand {
        let (host, port) = (self.addresses[n].ip().to_string(), self.addresses[n].port());
        let ready: Vec<OsString> = vec![
            machine.program("pg_isready").into(),
            "-q".into(),
            "-h".into(),
            host.into(),
            "-p".into(),
            port.to_string().into(),
        ];
        let mut command = ProcessCommand::new(machine.program("postgres"))
            .arg("-D")
            .arg(self.data(n))
            .directory(&self.directory)
            .output(self.log(n))
            .ready(Ready::Command(ready))
            .stop(Stop::Interrupt);
        if let Some((user, group)) = machine.user {
            command = command.user(user, group);
        }
        command
    }

    /// Waits until all replicas follow the primary.
    fn followed(&self, machine: &Machine) -> Result<()> {
        let begun = Instant::now();
        let wanted = (self.addresses.len() - 1).to_string();
        let (host, port) = (self.addresses[0].ip().to_string(), self.addresses[0].port());
        loop {
            let mut psql = Command::new(machine.program("psql"));
            psql.args(["-X", "-A", "-t", "-w", "-U", USER, "-d", DATABASE, "-h", &host, "-p"]);
            psql.arg(port.to_string()).arg("-c");
            psql.arg("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'");
            if run(&mut psql)?.trim() == wanted {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let message = format!("the replicas do not follow the primary within {PATIENCE:?}");
                return Err(Error::new(ErrorKind::Setup, message));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn name(n: usize) -> String {
    if n == 0 { "primary".into() } else { format!("replica-{n}") }
}

/// Addresses that nobody uses now, all different.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let all: std::io::Result<Vec<TcpListener>> = listeners.collect();
    let addresses = all.and_then(|all| all.iter().map(TcpListener::local_addr).collect());
    addresses.map_err(|error| {
        Error::new(ErrorKind::Setup, "there are no free ports on 127.0.0.1").with_source(error)
    })
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, Failure> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

#[async_trait]
impl Db for PostgresCluster {
    async fn start(&self) -> Result<Vec<Node>, Failure> {
        let machine = Machine::find()?;
        let (this, of) = (self.clone(), machine.clone());
        blocking(move || this.init(&of)).await?;
        self.processes.start(&name(0), self.process(&machine, 0)).await?;
        for n in 1..self.addresses.len() {
            let (this, of) = (self.clone(), machine.clone());
            blocking(move || this.copy(&of, n)).await?;
            self.processes.start(&name(n), self.process(&machine, n)).await?;
        }
        let this = self.clone();
        blocking(move || this.followed(&machine)).await?;
        Ok(self.nodes())
    }

    async fn stop(&self) -> Result<(), Failure> {
        let mut stopped = Ok(());
        let running = self.processes.names();
        for server in self.names().into_iter().rev().filter(|name| running.contains(name)) {
            stopped = stopped.and(self.processes.stop(&server, PATIENCE).await);
        }
        stopped?;
        let directory = self.directory.clone();
        blocking(move || machine::remove(&directory)).await
    }

    async fn logs(&self) -> Vec<(String, String)> {
        let tail = |path: &Path| {
            let text = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_BYTES)..]).into_owned()
        };
        (0..self.addresses.len()).map(|n| (name(n), tail(&self.log(n)))).collect()
    }
}
