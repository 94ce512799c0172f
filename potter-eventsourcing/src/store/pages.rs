//! From pages to a stream of events.

use std::future::Future;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::EventStore;
use super::condition::{MATCHING_MAX, Matching};
use super::filter::EventFilter;
use super::read::{Direction, Page, ReadAllOptions, ReadOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::event::RecordedEvent;
use crate::query::EventQuery;

/// A stream of the pages that `next` gives until there is no cursor any more.
pub(crate) fn pages<'a, C, F, Fut>(first: C, next: F) -> BoxStream<'a, Result<RecordedEvent>>
where
    C: Send + 'a,
    F: Fn(C) -> Fut + Send + Sync + 'a,
    Fut: Future<Output = Result<(Vec<RecordedEvent>, Option<C>)>> + Send + 'a,
{
    let next = std::sync::Arc::new(next);
    stream::try_unfold(Some(first), move |cursor| {
        let next = std::sync::Arc::clone(&next);
        async move {
            let Some(cursor) = cursor else {
                return Ok(None);
            };
            next(cursor).await.map(Some)
        }
    })
    .map_ok(|events| stream::iter(events.into_iter().map(Ok)))
    .try_flatten()
    .boxed()
}

/// Where to go on in a stream after a page that was asked for with `options`.
pub(crate) fn next_in_stream(options: ReadOptions, page: &[RecordedEvent]) -> Option<ReadOptions> {
    let got = page.len() as u64;
    let last = page.last()?.version;
    if got < options.page() {
        return None;
    }
    let from = match options.direction {
        Direction::Forwards => last.checked_add(1)?,
        Direction::Backwards => last.checked_sub(1).filter(|version| *version > 0)?,
    };
    let limit = match options.limit {
        Some(limit) if limit <= got => return None,
        limit => limit.map(|limit| limit - got),
    };
    Some(ReadOptions { from_version: Some(from), limit, ..options })
}

/// A cursor through all events: above `after`, up to and with `until`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllCursor {
    pub(crate) after: u64,
    pub(crate) until: u64,
    pub(crate) limit: Option<u64>,
}

impl AllCursor {
    pub(crate) fn page(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX).min(ReadOptions::PAGE)
    }

    pub(crate) fn next(self, page: &[RecordedEvent]) -> Option<Self> {
        let got = page.len() as u64;
        let after = page.last()?.global_position;
        let limit = match self.limit {
            Some(limit) if limit <= got => return None,
            limit => limit.map(|limit| limit - got),
        };
        (got >= self.page() && after < self.until).then_some(Self { after, limit, ..self })
    }
}

/// How many events are looked through for one page by a store without an index.
const LOOKED_THROUGH_MAX: u64 = 4 * ReadOptions::PAGE;

/// A page of what `filter` wants, from a store that can only read all.
pub(crate) async fn filtered<S: EventStore + ?Sized>(
    store: &S,
    after: u64,
    filter: &EventFilter,
    limit: u64,
) -> Result<Page> {
    let head = store.safe_position().await?;
    let mut all = store.read_all(after, ReadAllOptions::new().limit(LOOKED_THROUGH_MAX));
    let (mut events, mut seen, mut through) = (Vec::new(), 0, after);
    while let Some(event) = all.try_next().await? {
        seen += 1;
        through = event.global_position;
        if filter.matches(&event) {
            events.push(event);
        }
        if events.len() as u64 >= limit {
            return Ok(Page { events, through, head: head.max(through) });
        }
    }
    if seen < LOOKED_THROUGH_MAX {
        through = through.max(head);
    }
    Ok(Page { events, through, head: head.max(through) })
}

/// All that a query wants above a position.
pub(crate) async fn matching<S: EventStore + ?Sized>(
    store: &S,
    query: &EventQuery,
    after: u64,
) -> Result<Matching> {
    query.check()?;
    let filter = EventFilter::all().query(query.clone());
    let (mut events, mut through) = (Vec::new(), after);
    loop {
        let page = store.read_page(through, &filter, ReadOptions::PAGE).await?;
        events.extend(page.events);
        within_limit(&events)?;
        if page.through >= page.head || page.through == through {
            return Ok(Matching::new(query.clone(), events, page.through));
        }
        through = page.through;
    }
}

/// Refuses more events than one decision may depend on.
pub(crate) fn within_limit(events: &[RecordedEvent]) -> Result<()> {
    if events.len() <= MATCHING_MAX {
        return Ok(());
    }
    let message = format!(
        "the query wants more than {MATCHING_MAX} events: name more tags or types, or keep a state \
         and read what came after it"
    );
    Err(Error::new(ErrorKind::LimitExceeded, message))
}

/// How many of the events in between `filter` wants, by reading them.
pub(crate) async fn count<S: EventStore + ?Sized>(
    store: &S,
    mut after: u64,
    until: u64,
    filter: &EventFilter,
) -> Result<u64> {
    let mut count = 0;
    loop {
        let page = store.read_page(after, filter, ReadOptions::PAGE).await?;
        let within = page.events.iter().take_while(|event| event.global_position <= until);
        count += within.count() as u64;
        if page.through >= until.min(page.head) || page.through == after {
            return Ok(count);
        }
        after = page.through;
    }
}
