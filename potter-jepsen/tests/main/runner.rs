//! The runner, on a database in this process that can be told to misbehave.

mod unreachable;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use potter_jepsen::generator::{self, Generator};
use potter_jepsen::linear::{Linearizability, Register};
use potter_jepsen::nemesis::{Fault, Healed, Injected, Nemesis, Probe};
use potter_jepsen::runner::{
    Client, Completion, Failure, Node, Op, Run, Session, Test, TestBuilder, Workload, read_history,
    write_history,
};
use potter_jepsen::{
    Budget, Checker, ErrorKind, EventKind, Process, Result, Value, Verdict, load_str,
};

const MS: Duration = Duration::from_millis(1);

/// How a client misbehaves; by operation.
type Twist = Arc<dyn Fn(&Op, u64) -> Act + Send + Sync>;

#[derive(Clone, Copy)]
enum Act {
    Honest,
    /// Takes effect, and the answer is lost.
    Error,
    /// Takes no effect and never answers.
    Hang,
    /// Blocks its thread until the gate opens.
    Block,
    Panic,
    Refuse,
}

#[derive(Clone)]
struct Memory {
    store: Arc<Mutex<BTreeMap<Value, Value>>>,
    twist: Twist,
    calls: Arc<AtomicU64>,
    gate: Arc<AtomicBool>,
    torn_down: Arc<AtomicBool>,
    reads_only: bool,
}

impl Memory {
    fn new(twist: impl Fn(&Op, u64) -> Act + Send + Sync + 'static) -> Self {
        Self {
            store: Arc::default(),
            twist: Arc::new(twist),
            calls: Arc::default(),
            gate: Arc::default(),
            torn_down: Arc::default(),
            reads_only: false,
        }
    }

    fn honest() -> Self {
        Self::new(|_, _| Act::Honest)
    }
}

struct MemoryClient(Memory);

#[async_trait]
impl Client for MemoryClient {
    async fn invoke(&mut self, op: &Op) -> Result<Completion, Failure> {
        let act = (self.0.twist)(op, self.0.calls.fetch_add(1, Ordering::SeqCst));
        match act {
            Act::Hang => std::future::pending().await,
            Act::Block => {
                while !self.0.gate.load(Ordering::SeqCst) {
                    std::thread::sleep(MS * 5);
                }
                return Ok(Completion::Fail("woke up".into()));
            }
            Act::Panic => panic!("the client has a defect"),
            Act::Refuse => return Ok(Completion::Fail("refused".into())),
            Act::Honest | Act::Error => {}
        }
        let key = op.key.clone().unwrap_or_default();
        let value = {
            let mut store = self.0.store.lock().unwrap();
            match &*op.f {
                "write" => {
                    store.insert(key, op.value.clone());
                    op.value.clone()
                }
                _ => store.get(&key).cloned().unwrap_or_default(),
            }
        };
        tokio::task::yield_now().await;
        if matches!(act, Act::Error) {
            return Err("the answer was lost".into());
        }
        Ok(Completion::Ok(value))
    }
}

#[async_trait]
impl Workload for Memory {
    fn name(&self) -> String {
        "memory".into()
    }

    async fn open(&self, session: &Session) -> Result<Box<dyn Client>, Failure> {
        assert_eq!(session.node.name, "here");
        Ok(Box::new(MemoryClient(self.clone())))
    }

    fn generator(&self) -> Box<dyn Generator> {
        let mut count = 0;
        let reads_only = self.reads_only;
        generator::from_fn(move |random| {
            count += 1;
            let op = match reads_only || random.chance(500) {
                true => Op::new("read"),
                false => Op::new("write").value(count),
            };
            op.key(count / 50)
        })
        .boxed()
    }

    fn final_generator(&self) -> Option<Box<dyn Generator>> {
        Some(generator::each_thread(|_| generator::once(Op::new("read").key(0)).boxed()).boxed())
    }

    fn checker(&self) -> Box<dyn Checker + Send> {
        Box::new(Linearizability::new(Register::new(Value::Nil)))
    }

    async fn teardown(&self, _: &[Node]) -> Result<(), Failure> {
        self.torn_down.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// A nemesis that writes down what it is asked.
#[derive(Default)]
struct Fake {
    unverified: bool,
    fails: bool,
    heal_unverified: bool,
    unavailable: bool,
    hangs: bool,
    injected: AtomicU64,
    healed: AtomicU64,
}

#[async_trait]
impl Nemesis for Fake {
    fn name(&self) -> &str {
        "fake"
    }

    fn faults(&self) -> Vec<String> {
        vec!["nothing".into()]
    }

    async fn probe(&self) -> Probe {
        match self.unavailable {
            true => Probe::Unavailable("it needs a full moon".into()),
            false => Probe::Available,
        }
    }

    async fn inject(&self, fault: &Fault) -> Result<Injected> {
        self.injected.fetch_add(1, Ordering::SeqCst);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if self.fails {
            return Err(potter_jepsen::Error::new(ErrorKind::Fault, "no effect"));
        }
        Ok(match self.unverified {
            true => Injected::unverified(format!("{fault} was not seen")),
            false => Injected::verified("seen"),
        })
    }

    async fn heal(&self) -> Result<Healed> {
        self.healed.fetch_add(1, Ordering::SeqCst);
        Ok(match self.heal_unverified {
            true => Healed::unverified("something is left"),
            false => Healed::verified("whole"),
        })
    }
}

fn test(workload: Memory) -> TestBuilder {
    Test::builder(workload)
        .node("here", "memory://user:secret@here")
        .concurrency(4)
        .max_operations(300)
        .op_timeout(Duration::from_secs(20))
        .recovery(MS)
        .seed(42)
}

fn faults() -> impl Generator + 'static {
    generator::fault_windows([Fault::new("nothing").target("here")], MS * 10, MS * 10)
}

async fn with_nemesis(workload: Memory, nemesis: Fake) -> (Run, Arc<Fake>) {
    let nemesis = Arc::new(nemesis);
    let test = test(workload)
        .pace(MS)
        .max_operations(1_000_000)
        .time_limit(MS * 300)
        .nemesis_timeout(MS * 100)
        .nemesis(nemesis.clone())
        .faults(faults())
        .build()
        .unwrap();
    (test.run().await.unwrap(), nemesis)
}

#[tokio::test]
async fn a_test_leaves_everything_that_is_needed_to_check_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let workload = Memory::honest();
    let torn_down = workload.torn_down.clone();
    let test = || test(workload.clone()).directory(&path).parameter("level", "high");
    let run = test().build().unwrap().run().await.unwrap();
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    assert_eq!(run.progress.operations, 304, "300 and a last read of each client");
    assert!(torn_down.load(Ordering::SeqCst));
    let read = read_history(&path.join("history.jsonl")).unwrap();
    assert_eq!(read.to_json_lines(), run.history.to_json_lines());
    // For everybody else it is an ordinary history too.
    let text = std::fs::read_to_string(path.join("history.jsonl")).unwrap();
    assert_eq!(load_str(&text).unwrap().history.to_json_lines(), run.history.to_json_lines());
    let manifest = std::fs::read_to_string(path.join("manifest.json")).unwrap();
    for part in ["\"seed\": 42", "\"level\": \"high\"", "\"workload\": \"memory\""] {
        assert!(manifest.contains(part), "{part} is not in {manifest}");
    }
    assert!(!manifest.contains("secret"), "{manifest}");
    for file in ["analysis.json", "report.txt", "report.html"] {
        assert!(path.join(file).metadata().unwrap().len() > 100, "{file}");
    }
    let again = test().build().unwrap().run().await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Write, "{again}");
}

#[tokio::test]
async fn the_plan_repeats_whatever_the_database_does() {
    // The second database is slow, loses answers, and hangs.
    let slow = Memory::new(|_, n| if n.is_multiple_of(7) { Act::Error } else { Act::Honest });
    let hanging = Memory::new(|_, n| if n % 50 == 3 { Act::Hang } else { Act::Honest });
    let mut plans = Vec::new();
    for workload in [Memory::honest(), slow, hanging] {
        let run = test(workload).op_timeout(MS * 50).build().unwrap().run().await.unwrap();
        let load = run.history.events().iter().filter(|e| e.kind == EventKind::Invoke).take(300);
        // Clients take their number just before they begin, each on its own thread.
        let mut plan: Vec<String> =
            load.map(|e| format!("{} {:?} {}", e.f, e.key, e.value)).collect();
        plan.sort();
        plans.push(plan);
    }
    assert_eq!(plans[0], plans[1]);
    assert_eq!(plans[0], plans[2]);
}

#[tokio::test]
async fn any_error_is_unknown_and_retires_the_process() {
    let lossy = Memory::new(|op, n| match n % 10 {
        3 if &*op.f == "write" => Act::Error,
        5 => Act::Panic,
        7 => Act::Refuse,
        _ => Act::Honest,
    });
    let run = test(lossy).build().unwrap().run().await.unwrap();
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    assert!(run.progress.info > 20 && run.progress.fail > 20, "{:?}", run.progress);
    let mut ended = std::collections::BTreeSet::new();
    let mut highest = 0;
    for event in run.history.events() {
        assert!(!ended.contains(&event.process), "{event:?} of a retired process");
        highest = highest.max(event.process.0);
        if event.kind == EventKind::Info {
            ended.insert(event.process);
        }
    }
    assert!(highest > 20, "{highest}");
    let panic = run.history.events().iter().find(|e| {
        e.error.as_deref().is_some_and(|error| error.contains("the client has a defect"))
    });
    assert_eq!(panic.unwrap().kind, EventKind::Info);
}

#[tokio::test]
async fn an_effect_after_a_lost_answer_is_valid_and_called_a_failure_it_is_not() {
    // Every third write takes effect and is not acknowledged.
    let lossy = Memory::new(|op, n| match &*op.f {
        "write" if n % 3 == 0 => Act::Error,
        _ => Act::Honest,
    });
    let run = test(lossy).build().unwrap().run().await.unwrap();
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    let mut events = run.history.events().to_vec();
    for event in &mut events {
        if event.kind == EventKind::Info {
            event.kind = EventKind::Fail;
        }
    }
    let naive = potter_jepsen::History::new(events).unwrap();
    let checker = Memory::honest().checker();
    let verdict = checker.check(&naive, &Budget::default()).unwrap().verdict;
    assert!(verdict.is_invalid(), "{verdict:?}");
}

#[tokio::test]
async fn clients_that_hang_do_not_hold_up_the_nemesis() {
    // All clients hang at once, for good, half of them without giving their thread back.
    let stuck = Memory::new(|_, n| match n {
        0..8 => Act::Honest,
        n if n % 2 == 0 => Act::Block,
        _ => Act::Hang,
    });
    let gate = stuck.gate.clone();
    let nemesis = Arc::new(Fake::default());
    let running = test(stuck)
        .op_timeout(MS * 400)
        .time_limit(Duration::from_secs(2))
        .nemesis(nemesis.clone())
        .faults(faults())
        .build()
        .unwrap()
        .start();
    let mut progress = running.progress();
    let run = running.await.unwrap();
    gate.store(true, Ordering::SeqCst);
    assert!(nemesis.injected.load(Ordering::SeqCst) > 10, "{:?}", run.progress);
    assert!(nemesis.healed.load(Ordering::SeqCst) > 10);
    assert!(run.progress.info >= 4, "{:?}", run.progress);
    assert_eq!(progress.borrow_and_update().phase.name(), "done");
    assert!(!run.analysis.verdict.is_invalid(), "{:?}", run.analysis.verdict);
    // Every invocation of a client has at most one completion.
    assert!(run.history.notes().iter().all(|note| !note.contains("no invocation")));
}

#[tokio::test]
async fn a_fault_that_was_seen_leaves_the_verdict_alone() {
    let (run, nemesis) = with_nemesis(Memory::honest(), Fake::default()).await;
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    assert!(run.progress.faults > 2 && run.progress.active_faults.is_empty());
    assert!(nemesis.healed.load(Ordering::SeqCst) >= nemesis.injected.load(Ordering::SeqCst));
    let faults = run.history.events().iter().filter(|e| e.process == Process::NEMESIS);
    let last = faults.clone().next_back().unwrap();
    assert_eq!((&*last.f, last.kind), ("heal", EventKind::Ok));
    let injected = faults.clone().find(|e| &*e.f == "nothing" && e.kind == EventKind::Ok).unwrap();
    assert_eq!(injected.value.get("detail").and_then(Value::as_name), Some("seen"));
    // The last reads come after the last heal.
    let healed = run.history.events().iter().rposition(|e| &*e.f == "heal").unwrap();
    let reads = run.history.events()[healed..].iter().filter(|e| e.kind == EventKind::Ok).count();
    assert!(reads >= 4, "{reads}");
}

#[tokio::test]
async fn a_fault_that_was_not_seen_leaves_nothing_valid() {
    for nemesis in [
        Fake { unverified: true, ..Fake::default() },
        Fake { fails: true, ..Fake::default() },
        Fake { heal_unverified: true, ..Fake::default() },
        Fake { hangs: true, ..Fake::default() },
    ] {
        let (run, nemesis) = with_nemesis(Memory::honest(), nemesis).await;
        let Verdict::Unknown { reason } = &run.analysis.verdict else {
            panic!("{:?}", run.analysis.verdict);
        };
        assert_eq!(reason.kind(), potter_jepsen::ReasonKind::FaultNotVerified);
        assert!(!run.unverified.is_empty());
        assert!(nemesis.healed.load(Ordering::SeqCst) > 0, "healed all the same");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_made_beside_a_test_are_in_its_history() {
    for (seen, valid) in
        [(Injected::verified("by hand"), true), (Injected::unverified("nobody there"), false)]
    {
        let test = test(Memory::honest()).max_operations(u64::MAX).time_limit(MS * 600);
        let running = test.pace(MS).build().unwrap().start();
        let notes = running.fault_notes();
        // Told before the load has begun, or while it runs.
        let fault = Fault::new("kill").target("somebody");
        notes.injected(fault.clone(), seen);
        notes.healed(Healed::verified("all well"));
        let run = running.await.unwrap();
        assert_eq!(run.analysis.verdict.is_valid(), valid, "{:?}", run.analysis.verdict);
        assert_eq!(run.unverified.is_empty(), valid, "{:?}", run.unverified);
        assert_eq!((run.progress.faults, run.progress.active_faults.len()), (1, 0));
        let events = run.history.events();
        let by_hand: Vec<_> = events.iter().filter(|e| e.process == Process::NEMESIS).collect();
        assert_eq!(by_hand.iter().map(|e| &*e.f).collect::<Vec<_>>(), ["kill", "heal"]);
        let targets = Value::List([Value::from("somebody")].into());
        assert_eq!(by_hand[0].value.get("targets"), Some(&targets));
        let text = potter_jepsen::report::text(&run.history, &run.analysis);
        let line = text.lines().find(|line| line.contains("kill somebody")).unwrap();
        assert!(line.ends_with(if valid { ", seen" } else { ", NOT SEEN" }), "{text}");
        // Nobody is there to hear of what comes later.
        notes.injected(fault, Injected::verified("too late"));
    }
}

#[tokio::test]
async fn a_nemesis_that_cannot_work_fails_the_test() {
    let nemesis = Arc::new(Fake { unavailable: true, ..Fake::default() });
    let test = test(Memory::honest()).nemesis(nemesis).build().unwrap();
    let error = test.run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("full moon"), "{error}");
}

#[tokio::test]
async fn nothing_done_and_nothing_achieved_prove_nothing() {
    let empty = test(Memory::honest()).max_operations(0).time_limit(MS);
    let run = empty.build().unwrap().run().await.unwrap();
    assert!(run.progress.operations == 4, "only the last reads");
    let refusing = Memory::new(|_, _| Act::Refuse);
    let run = test(refusing).build().unwrap().run().await.unwrap();
    assert!(run.analysis.verdict.is_unknown(), "{:?}", run.analysis.verdict);
    // Writes never succeed, reads do.
    let half = Memory::new(|op, _| if &*op.f == "write" { Act::Refuse } else { Act::Honest });
    let run = test(half).build().unwrap().run().await.unwrap();
    let Verdict::Unknown { reason } = &run.analysis.verdict else {
        panic!("{:?}", run.analysis.verdict);
    };
    assert!(reason.to_string().contains("'write'"), "{reason}");
}

#[tokio::test]
async fn cancelled_it_heals_and_proves_nothing() {
    let nemesis = Arc::new(Fake::default());
    let endless = |nemesis: &Arc<Fake>| {
        let test = test(Memory::honest()).max_operations(u64::MAX).pace(MS);
        let slow = generator::fault_windows([Fault::new("nothing")], MS, MS * 600_000);
        test.nemesis(nemesis.clone()).faults(slow).build().unwrap().start()
    };
    let running = endless(&nemesis);
    let mut progress = running.progress();
    let mut log = running.log();
    progress.wait_for(|now| now.ok > 20 && now.faults > 0).await.unwrap();
    assert_eq!(progress.borrow().active_faults, ["nothing"]);
    running.cancel();
    let run = running.await.unwrap();
    assert!(run.cancelled && run.analysis.verdict.is_unknown(), "{:?}", run.analysis.verdict);
    assert_eq!(nemesis.healed.load(Ordering::SeqCst), 1);
    let mut lines = Vec::new();
    while let Ok(line) = log.try_recv() {
        lines.push(line.to_string());
    }
    assert!(lines.iter().any(|line| line.contains("cancelled")), "{lines:?}");
    // Dropped, it heals too.
    let nemesis = Arc::new(Fake::default());
    let running = endless(&nemesis);
    let mut progress = running.progress();
    progress.wait_for(|now| now.faults > 0).await.unwrap();
    drop(running);
    progress.wait_for(|now| now.phase.name() == "done").await.unwrap();
    assert_eq!(nemesis.healed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let plain = || Test::builder(Memory::honest());
    for (builder, part) in [
        (plain(), "no node"),
        (plain().node("here", "x").concurrency(0), "concurrency is 0"),
        (plain().node("here", "x").op_timeout(Duration::ZERO), "unknown"),
        (plain().node("here", "x").faults(faults()), "no nemesis"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidTest);
        assert!(error.to_string().contains(part), "{error}");
    }
}

fn events_in(path: &Path) -> usize {
    read_history(path).unwrap().events().len()
}

#[tokio::test]
async fn a_torn_file_is_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let run = test(Memory::honest()).max_operations(2000).build().unwrap().run().await.unwrap();
    let path = folder.path().join("history.jsonl");
    write_history(&path, &run.history).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let all = run.history.events().len();
    assert_eq!(events_in(&path), all);
    assert!(all > 3000);
    // Cut anywhere: whole blocks are left.
    for percent in [0, 1, 20, 50, 77, 99] {
        std::fs::write(&path, &whole[..whole.len() * percent / 100]).unwrap();
        let read = read_history(&path).unwrap();
        let kept = read.events().len();
        assert!(kept.is_multiple_of(1024) && kept < all, "{kept} of {all} at {percent} %");
        let text = run.history.to_json_lines();
        assert!(text.starts_with(&read.to_json_lines()));
        if kept > 0 {
            let checker = Memory::honest().checker();
            let verdict = checker.check(&read, &Budget::default()).unwrap().verdict;
            assert!(verdict.is_valid(), "{verdict:?}");
        }
    }
    // Zeros in the middle, as after a power failure: the block and all after it are gone.
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle..middle + 100].fill(0);
    std::fs::write(&path, &damaged).unwrap();
    let kept = events_in(&path);
    assert!(kept > 0 && kept < all * 2 / 3, "{kept} of {all}");
}

/// Set for the child: the folder that it records into, without end.
const RECORDS_INTO: &str = "POTTER_TEST_RECORDS_INTO";

#[tokio::test]
async fn killed_in_the_middle_it_leaves_a_history_to_check() {
    if let Some(folder) = std::env::var_os(RECORDS_INTO) {
        let endless = test(Memory::honest()).max_operations(u64::MAX).directory(folder);
        _ = endless.build().unwrap().run().await;
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "runner::killed_in_the_middle_it_leaves_a_history_to_check"]);
    let mut child = child.env(RECORDS_INTO, &path).spawn().unwrap();
    let history = path.join("history.jsonl");
    let begun = std::time::Instant::now();
    let blocks = || {
        let text = std::fs::read(&history).unwrap_or_default();
        text.windows(9).filter(|part| part == b"{\"block\":").count()
    };
    while blocks() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it records nothing");
        tokio::time::sleep(MS * 20).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = read_history(&history).unwrap();
    assert!(left.operations().len() > 100, "{}", left.operations().len());
    let checker = Memory::honest().checker();
    let verdict = checker.check(&left, &Budget::default()).unwrap().verdict;
    assert!(verdict.is_valid(), "{verdict:?}");
    assert!(std::fs::read_to_string(path.join("manifest.json")).unwrap().contains("\"seed\": 42"));
}
