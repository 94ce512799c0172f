//! A network that holds requests back and loses answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Between a client and the server.
pub(crate) struct Proxy {
    pub(crate) url: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// The next insert waits here.
    hold: AtomicBool,
    held: AtomicUsize,
    /// The answer to the next insert is not passed on.
    lose: AtomicBool,
    lost: AtomicUsize,
    changed: Notify,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// In front of the server with this URL.
    pub(crate) async fn start(server: &str) -> Self {
        let host = server.strip_prefix("mongodb://").unwrap();
        let (host, rest) = host.split_once('/').unwrap_or((host, ""));
        let address = host.rsplit('@').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mongodb://{}/{rest}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let of_task = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let (address, state) = (address.clone(), Arc::clone(&of_task));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&address).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let silent = Arc::new(AtomicBool::new(false));
                    let there = requests(from_client, to_server, &state, &silent);
                    let back = answers(from_server, to_client, &state, &silent);
                    tokio::join!(there, back);
                });
            }
        });
        Self { url, state, task }
    }

    /// Holds the next insert until [`release`](Self::release).
    pub(crate) fn hold_next_insert(&self) {
        self.state.hold.store(true, Ordering::SeqCst);
    }

    pub(crate) fn release(&self) {
        self.state.hold.store(false, Ordering::SeqCst);
        self.state.changed.notify_waiters();
    }

    /// Returns when an insert is held.
    pub(crate) async fn holds(&self) {
        eventually(|| self.state.held.load(Ordering::SeqCst) > 0).await;
    }

    /// Loses the answer to the next insert, and everything after it on that connection.
    pub(crate) fn lose_next_answer(&self) {
        self.state.lose.store(true, Ordering::SeqCst);
    }

    pub(crate) fn lost(&self) -> usize {
        self.state.lost.load(Ordering::SeqCst)
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await.expect("it hangs");
}

/// A whole message: its first four bytes are its length.
async fn message(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await.ok()?;
    let mut message = vec![0; u32::from_le_bytes(length) as usize];
    message[..4].copy_from_slice(&length);
    from.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

fn is_insert(message: &[u8]) -> bool {
    message.windows(8).any(|bytes| bytes == b"\x02insert\0")
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    silent: &AtomicBool,
) {
    while let Some(message) = message(&mut from).await {
        if is_insert(&message) {
            if state.lose.swap(false, Ordering::SeqCst) {
                silent.store(true, Ordering::SeqCst);
            }
            let mut released = std::pin::pin!(state.changed.notified());
            released.as_mut().enable();
            if state.hold.load(Ordering::SeqCst) && state.held.fetch_add(1, Ordering::SeqCst) == 0 {
                released.await;
            }
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    silent: &AtomicBool,
) {
    while let Some(message) = message(&mut from).await {
        if silent.load(Ordering::SeqCst) {
            state.lost.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}
