//! One connection through a proxy: two streams of bytes, each with its flow's rules.
//!
//! # Invariants
//!
//! 1. Bytes, the end of a stream and its breaking are passed on only while the flow's rules are held
//!    for reading and say that it is open. So when a partition's injection has returned, nothing of
//!    any connection, old or new, passes any more.
//! 2. What waits stays in order and is passed on after the heal, as TCP would have sent it again. It
//!    is bounded: a full queue stops reading, and then the sender's kernel buffers fill.
//! 3. An answer is eaten only if its request was passed on: the mark is set before the request goes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::probe::Watcher;
use super::rules::{Flow, TrapAction};

const CHUNK_BYTES: usize = 16 * 1024;
/// How many chunks wait in a stream at most.
const CHUNKS_MAX: usize = 64;

/// Something on its way.
enum Item {
    Bytes(Vec<u8>),
    /// The sender has said all.
    End,
    /// The connection broke on the sender's side.
    Broken,
}

struct Chunk {
    due: Instant,
    item: Item,
}

/// What both directions of a connection know.
struct Shared {
    link: Arc<Link>,
    /// From now on no answer gets back.
    eaten: AtomicBool,
    broken: CancellationToken,
    watcher: Option<Watcher>,
}

/// Passes bytes between the two streams until both have ended, or until `stop`. When it ends early,
/// the client sees a reset.
pub(super) async fn connect(
    link: Arc<Link>,
    client: TcpStream,
    server: TcpStream,
    stop: CancellationToken,
    watcher: Option<Watcher>,
) {
    // Small messages are not kept back: delays are the rules' business.
    _ = (client.set_nodelay(true), server.set_nodelay(true));
    let broken = stop.child_token();
    let shared = Shared { link, eaten: AtomicBool::new(false), broken, watcher };
    let shared = Arc::new(shared);
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (ahead, answers) = (mpsc::channel(CHUNKS_MAX), mpsc::channel(CHUNKS_MAX));
    let (forward, backward) = (Arc::clone(&shared.link.forward), Arc::clone(&shared.link.backward));
    let passing = async {
        tokio::join!(
            read(client_read, &forward, ahead.0),
            read(server_read, &backward, answers.0),
            write(&shared, Direction::Forward, &forward, ahead.1, &server_write),
            write(&shared, Direction::Backward, &backward, answers.1, &client_write),
        )
    };
    tokio::select! {
        _ = passing => {}
        () = shared.broken.cancelled() => {
            for half in [client_write, server_write] {
                // A reset, not an orderly end.
                _ = half.as_ref().set_zero_linger();
                half.forget();
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

async fn read(mut half: OwnedReadHalf, flow: &Flow, queue: mpsc::Sender<Chunk>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    // Jitter must not change the order.
    let mut last = Instant::now();
    loop {
        let item = match half.read(&mut buffer).await {
            Ok(0) => Item::End,
            Ok(count) => Item::Bytes(buffer[..count].to_vec()),
            Err(_) => Item::Broken,
        };
        let over = !matches!(item, Item::Bytes(_));
        last = last.max(Instant::now() + flow.delay());
        if queue.send(Chunk { due: last, item }).await.is_err() || over {
            return;
        }
    }
}

async fn write(
    shared: &Shared,
    direction: Direction,
    flow: &Flow,
    mut queue: mpsc::Receiver<Chunk>,
    half: &OwnedWriteHalf,
) {
    let mut seen = VecDeque::new();
    let mut free = Instant::now();
    while let Some(Chunk { due, item }) = queue.recv().await {
        tokio::time::sleep_until(due).await;
        let bytes = match item {
            Item::Bytes(bytes) => bytes,
            Item::End => {
                if pass(shared, direction, flow, || shutdown(half)).await.is_err() {
                    break;
                }
                return;
            }
            Item::Broken => {
                _ = pass(shared, direction, flow, || Ok(())).await;
                break;
            }
        };
        let stall = flow.stall();
        if !stall.is_zero() {
            tokio::time::sleep(stall).await;
        }
        free = free.max(Instant::now()) + flow.transmission(bytes.len());
        tokio::time::sleep_until(free).await;
        let trap = match direction {
            Direction::Forward => shared.link.traps.spring(&mut seen, &bytes),
            Direction::Backward => None,
        };
        match trap {
            Some(TrapAction::DropRequest) => {
                shared.link.traps.sprung.fetch_add(1, Ordering::SeqCst);
                break;
            }
            Some(TrapAction::EatAnswer) => shared.eaten.store(true, Ordering::SeqCst),
            None => {}
        }
        if direction == Direction::Backward && shared.eaten.load(Ordering::SeqCst) {
            // There is an answer, so the request was handled.
            shared.link.traps.sprung.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if pass_bytes(shared, direction, flow, half, &bytes).await.is_err() {
            break;
        }
    }
    shared.broken.cancel();
}

async fn pass_bytes(
    shared: &Shared,
    direction: Direction,
    flow: &Flow,
    half: &OwnedWriteHalf,
    mut bytes: &[u8],
) -> io::Result<()> {
    while !bytes.is_empty() {
        half.writable().await?;
        match pass(shared, direction, flow, || half.try_write(bytes)).await {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Does it once the flow is open, and not while it is blocked.
async fn pass<T>(
    shared: &Shared,
    direction: Direction,
    flow: &Flow,
    mut go: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        if let Some(passed) = flow.if_open(&mut go) {
            return passed;
        }
        if let Some(watcher) = &shared.watcher {
            watcher.held(direction == Direction::Forward);
        }
        flow.opened().await;
    }
}

/// The end of the stream; the other direction goes on.
fn shutdown(half: &OwnedWriteHalf) -> io::Result<()> {
    rustix::net::shutdown(half.as_ref(), rustix::net::Shutdown::Write).map_err(Into::into)
}

/// How long a connection to the target may take.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(10);
