//! A proxy that springs a trap on every n-th COMMIT and then on nothing else of that connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    /// COMMIT arrives, its answer does not.
    EatAnswer,
    /// COMMIT does not arrive.
    DropRequest,
}

pub(crate) struct Proxy {
    port: u16,
    sprung: Arc<AtomicU64>,
}

fn place(url: &str) -> &str {
    let rest = url.split_once('@').unwrap().1;
    rest.split('/').next().unwrap()
}

impl Proxy {
    pub(crate) async fn start(url: &str, trap: Trap, every: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (commits, sprung) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (target, count) = (place(url).to_owned(), sprung.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&target).await.unwrap();
                let (commits, count) = (commits.clone(), count.clone());
                tokio::spawn(connection(client, server, trap, move || {
                    let spring = commits.fetch_add(1, Ordering::SeqCst) % every == every - 1;
                    count.fetch_add(u64::from(spring), Ordering::SeqCst);
                    spring
                }));
            }
        });
        Self { port, sprung }
    }

    pub(crate) fn url(&self, url: &str) -> String {
        url.replace(place(url), &format!("127.0.0.1:{}", self.port))
    }

    pub(crate) fn sprung(&self) -> u64 {
        self.sprung.load(Ordering::SeqCst)
    }
}

async fn connection(client: TcpStream, server: TcpStream, trap: Trap, spring: impl Fn() -> bool) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let silent = Arc::new(AtomicBool::new(false));
    let quiet = silent.clone();
    let back = tokio::spawn(async move {
        let mut bytes = [0; 16_384];
        while let Ok(n @ 1..) = from_server.read(&mut bytes).await {
            if !quiet.load(Ordering::SeqCst) && to_client.write_all(&bytes[..n]).await.is_err() {
                break;
            }
        }
        // What was eaten looks like nothing, not like the end.
        if quiet.load(Ordering::SeqCst) {
            tokio::time::sleep(std::time::Duration::from_secs(30)).await;
        }
    });
    let mut bytes = [0; 16_384];
    while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
        let commit = bytes[..n].windows(7).any(|part| part == b"COMMIT\0");
        if commit && spring() {
            silent.store(true, Ordering::SeqCst);
            if trap == Trap::DropRequest {
                continue;
            }
        }
        if to_server.write_all(&bytes[..n]).await.is_err() {
            break;
        }
    }
    drop(to_server);
    back.abort();
}
