//! A TCP proxy that counts the server's ReadyForQuery messages: one for each round trip.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) struct Proxy(JoinHandle<()>);

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers the URL of the proxy in front of the server of `url`.
pub(crate) async fn start(url: &str, round_trips: Arc<AtomicU64>) -> (String, Proxy) {
    let (front, rest) = url.split_once('@').expect("a URL with a user");
    let (server, name) = rest.split_once('/').expect("a URL with a database");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = format!("{front}@{}/{name}?sslmode=disable", listener.local_addr().unwrap());
    let server = server.to_owned();
    let task = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (server, round_trips) = (server.clone(), Arc::clone(&round_trips));
            tokio::spawn(async move {
                let upstream = TcpStream::connect(server).await.unwrap();
                let _ = client.set_nodelay(true);
                let _ = upstream.set_nodelay(true);
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = upstream.into_split();
                let up = tokio::io::copy(&mut from_client, &mut to_server);
                let down = count(from_server, to_client, &round_trips);
                tokio::select! { _ = up => {}, () = down => {} }
            });
        }
    });
    (through, Proxy(task))
}

async fn count(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    round_trips: &AtomicU64,
) {
    let mut message = Vec::new();
    loop {
        let mut head = [0; 5];
        if from.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
        message.clear();
        message.extend_from_slice(&head);
        message.resize(5 + length, 0);
        if from.read_exact(&mut message[5..]).await.is_err()
            || to.write_all(&message).await.is_err()
        {
            return;
        }
        if head[0] == b'Z' {
            round_trips.fetch_add(1, Ordering::Relaxed);
        }
    }
}
