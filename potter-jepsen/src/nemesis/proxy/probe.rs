//! Looks at what a link does, with a connection through it.
//!
//! A probe connects to the link as any client does, from an address that the link was told. The link
//! treats it as any connection, but brings it to an echo in place of the target. So what is seen is
//! seen with the same code, the same rules and real sockets, and the target never notices.
//!
//! That nothing arrives within some time would prove little on a slow machine. So a partition is not
//! seen by waiting: the probe's bytes are seen standing at the gate.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use crate::nemesis::undo::SEEN_WITHIN;

/// What was held of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) forward: bool,
    pub(super) backward: bool,
}

impl Held {
    pub(super) fn any(self) -> bool {
        self.forward || self.backward
    }
}

/// Where a link says what it holds of a probe.
#[derive(Clone, Debug)]
pub(super) struct Watcher(Arc<watch::Sender<Held>>);

impl Watcher {
    pub(super) fn held(&self, forward: bool) {
        self.0.send_modify(|held| {
            held.forward |= forward;
            held.backward |= !forward;
        });
    }

    pub(super) fn held_both(&self, now: Held) {
        self.0.send_modify(|held| {
            held.forward |= now.forward;
            held.backward |= now.backward;
        });
    }
}

/// What a probe saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// All bytes came back, after so long.
    Echo(Duration),
    /// Bytes stand at a gate.
    Held(Held),
    /// The connection was broken.
    Broken,
    /// Nothing of all that within ten seconds, and the time that the bytes should take at most.
    Nothing,
}

/// A probe that is connected.
pub(super) struct Probe {
    stream: TcpStream,
    held: watch::Receiver<Held>,
}

impl Probe {
    pub(super) async fn open(link: &Link) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let (sender, held) = watch::channel(Held::default());
        link.expect_probe(socket.local_addr()?, Watcher(Arc::new(sender)));
        let stream = socket.connect(link.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, held })
    }

    /// Sends so many bytes and looks what becomes of them.
    pub(super) async fn send(&mut self, bytes: usize, within: Duration) -> Seen {
        let begin = Instant::now();
        let (mut reader, mut writer) = self.stream.split();
        let sent = vec![b'p'; bytes];
        let mut got = vec![0; bytes];
        let held = &mut self.held;
        let echoed = async {
            // Both at once: the echo answers before it has all.
            let (wrote, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got));
            wrote.and(read.map(drop))
        };
        let stands = async {
            let seen = held.wait_for(|held| held.any()).await.map(|held| *held);
            match seen {
                Ok(held) => held,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            echoed = echoed => match echoed {
                Ok(()) => Seen::Echo(begin.elapsed()),
                Err(_) => Seen::Broken,
            },
            held = stands => Seen::Held(held),
            () = tokio::time::sleep(SEEN_WITHIN + within) => Seen::Nothing,
        }
    }

    /// Waits until the connection breaks.
    pub(super) async fn breaks(&mut self) -> bool {
        let read = self.stream.read_u8();
        matches!(tokio::time::timeout(SEEN_WITHIN, read).await, Ok(Err(_)))
    }
}

/// Sends a few bytes through a new connection.
pub(super) async fn once(link: &Link, bytes: usize, within: Duration) -> Seen {
    match Probe::open(link).await {
        Ok(mut probe) => probe.send(bytes, within).await,
        Err(_) => Seen::Broken,
    }
}

/// Sends bytes until one chunk was lost and sent again.
pub(super) async fn until_stalled(link: &Link, loss: f64) -> bool {
    let stalls = || {
        link.forward.stalls.load(Ordering::Relaxed) + link.backward.stalls.load(Ordering::Relaxed)
    };
    let before = stalls();
    let Ok(mut probe) = Probe::open(link).await else { return false };
    // Without a loss in so many tries the rule is not in effect: that has a chance below 1 in e¹⁰.
    let mut left = 20.0 / loss.max(0.001);
    while left > 0.0 && stalls() == before {
        if !matches!(probe.send(8, Duration::from_secs(30)).await, Seen::Echo(_)) {
            return false;
        }
        left -= 1.0;
    }
    stalls() > before
}

/// Sends back what it gets, until `stop`.
pub(super) async fn echo(listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((mut stream, _)) = accepted else { continue };
        let stop = stop.clone();
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            tokio::select! {
                _ = tokio::io::copy(&mut reader, &mut writer) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}
