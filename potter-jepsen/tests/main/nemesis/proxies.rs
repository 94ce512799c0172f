//! Proxies with real sockets: what passes, what stands, what is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use potter_jepsen::nemesis::{Fault, Nemesis, Probe, ProxyNetwork};
use potter_jepsen::{ErrorKind, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{DEADLINE, journal, text};

/// A server that answers each line with `ok LINE`, and counts what it got.
struct Server {
    address: SocketAddr,
    lines: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let lines = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let (reader, mut writer) = stream.into_split();
                    let mut lines = BufReader::new(reader).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        count.fetch_add(1, Ordering::SeqCst);
                        if writer.write_all(format!("ok {line}\n").as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, lines }
    }

    fn lines(&self) -> usize {
        self.lines.load(Ordering::SeqCst)
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    async fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// The next answer; an error when the connection ends or breaks.
    async fn answer(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        let read = timeout(DEADLINE, self.0.read_line(&mut line)).await.unwrap();
        match read? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    async fn ask(&mut self, line: &str) -> std::io::Result<String> {
        self.send(line).await;
        self.answer().await
    }
}

#[tokio::test]
async fn a_partition_holds_old_and_new_connections_until_it_is_healed() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(Arc::clone(&journal), 7).await.unwrap();
    assert_eq!(network.probe().await, Probe::Available);
    let server = Server::start().await;
    let address = network.link("client", "server", server.address).await.unwrap();
    let mut old = Client::connect(address).await;
    assert_eq!(old.ask("before").await.unwrap(), "ok before");

    let injected = network.inject(&Fault::new("partition")).await.unwrap();
    assert!(injected.verified, "{}", injected.detail);
    assert!(injected.detail.contains("client->server"), "{}", injected.detail);
    old.send("old").await;
    let mut new = Client::connect(address).await;
    new.send("new").await;
    // Another injection that is verified comes after what was sent before it.
    assert!(network.inject(&Fault::new("partition")).await.unwrap().verified);
    assert_eq!(server.lines(), 1, "nothing gets through");
    assert_eq!(journal.in_effect().len(), 1);

    for _ in 0..2 {
        let healed = network.heal().await.unwrap();
        assert!(healed.verified, "{}", healed.detail);
    }
    assert_eq!(old.answer().await.unwrap(), "ok old");
    assert_eq!(new.answer().await.unwrap(), "ok new");
    assert!(journal.in_effect().is_empty());
}

#[tokio::test]
async fn a_client_that_left_during_the_partition_is_not_seen_after_it() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let server = Server::start().await;
    let address = network.link("client", "server", server.address).await.unwrap();
    network.inject(&Fault::new("partition")).await.unwrap();
    let mut gone = Client::connect(address).await;
    gone.send("gone").await;
    drop(gone);
    network.heal().await.unwrap();
    let mut next = Client::connect(address).await;
    next.ask("next").await.unwrap();
    assert_eq!(server.lines(), 1);
}

#[tokio::test]
async fn one_way_holds_answers_and_lets_requests_pass() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let server = Server::start().await;
    let address = network.link("a", "b", server.address).await.unwrap();
    let mut client = Client::connect(address).await;
    client.ask("before").await.unwrap();
    // Some seeds block a->b, others b->a.
    let shape = |seed| {
        let fault = Fault::new("partition").param("shape", text("one-way"));
        fault.param("seed", Value::Int(seed))
    };
    let mut seed = 0;
    loop {
        assert!(network.inject(&shape(seed)).await.unwrap().verified);
        if network.rules("b", "a").unwrap().blocked {
            break;
        }
        seed += 1;
    }
    assert!(!network.rules("a", "b").unwrap().blocked);
    client.send("during").await;
    let arrives = async {
        while server.lines() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, arrives).await.unwrap();
    assert!(timeout(Duration::from_millis(100), client.0.fill_buf()).await.is_err());
    assert!(network.heal().await.unwrap().verified);
    assert_eq!(client.answer().await.unwrap(), "ok during");
}

#[tokio::test]
async fn a_partition_separates_sides_and_no_others() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let server = Server::start().await;
    for (from, to) in [("a", "b"), ("a", "c"), ("b", "c")] {
        network.link(from, to, server.address).await.unwrap();
    }
    assert_eq!(network.nodes(), ["a", "b", "c"]);
    let alone = Fault::new("partition").param("shape", text("one")).target("c");
    assert!(network.inject(&alone).await.unwrap().verified);
    let mut together = Client::connect(network.address("a", "b").unwrap()).await;
    assert_eq!(together.ask("x").await.unwrap(), "ok x");
    let flows = network.links();
    let blocked = flows.iter().filter(|(from, to)| network.rules(from, to).unwrap().blocked);
    assert_eq!(blocked.count(), 2);
    // The next partition takes the place of the last.
    let other = Fault::new("partition").param("shape", text("one")).target("b");
    assert!(network.inject(&other).await.unwrap().verified);
    assert!(!network.rules("a", "c").unwrap().blocked);
}

#[tokio::test]
async fn the_answer_is_eaten_although_the_request_arrived() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let server = Server::start().await;
    let address = network.link("client", "server", server.address).await.unwrap();
    let fault = Fault::new("eat-answer").param("when", text("COMMIT"));
    assert!(network.inject(&fault).await.unwrap().verified);
    let mut client = Client::connect(address).await;
    assert_eq!(client.ask("BEGIN").await.unwrap(), "ok BEGIN");
    assert!(client.ask("COMMIT").await.is_err(), "the answer is lost");
    assert_eq!(server.lines(), 2, "the request is not");
    assert_eq!(network.sprung("client", "server").unwrap(), 1);
    let mut client = Client::connect(address).await;
    assert_eq!(client.ask("COMMIT").await.unwrap(), "ok COMMIT", "it happened once");
    assert!(network.heal().await.unwrap().verified);
}

#[tokio::test]
async fn a_dropped_request_never_arrives() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let server = Server::start().await;
    let address = network.link("client", "server", server.address).await.unwrap();
    let fault = Fault::new("drop-request").param("when", text("COMMIT"));
    network.inject(&fault).await.unwrap();
    let mut client = Client::connect(address).await;
    assert!(client.ask("COMMIT").await.is_err());
    let mut next = Client::connect(address).await;
    next.ask("after").await.unwrap();
    assert_eq!(server.lines(), 1);
    assert!(network.heal().await.unwrap().verified);

    // What waited for its occasion until the heal proves nothing.
    network.inject(&fault).await.unwrap();
    let healed = network.heal().await.unwrap();
    assert!(!healed.verified && healed.detail.contains("did not come"), "{}", healed.detail);
}

#[tokio::test]
async fn slow_links_are_as_slow_as_was_said() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let server = Server::start().await;
    let address = network.link("client", "server", server.address).await.unwrap();
    let delay = Fault::new("delay").target("client->server").param("ms", Value::Int(120));
    let injected = network.inject(&delay).await.unwrap();
    assert!(injected.verified, "{}", injected.detail);
    let mut client = Client::connect(address).await;
    let begin = Instant::now();
    client.ask("slow").await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(120), "a lower bound: {:?}", begin.elapsed());
    assert!(network.heal().await.unwrap().verified);
    assert_eq!(network.rules("client", "server").unwrap().delay, Duration::ZERO);

    let narrow = Fault::new("bandwidth").param("bytes_per_second", Value::Int(65_536));
    assert!(network.inject(&narrow).await.unwrap().verified);
    let mut client = Client::connect(address).await;
    let long = "x".repeat(20_000);
    let begin = Instant::now();
    client.ask(&long).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300), "a lower bound: {:?}", begin.elapsed());
    assert!(network.heal().await.unwrap().verified);

    let loss = Fault::new("loss").param("probability", Value::Int(40));
    assert!(network.inject(&loss).await.unwrap().verified);
    let mut client = Client::connect(address).await;
    for n in 0..5 {
        assert_eq!(client.ask(&n.to_string()).await.unwrap(), format!("ok {n}"), "late, not lost");
    }
    assert!(network.heal().await.unwrap().verified);
}

#[tokio::test]
async fn connections_are_reset_and_refused() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let server = Server::start().await;
    let address = network.link("client", "server", server.address).await.unwrap();
    let mut client = Client::connect(address).await;
    client.ask("before").await.unwrap();
    let injected = network.inject(&Fault::new("disconnect")).await.unwrap();
    assert!(injected.verified, "{}", injected.detail);
    let error = client.answer().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    let mut next = Client::connect(address).await;
    assert_eq!(next.ask("next").await.unwrap(), "ok next");

    assert!(network.inject(&Fault::new("refuse")).await.unwrap().verified);
    assert!(next.answer().await.is_err());
    assert!(Client::connect(address).await.answer().await.is_err());
    assert!(network.heal().await.unwrap().verified);
    assert_eq!(Client::connect(address).await.ask("x").await.unwrap(), "ok x");
}

#[tokio::test]
async fn many_bytes_pass_unchanged() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let server = Server::start().await;
    let address = network.link("client", "server", server.address).await.unwrap();
    let jitter = Fault::new("delay").param("ms", Value::Int(1)).param("jitter_ms", Value::Int(5));
    network.inject(&jitter).await.unwrap();
    let mut client = Client::connect(address).await;
    for n in 1..20 {
        let line: String = (0..10_000 * n).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        assert_eq!(client.ask(&line).await.unwrap(), format!("ok {line}"));
    }
}

#[tokio::test]
async fn faults_without_a_link_are_errors() {
    let (_directory, journal) = journal();
    let network = ProxyNetwork::new(journal, 7).await.unwrap();
    let invalid = |error: potter_jepsen::Error| assert_eq!(error.kind(), ErrorKind::InvalidFault);
    for kind in network.faults() {
        invalid(network.inject(&Fault::new(kind)).await.unwrap_err());
    }
    let server = Server::start().await;
    network.link("a", "b", server.address).await.unwrap();
    network.link("c", "d", server.address).await.unwrap();
    invalid(network.link("a", "b", server.address).await.unwrap_err());
    invalid(network.link("a", "a", server.address).await.unwrap_err());
    // No link leads from one side to the other.
    invalid(network.inject(&Fault::new("partition").targets(["a", "c"])).await.unwrap_err());
    invalid(network.inject(&Fault::new("delay").target("x")).await.unwrap_err());
    invalid(network.inject(&Fault::new("delay").target("a->c")).await.unwrap_err());
    let wrong = Fault::new("loss").param("probability", Value::Int(100));
    invalid(network.inject(&wrong).await.unwrap_err());
    assert!(network.heal().await.unwrap().verified);
}
