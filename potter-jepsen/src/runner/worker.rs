//! A client's thread: takes operations, does them within their time, reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinError;
use tokio::time::timeout;

use super::reach::{Pauses, Reach};
use super::{Client, Completion, Failure, Node, Op, Session, Workload};
use crate::generator::Thread;
use crate::history::{Event, EventKind, Process};

/// How long a client may take to close.
const CLOSE: Duration = Duration::from_secs(1);

/// One operation for a worker. It has at most one at a time, so its channels stay short.
pub(super) struct Job {
    pub(super) process: Process,
    pub(super) op: Op,
}

/// What a thread did. Numbers are those of the history's one order.
pub(super) struct Message {
    pub(super) thread: Thread,
    pub(super) number: u64,
    pub(super) event: Event,
}

/// What all workers share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) workload: Arc<dyn Workload>,
    pub(super) order: Arc<AtomicU64>,
    pub(super) begin: Instant,
    pub(super) messages: UnboundedSender<Message>,
    pub(super) op_timeout: Duration,
    pub(super) seed: u64,
    pub(super) reach: Arc<Reach>,
}

impl Shared {
    pub(super) fn event(&self, process: Process, kind: EventKind, op: &Op) -> Event {
        let time = i64::try_from(self.begin.elapsed().as_nanos()).ok();
        let (f, key, value) = (op.f.clone(), op.key.clone(), op.value.clone());
        Event { process, kind, f, key, value, time, error: None }
    }

    pub(super) fn number(&self) -> u64 {
        self.order.fetch_add(1, Ordering::SeqCst)
    }
}

/// Starts a thread for client `thread`. It ends when the sender is dropped.
pub(super) fn spawn(
    shared: Shared,
    thread: usize,
    node: Node,
) -> std::io::Result<UnboundedSender<Job>> {
    let (jobs, queue) = unbounded_channel();
    std::thread::Builder::new().name(format!("potter-client-{thread}")).spawn(move || {
        // A runtime of its own: a client that blocks its thread blocks nobody else.
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(work(shared, thread, node, queue)),
            Err(error) => tracing::error!(%error, thread, "a client has no runtime"),
        }
    })?;
    Ok(jobs)
}

async fn work(shared: Shared, thread: usize, node: Node, mut queue: UnboundedReceiver<Job>) {
    let mut client: Option<Box<dyn Client>> = None;
    let mut pauses = Pauses::new(shared.seed ^ (thread as u64) << 32);
    while let Some(Job { process, op }) = queue.recv().await {
        let report = |event: Event, number| {
            _ = shared.messages.send(Message { thread: Thread::Client(thread), number, event });
        };
        // The number first, then the operation: the interval must not be too short.
        report(shared.event(process, EventKind::Invoke, &op), shared.number());
        let session = Session { node: node.clone(), thread, process: process.0 };
        let (completion, kept) = one(&shared, &session, client.take(), &op).await;
        let mut event = shared.event(process, EventKind::Info, &op);
        let mut unreachable = false;
        match completion {
            Completion::Ok(value) => (event.kind, event.value) = (EventKind::Ok, value),
            Completion::Fail(why) => {
                event.kind = EventKind::Fail;
                event.error = Some(why.into());
            }
            Completion::Unreachable(why) => {
                unreachable = true;
                shared.reach.lost(&node.name, &why);
                event.kind = EventKind::Fail;
                event.error = Some(format!("no connection: {why}").into());
            }
            Completion::Info(why) => event.error = Some(why.into()),
        }
        if unreachable {
            tokio::time::sleep(pauses.next()).await;
        } else if pauses.reset() {
            shared.reach.found(&node.name);
        }
        let spent = unreachable || event.kind == EventKind::Info;
        report(event, shared.number());
        client = match kept {
            Some(mut old) if spent => {
                _ = timeout(CLOSE, old.close()).await;
                None
            }
            other => other,
        };
    }
    if let Some(mut client) = client {
        _ = timeout(CLOSE, client.close()).await;
    }
}

/// Does one operation, with a new client if there is none. Returns the client if it is still good.
async fn one(
    shared: &Shared,
    session: &Session,
    client: Option<Box<dyn Client>>,
    op: &Op,
) -> (Completion, Option<Box<dyn Client>>) {
    let mut client = match client {
        Some(client) => client,
        None => match open(shared, session).await {
            Ok(client) => client,
            Err(error) => return (Completion::Unreachable(error), None),
        },
    };
    let op = op.clone();
    // A task of its own: a panic must not end the thread.
    let mut task = tokio::spawn(async move {
        let outcome = client.invoke(&op).await;
        (outcome, client)
    });
    match timeout(shared.op_timeout, &mut task).await {
        Ok(Ok((Ok(completion), client))) => (completion, Some(client)),
        Ok(Ok((Err(error), client))) => (Completion::Info(chain(&*error)), Some(client)),
        Ok(Err(error)) => (Completion::Info(panicked(&error)), None),
        Err(_) => {
            task.abort();
            (Completion::Info(format!("no answer within {:?}", shared.op_timeout)), None)
        }
    }
}

async fn open(shared: &Shared, session: &Session) -> Result<Box<dyn Client>, String> {
    let (workload, session) = (shared.workload.clone(), session.clone());
    let mut task = tokio::spawn(async move { workload.open(&session).await });
    match timeout(shared.op_timeout, &mut task).await {
        Ok(Ok(opened)) => opened.map_err(|error| chain(&*error)),
        Ok(Err(error)) => Err(panicked(&error)),
        Err(_) => {
            task.abort();
            Err(format!("none within {:?}", shared.op_timeout))
        }
    }
}

fn panicked(error: &JoinError) -> String {
    format!("the client panicked: {error}")
}

/// An error with its causes.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// [`chain`] of an error from a user's trait.
pub(super) fn failure(error: &Failure) -> String {
    chain(&**error)
}
