//! The log as a stream without an end: what was, then what comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};

use crate::error::Result;
use crate::event::RecordedEvent;
use crate::store::{EventFilter, EventStore};

const PAGE: u64 = 200;
const POLL: Duration = Duration::from_millis(500);
const PENDING_WAIT: Duration = Duration::from_millis(1);

/// The events above `after` that `filter` wants, and those to come. It ends never; an error can be
/// followed by more events, as it goes on where it was.
///
/// For whoever keeps the position: an SSE connection that resumes from `Last-Event-ID`, a test.
/// To keep it in the database, use a [`Subscriber`](super::Subscriber).
pub fn follow(
    store: Arc<dyn EventStore>,
    after: u64,
    filter: EventFilter,
) -> BoxStream<'static, Result<RecordedEvent>> {
    let hints = store.changes();
    let start = (store, hints, after, VecDeque::new());
    stream::unfold(start, move |(store, mut hints, mut after, mut waiting)| {
        let filter = filter.clone();
        async move {
            loop {
                if let Some(event) = waiting.pop_front() {
                    return Some((Ok(event), (store, hints, after, waiting)));
                }
                if let Some(hints) = &mut hints {
                    hints.clear();
                }
                let page = match store.read_page(after, &filter, PAGE).await {
                    Ok(page) => page,
                    Err(error) => {
                        tokio::time::sleep(POLL).await;
                        return Some((Err(error), (store, hints, after, waiting)));
                    }
                };
                let moved = page.through > after;
                after = page.through;
                waiting.extend(page.events);
                if !waiting.is_empty() || (moved && after < page.head) {
                    continue;
                }
                match &mut hints {
                    _ if after < page.head => tokio::time::sleep(PENDING_WAIT).await,
                    Some(hints) => hints.wait(POLL).await,
                    None => tokio::time::sleep(POLL).await,
                }
            }
        }
    })
    .boxed()
}
