//! Programs that are stopped or killed in the middle, and started again.

use crate::on_both_engines;
use crate::place::Place;
use crate::process::{Process, output};

const SLOW: &str = "--delay-ms=5 --batch-size=5 --lease-ms=1000";

/// Stops it twice by a signal and kills it twice, each time in the middle.
fn again_and_again(name: &str, projection: &str, flags: &str, line: &str, place: &Place) {
    const USERS: usize = 150;
    let flags = format!("{flags} --events={USERS} {SLOW}");
    for (round, signal) in ["INT", "KILL", "TERM", "KILL"].into_iter().enumerate() {
        let mut process = Process::start(name, place, &flags);
        process.printed(line, 10);
        match signal {
            "KILL" => process.kill(),
            "INT" => {
                let text = process.interrupt();
                assert!(text.contains("topped"), "{text}");
            }
            _ => {
                process.signal(signal);
                process.ended_well();
            }
        }
        let applied = place.read_model(projection);
        assert!(applied.len() >= 10 * (round + 1), "{}", applied.len());
        assert!(applied.len() < USERS, "it was stopped in the middle");
        assert!(applied.values().all(|user| user.2 == 1));
    }
    let text = output(name, place, &format!("{flags} --once"));
    assert!(text.contains("Status: Caught up"), "{text}");
    place.is_exact(projection, USERS);
}

fn single_worker_loses_and_doubles_nothing(place: &Place) {
    again_and_again("single-worker", "simple_user_counter", "", "User created", place);
}

fn worker_pool_loses_and_doubles_nothing(place: &Place) {
    again_and_again("worker-pool", "worker_pool_projection", "--workers=4", "User created", place);
}

fn stop_resume_goes_on_where_it_was(place: &Place) {
    const EVENTS: usize = 60;
    let appended = output("stop-resume", place, "--mode=append --events=60 --delay-ms=0");
    assert_eq!(appended.matches("appended at position").count(), EVENTS);
    let status = || output("stop-resume", place, "--mode=status");
    assert!(status().contains("Status: Not started"), "{}", status());

    let process = "--mode=process --delay-ms=20 --lease-ms=1000";
    let mut first = Process::start("stop-resume", place, process);
    first.printed("✓ Position", 5);
    assert!(first.interrupt().contains("Starting fresh (no checkpoint found)"));
    assert!(status().contains("Status: Behind by "), "{}", status());
    assert!(status().contains(&format!("Total events: {EVENTS}")), "{}", status());

    let mut second = Process::start("stop-resume", place, process);
    second.printed("✓ Position", 5);
    assert_eq!(second.count("Resuming from checkpoint: position "), 1);
    second.kill();

    let last = output("stop-resume", place, &format!("{process} --once"));
    assert!(last.contains("Status: Caught up"), "{last}");
    assert!(status().contains("Status: Caught up"), "{}", status());
    place.is_exact("reliable_checkpoint_projection", EVENTS);
}

on_both_engines! {
    single_worker_loses_and_doubles_nothing;
    worker_pool_loses_and_doubles_nothing;
    stop_resume_goes_on_where_it_was;
}
