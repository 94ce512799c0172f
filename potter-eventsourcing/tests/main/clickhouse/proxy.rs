//! A way to the server that can be broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::server;

/// Carries requests to the server and answers back.
pub(super) struct Proxy {
    pub(super) url: String,
    broken: Arc<Broken>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Broken {
    /// Nobody is let in, and who is in is thrown out.
    refuses: AtomicBool,
    /// Requests arrive, and the connection breaks instead of the answer.
    swallows: AtomicBool,
    swallowed: AtomicU64,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(super) async fn start() -> Self {
        let server = server();
        let (_, rest) = server.split_once("://").unwrap();
        let (place, database) = rest.split_once('/').unwrap();
        let (place, broken) = (place.to_owned(), Arc::<Broken>::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/{database}", listener.local_addr().unwrap());
        let shared = Arc::clone(&broken);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (broken, place) = (Arc::clone(&shared), place.clone());
                tokio::spawn(async move {
                    if !broken.refuses.load(Ordering::SeqCst) {
                        let _ = carry(client, &place, &broken).await;
                    }
                });
            }
        });
        Self { url, broken, task }
    }

    pub(super) fn refuse(&self, refuses: bool) {
        self.broken.refuses.store(refuses, Ordering::SeqCst);
    }

    pub(super) fn swallow(&self, swallows: bool) {
        self.broken.swallows.store(swallows, Ordering::SeqCst);
    }

    /// How many answers were lost.
    pub(super) fn swallowed(&self) -> u64 {
        self.broken.swallowed.load(Ordering::SeqCst)
    }
}

async fn carry(client: TcpStream, place: &str, broken: &Broken) -> std::io::Result<()> {
    let server = TcpStream::connect(place).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = tokio::io::copy(&mut from_client, &mut to_server);
    let answers = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 || broken.refuses.load(Ordering::SeqCst) {
                return Ok(());
            }
            if broken.swallows.load(Ordering::SeqCst) {
                // It was done: only nobody hears of it.
                broken.swallowed.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        done = requests => done.map(|_| ()),
        done = answers => done,
    }
}
