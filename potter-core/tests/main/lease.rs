//! Leases: one holder, and no write of an earlier one.

use std::time::Duration;

use potter_core::testing::TestDatabase;
use potter_core::{ErrorKind, Lease, Outbox};
use tokio::task::JoinSet;

use crate::{LONG, depth, message, migrated, ms};

potter_core::on_every_engine!(
    one_of_32_acquirers_wins,
    the_token_grows_with_every_acquisition,
    an_expired_lease_is_kept_until_someone_takes_it,
    renewal_keeps_others_out,
    everything_of_a_former_holder_is_fenced,
    takeover_waits_for_a_checked_transaction,
    a_checked_transaction_that_rolls_back_frees_the_lease,
    release_lets_the_next_in_at_once,
    names_do_not_touch_each_other,
    the_longest_duration_is_for_ever,
);

async fn one_of_32_acquirers_wins(test: TestDatabase) {
    let test = migrated(test).await;
    for round in 0..4 {
        let name = format!("round-{round}");
        let mut tasks = JoinSet::new();
        for _ in 0..32 {
            let (database, name) = (test.database().clone(), name.clone());
            tasks.spawn(async move { Lease::acquire(&database, &name, LONG).await.unwrap() });
        }
        let won = tasks.join_all().await.into_iter().flatten().count();
        assert_eq!(won, 1);
    }
    test.close().await;
}

async fn the_token_grows_with_every_acquisition(test: TestDatabase) {
    let test = migrated(test).await;
    let mut tokens = Vec::new();
    let mut holders = Vec::new();
    for round in 0..6 {
        let ttl = if round % 2 == 0 { ms(20) } else { LONG };
        let lease = Lease::acquire(test.database(), "jobs", ttl).await.unwrap().unwrap();
        tokens.push(lease.fencing_token());
        holders.push(lease.holder());
        if round % 2 == 0 {
            test.pass(ms(40)).await;
        } else {
            lease.release().await.unwrap();
        }
    }
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    holders.dedup();
    assert_eq!(holders.len(), 6);
    test.close().await;
}

async fn an_expired_lease_is_kept_until_someone_takes_it(test: TestDatabase) {
    let test = migrated(test).await;
    let lease = Lease::acquire(test.database(), "jobs", ms(20)).await.unwrap().unwrap();
    test.pass(ms(40)).await;
    let mut tx = test.database().begin().await.unwrap();
    lease.check_in(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    lease.renew().await.unwrap();
    test.close().await;
}

async fn renewal_keeps_others_out(test: TestDatabase) {
    let test = migrated(test).await;
    let lease = Lease::acquire(test.database(), "jobs", ms(600)).await.unwrap().unwrap();
    for _ in 0..8 {
        test.pass(ms(100)).await;
        lease.renew().await.unwrap();
        assert!(Lease::acquire(test.database(), "jobs", LONG).await.unwrap().is_none());
    }
    test.close().await;
}

async fn everything_of_a_former_holder_is_fenced(test: TestDatabase) {
    let test = migrated(test).await;
    let former = Lease::acquire(test.database(), "jobs", ms(20)).await.unwrap().unwrap();
    test.pass(ms(40)).await;
    let holder = Lease::acquire(test.database(), "jobs", LONG).await.unwrap().unwrap();

    let error = former.renew().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("\"jobs\""), "{error}");
    let mut tx = test.database().begin().await.unwrap();
    assert_eq!(former.check_in(&mut tx).await.unwrap_err().kind(), ErrorKind::Fenced);
    drop(tx);
    assert_eq!(former.release().await.unwrap_err().kind(), ErrorKind::Fenced);

    // And none of that took anything from the holder.
    assert!(Lease::acquire(test.database(), "jobs", LONG).await.unwrap().is_none());
    holder.renew().await.unwrap();
    test.close().await;
}

/// The interleaving that breaks leases without a fence: checked, expired, taken over, written.
async fn takeover_waits_for_a_checked_transaction(test: TestDatabase) {
    let test = migrated(test).await;
    let former = Lease::acquire(test.database(), "jobs", ms(20)).await.unwrap().unwrap();
    let mut tx = test.database().begin().await.unwrap();
    former.check_in(&mut tx).await.unwrap();
    test.pass(ms(40)).await;

    let database = test.database().clone();
    let takeover = tokio::spawn(async move { Lease::acquire(&database, "jobs", LONG).await });
    tokio::time::sleep(ms(300)).await;
    assert!(!takeover.is_finished(), "taken over while the checked transaction is open");

    Outbox.enqueue(&mut tx, &message("a", 1)).await.unwrap();
    tx.commit().await.unwrap();
    let holder = takeover.await.unwrap().unwrap().unwrap();
    assert_eq!(holder.fencing_token(), former.fencing_token() + 1);
    assert_eq!(depth(test.database()).await, (1, 0), "what was checked is there");

    let mut tx = test.database().begin().await.unwrap();
    assert_eq!(former.check_in(&mut tx).await.unwrap_err().kind(), ErrorKind::Fenced);
    drop(tx);
    test.close().await;
}

async fn a_checked_transaction_that_rolls_back_frees_the_lease(test: TestDatabase) {
    let test = migrated(test).await;
    let former = Lease::acquire(test.database(), "jobs", ms(20)).await.unwrap().unwrap();
    let mut tx = test.database().begin().await.unwrap();
    former.check_in(&mut tx).await.unwrap();
    test.pass(ms(40)).await;
    drop(tx);
    let holder = Lease::acquire(test.database(), "jobs", LONG).await.unwrap().unwrap();
    assert!(holder.fencing_token() > former.fencing_token());
    test.close().await;
}

async fn release_lets_the_next_in_at_once(test: TestDatabase) {
    let test = migrated(test).await;
    let lease = Lease::acquire(test.database(), "jobs", LONG).await.unwrap().unwrap();
    assert!(Lease::acquire(test.database(), "jobs", LONG).await.unwrap().is_none());
    lease.release().await.unwrap();
    assert!(Lease::acquire(test.database(), "jobs", LONG).await.unwrap().is_some());
    test.close().await;
}

async fn names_do_not_touch_each_other(test: TestDatabase) {
    let test = migrated(test).await;
    let one = Lease::acquire(test.database(), "one", LONG).await.unwrap().unwrap();
    let other = Lease::acquire(test.database(), "other", LONG).await.unwrap().unwrap();
    assert_eq!((one.name(), other.name()), ("one", "other"));
    one.release().await.unwrap();
    other.renew().await.unwrap();
    assert!(Lease::acquire(test.database(), "other", LONG).await.unwrap().is_none());
    test.close().await;
}

async fn the_longest_duration_is_for_ever(test: TestDatabase) {
    let test = migrated(test).await;
    for (name, ttl) in [("max", Duration::MAX), ("big", Duration::from_micros(u64::MAX / 3))] {
        let lease = Lease::acquire(test.database(), name, ttl).await.unwrap().unwrap();
        assert!(Lease::acquire(test.database(), name, LONG).await.unwrap().is_none());
        lease.renew().await.unwrap();
    }
    test.close().await;
}

/// The process's clock has no say: only the database's moves the lease.
#[tokio::test]
async fn expiry_is_by_the_clock_of_the_database() {
    let test = migrated(TestDatabase::memory()).await;
    let _held = Lease::acquire(test.database(), "jobs", ms(1000)).await.unwrap().unwrap();
    test.clock().advance(ms(999));
    assert!(Lease::acquire(test.database(), "jobs", LONG).await.unwrap().is_none());
    test.clock().advance(ms(1));
    assert!(Lease::acquire(test.database(), "jobs", LONG).await.unwrap().is_some());
}
