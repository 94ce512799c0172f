//! Hints between processes.

use potter_core::testing::TestDatabase;
use potter_core::{DatabaseOptions, Signal};

use crate::{LONG, ms};

/// Two handles stand for two processes. The listener needs no more than the one connection.
#[tokio::test]
async fn another_process_hears_a_hint_with_one_connection() {
    let test = TestDatabase::postgres().await;
    let one = DatabaseOptions::new().max_connections(1).connect(test.url()).await.unwrap();
    let mut hints = Signal::new(&one, "potter_hints").subscribe();
    // The first says that it listens now.
    let begun = std::time::Instant::now();
    hints.wait(LONG).await;
    let sender = Signal::new(test.database(), "potter_hints");
    let mut own = sender.subscribe();
    own.wait(LONG).await;
    own.clear();
    sender.send_to_others();
    hints.wait(LONG).await;
    assert!(begun.elapsed() < LONG, "it was heard, and not waited for in vain");
    drop(hints);
    one.close().await;
    test.close().await;
}

#[tokio::test]
async fn without_a_server_there_are_no_others() {
    let signal = Signal::in_process("potter_hints");
    let mut hints = signal.subscribe();
    signal.send_to_others();
    assert!(tokio::time::timeout(ms(50), hints.wait(LONG)).await.is_err());
    signal.send();
    hints.wait(LONG).await;
}
