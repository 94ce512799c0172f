//! A storm over projections on PostgreSQL, with real processes.
//!
//! 16 writers take a position, wait a random time, and commit or roll back. 8 elastic workers, each
//! a process of its own, are killed with -9, stopped past their lease, told to stop, and replaced,
//! at random. At the end every projection must be the fold over the log: each event once, in the
//! order of its stream.
//!
//! A reader that goes by positions alone reads along. It must have missed events: if it did not,
//! the storm would not have shown anything.
//!
//! `POTTER_STORM_SECONDS` (60) and `POTTER_STORM_SEED` change it. A test harness of its own,
//! because the same program is also the worker.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the harness speaks as the standard one does")]

mod chaos;
mod naive;
mod read_model;
mod worker;
mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use potter_core::testing::TestDatabase;
use potter_eventsourcing::event_store;

fn main() {
    if let Ok(url) = std::env::var(worker::URL) {
        return worker::run(&url);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = "storm";
    let listed = arguments.iter().any(|argument| argument == "--list");
    let filters: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    if listed {
        return println!("{name}: test\n\n1 test, 0 benchmarks");
    }
    if wanted {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let storm = std::panic::catch_unwind(|| runtime.block_on(storm()));
        if storm.is_err() {
            println!(
                "test {name} ... FAILED\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out"
            );
            std::process::exit(101);
        }
        println!("test {name} ... ok");
    }
    let (passed, out) = (u8::from(wanted), u8::from(!wanted));
    println!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {out} filtered out"
    );
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

async fn storm() {
    let seconds = number("POTTER_STORM_SECONDS", 60);
    let seed = number("POTTER_STORM_SEED", u64::from(std::process::id()));
    println!("storm: {seconds} s, POTTER_STORM_SEED={seed}");
    let test = TestDatabase::postgres().await;
    let store = event_store(test.database()).unwrap();
    store.migrate().await.unwrap();
    read_model::create(test.database()).await;

    let done = Arc::new(AtomicBool::new(false));
    let writers = writers::start(&store, seed, &done);
    let naive = tokio::spawn(naive::read(test.database().clone(), Arc::clone(&done)));
    let mut workers = chaos::Workers::new(test.url(), seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        workers.something_happens().await;
    }
    done.store(true, Ordering::SeqCst);
    let (committed, rolled_back) = writers.await;
    let seen_by_naive = naive.await.unwrap();
    workers.all_may_work();

    let events = read_model::is_the_fold(&store).await;
    let missed = events - seen_by_naive;
    println!(
        "storm: {events} events ({committed} appends, {rolled_back} rolled back); workers killed {}, \
         stopped {}, told to stop {}, started {}; a reader by position alone missed {missed}",
        workers.killed, workers.stopped, workers.told, workers.started
    );
    assert_eq!(events, committed, "every append that was acknowledged is there, and no other");
    assert!(missed > 0, "the storm was too weak to show what it is for");
    assert!(workers.killed > 0 && workers.stopped > 0, "nothing happened to the workers");
    drop(workers);
    test.close().await;
}
