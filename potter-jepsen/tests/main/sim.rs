//! Simulations: one seed is one history, every bug is found, nothing else is.

use potter_jepsen::sim::{Bug, Kind, Scenario};

#[test]
fn one_seed_is_one_history_byte_for_byte() {
    for bug in Bug::ALL {
        for seed in 0..5 {
            let run = || Scenario::showing(bug).seed(seed).run().unwrap();
            let (first, second) = (run(), run());
            let text = first.history.to_json_lines();
            assert_eq!(text, second.history.to_json_lines(), "{bug:?}, seed {seed}");
            assert_eq!(first.analysis.verdict.name(), second.analysis.verdict.name());
            assert!(first.progress.operations > 300, "{bug:?}: {:?}", first.progress);
        }
    }
    let of = |seed| Scenario::register(Bug::None).seed(seed).run().unwrap().history.to_json_lines();
    assert_ne!(of(1), of(2));
}

#[test]
fn a_store_without_a_bug_is_valid_on_every_seed() {
    for kind in [Kind::Register, Kind::Append] {
        for seed in 0..150 {
            let run = Scenario::new(kind, Bug::None).seed(seed).run().unwrap();
            let verdict = &run.analysis.verdict;
            assert!(verdict.is_valid(), "{kind:?}, seed {seed}: {verdict:?}");
            assert!(run.progress.info > 0, "faults leave unknown outcomes: {:?}", run.progress);
            assert!(run.progress.faults > 5, "{:?}", run.progress);
        }
    }
}

/// Of 40 seeds, how many show the bug, and as what.
fn caught(bug: Bug) -> (usize, Vec<String>) {
    let mut names = Vec::new();
    let mut count = 0;
    for seed in 0..40 {
        let run = Scenario::showing(bug).seed(seed).run().unwrap();
        count += usize::from(run.analysis.verdict.is_invalid());
        names.extend(run.analysis.anomalies.iter().map(|found| found.anomaly.clone()));
    }
    names.sort();
    names.dedup();
    (count, names)
}

#[test]
fn every_bug_is_caught_under_its_name() {
    for (bug, expected) in [
        (Bug::StaleReads, "nonlinearizable"),
        (Bug::LostWrites, "nonlinearizable"),
        (Bug::WrongTimeouts, "nonlinearizable"),
        (Bug::LostUpdates, "lost-update"),
        (Bug::WriteSkew, "G2-item"),
        (Bug::DirtyReads, "G1a"),
    ] {
        let (count, names) = caught(bug);
        println!("{bug:?}: {count} of 40 seeds, {names:?}");
        assert!(count >= 20, "{bug:?}: only {count} of 40 seeds show it");
        assert!(names.iter().any(|name| name == expected), "{bug:?}: {names:?}");
    }
}

#[test]
fn snapshot_isolation_holds_where_only_write_skew_is_wrong() {
    use potter_jepsen::txn::Level;
    for seed in 0..20 {
        let run = Scenario::append(Bug::WriteSkew).seed(seed).run().unwrap();
        let level =
            run.analysis.levels.iter().find(|(level, _)| *level == Level::SnapshotIsolation);
        assert!(level.unwrap().1.is_valid(), "seed {seed}: {:?}", level.unwrap().1);
    }
}

#[test]
fn a_time_out_that_is_called_a_failure_is_the_clients_fault() {
    // The same plan and the same store; only the client's word differs.
    for seed in 0..10 {
        let honest = Scenario::register(Bug::None).seed(seed).run().unwrap();
        assert!(honest.analysis.verdict.is_valid());
    }
    let (count, _) = caught(Bug::WrongTimeouts);
    assert!(count > 0);
}

#[test]
fn a_failing_seed_shrinks_to_few_operations() {
    for bug in [Bug::StaleReads, Bug::WriteSkew] {
        let scenario = (0..40)
            .map(|seed| Scenario::showing(bug).seed(seed))
            .find(|scenario| scenario.run().unwrap().analysis.verdict.is_invalid())
            .unwrap();
        let before = scenario.run().unwrap();
        let smaller = scenario.shrink().unwrap();
        let (seed, clients, operations) = smaller.numbers();
        println!("{bug:?}: seed {seed}, {clients} clients, {operations} operations");
        assert!(smaller.run.progress.operations * 4 <= before.progress.operations);
        // The numbers alone say it all.
        let again = Scenario::showing(bug)
            .seed(seed)
            .concurrency(clients)
            .max_operations(operations)
            .run()
            .unwrap();
        assert_eq!(again.history.to_json_lines(), smaller.run.history.to_json_lines());
        assert_eq!(
            again.analysis.verdict.counterexample().unwrap().anomaly,
            before.analysis.verdict.counterexample().unwrap().anomaly
        );
    }
}

#[test]
fn without_faults_every_outcome_is_known() {
    let run = Scenario::register(Bug::None).faults(false).seed(3).run().unwrap();
    assert_eq!((run.progress.info, run.progress.faults), (0, 0));
    assert!(run.analysis.verdict.is_valid());
}
