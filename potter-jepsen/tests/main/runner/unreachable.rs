//! Nodes that refuse connections, as servers do that are killed.

use std::time::Instant;

use super::*;

/// A node that can be down: `open` fails then, or the operation of a client that was open before.
#[derive(Clone)]
struct Down {
    memory: Memory,
    down: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

impl Down {
    fn new(down: bool) -> Self {
        let down = Arc::new(AtomicBool::new(down));
        Self { memory: Memory::honest(), down, refused: Arc::default() }
    }

    fn refuses(&self) -> bool {
        let down = self.down.load(Ordering::SeqCst);
        self.refused.fetch_add(u64::from(down), Ordering::SeqCst);
        down
    }
}

struct DownClient(Down, MemoryClient);

#[async_trait]
impl Client for DownClient {
    async fn invoke(&mut self, op: &Op) -> Result<Completion, Failure> {
        if self.0.refuses() {
            return Ok(Completion::Unreachable("connection refused".into()));
        }
        self.1.invoke(op).await
    }
}

#[async_trait]
impl Workload for Down {
    fn name(&self) -> String {
        "down".into()
    }

    async fn open(&self, _: &Session) -> Result<Box<dyn Client>, Failure> {
        if self.refuses() {
            return Err("connection refused".into());
        }
        Ok(Box::new(DownClient(self.clone(), MemoryClient(self.memory.clone()))))
    }

    fn generator(&self) -> Box<dyn Generator> {
        self.memory.generator()
    }

    fn checker(&self) -> Box<dyn Checker + Send> {
        self.memory.checker()
    }
}

fn lines(log: &mut tokio::sync::broadcast::Receiver<Arc<str>>) -> Vec<String> {
    std::iter::from_fn(|| log.try_recv().ok()).map(|line| line.to_string()).collect()
}

/// How often a client can try in this time at most: its pauses are 10 ms at least, then 20, 40, 80, 160,
/// 320, and 500 from then on.
fn tries_at_most(time: Duration) -> u64 {
    7 + u64::try_from(time.as_millis()).unwrap() / 500
}

#[tokio::test]
async fn a_node_that_is_down_is_not_asked_all_the_time() {
    let workload = Down::new(true);
    let refused = workload.refused.clone();
    let nemesis = Arc::new(Fake::default());
    let begun = Instant::now();
    let running = Test::builder(workload)
        .node("here", "memory://here")
        .concurrency(8)
        .op_timeout(Duration::from_secs(20))
        .time_limit(Duration::from_secs(2))
        .nemesis(nemesis.clone())
        .faults(faults())
        .recovery(MS)
        .build()
        .unwrap()
        .start();
    let mut log = running.log();
    let run = running.await.unwrap();
    let most = 8 * tries_at_most(begun.elapsed());
    let refused = refused.load(Ordering::SeqCst);
    assert!(refused >= 8 && refused <= most, "{refused} tries, and {most} at most");
    assert_eq!((run.progress.fail, run.progress.operations), (refused, refused));
    let error = run.history.events().iter().find_map(|event| event.error.as_deref());
    assert_eq!(error, Some("no connection: connection refused"));
    assert!(run.analysis.verdict.is_unknown(), "{:?}", run.analysis.verdict);
    // Who waits holds up nobody.
    assert!(nemesis.injected.load(Ordering::SeqCst) > 10, "{:?}", run.progress);
    assert!(nemesis.healed.load(Ordering::SeqCst) > 10);
    let lines = lines(&mut log);
    let told = lines.iter().filter(|line| line.contains("can't be reached"));
    assert_eq!(told.count(), 1, "{lines:?}");
}

#[tokio::test]
async fn a_node_that_comes_back_is_used_again() {
    let workload = Down::new(false);
    let (down, refused) = (workload.down.clone(), workload.refused.clone());
    let running = Test::builder(workload)
        .node("here", "memory://here")
        .concurrency(4)
        .pace(MS)
        .op_timeout(Duration::from_secs(20))
        .build()
        .unwrap()
        .start();
    let (mut progress, mut log) = (running.progress(), running.log());
    progress.wait_for(|now| now.ok > 20).await.unwrap();
    down.store(true, Ordering::SeqCst);
    progress.wait_for(|now| now.fail > 8).await.unwrap();
    down.store(false, Ordering::SeqCst);
    let ok = progress.borrow().ok;
    progress.wait_for(|now| now.ok > ok + 100).await.unwrap();
    running.cancel();
    let run = running.await.unwrap();
    assert_eq!(run.progress.fail, refused.load(Ordering::SeqCst));
    // Nothing was sent, so no process is retired and no outcome unknown.
    assert_eq!(run.progress.info, 0);
    assert!(run.history.events().iter().all(|event| event.process.0 < 4));
    let lines = lines(&mut log);
    let place = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap();
    assert!(place("here can't be reached") < place("here is reached again"), "{lines:?}");
}

#[test]
fn in_a_simulation_it_takes_virtual_time() {
    use potter_jepsen::sim::{Setting, Simulation};
    let sim = Simulation::new(1).concurrency(2).time_limit(Duration::from_secs(10));
    let run = sim.run(|_| Setting::new(Down::new(true)).nodes(["here"])).unwrap();
    assert!((100..=1_000).contains(&run.progress.fail), "{:?}", run.progress);
}
