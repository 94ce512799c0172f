//! Ten workloads on PostgreSQL, or whatever speaks its protocol and SQL.
//!
//! | name | operations | checked |
//! |---|---|---|
//! | `register` | `read`, `write` of one of several keys | linearizable |
//! | `cas` | the same and compare-and-set, in one statement | linearizable |
//! | `bank` | transfers between accounts, reads of all | the sum never changes |
//! | `set` | inserts, reads of all | what was added stays |
//! | `append` | transactions that append to lists and read them | the isolation level |
//! | `rw` | transactions that write and read registers | the isolation level |
//! | `queue` | a FIFO queue behind a table lock | linearizable |
//! | `counter` | increments and reads | every read is within its bounds |
//! | `long-fork` | single writes, reads of groups one key after the other | two reads agree on what came first |
//! | `monotonic` | increments that return the value, reads | no process sees the value fall |
//!
//! The first node must be the primary. Writes always go there. With [`Reads::Replica`] whatever only
//! reads goes to the other nodes: PostgreSQL does not promise that they are up to date, and the
//! checkers find that out.
//!
//! # What counts as certain
//!
//! A client here says `fail` only where nothing can have happened: no connection was had, the server
//! answered with class 40 (rolled back; but not 40003, which means unknown), or a transaction ended
//! before COMMIT was sent. An error of COMMIT itself, or of a statement that commits by itself, is
//! `info`. Nothing is ever retried.

mod connection;
mod generators;
mod operations;
mod tables;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::checkers::{Bank, Counter, LongFork, Monotonic, SetFull};
use crate::error::{Error, ErrorKind, Result};
use crate::generator::Generator;
use crate::linear::{Fifo, Linearizability, Register};
use crate::runner::{Client, Failure, Node, Session, Workload};
use crate::txn::{self, Level, ListAppend, RwRegister};
use crate::value::Value;
use crate::verdict::Checker;

use connection::PgClient;
use tables::Tables;

/// Which of the workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `register`
    Register,
    /// `cas`
    Cas,
    /// `bank`
    Bank,
    /// `set`
    Set,
    /// `append`
    Append,
    /// `rw`
    Rw,
    /// `queue`
    Queue,
    /// `counter`
    Counter,
    /// `long-fork`
    LongFork,
    /// `monotonic`
    Monotonic,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Register,
        Self::Cas,
        Self::Bank,
        Self::Set,
        Self::Append,
        Self::Rw,
        Self::Queue,
        Self::Counter,
        Self::LongFork,
        Self::Monotonic,
    ];

    /// The name, as in the table above.
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Cas => "cas",
            Self::Bank => "bank",
            Self::Set => "set",
            Self::Append => "append",
            Self::Rw => "rw",
            Self::Queue => "queue",
            Self::Counter => "counter",
            Self::LongFork => "long-fork",
            Self::Monotonic => "monotonic",
        }
    }

    /// One sentence on what it does and what is checked.
    pub fn description(self) -> &'static str {
        match self {
            Self::Register => "Reads and writes of keyed registers; linearizable.",
            Self::Cas => "Reads, writes and compare-and-set of keyed registers; linearizable.",
            Self::Bank => "Transfers between accounts; the sum of all balances never changes.",
            Self::Set => "Inserts into a set and reads of all of it; what was added stays.",
            Self::Append => "Transactions that append to lists and read them; the isolation level.",
            Self::Rw => "Transactions that write and read registers; the isolation level.",
            Self::Queue => "A first-in-first-out queue behind a table lock; linearizable.",
            Self::Counter => "Increments and reads of one counter; reads are within their bounds.",
            Self::LongFork => "Single writes and reads of groups; two reads agree on the order.",
            Self::Monotonic => "A number that is only raised; no process sees it fall.",
        }
    }

    /// The workload with this name; underscores are as good as hyphens.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with all names.
    pub fn parse(name: &str) -> Result<Self> {
        let wanted = name.trim().to_ascii_lowercase().replace('_', "-");
        Self::ALL.into_iter().find(|kind| kind.name() == wanted).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
            let message = format!("there is no workload {name}; there are {}", names.join(", "));
            Error::new(ErrorKind::Unsupported, message)
        })
    }
}

/// PostgreSQL's isolation levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isolation {
    /// `READ COMMITTED`
    ReadCommitted,
    /// `REPEATABLE READ`, which is snapshot isolation.
    RepeatableRead,
    /// `SERIALIZABLE`
    #[default]
    Serializable,
}

impl Isolation {
    /// The name, with hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read-committed",
            Self::RepeatableRead => "repeatable-read",
            Self::Serializable => "serializable",
        }
    }

    /// The level with this name, with hyphens, underscores or spaces.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with all names.
    pub fn parse(name: &str) -> Result<Self> {
        let wanted = name.trim().to_ascii_lowercase().replace(['_', ' '], "-");
        let all = [Self::ReadCommitted, Self::RepeatableRead, Self::Serializable];
        all.into_iter().find(|level| level.name() == wanted).ok_or_else(|| {
            let message = format!(
                "there is no isolation level {name}; there are read-committed, repeatable-read, \
                 serializable"
            );
            Error::new(ErrorKind::Unsupported, message)
        })
    }

    fn sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }

    /// What PostgreSQL promises under this name.
    fn promises(self) -> Level {
        match self {
            Self::ReadCommitted => Level::ReadCommitted,
            Self::RepeatableRead => Level::SnapshotIsolation,
            Self::Serializable => Level::Serializable,
        }
    }
}

/// Where operations go that only read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reads {
    /// To the first node.
    #[default]
    Primary,
    /// To the other nodes, clients spread over them.
    Replica,
}

/// How a workload uses the database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Of all transactions, those of single statements too.
    pub isolation: Isolation,
    /// Where reads go.
    pub reads: Reads,
    /// The level that `append` and `rw` are held to; without it, what PostgreSQL promises.
    pub level: Option<Level>,
    /// What the tables' names begin with: lower case letters, digits and underscores, 40 at most.
    /// Without it, something new each time.
    pub prefix: Option<String>,
    /// How many keys are in use at once. Few keys, many conflicts.
    pub keys: u32,
    /// How long a connection may sit in a transaction before the server ends it: what a client left
    /// behind a partition holds locks until then.
    pub idle_in_transaction: Duration,
}

impl Default for Options {
    /// SERIALIZABLE, reads on the primary, 5 keys, 10 s.
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            reads: Reads::default(),
            level: None,
            prefix: None,
            keys: 5,
            idle_in_transaction: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// The same with an isolation level.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// The same with another place to read.
    #[must_use]
    pub fn reads(mut self, reads: Reads) -> Self {
        self.reads = reads;
        self
    }

    /// The same, held to a level.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// The same with another number of keys.
    #[must_use]
    pub fn keys(mut self, keys: u32) -> Self {
        self.keys = keys;
        self
    }
}

/// A workload on PostgreSQL.
#[derive(Clone, Debug)]
pub struct Postgres {
    kind: Kind,
    options: Options,
    tables: Tables,
    nodes: Arc<OnceLock<Vec<Node>>>,
}

impl Postgres {
    /// `kind` with `options`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTest`] for a prefix that is no name, and for no keys.
    pub fn new(kind: Kind, options: Options) -> Result<Self> {
        let prefix = match &options.prefix {
            Some(prefix) => prefix.clone(),
            None => {
                let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
                format!("jepsen_{nanos:x}_{:x}", std::process::id())
            }
        };
        let invalid = |message| Err(Error::new(ErrorKind::InvalidTest, message));
        let Some(tables) = Tables::new(&prefix) else {
            return invalid(format!(
                "the prefix {prefix:?} must be 1 to 40 lower case letters, digits and underscores, \
                 a letter first"
            ));
        };
        if options.keys == 0 {
            return invalid("there are no keys to work on; 5 are usual".into());
        }
        Ok(Self { kind, options, tables, nodes: Arc::default() })
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The level that `append` and `rw` are held to.
    fn level(&self) -> Level {
        self.options.level.unwrap_or_else(|| self.options.isolation.promises())
    }
}

#[async_trait]
impl Workload for Postgres {
    fn name(&self) -> String {
        self.kind.name().into()
    }

    async fn setup(&self, nodes: &[Node]) -> Result<(), Failure> {
        if self.options.reads == Reads::Replica && nodes.len() < 2 {
            return Err("reads are to go to a replica, and there is only one node".into());
        }
        let nodes = self.nodes.get_or_init(|| nodes.to_vec());
        self.tables.create(self.kind, nodes, &self.options).await
    }

    async fn open(&self, session: &Session) -> Result<Box<dyn Client>, Failure> {
        let nodes = self.nodes.get().map(Vec::as_slice).unwrap_or_default();
        let primary = nodes.first().ok_or("the workload was not set up")?;
        let replicas = &nodes[1..];
        let reads = match self.options.reads {
            Reads::Replica => replicas.get(session.thread % replicas.len().max(1)),
            Reads::Primary => None,
        };
        let mut client = PgClient::new(self.kind, &self.options, &self.tables, primary, reads);
        client.connect().await?;
        Ok(Box::new(client))
    }

    fn generator(&self) -> Box<dyn Generator> {
        generators::load(self.kind, i64::from(self.options.keys))
    }

    fn final_generator(&self) -> Option<Box<dyn Generator>> {
        generators::last(self.kind)
    }

    fn checker(&self) -> Box<dyn Checker + Send> {
        let fresh = self.options.reads == Reads::Primary;
        match self.kind {
            Kind::Register | Kind::Cas => Box::new(Linearizability::new(Register::new(Value::Nil))),
            Kind::Bank => Box::new(Bank::new().total(tables::BANK_TOTAL)),
            Kind::Set if fresh => Box::new(SetFull::new().linearizable()),
            Kind::Set => Box::new(SetFull::new()),
            Kind::Append => Box::new(ListAppend::new(txn::Options::default().level(self.level()))),
            Kind::Rw => Box::new(RwRegister::new(txn::Options::default().level(self.level()))),
            Kind::Queue => Box::new(Linearizability::new(Fifo::default())),
            Kind::Counter => Box::new(Counter::new()),
            Kind::LongFork => Box::new(LongFork::new()),
            Kind::Monotonic if fresh => Box::new(Monotonic::new().real_time()),
            Kind::Monotonic => Box::new(Monotonic::new()),
        }
    }

    async fn teardown(&self, nodes: &[Node]) -> Result<(), Failure> {
        self.tables.drop(self.kind, nodes).await
    }
}
