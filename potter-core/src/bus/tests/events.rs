use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::bus::*;
use crate::{Backoff, ErrorKind, Metadata};

struct Ticked(u32);

impl Event for Ticked {
    const NAME: &'static str = "ticked";
}

const GRACE: Duration = Duration::from_secs(10);

fn quick(attempts: u32) -> Backoff {
    Backoff::fixed(Duration::from_millis(1)).max_attempts(attempts)
}

type Seen = Arc<Mutex<Vec<u32>>>;

fn noting(bus: &EventBus, name: &str) -> Seen {
    let seen = Seen::default();
    let notes = seen.clone();
    bus.subscribe_fn(name, move |event: Arc<Ticked>, _| {
        let notes = notes.clone();
        async move {
            tokio::task::yield_now().await;
            notes.lock().unwrap().push(event.0);
            Ok(())
        }
    })
    .unwrap();
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_subscriber_gets_every_event_in_the_same_order() {
    // Roomy queues, so that publishers meet at the queues and not while they wait for places.
    let (bus, count) = (EventBus::builder().queue(20_000).build(), 4000u32);
    let seen: Vec<_> = ["a", "b", "c"].iter().map(|name| noting(&bus, name)).collect();
    let publishers: Vec<_> = (0..4u32)
        .map(|publisher| {
            let bus = bus.clone();
            tokio::spawn(async move {
                for n in 0..count {
                    let event = Ticked(publisher * count + n);
                    assert_eq!(bus.publish(event, Metadata::new()).await.unwrap(), 3);
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    bus.shutdown(GRACE).await.unwrap();
    let first = seen[0].lock().unwrap().clone();
    assert_eq!(first.len(), 16_000);
    for publisher in 0..4u32 {
        let own: Vec<_> = first.iter().filter(|n| **n / count == publisher).collect();
        assert!(own.is_sorted(), "a publisher's events keep their order");
    }
    assert!(seen.iter().all(|other| *other.lock().unwrap() == first));
}

/// A subscriber with a queue of one that handles only what it is let.
fn slow(bus: &EventBus) -> (Arc<Semaphore>, Arc<AtomicUsize>) {
    let (let_go, handled) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let shared = (let_go.clone(), handled.clone());
    bus.subscribe_fn(Subscription::new("slow").queue(1), move |_: Arc<Ticked>, _| {
        let (let_go, handled) = shared.clone();
        async move {
            let_go.acquire().await?.forget();
            handled.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .unwrap();
    (let_go, handled)
}

#[tokio::test]
async fn a_slow_subscriber_holds_publishers_up_and_nobody_gets_half_an_event() {
    let bus = EventBus::new();
    let quick = noting(&bus, "quick");
    let (let_go, handled) = slow(&bus);
    let wait = Duration::from_millis(50);
    bus.publish(Ticked(1), Metadata::new()).await.unwrap();
    // The worker takes the first one out of the queue, so that one more fits.
    tokio::time::sleep(wait).await;
    bus.publish(Ticked(2), Metadata::new()).await.unwrap();

    let refused = bus.try_publish(Ticked(3), Metadata::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    assert!(refused.to_string().contains("subscriber slow is full (1)"), "{refused}");
    let blocked = tokio::time::timeout(wait, bus.publish(Ticked(4), Metadata::new())).await;
    assert!(blocked.is_err(), "publish waits while a queue is full");
    assert_eq!(*quick.lock().unwrap(), [1, 2], "one refused or dropped reached nobody");

    let publisher = tokio::spawn({
        let bus = bus.clone();
        async move { bus.publish(Ticked(5), Metadata::new()).await }
    });
    let_go.add_permits(3);
    publisher.await.unwrap().unwrap();
    bus.shutdown(GRACE).await.unwrap();
    assert_eq!(handled.load(Ordering::SeqCst), 3);
    assert_eq!(*quick.lock().unwrap(), [1, 2, 5]);
}

#[tokio::test]
async fn a_failing_subscriber_is_tried_again_with_the_same_delivery_id() {
    let bus = EventBus::builder().backoff(quick(5)).build();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let notes = attempts.clone();
    bus.subscribe_fn("flaky", move |_: Arc<Ticked>, delivery: Delivery| {
        notes.lock().unwrap().push((delivery.id, delivery.attempt));
        async move {
            match delivery.attempt {
                1 => Err("not yet".into()),
                2 => panic!("not yet either"),
                _ => Ok(()),
            }
        }
    })
    .unwrap();
    bus.publish(Ticked(1), Metadata::new()).await.unwrap();
    bus.shutdown(GRACE).await.unwrap();
    let attempts = attempts.lock().unwrap();
    assert_eq!(attempts.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(attempts.iter().all(|(id, _)| *id == attempts[0].0));
    assert!(bus.take_dead_letters().is_empty());
}

#[tokio::test]
async fn what_keeps_failing_is_a_dead_letter_and_the_subscriber_goes_on() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let bus = EventBus::builder()
        .backoff(quick(3))
        .dead_letters(2)
        .on_dead_letter(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("a callback's panic stays here");
        })
        .build();
    let other = noting(&bus, "other");
    let fine = Arc::new(AtomicUsize::new(0));
    let counted = fine.clone();
    bus.subscribe_fn("odd", move |event: Arc<Ticked>, _| {
        let fine = counted.clone();
        async move {
            if event.0.is_multiple_of(2) {
                return Err(format!("{} is even", event.0).into());
            }
            fine.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .unwrap();
    for n in 1..=7 {
        bus.publish(Ticked(n), Metadata::new().with_tenant("acme")).await.unwrap();
    }
    bus.shutdown(GRACE).await.unwrap();
    assert_eq!(fine.load(Ordering::SeqCst), 4);
    assert_eq!(other.lock().unwrap().len(), 7, "the others are not held up");
    assert_eq!(told.load(Ordering::SeqCst), 3);
    let letters = bus.take_dead_letters();
    assert_eq!(letters.len(), 2, "the newest are kept");
    let last = &letters[1];
    assert_eq!((last.subscriber.as_str(), last.event_name), ("odd", "ticked"));
    assert_eq!((last.error.as_str(), last.delivery.attempt), ("6 is even", 3));
    assert_eq!(last.delivery.metadata.tenant.as_deref(), Some("acme"));
    assert_eq!(last.event::<Ticked>().map(|event| event.0), Some(6));
    assert!(bus.take_dead_letters().is_empty());
}

#[tokio::test]
async fn a_second_subscriber_of_the_same_name_is_an_error() {
    let bus = EventBus::new();
    let _seen = noting(&bus, "mailer");
    let error = bus.subscribe_fn("mailer", |_: Arc<Ticked>, _| async { Ok(()) }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("mailer") && error.to_string().contains("ticked"));
}

#[tokio::test]
async fn shutdown_drains_refuses_and_says_what_was_left() {
    let bus = EventBus::new();
    let seen = noting(&bus, "quick");
    for n in 0..100 {
        bus.publish(Ticked(n), Metadata::new()).await.unwrap();
    }
    bus.shutdown(GRACE).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 100);
    let refused = bus.publish(Ticked(1), Metadata::new()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);

    let stuck = EventBus::new();
    let (_let_go, _) = slow(&stuck);
    stuck.publish(Ticked(1), Metadata::new()).await.unwrap();
    let error = stuck.shutdown(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("slow of ticked (1 left)"), "{error}");
}

#[tokio::test]
async fn an_event_without_subscribers_is_no_error() {
    assert_eq!(EventBus::new().publish(Ticked(1), Metadata::new()).await.unwrap(), 0);
}
