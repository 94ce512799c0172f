//! The workloads on a real PostgreSQL: what it promises holds, and what it does not is found.

mod cluster;
mod proxy;

use std::time::Duration;

use potter_jepsen::runner::{Run, Test, TestBuilder};
use potter_jepsen::txn::{self, Level, ListAppend};
use potter_jepsen::workloads::postgres::{Isolation, Kind, Options, Postgres};
use potter_jepsen::{Budget, Checker, Event, EventKind, History, Value};

use crate::random::Random;
use proxy::Proxy;

fn url() -> String {
    std::env::var("POTTER_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("this test needs PostgreSQL: run scripts/test, or eval \"$(scripts/services up)\"")
    })
}

fn test(kind: Kind, options: Options) -> TestBuilder {
    Test::builder(Postgres::new(kind, options).unwrap())
        .concurrency(8)
        .max_operations(1500)
        .op_timeout(Duration::from_secs(60))
        .final_time(Duration::from_secs(300))
}

async fn run(kind: Kind, isolation: Isolation, seed: u64, operations: u64) -> Run {
    let test = test(kind, Options::default().isolation(isolation)).node("primary", url());
    test.seed(seed).max_operations(operations).build().unwrap().run().await.unwrap()
}

fn anomalies(run: &Run) -> Vec<&str> {
    run.analysis.anomalies.iter().map(|found| found.anomaly.as_str()).collect()
}

/// Runs until one of `wanted` shows. The system is known to have it: if it does not show, the test is
/// what is broken.
async fn shows(kind: Kind, isolation: Isolation, wanted: &[&str]) -> Run {
    for seed in 0..40 {
        let run = run(kind, isolation, seed, 2000).await;
        if anomalies(&run).iter().any(|name| wanted.contains(name)) {
            return run;
        }
    }
    panic!("{kind:?} at {isolation:?} shows none of {wanted:?} in 40 runs of 2000 operations");
}

/// The verdict with every client's clock up to 300 s off.
fn skewed(kind: Kind, isolation: Isolation, run: &Run) -> String {
    let mut random = Random::new(300);
    let mut events = run.history.events().to_vec();
    let offsets: Vec<i64> =
        (0..1000).map(|_| (random.below(600) as i64 - 300) * 1_000_000_000).collect();
    for event in &mut events {
        let offset = offsets[event.process.0.unsigned_abs() as usize % offsets.len()];
        event.time = event.time.map(|time| time + offset);
    }
    let history = History::new(events).unwrap();
    verdict(kind, isolation, &history)
}

fn verdict(kind: Kind, isolation: Isolation, history: &History) -> String {
    use potter_jepsen::runner::Workload;
    let workload = Postgres::new(kind, Options::default().isolation(isolation)).unwrap();
    let checker: Box<dyn Checker + Send> = workload.checker();
    checker.check(history, &Budget::default()).unwrap().verdict.name().to_owned()
}

#[tokio::test]
async fn every_workload_is_valid_where_the_server_keeps_its_word() {
    for kind in Kind::ALL {
        let run = run(kind, Isolation::Serializable, 1, 1500).await;
        let (verdict, progress) = (&run.analysis.verdict, &run.progress);
        println!("{kind:?}: {progress:?}");
        assert!(verdict.is_valid(), "{kind:?}: {verdict:?}");
        assert!(progress.ok > 300 && progress.info == 0, "{kind:?}: {progress:?}");
        assert_eq!(skewed(kind, Isolation::Serializable, &run), "valid", "{kind:?}");
    }
}

#[tokio::test]
async fn single_statements_are_linearizable_at_every_level() {
    for kind in [Kind::Register, Kind::Cas, Kind::Queue, Kind::Set, Kind::Monotonic] {
        let run = run(kind, Isolation::ReadCommitted, 2, 1500).await;
        assert!(run.analysis.verdict.is_valid(), "{kind:?}: {:?}", run.analysis.verdict);
    }
}

#[tokio::test]
async fn read_committed_loses_updates_and_skews_reads() {
    let found = ["G-single", "G-nonadjacent", "lost-update"];
    let run = shows(Kind::Append, Isolation::ReadCommitted, &found).await;
    // And yet it is what it says it is.
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    assert_eq!(skewed(Kind::Append, Isolation::ReadCommitted, &run), "valid");
    let broken = run.analysis.levels.iter().find(|(level, _)| *level == Level::Serializable);
    assert!(broken.unwrap().1.is_invalid());
    let bank = shows(Kind::Bank, Isolation::ReadCommitted, &["wrong-total"]).await;
    assert!(bank.analysis.verdict.is_invalid());
}

#[tokio::test]
async fn repeatable_read_is_snapshot_isolation_and_lets_writes_skew() {
    let run = shows(Kind::Append, Isolation::RepeatableRead, &["G2-item"]).await;
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    let all: std::collections::BTreeMap<_, _> =
        run.analysis.levels.iter().map(|(level, verdict)| (*level, verdict.name())).collect();
    assert_eq!(all[&Level::SnapshotIsolation], "valid");
    assert_eq!(all[&Level::Serializable], "invalid");
    for kind in [Kind::Bank, Kind::LongFork] {
        let run = self::run(kind, Isolation::RepeatableRead, 3, 1500).await;
        assert!(run.analysis.verdict.is_valid(), "{kind:?}: {:?}", run.analysis.verdict);
    }
}

#[tokio::test]
async fn serializable_is_clean() {
    for kind in [Kind::Append, Kind::Rw] {
        for seed in 0..2 {
            let run = run(kind, Isolation::Serializable, seed, 1500).await;
            assert!(run.analysis.verdict.is_valid(), "{kind:?}: {:?}", run.analysis.verdict);
            assert_eq!(anomalies(&run), [""; 0], "{kind:?}, seed {seed}");
        }
    }
}

/// What a client makes of it that takes every unknown outcome for a failure.
fn naive(run: &Run) -> History {
    let mut events: Vec<Event> = run.history.events().to_vec();
    for event in &mut events {
        if event.kind == EventKind::Info {
            event.kind = EventKind::Fail;
        }
    }
    History::new(events).unwrap()
}

async fn through(proxy: &Proxy, seed: u64) -> Run {
    let options = Options::default().keys(2);
    let test = test(Kind::Append, options).node("primary", proxy.url(&url()));
    let test = test.op_timeout(Duration::from_secs(1)).max_operations(400).seed(seed);
    test.build().unwrap().run().await.unwrap()
}

#[tokio::test]
async fn a_commit_whose_answer_was_eaten_may_have_happened() {
    let proxy = Proxy::start(&url(), proxy::Trap::EatAnswer, 20).await;
    for seed in 0..10 {
        let run = through(&proxy, seed).await;
        assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
        if verdict(Kind::Append, Isolation::Serializable, &naive(&run)) == "invalid" {
            println!("seed {seed}: {} eaten, {:?}", proxy.sprung(), run.progress);
            assert!(proxy.sprung() > 0 && run.progress.info > 0, "{:?}", run.progress);
            return;
        }
    }
    panic!("{} answers were eaten, and nobody saw what had been written", proxy.sprung());
}

#[tokio::test]
async fn a_commit_that_never_arrived_did_not_happen_and_nobody_can_know() {
    let proxy = Proxy::start(&url(), proxy::Trap::DropRequest, 20).await;
    let run = through(&proxy, 1).await;
    assert!(proxy.sprung() > 0 && run.progress.info > 0, "{:?}", run.progress);
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    // Taken for successes they would be writes that nobody sees.
    let mut events = run.history.events().to_vec();
    for event in &mut events {
        if event.kind == EventKind::Info && only_appends(&event.value) {
            event.kind = EventKind::Ok;
        }
    }
    let wrong = History::new(events).unwrap();
    let level = txn::Options::default().level(Level::StrictSerializable);
    let verdict = ListAppend::new(level).check(&wrong, &Budget::default()).unwrap().verdict;
    assert!(verdict.is_invalid(), "{verdict:?}");
}

fn only_appends(txn: &Value) -> bool {
    let append = |step: &Value| step.as_items().is_some_and(|s| s[0].as_name() == Some("append"));
    txn.as_items().is_some_and(|steps| steps.iter().all(append))
}
