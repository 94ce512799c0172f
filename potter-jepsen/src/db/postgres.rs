//! A private PostgreSQL: a primary and its streaming replicas, on this machine.
//!
//! All of it runs as processes of a [`Processes`] registry, and every connection, of clients to
//! nodes and of replicas to the primary, goes through a [`ProxyNetwork`]. So everything can be
//! killed, frozen and cut off, and nothing of it is left behind on any exit.
//!
//! | node | what it is |
//! |---|---|
//! | `client` | whoever connects to the URLs of [`PostgresCluster::nodes`] |
//! | `postgres-primary` | the first node |
//! | `postgres-replica`, `postgres-replica-2`, … | hot standbys that follow it asynchronously |

mod disk;
mod install;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::disk::DataDisk;
use self::install::{Install, ServerUser};
use crate::error::{Error, ErrorKind, Result};
use crate::nemesis::{
    Clocks, Composed, Journal, Nemesis, ProcessCommand, Processes, ProxyNetwork, Ready, Stop,
    blocking, compose,
};
use crate::runner::{Db, Failure, Node};

const PRIMARY: &str = "postgres-primary";
const CLIENT: &str = "client";
const REPLICAS_MAX: usize = 8;
/// How long a server gets for an orderly end.
const PATIENCE: Duration = Duration::from_secs(5);
const LOG_BYTES_MAX: u64 = 256 * 1024;

/// What the servers are like.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// How many replicas: 1 if not said, 8 at most.
    pub replicas: usize,
    /// Their clocks can be skewed. Needs `libfaketime`.
    pub clocks: bool,
    /// The primary's data is on a disk of so many bytes (at least 256 MiB) that can be filled. It is
    /// a file system in memory: what is on it takes memory, and a full one takes all of it. Needs
    /// root.
    pub disk: Option<u64>,
    /// More settings of `postgresql.conf`, for all nodes.
    pub settings: Vec<(String, String)>,
    /// Seed of the network's jitter and losses.
    pub seed: u64,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { replicas: 1, clocks: false, disk: None, settings: Vec::new(), seed: 0 }
    }
}

impl PostgresOptions {
    /// The same with so many replicas.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// The same with clocks that can be skewed.
    #[must_use]
    pub fn clocks(mut self) -> Self {
        self.clocks = true;
        self
    }

    /// The same with a disk of so many bytes for the primary's data; see [`Self::disk`].
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// The same with one more setting.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A primary and its replicas. What is not shut down in order ends with the journal: the servers are
/// killed and their data is deleted. As a [`Db`] it is started and stopped by a test; or call
/// [`launch`](Self::launch) and [`shut_down`](Self::shut_down).
#[derive(Debug)]
pub struct PostgresCluster {
    directory: PathBuf,
    install: Install,
    options: PostgresOptions,
    processes: Arc<Processes>,
    network: Arc<ProxyNetwork>,
    clocks: Option<Arc<Clocks>>,
    disk: Option<Arc<DataDisk>>,
    nodes: Mutex<Vec<Node>>,
}

impl PostgresCluster {
    /// A cluster that keeps its data in `directory`, which is made and must not exist, and is deleted
    /// at the end. As root the servers run as the user `postgres`, or `nobody`, who must be able to
    /// get there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when PostgreSQL is not installed or a disk can't be mounted,
    /// [`ErrorKind::InvalidTest`] for more than 8 replicas or too small a disk,
    /// [`ErrorKind::Setup`] when the directory can't be made.
    pub async fn new(
        journal: Arc<Journal>,
        directory: impl Into<PathBuf>,
        options: PostgresOptions,
    ) -> Result<Self> {
        if options.replicas > REPLICAS_MAX {
            let message = format!("{} replicas; {REPLICAS_MAX} at most", options.replicas);
            return Err(Error::new(ErrorKind::InvalidTest, message));
        }
        options.disk.map_or(Ok(()), disk::check_size)?;
        let install = Install::find()?;
        let directory = install::make_directory(&journal, &directory.into(), install.user)?;
        let network = ProxyNetwork::new(Arc::clone(&journal), options.seed).await?;
        let processes = Arc::new(Processes::new(Arc::clone(&journal)));
        let clocks = options.clocks.then(|| {
            Arc::new(Clocks::new(Arc::clone(&journal), Arc::clone(&processes), &directory))
        });
        let disk = options.disk.map(|bytes| {
            DataDisk::new(&journal, &processes, &directory.join("disk"), bytes).map(Arc::new)
        });
        let disk = disk.transpose().inspect_err(|_| _ = install::delete_directory(&directory))?;
        let nodes = Mutex::default();
        Ok(Self { directory, install, options, processes, network, clocks, disk, nodes })
    }

    /// The nodes that clients use, the primary first; none before it was launched.
    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its processes: `postgres-primary`, `postgres-replica`, ….
    pub fn processes(&self) -> &Arc<Processes> {
        &self.processes
    }

    /// The network between its nodes and clients.
    pub fn network(&self) -> &Arc<ProxyNetwork> {
        &self.network
    }

    /// The clocks of its processes, if they can be skewed.
    pub fn clocks(&self) -> Option<&Arc<Clocks>> {
        self.clocks.as_ref()
    }

    /// Everything that can be done to it: faults of [`Processes`], of [`ProxyNetwork`], of [`Clocks`]
    /// if it has them, and `disk-full` if the primary has a disk for it.
    ///
    /// # Errors
    /// None that is expected: no two of them make faults of the same kind.
    pub fn nemesis(&self) -> Result<Arc<Composed>> {
        let mut parts: Vec<Arc<dyn Nemesis>> =
            vec![Arc::clone(&self.processes) as _, Arc::clone(&self.network) as _];
        if let Some(clocks) = &self.clocks {
            parts.push(Arc::clone(clocks) as _);
        }
        if let Some(disk) = &self.disk {
            parts.push(Arc::clone(disk) as _);
        }
        compose(parts).map(Arc::new)
    }

    /// Starts the primary, copies it to the replicas and starts those, and waits until all answer.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] or [`ErrorKind::Fault`] with what the server said.
    pub async fn launch(&self) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        let primary = self.disk.as_ref().map_or(&*self.directory, |disk| disk.path()).join(PRIMARY);
        self.install.initdb(&primary, self.disk.as_ref().map(|_| disk::WAL_SEGMENT)).await?;
        if self.disk.is_some() {
            self.install.thin_log(&primary).await?;
        }
        let primary_at = self.serve(PRIMARY, &primary).await?;
        nodes.push(self.client_node(PRIMARY, primary_at).await?);
        for number in 1..=self.options.replicas {
            let name = match number {
                1 => "postgres-replica".to_owned(),
                more => format!("postgres-replica-{more}"),
            };
            let upstream = self.network.link(&name, PRIMARY, primary_at).await?;
            let directory = self.directory.join(&name);
            self.install.copy(&directory, upstream, &name).await?;
            let at = self.serve(&name, &directory).await?;
            nodes.push(self.client_node(&name, at).await?);
        }
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&nodes);
        Ok(nodes)
    }

    /// Stops all servers, the replicas first, and deletes their data.
    ///
    /// # Errors
    /// [`ErrorKind::Fault`] when one does not end, even if it is killed.
    pub async fn shut_down(&self) -> Result<()> {
        self.network.heal().await?;
        for name in self.processes.names().into_iter().rev() {
            self.processes.stop(&name, PATIENCE).await?;
        }
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(disk) = self.disk.clone() {
            blocking(move || disk.remove()).await?;
        }
        install::delete_directory(&self.directory)
    }

    /// The end of each server's log: (node, text).
    pub fn last_logs(&self) -> Vec<(String, String)> {
        let names = self.processes.names();
        names.into_iter().map(|name| (name.clone(), end_of(&self.log(&name)))).collect()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    async fn client_node(&self, name: &str, at: SocketAddr) -> Result<Node> {
        let address = self.network.link(CLIENT, name, at).await?;
        let url = format!("postgres://postgres@{address}/postgres?sslmode=disable");
        Ok(Node::new(name, url))
    }

    /// Starts a server on a free port. Between the choice of the port and its use another program
    /// may take it: then another is tried.
    async fn serve(&self, name: &str, data: &Path) -> Result<SocketAddr> {
        let mut tries = 0;
        loop {
            let port = free_port()?;
            let mut command = self.command(name, data, port);
            if let Some(clocks) = &self.clocks {
                // A second try has the clock already.
                command = match tries {
                    0 => clocks.wrap(name, command)?,
                    _ => clocks.wrap_again(name, command)?,
                };
            }
            tries += 1;
            match self.processes.start(name, command).await {
                Ok(()) => return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
                Err(error) if tries < 3 && end_of(&self.log(name)).contains("could not bind") => {
                    tracing::info!(%error, name, port, "the port was taken: another one");
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn command(&self, name: &str, data: &Path, port: u16) -> ProcessCommand {
        let mut command = ProcessCommand::new(self.install.program("postgres"));
        command = command.arg("-D").arg(data).directory(data).output(self.log(name));
        let own = [
            ("port", port.to_string()),
            ("listen_addresses", "127.0.0.1".into()),
            ("unix_socket_directories", String::new()),
            ("cluster_name", name.into()),
            ("max_connections", "300".into()),
            ("max_prepared_transactions", "64".into()),
            ("max_wal_senders", "20".into()),
            ("max_replication_slots", "20".into()),
            ("wal_level", "logical".into()),
            // A replica that was cut off comes back soon, and finds what it missed.
            ("wal_keep_size", "512MB".into()),
            ("wal_retrieve_retry_interval", "200ms".into()),
            ("wal_receiver_timeout", "5s".into()),
            ("wal_sender_timeout", "5s".into()),
            ("log_line_prefix", "%m [%p] ".into()),
        ];
        let on_disk = self.disk.iter().flat_map(|_| disk::SETTINGS);
        let on_disk = on_disk.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = self.options.settings.iter().cloned();
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        // The last one that sets a name counts.
        for (name, value) in own.chain(on_disk).chain(settings) {
            command = command.arg("-c").arg(format!("{name}={value}"));
        }
        if let Some(ServerUser { user, group }) = self.install.user {
            command = command.user(user, group);
        }
        let ready = self.install.ready(port);
        command.ready(Ready::Command(ready)).stop(Stop::Interrupt)
    }
}

/// A port that nobody uses now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let port = listener.and_then(|listener| listener.local_addr()).map(|address| address.port());
    port.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "no port of 127.0.0.1 is free").with_source(error)
    })
}

/// The last part of a log.
fn end_of(path: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

#[async_trait]
impl Db for PostgresCluster {
    async fn start(&self) -> Result<Vec<Node>, Failure> {
        Ok(self.launch().await?)
    }

    async fn stop(&self) -> Result<(), Failure> {
        Ok(self.shut_down().await?)
    }

    async fn logs(&self) -> Vec<(String, String)> {
        self.last_logs()
    }
}
