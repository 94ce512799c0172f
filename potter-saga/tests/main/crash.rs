//! A crash at every store call, and then one effect a key.

use potter_core::Database;
use potter_saga::testing::CrashMatrix;
use potter_saga::{SagaRecord, SagaStatus};

use crate::effects::{Order, Purchase, World, effects, prepare, told};
use crate::engines::{self, Fresh};

/// Every effect that the end state asks for is there once, and no other.
async fn check(
    database: Database,
    saga: SagaRecord,
    world: &World,
    rejected: Option<&str>,
) -> Result<(), String> {
    let steps = ["reserve", "ship", "finish"];
    let all = ["reserve", "pay", "ship", "finish"];
    let done =
        rejected.map_or(all.len(), |step| all.iter().position(|name| *name == step).unwrap());
    let mut expected = std::collections::BTreeMap::new();
    for step in steps.iter().filter(|step| all[..done].contains(step)) {
        expected.insert(format!("run {step}"), 1);
        if rejected.is_some() {
            expected.insert(format!("undo {step}"), 1);
        }
    }
    let end = if rejected.is_some() { SagaStatus::Compensated } else { SagaStatus::Completed };
    if saga.status != end {
        return Err(format!("ended {} ({:?} {:?})", saga.status, saga.parked, saga.error));
    }
    let found = effects(&database).await;
    if found != expected {
        return Err(format!("effects {found:?}, expected {expected:?}"));
    }
    let messages = expected.keys().filter(|what| what.starts_with("run")).count() as u64;
    if told(&database).await != messages {
        return Err("the outbox does not match the effects".to_owned());
    }
    let payments = usize::from(rejected.is_none());
    if world.standing() != payments {
        return Err(format!("{} payments stand, expected {payments}", world.standing()));
    }
    Ok(())
}

async fn matrix<F: Future<Output = Fresh>>(fresh: impl Fn() -> F, rejected: Option<&str>) {
    let world = std::sync::Mutex::new(World::default());
    let kept = std::sync::Mutex::new(Vec::new());
    let order =
        Order { name: "one".to_owned(), reject: rejected.map(str::to_owned), lose_answer: None };
    let report =
        CrashMatrix::new(|builder| builder.register(&Purchase(world.lock().unwrap().clone())))
            .run::<Purchase, _, _, _, _>(
                &order,
                async || {
                    *world.lock().unwrap() = World::default();
                    let fresh = fresh().await;
                    let database = fresh.database.clone();
                    kept.lock().unwrap().push(fresh);
                    prepare(&database).await;
                    database
                },
                async |database, saga| {
                    let world = world.lock().unwrap().clone();
                    check(database, saga, &world, rejected).await
                },
            )
            .await
            .unwrap();
    // Start and four steps; or start, the steps before the rejection, the rejection, the undos.
    let done = rejected.map_or(4, |step| {
        ["reserve", "pay", "ship", "finish"].iter().position(|n| *n == step).unwrap()
    });
    let calls = if rejected.is_some() { 1 + done + 1 + done } else { 1 + done };
    assert_eq!(report.calls as usize, calls, "{report}");
    assert_eq!(report.crashes, report.calls * 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_one_effect_a_key() {
    for rejected in [None, Some("reserve"), Some("pay"), Some("ship"), Some("finish")] {
        matrix(engines::memory, rejected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_one_effect_a_key() {
    for rejected in [None, Some("ship"), Some("finish")] {
        matrix(engines::sqlite, rejected).await;
    }
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_one_effect_a_key() {
    for rejected in [None, Some("finish")] {
        matrix(engines::postgres, rejected).await;
    }
}
