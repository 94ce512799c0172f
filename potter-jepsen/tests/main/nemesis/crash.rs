//! A runner that dies in the middle of its faults.
//!
//! The runner is this test program, started again with a variable that says what it is. It makes
//! faults, says so, and waits; then it is ended, and the next start has to find nothing in effect.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use potter_jepsen::Value;
use potter_jepsen::nemesis::{
    Clocks, Disk, Fault, Journal, Namespaces, Nemesis, ProcessCommand, Processes, ProxyNetwork,
};

use super::{is_root, letter, wait_for};

const RUNNER: &str = "POTTER_TEST_RUNNER";

/// What the runner does: it freezes a process of its own and one that it adopted, lets the clock of a
/// third be wrong, and partitions; as root it partitions network namespaces too, and fills a disk.
fn run(directory: &Path, adopted: u32) -> ! {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (journal, _) = Journal::open(directory.join("journal")).unwrap();
        journal.undo_on_signals().unwrap();
        let processes = Arc::new(Processes::new(Arc::clone(&journal)));
        let own = ProcessCommand::new("sh").args(["-c", "sleep 90 & wait"]);
        processes.start("own", own).await.unwrap();
        processes.adopt("adopted", adopted).unwrap();
        let clocks = Arc::new(Clocks::new(Arc::clone(&journal), Arc::clone(&processes), directory));
        let wrapped = clocks.wrap("wrapped", ProcessCommand::new("sleep").arg("90")).unwrap();
        processes.start("wrapped", wrapped).await.unwrap();
        let skew = Fault::new("clock-skew").param("seconds", Value::Int(300));
        // Where the machine is busy, the process may not have come to its clock yet.
        let begun = std::time::Instant::now();
        while !clocks.inject(&skew).await.unwrap().verified {
            assert!(begun.elapsed().as_secs() < 30, "its clock is never seen to be wrong");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let network = ProxyNetwork::new(Arc::clone(&journal), 1).await.unwrap();
        let address = network.link("a", "b", ([127, 0, 0, 1], 9).into()).await.unwrap();
        assert!(network.inject(&Fault::new("partition")).await.unwrap().verified);
        assert!(processes.inject(&Fault::new("pause")).await.unwrap().verified);
        let own = processes.list().await[1].pid;
        let mut as_root = None;
        if is_root() {
            let nodes = Namespaces::create(Arc::clone(&journal), ["a", "b"]).await.unwrap();
            assert!(nodes.inject(&Fault::new("partition")).await.unwrap().verified);
            let disk = Disk::in_memory(Arc::clone(&journal), directory.join("disk"), 1 << 20);
            let disk = disk.unwrap();
            assert!(disk.inject(&Fault::new("disk-full")).await.unwrap().verified);
            as_root = Some((nodes, disk));
        }
        let mut out = std::io::stdout();
        writeln!(out, "\nmade {own} {}", address.port()).unwrap();
        std::future::pending::<()>().await;
        drop(as_root);
    });
    unreachable!()
}

struct Runner {
    child: Child,
    own: u32,
    port: u16,
}

impl Runner {
    fn start(test: &str, directory: &Path, adopted: u32) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env(RUNNER, format!("{adopted} {}", directory.display()));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let made = lines.map(Result::unwrap).find(|line| line.starts_with("made "));
        let made = made.unwrap();
        let mut words = made.split(' ').skip(1);
        let mut next = || words.next().unwrap();
        Self { child, own: next().parse().unwrap(), port: next().parse().unwrap() }
    }
}

/// What a runner of root has made on the machine.
fn on_the_machine(runner: &Runner, directory: &Path) -> (usize, bool) {
    let prefix = format!("pj{}-", runner.child.id());
    let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let own = namespaces.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let disk = directory.join("disk");
    (own.count(), mounts.contains(&*disk.to_string_lossy()))
}

/// How wrong the clock of the third process is.
fn clock(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("wrapped.clock")).unwrap().trim().to_owned()
}

/// The part of a test that is the runner.
fn as_runner() {
    if let Ok(setting) = std::env::var(RUNNER) {
        let (adopted, directory) = setting.split_once(' ').unwrap();
        run(Path::new(directory), adopted.parse().unwrap());
    }
}

fn adopted() -> Child {
    Command::new("sleep").arg("90").spawn().unwrap()
}

#[test]
fn after_kill_9_the_next_start_undoes_everything() {
    as_runner();
    let directory = tempfile::tempdir().unwrap();
    let mut adopted = adopted();
    let test = "nemesis::crash::after_kill_9_the_next_start_undoes_everything";
    let mut runner = Runner::start(test, directory.path(), adopted.id());
    // While the runner lives, a second start leaves its faults alone.
    let (second, recovered) = Journal::open(directory.path().join("journal")).unwrap();
    assert!(recovered.undone.is_empty());
    drop(second);
    assert_eq!((letter(runner.own), letter(adopted.id())), (Some('T'), Some('T')));
    let made = if is_root() { (3, true) } else { (0, false) };

    runner.child.kill().unwrap();
    runner.child.wait().unwrap();
    assert_eq!(letter(adopted.id()), Some('T'), "nobody could undo it yet");
    assert_eq!(on_the_machine(&runner, directory.path()), made);
    assert_eq!(clock(directory.path()), "+300");
    let (journal, recovered) = Journal::open(directory.path().join("journal")).unwrap();
    assert!(recovered.undone.iter().any(|undone| undone.contains("'adopted' was stopped")));
    assert!(recovered.undone.iter().any(|undone| undone.contains("proxies in this process")));
    assert_eq!(letter(adopted.id()), Some('S'), "it goes on");
    assert_eq!(clock(directory.path()), "+0");
    assert_eq!(on_the_machine(&runner, directory.path()), (0, false));
    wait_for("the end of what the runner started", || letter(runner.own).is_none());
    // The proxy is gone with its process.
    assert!(std::net::TcpStream::connect(("127.0.0.1", runner.port)).is_err());
    assert!(journal.in_effect().is_empty());
    drop(journal);
    let (_, recovered) = Journal::open(directory.path().join("journal")).unwrap();
    assert!(recovered.undone.is_empty(), "once is enough: {recovered:?}");
    adopted.kill().unwrap();
    adopted.wait().unwrap();
}

#[test]
fn a_signal_undoes_everything_before_the_end() {
    as_runner();
    let directory = tempfile::tempdir().unwrap();
    let mut adopted = adopted();
    let test = "nemesis::crash::a_signal_undoes_everything_before_the_end";
    let mut runner = Runner::start(test, directory.path(), adopted.id());
    assert_eq!(letter(adopted.id()), Some('T'));
    let pid = runner.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(runner.child.wait().unwrap().code(), Some(143));
    assert_eq!(letter(adopted.id()), Some('S'));
    assert_eq!(clock(directory.path()), "+0");
    assert_eq!(on_the_machine(&runner, directory.path()), (0, false));
    wait_for("the end of what the runner started", || letter(runner.own).is_none());
    let (_, recovered) = Journal::open(directory.path().join("journal")).unwrap();
    assert!(recovered.undone.is_empty(), "nothing was left: {recovered:?}");
    adopted.kill().unwrap();
    adopted.wait().unwrap();
}
