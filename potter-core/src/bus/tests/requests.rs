use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::bus::*;
use crate::{ErrorKind, Metadata, Result};

#[derive(Debug, PartialEq)]
enum Refusal {
    TooMany(u32),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

struct Take(u32);

impl Command for Take {
    const NAME: &'static str = "take";
    type Output = u32;
    type Error = Refusal;
}

struct Find(u32);

impl Query for Find {
    const NAME: &'static str = "find";
    type Output = Option<&'static str>;
    type Error = String;
}

struct Shelf;

#[async_trait]
impl CommandHandler<Take> for Shelf {
    async fn handle(&self, command: Take, _metadata: &Metadata) -> Result<u32, Refusal> {
        match command.0 {
            13 => panic!("unlucky {}", command.0),
            0..=9 => Ok(10 - command.0),
            many => Err(Refusal::TooMany(many)),
        }
    }
}

fn shelf() -> CommandBus {
    let bus = CommandBus::new();
    bus.register(Shelf).unwrap();
    bus
}

#[tokio::test]
async fn the_sender_gets_the_answer_and_the_handlers_own_error() {
    let bus = shelf();
    assert_eq!(bus.send(Take(4), Metadata::new()).await.unwrap(), 6);
    let error = bus.send(Take(99), Metadata::new()).await.unwrap_err();
    assert_eq!(error.handler(), Some(&Refusal::TooMany(99)));
    assert_eq!(error.kind(), None);
}

#[tokio::test]
async fn a_second_handler_and_a_missing_one_are_errors_that_name_the_type() {
    let bus = shelf();
    let error = bus.register(Shelf).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("requests::Take"), "{error}");

    let empty = CommandBus::new();
    let error = empty.send(Take(1), Metadata::new()).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::NotFound));
    assert!(error.to_string().contains("requests::Take"), "{error}");
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_bus_goes_on() {
    let bus = CommandBus::builder().concurrency(1).build();
    bus.register(Shelf).unwrap();
    let error = bus.send(Take(13), Metadata::new()).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Panicked));
    assert!(error.to_string().contains("take panicked: unlucky 13"), "{error}");
    assert_eq!(bus.send(Take(1), Metadata::new()).await.unwrap(), 9, "the slot was given back");
}

#[tokio::test]
async fn a_query_is_answered_by_a_closure_that_sees_the_metadata() {
    let bus = QueryBus::new();
    bus.register_fn(|query: Find, metadata| async move {
        match (query.0, metadata.tenant.as_deref()) {
            (_, None) => Err("whose?".to_owned()),
            (1, Some("acme")) => Ok(Some("anvil")),
            _ => Ok(None),
        }
    })
    .unwrap();
    let acme = Metadata::new().with_tenant("acme");
    assert_eq!(bus.ask(Find(1), acme.clone()).await.unwrap(), Some("anvil"));
    assert_eq!(bus.ask(Find(2), acme).await.unwrap(), None);
    let error = bus.ask(Find(1), Metadata::new()).await.unwrap_err();
    assert_eq!(error.into_handler().unwrap(), "whose?");
}

/// A bus whose handler counts who is in and waits to be let out.
struct Gate {
    bus: CommandBus,
    inside: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
    out: Arc<Semaphore>,
}

fn gate(builder: CommandBusBuilder) -> Gate {
    let bus = builder.build();
    let (inside, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let out = Arc::new(Semaphore::new(0));
    let shared = (inside.clone(), peak.clone(), out.clone());
    bus.register_fn(move |command: Take, _| {
        let (inside, peak, out) = shared.clone();
        async move {
            peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            out.acquire().await.unwrap().forget();
            inside.fetch_sub(1, Ordering::SeqCst);
            Ok(command.0)
        }
    })
    .unwrap();
    Gate { bus, inside, peak, out }
}

impl Gate {
    fn send(&self, number: u32) -> tokio::task::JoinHandle<Result<u32, BusError<Refusal>>> {
        let bus = self.bus.clone();
        tokio::spawn(async move { bus.send(Take(number), Metadata::new()).await })
    }
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn at_the_limit_send_waits_and_try_send_refuses() {
    let gate = gate(CommandBus::builder().concurrency(2).queue(1));
    let sent: Vec<_> = (0..5).map(|n| gate.send(n)).collect();
    settle().await;
    assert_eq!(gate.inside.load(Ordering::SeqCst), 2);
    let refused = gate.bus.try_send(Take(9), Metadata::new()).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::LimitExceeded));

    gate.out.add_permits(5);
    for (n, sent) in sent.into_iter().enumerate() {
        assert_eq!(sent.await.unwrap().unwrap() as usize, n);
    }
    assert_eq!(gate.peak.load(Ordering::SeqCst), 2, "never more than the limit at once");
    gate.out.add_permits(1);
    assert_eq!(gate.bus.try_send(Take(9), Metadata::new()).await.unwrap(), 9);
}

#[tokio::test]
async fn a_handler_that_sends_on_its_own_bus_does_not_wait_for_its_own_slot() {
    struct Twice;
    impl Command for Twice {
        const NAME: &'static str = "twice";
        type Output = u32;
        type Error = String;
    }
    let bus = CommandBus::builder().concurrency(1).queue(0).build();
    bus.register(Shelf).unwrap();
    let (inner, pause) = (bus.clone(), Duration::from_millis(50));
    bus.register_fn(move |_: Twice, metadata: Metadata| {
        let bus = inner.clone();
        async move {
            let one = bus.send(Take(1), metadata.clone()).await.map_err(|e| e.to_string())?;
            tokio::time::sleep(pause).await;
            let two = bus.send(Take(2), metadata).await.map_err(|e| e.to_string())?;
            Ok(one + two)
        }
    })
    .unwrap();
    let sent = tokio::time::timeout(Duration::from_secs(5), bus.send(Twice, Metadata::new()));
    // Shut down meanwhile: what the handler still sends is a part of what was sent before.
    let shutdown = async {
        tokio::time::sleep(pause / 2).await;
        bus.shutdown().await;
    };
    let (sent, ()) = futures::join!(sent, shutdown);
    assert_eq!(sent.unwrap().unwrap(), 17);
}

#[tokio::test]
async fn shutdown_finishes_what_was_sent_and_refuses_what_comes() {
    let gate = gate(CommandBus::builder().concurrency(1));
    let (first, second) = (gate.send(1), gate.send(2));
    settle().await;
    let bus = gate.bus.clone();
    let shutdown = tokio::spawn(async move { bus.shutdown().await });
    settle().await;
    assert!(!shutdown.is_finished(), "it waits for those under way");
    let refused = gate.bus.send(Take(3), Metadata::new()).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::Closed));
    gate.out.add_permits(2);
    shutdown.await.unwrap();
    assert_eq!(first.await.unwrap().unwrap(), 1);
    assert_eq!(second.await.unwrap().unwrap(), 2, "one that waited for its slot is finished too");
}

struct Noting(&'static str, Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Middleware for Noting {
    async fn handle(&self, mut envelope: Envelope, next: Next<'_>) -> Reply {
        self.1.lock().unwrap().push(format!("{} in {}", self.0, envelope.name()));
        envelope.metadata = envelope.metadata.with(self.0, "was here");
        let reply = next.run(envelope).await;
        self.1.lock().unwrap().push(format!("{} out {}", self.0, reply.is_ok()));
        reply
    }
}

#[tokio::test]
async fn middlewares_wrap_in_the_order_in_which_they_were_added() {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let bus = CommandBus::builder()
        .middleware(Noting("outer", notes.clone()))
        .middleware(Logging)
        .middleware(Metrics)
        .middleware(Noting("inner", notes.clone()))
        .build();
    let seen = notes.clone();
    bus.register_fn(move |command: Take, metadata: Metadata| {
        seen.lock().unwrap().push(format!("handler {:?}", metadata.user.keys()));
        async move { if command.0 == 0 { panic!("zero") } else { Err(Refusal::TooMany(command.0)) } }
    })
    .unwrap();
    let error = bus.send(Take(3), Metadata::new()).await.unwrap_err();
    assert_eq!(error.into_handler().unwrap(), Refusal::TooMany(3), "kept through the layers");
    assert_eq!(
        *notes.lock().unwrap(),
        [
            "outer in take",
            "inner in take",
            r#"handler ["inner", "outer"]"#,
            "inner out false",
            "outer out false"
        ]
    );
    notes.lock().unwrap().clear();
    bus.send(Take(0), Metadata::new()).await.unwrap_err();
    assert_eq!(notes.lock().unwrap()[4], "outer out false", "the layers see a panic as an error");
}

#[tokio::test(start_paused = true)]
async fn a_command_given_up_is_unknown_and_a_query_given_up_is_a_time_out() {
    let limit = Duration::from_millis(20);
    let commands = CommandBus::builder().middleware(TimeLimit::new(limit)).build();
    commands.register_fn(|_: Take, _| std::future::pending()).unwrap();
    let error = commands.send(Take(1), Metadata::new()).await.unwrap_err().into_handler();
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert!(!error.is_retryable());

    let queries = QueryBus::builder().middleware(TimeLimit::new(limit)).build();
    queries.register_fn(|_: Find, _| std::future::pending()).unwrap();
    let error = queries.ask(Find(1), Metadata::new()).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Timeout));
}

#[tokio::test]
async fn the_concurrency_layer_lets_so_many_through() {
    let gate = gate(CommandBus::builder().middleware(ConcurrencyLimit::new(1)));
    let sent: Vec<_> = (0..3).map(|n| gate.send(n)).collect();
    settle().await;
    assert_eq!(gate.inside.load(Ordering::SeqCst), 1);
    gate.out.add_permits(3);
    for sent in sent {
        sent.await.unwrap().unwrap();
    }
    assert_eq!(gate.peak.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_sender_that_goes_away_gives_its_slot_back() {
    let gate = gate(CommandBus::builder().concurrency(1).queue(0));
    let sent = gate.send(1);
    settle().await;
    sent.abort();
    settle().await;
    gate.out.add_permits(1);
    assert_eq!(gate.bus.try_send(Take(2), Metadata::new()).await.unwrap(), 2);
}
