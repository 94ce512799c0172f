//! One directed link: an address that stands for another node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::probe::{Held, Watcher};
use super::pump;
use super::rules::{Flow, Traps};

/// Connections through one link at a time at most; more are reset.
const CONNECTIONS_MAX: usize = 4_096;
/// How often a connection that waits for the end of a partition looks whether its client has left.
const LOOK: Duration = Duration::from_millis(20);

/// Whoever connects to `address` is node `from` and reaches node `to`.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) address: SocketAddr,
    pub(super) forward: Arc<Flow>,
    pub(super) backward: Arc<Flow>,
    pub(super) traps: Traps,
    /// New connections are reset.
    pub(super) refuse: AtomicBool,
    target: Mutex<SocketAddr>,
    echo: SocketAddr,
    connections: Mutex<HashMap<u64, CancellationToken>>,
    probes: Mutex<HashMap<SocketAddr, Watcher>>,
    next: AtomicU64,
}

impl Link {
    pub(super) fn new(
        (from, to): (&str, &str),
        address: SocketAddr,
        target: SocketAddr,
        echo: SocketAddr,
        (forward, backward): (Arc<Flow>, Arc<Flow>),
    ) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            address,
            forward,
            backward,
            traps: Traps::default(),
            refuse: AtomicBool::new(false),
            target: Mutex::new(target),
            echo,
            connections: Mutex::default(),
            probes: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    pub(super) fn set_target(&self, target: SocketAddr) {
        *lock(&self.target) = target;
    }

    pub(super) fn expect_probe(&self, from: SocketAddr, watcher: Watcher) {
        lock(&self.probes).insert(from, watcher);
    }

    /// Breaks all connections; how many there were.
    pub(super) fn disconnect(&self) -> usize {
        let connections = lock(&self.connections);
        connections.values().for_each(CancellationToken::cancel);
        connections.len()
    }

    /// Takes connections until `stop`.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((client, peer)) => self.accept(client, peer, &stop),
                Err(error) => {
                    tracing::warn!(%error, from = self.from, to = self.to, "no connection taken");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    fn accept(self: &Arc<Self>, client: TcpStream, peer: SocketAddr, stop: &CancellationToken) {
        let watcher = lock(&self.probes).remove(&peer);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let token = stop.child_token();
        {
            let mut connections = lock(&self.connections);
            let full = connections.len() >= CONNECTIONS_MAX;
            // Looked at under the lock: a refusal that breaks all connections misses none.
            if full || self.refuse.load(Ordering::SeqCst) {
                _ = client.set_zero_linger();
                return;
            }
            connections.insert(id, token.clone());
        }
        let link = Arc::clone(self);
        tokio::spawn(async move {
            link.carry(client, watcher, token).await;
            lock(&link.connections).remove(&id);
        });
    }

    async fn carry(
        self: &Arc<Self>,
        client: TcpStream,
        watcher: Option<Watcher>,
        token: CancellationToken,
    ) {
        let target = if watcher.is_some() { self.echo } else { *lock(&self.target) };
        let connected = async {
            self.gate(&client, watcher.as_ref()).await?;
            let connect = tokio::time::timeout(pump::CONNECT_WITHIN, TcpStream::connect(target));
            connect.await.ok()?.ok()
        };
        let server = tokio::select! {
            connected = connected => connected,
            () = token.cancelled() => None,
        };
        match server {
            Some(server) => {
                pump::connect(Arc::clone(self), client, server, token, watcher).await;
            }
            None => _ = client.set_zero_linger(),
        }
    }

    /// A connection takes both directions. `None`: the client gave up while it waited, and as in a
    /// real partition the target never hears of it.
    async fn gate(&self, client: &TcpStream, watcher: Option<&Watcher>) -> Option<()> {
        loop {
            let forward = self.forward.rules().blocked;
            let backward = self.backward.rules().blocked;
            if let (Some(watcher), true) = (watcher, forward || backward) {
                watcher.held_both(Held { forward, backward });
            }
            if has_left(client) {
                return None;
            }
            if !(forward || backward) {
                return Some(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Whether the client has closed its side. The system is asked itself: the runtime may not have
/// heard of it yet.
#[cfg(target_os = "linux")]
fn has_left(client: &TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let mut polled = [PollFd::new(client, gone)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(gone)
}

#[cfg(not(target_os = "linux"))]
fn has_left(_client: &TcpStream) -> bool {
    false
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
