//! Clocks, disks, network namespaces, and several nemeses as one.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use potter_jepsen::nemesis::{
    Clocks, Disk, Fault, Journal, Namespaces, Nemesis, Probe, ProcessCommand, Processes,
    ProxyNetwork, compose,
};
use potter_jepsen::{ErrorKind, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{DEADLINE, is_root, journal, text, wait_for};

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// `Some` as root. Without root: the error has to say that it takes root.
fn as_root<T>(result: potter_jepsen::Result<T>) -> Option<T> {
    if is_root() {
        return Some(result.unwrap());
    }
    let error = result.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("root"), "{error}");
    None
}

#[tokio::test]
async fn a_skewed_clock_is_wrong_for_its_process_only() {
    let (directory, journal) = journal();
    let processes = Arc::new(Processes::new(Arc::clone(&journal)));
    let clocks = Clocks::new(Arc::clone(&journal), Arc::clone(&processes), directory.path());
    // Without libfaketime this fails and says how to get it.
    assert_eq!(clocks.probe().await, Probe::Available);
    // It writes its own idea of the time again and again; the sleep is on the monotonic clock.
    let script = "import os, time
while True:
    open('new', 'w').write(str(int(time.time())))
    os.rename('new', 'time')
    os.waitpid(os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '0.02'), 0)
";
    let command = ProcessCommand::new("python3").args(["-c", script]).directory(directory.path());
    let command = clocks.wrap("server", command).unwrap();
    processes.start("server", command).await.unwrap();
    let file = directory.path().join("time");
    let wrong = || {
        let said: i64 = std::fs::read_to_string(&file).ok()?.parse().ok()?;
        Some(said - now())
    };
    wait_for("the right time", || wrong().is_some_and(|wrong| (-30..=30).contains(&wrong)));

    for seconds in [300, -300, 3_600] {
        let skew = Fault::new("clock-skew").target("server").param("seconds", Value::Int(seconds));
        let injected = clocks.inject(&skew).await.unwrap();
        assert!(injected.verified, "{}", injected.detail);
        wait_for("the wrong time", || wrong().is_some_and(|wrong| (wrong - seconds).abs() < 30));
        assert_eq!(journal.in_effect().iter().filter(|e| e.contains("clock")).count(), 1);
    }
    for _ in 0..2 {
        let healed = clocks.heal().await.unwrap();
        assert!(healed.verified, "{}", healed.detail);
        wait_for("the right time", || wrong().is_some_and(|wrong| wrong.abs() < 30));
    }

    // One that does not run has no clock that could be wrong.
    processes.kill("server").await.unwrap();
    let skew = Fault::new("clock-skew").param("seconds", Value::Int(60));
    assert!(!clocks.inject(&skew).await.unwrap().verified);
    assert!(clocks.heal().await.unwrap().verified);
    let unknown = skew.clone().target("other");
    assert_eq!(clocks.inject(&unknown).await.unwrap_err().kind(), ErrorKind::InvalidFault);
    let unsaid = Fault::new("clock-skew");
    assert_eq!(clocks.inject(&unsaid).await.unwrap_err().kind(), ErrorKind::InvalidFault);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_it_is_healed() {
    let (directory, journal) = journal();
    let path = directory.path().join("disk");
    let Some(disk) = as_root(Disk::in_memory(Arc::clone(&journal), &path, 4 << 20)) else { return };
    assert_eq!(disk.probe().await, Probe::Available);
    let mut file = std::fs::File::create(path.join("data")).unwrap();
    file.write_all(&[1; 100_000]).unwrap();
    for _ in 0..2 {
        let injected = disk.inject(&Fault::new("disk-full")).await.unwrap();
        assert!(injected.verified, "{}", injected.detail);
    }
    let refused = file.write_all(&[2; 100_000]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    assert!(matches!(disk.probe().await, Probe::Unavailable(_)));
    for _ in 0..2 {
        let healed = disk.heal().await.unwrap();
        assert!(healed.verified, "{}", healed.detail);
    }
    file.write_all(&[3; 100_000]).unwrap();
    drop(file);
    // The same as somebody else's mount that only the test uses.
    let again = Disk::existing(Arc::clone(&journal), &path).unwrap();
    assert!(again.inject(&Fault::new("disk-full")).await.unwrap().verified);
    drop(again);
    assert_eq!(disk.probe().await, Probe::Available, "a drop heals");
    drop(disk);
    assert!(!path.exists(), "it is unmounted");
    assert!(journal.in_effect().is_empty());
}

#[test]
fn no_disk_but_the_tests_own_is_filled() {
    let (directory, journal) = journal();
    for path in ["/", "/tmp", "/proc/self", directory.path().to_str().unwrap()] {
        let error = Disk::existing(Arc::clone(&journal), path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidFault, "{path}: {error}");
    }
    let there = Disk::in_memory(Arc::clone(&journal), directory.path(), 1 << 20).unwrap_err();
    assert_eq!(there.kind(), ErrorKind::InvalidFault);
    let large = Disk::in_memory(journal, directory.path().join("d"), 1 << 50).unwrap_err();
    assert_eq!(large.kind(), ErrorKind::InvalidFault);
}

/// A server on a node, and an address by which a client on another node reaches it.
async fn echo_on(nodes: &Namespaces, processes: &Processes) -> SocketAddr {
    let script = "import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(100):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer(('0.0.0.0', 7000), Echo).serve_forever()
";
    let command = ProcessCommand::new("python3").args(["-c", script]);
    processes.start("b", nodes.inside("b", command).unwrap()).await.unwrap();
    nodes.forward("a", "b", 7_000).await.unwrap()
}

async fn echoes(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut bytes = [0; 4];
    stream.write_all(b"ping").await.is_ok() && stream.read_exact(&mut bytes).await.is_ok()
}

#[tokio::test]
async fn namespaces_are_partitioned_and_healed() {
    let (_directory, journal) = journal();
    let made = Namespaces::create(Arc::clone(&journal), ["a", "b", "c"]).await;
    let Some(nodes) = as_root(made) else { return };
    assert_eq!(nodes.probe().await, Probe::Available);
    let processes = Processes::new(Arc::clone(&journal));
    let address = echo_on(&nodes, &processes).await;
    timeout(DEADLINE, async { while !echoes(address).await {} }).await.unwrap();
    // A connection from before the partition.
    let mut old = TcpStream::connect(address).await.unwrap();
    let mut bytes = [0; 4];
    old.write_all(b"ping").await.unwrap();
    old.read_exact(&mut bytes).await.unwrap();

    let sides: Value =
        [vec![text("b")], vec![text("a"), text("c")]].map(Value::from).into_iter().collect();
    let injected = nodes.inject(&Fault::new("partition").param("sides", sides)).await.unwrap();
    assert!(injected.verified, "{}", injected.detail);
    assert!(injected.detail.contains("a->b") && !injected.detail.contains("a->c"));
    old.write_all(b"late").await.unwrap();
    assert!(timeout(Duration::from_millis(300), old.read_exact(&mut bytes)).await.is_err());
    assert!(journal.in_effect().iter().any(|effect| effect.contains("packets were dropped")));

    for _ in 0..2 {
        let healed = nodes.heal().await.unwrap();
        assert!(healed.verified, "{}", healed.detail);
    }
    // TCP sends it again by itself.
    timeout(DEADLINE, old.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(&bytes, b"late");

    let loss = Fault::new("loss").target("b").param("probability", Value::Int(30));
    let injected = nodes.inject(&loss).await.unwrap();
    assert!(injected.verified, "{}", injected.detail);
    assert!(nodes.heal().await.unwrap().verified);
    processes.stop("b", DEADLINE).await.unwrap();
    drop(nodes);
    assert!(journal.in_effect().is_empty(), "{:?}", journal.in_effect());
}

#[tokio::test]
async fn a_composed_nemesis_finds_the_one_that_makes_it() {
    let (_directory, journal) = journal();
    let processes = Arc::new(Processes::new(Arc::clone(&journal)));
    processes.start("p", ProcessCommand::new("sleep").arg("90")).await.unwrap();
    let network = ProxyNetwork::new(Arc::clone(&journal), 1).await.unwrap();
    network.link("a", "b", ([127, 0, 0, 1], 9).into()).await.unwrap();
    let parts: [Arc<dyn Nemesis>; 2] = [processes.clone(), network.clone()];
    let all = compose(parts.clone()).unwrap();
    assert_eq!(all.probe().await, Probe::Available);
    assert!(all.inject(&Fault::new("partition")).await.unwrap().verified);
    assert!(all.inject(&Fault::new("kill")).await.unwrap().verified);
    assert!(network.rules("a", "b").unwrap().blocked);
    let error = all.inject(&Fault::new("flood")).await.unwrap_err();
    assert!(error.to_string().contains("kill") && error.to_string().contains("partition"));
    assert!(all.heal().await.unwrap().verified);
    assert!(!network.rules("a", "b").unwrap().blocked);
    assert_eq!(processes.state("p").await.unwrap().as_str(), "running");
    // Which of two is meant would be a guess.
    let twice: [Arc<dyn Nemesis>; 2] = [network.clone(), network];
    assert_eq!(compose(twice).unwrap_err().kind(), ErrorKind::InvalidFault);
}

#[tokio::test]
async fn what_is_not_there_is_asked_for_loudly() {
    let missing = Probe::Unavailable("there is no such kernel module".to_owned());
    let error = missing.require("netem").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("netem") && error.to_string().contains("kernel module"));
    assert!(Probe::Available.require("x").is_ok());
    // A journal that can't be kept is an error before any fault.
    let error = Journal::open("/proc/potter").unwrap_err();
    assert!(error.to_string().contains("/proc/potter"), "{error}");
}
