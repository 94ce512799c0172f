//! Several processes on one database.

use crate::on_both_engines;
use crate::place::Place;
use crate::process::{Process, output};

const SLOW: &str = "--delay-ms=5 --batch-size=5 --lease-ms=1000";
/// Slow enough that all processes are up long before one is done.
const SLOWER: &str = "--events=0 --delay-ms=20 --batch-size=1";

/// All partitions, each in a process of its own.
fn partitions(place: &Place, total: usize, flags: &str) -> Vec<Process> {
    let start = |key| {
        let flags = format!("--partition-key={key} --total-partitions={total} {flags}");
        Process::start("partitioned", place, &flags)
    };
    (0..total).map(start).collect()
}

/// 4, then 8, then 3 partitions with stops between.
fn the_number_of_partitions_can_change(place: &Place) {
    const PROJECTION: &str = "partitioned_user_counter";
    const USERS: usize = 400;
    output("scaling", place, &format!("--worker-id=0 --append --events={USERS}"));
    let mut applied = 0;
    for total in [4, 8] {
        let mut running = partitions(place, total, SLOWER);
        // SQLite does not share its lock fairly: only one of them is waited for.
        running[0].printed("User created", 4);
        for process in running {
            assert!(process.interrupt().contains("Stopped. Processed "));
        }
        let users = place.read_model(PROJECTION);
        assert!((applied + 4..=USERS).contains(&users.len()), "{} of {applied}", users.len());
        assert!(users.values().all(|user| user.2 == 1), "something was applied twice");
        applied = users.len();
    }
    for mut process in partitions(place, 3, "--events=0 --lease-ms=1000 --once") {
        process.ended_well();
    }
    place.is_exact(PROJECTION, USERS);
}

/// Workers come one by one, one is killed, one is stopped.
fn workers_are_added_one_by_one(place: &Place) {
    const PROJECTION: &str = "scalable_projection";
    let append = |events| {
        output("scaling", place, &format!("--worker-id=0 --append --events={events}"));
        events
    };
    let mut users = append(300);
    let worker = |id| Process::start("scaling", place, &format!("--worker-id={id} {SLOW}"));
    let mut running = Vec::new();
    for id in 0..4 {
        let process = worker(id);
        // The others do all that is there until it has its share: there is always more.
        while process.count("Processing: user.created (aggregate: ") < 3 {
            users += append(20);
            assert!(users < 100_000, "worker {id} gets nothing to do");
        }
        running.push(process);
    }
    running.remove(2).kill();
    assert!(running.remove(0).interrupt().contains("[Worker 0] Stopped. Processed "));
    users += append(300);
    let text = output("scaling", place, &format!("--worker-id=2 --once {SLOW}"));
    assert!(text.contains("Worker 2 of 4 starting..."), "{text}");
    for process in running {
        process.interrupt();
    }
    place.is_exact(PROJECTION, users);
    assert_eq!(place.workers(), 4);
}

/// Three projections with batches of their own, stopped in the middle.
fn several_projections_go_on(place: &Place) {
    let flags = "--events=120 --delay-ms=50 --batch-size=2 --lease-ms=1000";
    for line in ["[UserCounter]", "[Revenue]"] {
        let mut process = Process::start("multiple-projections", place, flags);
        process.printed("batches of up to 2 events", 3);
        process.printed(line, 2);
        assert!(process.interrupt().contains("Final stats - "));
    }
    let text = output("multiple-projections", place, "--events=120 --lease-ms=1000 --once");
    let last = "Final stats - Users: 120, Revenue: $11998.80, Total events: 240";
    assert!(text.contains(last), "{text}");
}

on_both_engines! {
    the_number_of_partitions_can_change;
    workers_are_added_one_by_one;
    several_projections_go_on;
}
