//! Appends whose positions become visible late, out of order, or never.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use potter_eventsourcing::{EventStore, ExpectedVersion, NewEvent, StreamId};

const WRITERS: u64 = 16;
const STREAMS: u64 = 200;

/// A small generator of random numbers (SplitMix64), so that a seed is all there is to know.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Runs the writers until `done`; answers how many appends were committed and rolled back.
pub(crate) fn start(
    store: &Arc<dyn EventStore>,
    seed: u64,
    done: &Arc<AtomicBool>,
) -> impl Future<Output = (u64, u64)> {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let random = Random::new(seed.wrapping_mul(31).wrapping_add(writer));
            tokio::spawn(write(Arc::clone(store), random, Arc::clone(done)))
        })
        .collect();
    async {
        let mut sum = (0, 0);
        for writer in writers {
            let (committed, rolled_back) = writer.await.unwrap();
            sum = (sum.0 + committed, sum.1 + rolled_back);
        }
        sum
    }
}

async fn write(
    store: Arc<dyn EventStore>,
    mut random: Random,
    done: Arc<AtomicBool>,
) -> (u64, u64) {
    let (mut committed, mut rolled_back) = (0, 0);
    while !done.load(Ordering::SeqCst) {
        let stream = StreamId::new("storm", random.below(STREAMS)).unwrap();
        let event = NewEvent::new("storm.blew", &random.below(100)).unwrap();
        let mut tx = store.database().unwrap().begin().await.unwrap();
        let appended = store.append_in(&mut tx, &stream, ExpectedVersion::Any, vec![event]).await;
        appended.unwrap();
        // Mostly short; now and then long enough for others to go far ahead.
        let pause = if random.below(20) == 0 { 50_000 } else { 3_000 };
        tokio::time::sleep(Duration::from_micros(random.below(pause))).await;
        if random.below(5) == 0 {
            tx.rollback().await.unwrap();
            rolled_back += 1;
        } else {
            tx.commit().await.unwrap();
            committed += 1;
        }
    }
    (committed, rolled_back)
}
