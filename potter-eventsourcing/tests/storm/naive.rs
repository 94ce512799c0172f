//! The reader that everybody writes first: "give me what is above my checkpoint".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use potter_core::{Database, values};

/// Reads until `done`, and then what is still above its checkpoint; answers how many it saw.
pub(crate) async fn read(database: Database, done: Arc<AtomicBool>) -> u64 {
    let page = "SELECT global_position FROM potter_events WHERE global_position > $1
         ORDER BY global_position LIMIT 500";
    let (mut checkpoint, mut seen) = (0_i64, 0);
    loop {
        let last_look = done.load(Ordering::SeqCst);
        let rows = database.read(page, values![checkpoint]).await.unwrap();
        seen += rows.len() as u64;
        match rows.last() {
            Some(last) => checkpoint = last.i64("global_position").unwrap(),
            None if last_look => return seen,
            None => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}
