//! Network namespaces that the test makes itself, with a switch between them: partitions of real
//! packets, as root.
//!
//! Each node is a namespace with one interface; a namespace of its own is the switch. The machine's
//! own interfaces, routes and rules are not touched. Packets are dropped by `iptables` where they
//! arrive, without a word to the sender (a route of the type `blackhole` would tell it at once, which
//! no partition does).

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream as StdStream, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::journal::{Journal, Ticket};
use super::params::Params;
use super::partition::{self, Blocked};
use super::process::ProcessCommand;
use super::undo::{SEEN_WITHIN, Undo, command, in_namespace};
use super::{Fault, Healed, Injected, Nemesis, Probe, blocking, no_params, no_such_fault};
use crate::error::{Error, ErrorKind, Result};

const CHAIN: &str = "POTTER";
const NODES_MAX: usize = 100;
const FAULTS: [&str; 2] = ["partition", "loss"];
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Nodes with a network of their own; as a [`Nemesis`] it makes these faults:
///
/// | kind | effect | parameters |
/// |---|---|---|
/// | `partition` | nodes don't hear each other | `shape`, `seed` or `sides`, see [`Shape`](super::Shape) |
/// | `loss` | packets to the targets (all nodes if not said) are lost | `probability` in percent (10) |
///
/// A later fault takes the place of an earlier one of either kind. Delay needs `netem`, which not
/// every kernel has: [`ProxyNetwork`](super::ProxyNetwork) has it.
///
/// Needs root, and the programs `ip` (Debian: iproute2) and `iptables`.
#[derive(Debug)]
pub struct Namespaces {
    journal: Arc<Journal>,
    nodes: BTreeMap<String, Node>,
    made: Vec<Ticket>,
    rules: Arc<Mutex<Vec<Ticket>>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

#[derive(Clone, Debug)]
struct Node {
    namespace: String,
    address: Ipv4Addr,
}

impl Namespaces {
    /// Whether this machine can have them.
    pub async fn available() -> Probe {
        let tried = blocking(|| {
            for (words, package) in [(["ip", "-V"], "iproute2"), (["iptables", "-V"], "iptables")] {
                command(&words).map_err(|error| {
                    let message = format!("{error}; install it (apt-get install {package})");
                    Error::new(ErrorKind::Unavailable, message)
                })?;
            }
            let name = format!("pj{}-probe", std::process::id());
            command(&["ip", "netns", "add", &name])?;
            let listed = in_namespace(&name, &["iptables", "-w", "-L", "INPUT"]);
            command(&["ip", "netns", "del", &name])?;
            listed.map(drop)
        });
        match tried.await {
            Ok(()) => Probe::Available,
            Err(error) => Probe::Unavailable(format!("{error} (network namespaces take root)")),
        }
    }

    /// Makes a namespace for each node, all on one switch.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when they can't be had here, [`ErrorKind::InvalidFault`] for no
    /// names, too many (100) or the same name twice.
    pub async fn create<I, S>(journal: Arc<Journal>, names: I) -> Result<Arc<Self>>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self::available().await.require("namespaces")?;
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let mut nodes = BTreeMap::new();
        let id = unique();
        for (number, name) in (1_u8..).zip(&names) {
            let namespace = format!("{id}-{number}");
            let node = Node { namespace, address: Ipv4Addr::new(198, 18, 0, number) };
            nodes.insert(name.clone(), node);
        }
        if nodes.len() != names.len() || names.is_empty() || names.len() > NODES_MAX {
            let message = format!("from 1 to {NODES_MAX} different names are needed");
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        let (own, built) = (Arc::clone(&journal), nodes.clone());
        let made = blocking(move || {
            let switch = format!("{id}-switch");
            let mut made = Vec::new();
            let result = build(&own, &switch, &built, &mut made);
            if result.is_err() {
                made.drain(..).rev().try_for_each(|ticket| own.undo(ticket))?;
            }
            result.map(|()| made)
        })
        .await?;
        let stop = CancellationToken::new();
        let _stop_on_drop = stop.clone().drop_guard();
        let rules = Arc::default();
        Ok(Arc::new(Self { journal, nodes, made, rules, stop, _stop_on_drop }))
    }

    /// The nodes, sorted.
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// The address that other nodes reach it at.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] when there is no such node; so do all below.
    pub fn address(&self, node: &str) -> Result<Ipv4Addr> {
        Ok(self.get(node)?.address)
    }

    /// The same command, to run on this node.
    ///
    /// # Errors
    /// See [`address`](Self::address).
    pub fn inside(&self, node: &str, command: ProcessCommand) -> Result<ProcessCommand> {
        Ok(command.prefix(&["ip", "netns", "exec", &self.get(node)?.namespace]))
    }

    /// An address on this machine's 127.0.0.1: whoever connects to it, is on node `from` and reaches
    /// a port of node `to`. For clients that run in the test's own process.
    ///
    /// # Errors
    /// See [`address`](Self::address); [`ErrorKind::Unavailable`] when no port is free.
    pub async fn forward(&self, from: &str, to: &str, port: u16) -> Result<SocketAddr> {
        let namespace = self.get(from)?.namespace.clone();
        let target = SocketAddrV4::new(self.get(to)?.address, port);
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Unavailable, "no port of 127.0.0.1 is free").with_source(error)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tokio::spawn(forward(listener, namespace, target, self.stop.clone()));
        Ok(address)
    }

    fn get(&self, node: &str) -> Result<&Node> {
        partition::known(node, &self.nodes())?;
        self.nodes.get(node).ok_or_else(|| invalid(format!("there is no node '{node}'")))
    }

    /// Puts rules in place of those before; each is a pair of nodes and more words for `iptables`.
    async fn set_rules(&self, rules: Vec<((String, String), Vec<String>)>) -> Result<()> {
        let (journal, nodes) = (Arc::clone(&self.journal), self.nodes.clone());
        let tickets = Arc::clone(&self.rules);
        blocking(move || {
            let mut tickets = tickets.lock().unwrap_or_else(PoisonError::into_inner);
            flush(&journal, &mut tickets)?;
            let mut by_node: BTreeMap<&str, Vec<_>> = BTreeMap::new();
            for ((from, to), more) in &rules {
                by_node.entry(to).or_default().push((from, more));
            }
            for (to, rules) in by_node {
                let namespace = nodes[to].namespace.clone();
                let undo = Undo::FlushRules { namespace, chain: CHAIN.to_owned() };
                let make = || {
                    for (from, more) in rules {
                        let source = nodes[from.as_str()].address.to_string();
                        let mut words = vec!["iptables", "-w", "-A", CHAIN, "-s", &source];
                        words.extend(more.iter().map(String::as_str));
                        words.extend(["-j", "DROP"]);
                        in_namespace(&nodes[to].namespace, &words)?;
                    }
                    Ok(())
                };
                // The ticket is kept before an error is passed on: half of the rules may be there.
                let mut ticket = None;
                let made = journal.make_stepwise(|write_down| {
                    ticket = Some(write_down(undo)?);
                    make()
                });
                tickets.extend(ticket);
                made?;
            }
            Ok(())
        })
        .await
    }

    /// Sends datagrams from one node to another until the system counts one as dropped, or one
    /// arrives and nothing may.
    async fn drops(&self, from: &str, to: &str, tries: usize) -> Result<bool> {
        let (from, to) = (self.get(from)?.clone(), self.get(to)?.clone());
        blocking(move || {
            let before = dropped(&to, &from)?;
            let target = to.address;
            for _ in 0..tries.div_ceil(100) {
                inside(&from.namespace, move || {
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                    (0..100).try_for_each(|_| socket.send_to(b"p", (target, 9)).map(drop))
                })?;
                if dropped(&to, &from)? > before {
                    return Ok(true);
                }
            }
            Ok(dropped(&to, &from)? > before)
        })
        .await
    }

    /// Whether a datagram gets from one node to another.
    async fn passes(&self, from: &str, to: &str) -> Result<bool> {
        let (from, to) = (self.get(from)?.clone(), self.get(to)?.clone());
        blocking(move || {
            let receiver = inside(&to.namespace, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
            let failed = |error| fault("no datagram can be received", error);
            let port = receiver.local_addr().map_err(failed)?.port();
            receiver.set_read_timeout(Some(Duration::from_millis(200))).map_err(failed)?;
            let sender = inside(&from.namespace, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
            let end = Instant::now() + SEEN_WITHIN;
            while Instant::now() < end {
                sender.send_to(b"p", (to.address, port)).map_err(failed)?;
                if receiver.recv_from(&mut [0; 8]).is_ok() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let rules = std::mem::take(&mut *self.rules.lock().unwrap_or_else(PoisonError::into_inner));
        for ticket in rules.into_iter().chain(self.made.iter().copied()).rev() {
            if let Err(error) = self.journal.undo(ticket) {
                tracing::error!(%error, "the journal's end tries again");
            }
        }
    }
}

/// A name that no other test on this machine has.
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("pj{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn build(
    journal: &Journal,
    switch: &str,
    nodes: &BTreeMap<String, Node>,
    made: &mut Vec<Ticket>,
) -> Result<()> {
    let mut add = |namespace: &str| {
        let undo = Undo::DeleteNamespace { namespace: namespace.to_owned() };
        let create = || command(&["ip", "netns", "add", namespace]);
        made.push(journal.make(undo, create)?.0);
        command(&["ip", "-n", namespace, "link", "set", "lo", "up"]).map(drop)
    };
    add(switch)?;
    command(&["ip", "-n", switch, "link", "add", "switch", "type", "bridge"])?;
    command(&["ip", "-n", switch, "link", "set", "switch", "up"])?;
    for (number, node) in (1..).zip(nodes.values()) {
        let (namespace, port) = (node.namespace.as_str(), format!("port{number}"));
        let address = format!("{}/24", node.address);
        add(namespace)?;
        let words = ["ip", "-n", switch, "link", "add", &port, "type", "veth", "peer", "name"];
        command(&[&words[..], &["eth0", "netns", namespace]].concat())?;
        command(&["ip", "-n", switch, "link", "set", &port, "master", "switch", "up"])?;
        command(&["ip", "-n", namespace, "addr", "add", &address, "dev", "eth0"])?;
        command(&["ip", "-n", namespace, "link", "set", "eth0", "up"])?;
        in_namespace(namespace, &["iptables", "-w", "-N", CHAIN])?;
        in_namespace(namespace, &["iptables", "-w", "-I", "INPUT", "-j", CHAIN])?;
    }
    Ok(())
}

fn flush(journal: &Journal, tickets: &mut Vec<Ticket>) -> Result<()> {
    while let Some(ticket) = tickets.last() {
        journal.undo(*ticket)?;
        tickets.pop();
    }
    Ok(())
}

/// How many packets from `from` the rules of `at` have dropped.
fn dropped(at: &Node, from: &Node) -> Result<u64> {
    let table = in_namespace(&at.namespace, &["iptables", "-w", "-nvxL", CHAIN])?;
    let source = from.address.to_string();
    let counts = table.lines().filter(|line| line.split_whitespace().any(|word| word == source));
    let count = |line: &str| line.split_whitespace().next()?.parse::<u64>().ok();
    Ok(counts.filter_map(count).sum())
}

/// Does something on a thread that is in a namespace. What it opens stays there.
#[cfg(target_os = "linux")]
fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd as _;
    let path = PathBuf::from("/run/netns").join(namespace);
    let thread = std::thread::spawn(move || {
        let file = std::fs::File::open(path)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    });
    let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
    ended.map_err(|error| fault(&format!("the network namespace {namespace}"), error))
}

#[cfg(not(target_os = "linux"))]
fn inside<T: Send + 'static>(
    namespace: &str,
    _work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let error = io::Error::new(io::ErrorKind::Unsupported, "only Linux has network namespaces");
    Err(fault(&format!("the network namespace {}", PathBuf::from(namespace).display()), error))
}

async fn forward(
    listener: TcpListener,
    namespace: String,
    target: SocketAddrV4,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((mut client, _)) = accepted else { continue };
        let (namespace, stop) = (namespace.clone(), stop.clone());
        tokio::spawn(async move {
            let connect = move || StdStream::connect_timeout(&target.into(), CONNECT_WITHIN);
            let server = blocking(move || inside(&namespace, connect)).await;
            let Some(mut server) = server.ok().and_then(to_tokio) else {
                _ = client.set_zero_linger();
                return;
            };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

fn to_tokio(stream: StdStream) -> Option<TcpStream> {
    stream.set_nonblocking(true).ok()?;
    stream.set_nodelay(true).ok()?;
    TcpStream::from_std(stream).ok()
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidFault, message)
}

fn fault(what: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Fault, format!("{what}: {error}")).with_source(error)
}

#[async_trait]
impl Nemesis for Namespaces {
    fn name(&self) -> &str {
        "namespaces"
    }

    fn faults(&self) -> Vec<String> {
        FAULTS.map(str::to_owned).into()
    }

    async fn probe(&self) -> Probe {
        Self::available().await
    }

    async fn inject(&self, fault: &Fault) -> Result<Injected> {
        let nodes = self.nodes();
        let (blocked, more, tries): (Blocked, Vec<String>, usize) = match fault.kind.as_str() {
            "partition" => (partition::blocked(fault, &nodes)?, Vec::new(), 100),
            "loss" => {
                no_params(fault, &["probability"])?;
                fault.targets.iter().try_for_each(|name| partition::known(name, &nodes))?;
                let percent = Params(fault).number("probability", 10, 1..=99)?;
                let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (from, to)));
                let meant = |to: &String| fault.targets.is_empty() || fault.targets.contains(to);
                let pairs = pairs.filter(|(from, to)| from != to && meant(to));
                let pairs = pairs.map(|(from, to)| (from.clone(), to.clone())).collect();
                let words = ["-m", "statistic", "--mode", "random", "--probability"];
                let mut words: Vec<_> = words.map(str::to_owned).into();
                words.push(format!("0.{percent:02}"));
                (pairs, words, 5_000)
            }
            _ => return Err(no_such_fault(self, fault)),
        };
        self.set_rules(blocked.iter().map(|pair| (pair.clone(), more.clone())).collect()).await?;
        let shown: Vec<_> = blocked.iter().map(|(from, to)| format!("{from}->{to}")).collect();
        for (from, to) in &blocked {
            if !self.drops(from, to, tries).await? {
                let detail = format!("no packet from {from} to {to} was dropped");
                return Ok(Injected::unverified(detail));
            }
        }
        Ok(Injected::verified(format!("packets were dropped on {}", shown.join(", "))))
    }

    async fn heal(&self) -> Result<Healed> {
        self.set_rules(Vec::new()).await?;
        let nodes = self.nodes();
        let pairs = nodes.iter().zip(nodes.iter().cycle().skip(1));
        // Around, each node sends once and receives once, and no rule is left anywhere.
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            if !self.passes(from, to).await? || !self.passes(to, from).await? {
                return Ok(Healed::unverified(format!("no packet gets from {from} to {to}")));
            }
        }
        Ok(Healed::verified(format!("packets pass between all {} nodes", nodes.len())))
    }
}
