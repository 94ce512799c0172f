//! A network of proxies in this process: partitions, slow and lossy links, without root.
//!
//! For each pair of nodes of which one connects to the other, the test makes a link:
//! [`ProxyNetwork::link`] gives an address of `127.0.0.1` that stands for the other node. Bytes from
//! `a` to `b` are one flow, whoever of the two has connected, and each flow has its
//! [`Rules`].
//!
//! # What is like a real network, and what is not
//!
//! A blocked flow holds bytes, and passes them on after the heal: so does TCP, which sends them again.
//! A request whose sender has long given up can so arrive much later. Connections live on, unless
//! one of the two gives up. What differs: a connection through a partition is accepted by the proxy
//! at once, where a real one would wait for its answer; the target is only reached after the heal,
//! and not at all if the client left before. Packets can't be reordered or doubled, because TCP hides
//! that. UDP does not go through here; [`Namespaces`](super::Namespaces) are for that.
//!
//! A proxy lives and dies with the process: when that is killed, all its connections are reset, and
//! nothing is left to undo.

mod faults;
mod link;
mod probe;
mod pump;
mod rules;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use rules::Rules;

use self::link::Link;
use self::probe::Seen;
use self::rules::Flow;
use super::journal::{Journal, Ticket};
use super::partition::{self, Blocked};
use super::undo::Undo;
use crate::error::{Error, ErrorKind, Result};

/// The proxies of a test, and a [`Nemesis`](super::Nemesis) with these faults:
///
/// | kind | effect | parameters |
/// |---|---|---|
/// | `partition` | nodes don't hear each other | `shape`, `seed` or `sides`, see [`Shape`](super::Shape) |
/// | `delay` | bytes arrive later | `ms` (100), `jitter_ms` (0) |
/// | `loss` | chunks are lost and sent again, see [`Rules`] | `probability` in percent (10) |
/// | `bandwidth` | a limit | `bytes_per_second` (65,536) |
/// | `disconnect` | connections are reset, once | none |
/// | `refuse` | connections are reset, and new ones too | none |
/// | `eat-answer` | the next request with a text in it arrives, its answer does not, and the connection is reset | `when` (`COMMIT`), `times` (1) |
/// | `drop-request` | it does not arrive, and the connection is reset | `when` (`COMMIT`), `times` (1) |
///
/// Targets of all but `partition` are nodes, which means all that they send or get, or `a->b`, which
/// means what `a` sends to `b`; for faults of connections, those that `a` makes to `b`. `eat-answer`
/// and `drop-request` wait for their occasion: if it did not come until the heal, that is not
/// verified. They read what is sent, so they can't see into TLS.
#[derive(Debug)]
pub struct ProxyNetwork {
    state: Mutex<State>,
    seed: u64,
    echo: SocketAddr,
    stop: CancellationToken,
    journal: Arc<Journal>,
    written: Mutex<Option<Ticket>>,
    _stop_on_drop: DropGuard,
}

#[derive(Debug, Default)]
struct State {
    flows: BTreeMap<(String, String), Arc<Flow>>,
    links: BTreeMap<(String, String), Arc<Link>>,
}

impl ProxyNetwork {
    /// A network without links. Jitter and loss come from the seed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when no port of 127.0.0.1 can be listened on.
    pub async fn new(journal: Arc<Journal>, seed: u64) -> Result<Arc<Self>> {
        let (listener, echo) = listen().await?;
        let stop = CancellationToken::new();
        tokio::spawn(probe::echo(listener, stop.clone()));
        Ok(Arc::new(Self {
            state: Mutex::default(),
            seed,
            echo,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            journal,
            written: Mutex::default(),
        }))
    }

    /// The address on 127.0.0.1 at which node `from` reaches node `to`, which listens at `target`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] when there is this link already, or the names make none.
    pub async fn link(&self, from: &str, to: &str, target: SocketAddr) -> Result<SocketAddr> {
        let bad = |name: &str| name.is_empty() || name.contains("->");
        if from == to || bad(from) || bad(to) {
            let message = format!("there can be no link from '{from}' to '{to}'");
            return Err(Error::new(ErrorKind::InvalidFault, message));
        }
        let (listener, address) = listen().await?;
        let key = (from.to_owned(), to.to_owned());
        let link = {
            let mut state = self.lock();
            if state.links.contains_key(&key) {
                let message = format!("there is a link from '{from}' to '{to}' already");
                return Err(Error::new(ErrorKind::InvalidFault, message));
            }
            let flows = (state.flow(self.seed, from, to), state.flow(self.seed, to, from));
            let link = Link::new((from, to), address, target, self.echo, flows);
            let link = Arc::new(link);
            state.links.insert(key, Arc::clone(&link));
            link
        };
        tokio::spawn(link.serve(listener, self.stop.clone()));
        Ok(address)
    }

    /// The link leads to another address from now on: a node was started again elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidFault`] when there is no such link; so do all below.
    pub fn set_target(&self, from: &str, to: &str, target: SocketAddr) -> Result<()> {
        self.get(from, to)?.set_target(target);
        Ok(())
    }

    /// The address of a link.
    ///
    /// # Errors
    /// See [`set_target`](Self::set_target).
    pub fn address(&self, from: &str, to: &str) -> Result<SocketAddr> {
        Ok(self.get(from, to)?.address)
    }

    /// The nodes, sorted: all names that links have.
    pub fn nodes(&self) -> Vec<String> {
        let state = self.lock();
        let mut nodes: Vec<_> = state.flows.keys().map(|(from, _)| from.clone()).collect();
        nodes.dedup();
        nodes
    }

    /// The pairs of nodes that have a link, from who connects to whom.
    pub fn links(&self) -> Vec<(String, String)> {
        self.lock().links.keys().cloned().collect()
    }

    /// What happens now to bytes from one node to another.
    ///
    /// # Errors
    /// See [`set_target`](Self::set_target).
    pub fn rules(&self, from: &str, to: &str) -> Result<Rules> {
        let state = self.lock();
        let flow = state.flows.get(&(from.to_owned(), to.to_owned()));
        flow.map(|flow| flow.rules()).ok_or_else(|| no_link(from, to))
    }

    /// How often `eat-answer` and `drop-request` have happened on a link.
    ///
    /// # Errors
    /// See [`set_target`](Self::set_target).
    pub fn sprung(&self, from: &str, to: &str) -> Result<u64> {
        Ok(self.get(from, to)?.traps.sprung.load(Ordering::SeqCst))
    }

    fn get(&self, from: &str, to: &str) -> Result<Arc<Link>> {
        let state = self.lock();
        let link = state.links.get(&(from.to_owned(), to.to_owned()));
        link.cloned().ok_or_else(|| no_link(from, to))
    }

    /// Blocks these flows, and no others.
    fn block(&self, blocked: &Blocked) -> Result<()> {
        self.write_down("proxies in this process block")?;
        for (pair, flow) in &self.lock().flows {
            flow.change(|rules| rules.blocked = blocked.contains(pair));
        }
        Ok(())
    }

    /// A proxy needs no undoing, but the next start should say what it was.
    fn write_down(&self, what: &str) -> Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.is_none() {
            let undo = Undo::EndsWithProcess { what: what.to_owned() };
            *written = Some(self.journal.make(undo, || Ok(()))?.0);
        }
        Ok(())
    }

    fn cross_out(&self) -> Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.take().map_or(Ok(()), |ticket| self.journal.forget(ticket))
    }

    /// A link whose flows include this one, and whether the flow is its forward one.
    fn link_of(&self, from: &str, to: &str) -> Option<(Arc<Link>, bool)> {
        let state = self.lock();
        let (ahead, back) = ((from.to_owned(), to.to_owned()), (to.to_owned(), from.to_owned()));
        let forward = state.links.get(&ahead).map(|link| (Arc::clone(link), true));
        forward.or_else(|| state.links.get(&back).map(|link| (Arc::clone(link), false)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn flow(&mut self, seed: u64, from: &str, to: &str) -> Arc<Flow> {
        let next = seed.wrapping_add(self.flows.len() as u64);
        let flow = self.flows.entry((from.to_owned(), to.to_owned()));
        Arc::clone(flow.or_insert_with(|| Arc::new(Flow::new(next))))
    }
}

async fn listen() -> Result<(TcpListener, SocketAddr)> {
    let failed = |error: std::io::Error| {
        let message = "a proxy can't listen on 127.0.0.1";
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn no_link(from: &str, to: &str) -> Error {
    Error::new(ErrorKind::InvalidFault, format!("there is no link between '{from}' and '{to}'"))
}
