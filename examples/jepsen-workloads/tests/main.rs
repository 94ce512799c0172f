//! The event store and the saga engine on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use jepsen_workloads::{
    EventStoreWorkload, ORCHESTRATORS, Orchestrators, Reader, SagaWorkload, run_orchestrator,
};
use potter_jepsen::generator;
use potter_jepsen::nemesis::{Fault, Journal, Nemesis, ProcessCommand, Processes};
use potter_jepsen::runner::{Run, Test};
use potter_jepsen::{Budget, History, Value};
use tokio_util::sync::CancellationToken;

fn url() -> String {
    std::env::var("POTTER_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("this test needs PostgreSQL: run scripts/test, or eval \"$(scripts/services up)\"")
    })
}

async fn events(reader: Reader, seed: u64) -> Run {
    let test = Test::builder(EventStoreWorkload::new(reader)).node("primary", url());
    let test = test.concurrency(8).seed(seed).max_operations(1500);
    test.op_timeout(Duration::from_secs(60)).build().unwrap().run().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_reader_skips_nothing() {
    for seed in 0..2 {
        let run = events(Reader::Safe, seed).await;
        assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
        assert!(run.progress.ok > 500, "{:?}", run.progress);
        // The readers saw all of it in the end.
        let polled =
            run.history.events().iter().filter(|e| &*e.f == "poll" && e.kind.as_str() == "ok");
        let polled: usize = polled.map(|e| e.value.as_items().unwrap_or_default().len()).sum();
        assert!(polled > 500, "{polled}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_trusts_positions_is_caught_skipping() {
    for seed in 0..20 {
        let run = events(Reader::Naive, seed).await;
        if let Some(found) = run.analysis.verdict.counterexample() {
            assert_eq!(found.anomaly, "skipped", "{found:?}");
            return;
        }
    }
    panic!("20 runs, and the naive reader skipped nothing");
}

const IS_ORCHESTRATOR: &str = "POTTER_TEST_IS_ORCHESTRATOR";

/// This program again, as an orchestrator.
#[tokio::test]
async fn orchestrator() {
    if std::env::var_os(IS_ORCHESTRATOR).is_some() {
        run_orchestrator(CancellationToken::new()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sagas_are_done_or_undone_while_their_orchestrators_are_killed_and_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(folder.path().join("journal")).unwrap();
    let processes = Arc::new(Processes::new(journal));
    let command = ProcessCommand::new(std::env::current_exe().unwrap());
    let command =
        command.args(["--exact", "orchestrator", "--nocapture"]).env(IS_ORCHESTRATOR, "1");
    let logs = folder.path().join("logs");
    let workload = SagaWorkload::new(Orchestrators::new(Arc::clone(&processes), command, logs));
    let faults = ["kill", "pause"]
        .into_iter()
        .flat_map(|kind| ORCHESTRATORS.map(|name| Fault::new(kind).target(name)));
    // Longer than a lease, so that who was frozen wakes up when another has its sagas.
    let (quiet, active) = (Duration::from_millis(500), Duration::from_secs(3));
    let test = Test::builder(workload)
        .node("primary", url())
        .concurrency(4)
        .pace(Duration::from_millis(20))
        .time_limit(Duration::from_secs(14))
        .op_timeout(Duration::from_secs(60))
        .final_time(Duration::from_secs(300))
        .nemesis(Arc::clone(&processes) as Arc<dyn Nemesis>)
        .faults(generator::fault_windows(faults, quiet, active))
        .seed(3);
    let run = test.build().unwrap().run().await.unwrap();
    assert!(run.unverified.is_empty(), "{:?}", run.unverified);
    assert!(run.progress.faults >= 2, "{:?}", run.progress);
    assert!(run.analysis.verdict.is_valid(), "{:?}", run.analysis.verdict);
    assert_eq!(processes.names(), Vec::<String>::new(), "stopped at the end");
    let effects = run.history.events().iter().rfind(|e| &*e.f == "effects").unwrap();
    let rows = effects.value.as_items().unwrap();
    let count = |word: &str| rows.iter().filter(|row| row.to_string().contains(word)).count();
    assert!(count("\"completed\"") > 20, "{}", count("\"completed\""));
    assert!(count("\"compensated\"") > 5, "{}", count("\"compensated\""));
    // The checker is not blind: an effect twice, and one that was not taken back, are found.
    let checker = SagaWorkload::effects_checker();
    let verdict = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut events = run.history.events().to_vec();
        let last = events.iter().rposition(|e| &*e.f == "effects").unwrap();
        let mut rows = events[last].value.as_items().unwrap().to_vec();
        change(&mut rows);
        events[last].value = Value::from(rows);
        let history = History::new(events).unwrap();
        let analysis = checker.check(&history, &Budget::default()).unwrap();
        analysis.verdict.counterexample().map(|found| found.anomaly.clone())
    };
    let first = |rows: &[Value], word: &str| {
        rows.iter().position(|row| row.to_string().contains(word)).unwrap()
    };
    assert_eq!(verdict(&|_| {}), None);
    let twice = verdict(&|rows| rows.push(rows[first(rows, "\"apply\"")].clone()));
    assert_eq!(twice.as_deref(), Some("effect-twice"));
    let kept = verdict(&|rows| drop(rows.remove(first(rows, "\"compensate\""))));
    assert_eq!(kept.as_deref(), Some("not-compensated"));
    let endless = verdict(&|rows| drop(rows.remove(first(rows, "\"end\""))));
    assert_eq!(endless.as_deref(), Some("unfinished"));
}
