//! A user's program, compiled against the packed crates with their default features.

use std::time::Duration;

use potter_core::{Backoff, derived_id};

// Naming a crate is enough to find out that its package is complete.
use potter_eventsourcing as _;
use potter_saga as _;

fn main() {
    let backoff = Backoff::exponential(Duration::from_millis(100)).max_attempts(2).no_jitter();
    assert_eq!(backoff.delay(1, Duration::ZERO, 0.0), Some(Duration::from_millis(100)));
    assert_eq!(backoff.delay(2, Duration::ZERO, 0.0), None);
    assert_eq!(derived_id(&["order", "1"]), derived_id(&["order", "1"]));
    println!("the packages work");
}
