//! Aggregates on all engines.

use std::sync::Arc;

use futures::TryStreamExt;
use potter_core::{Backoff, Database, Metadata};
use potter_eventsourcing::{
    Aggregate, DomainEvent, ErrorKind, EventStore, ExecuteError, ExpectedVersion, NewEvent,
    ReadOptions, RecordedEvent, Repository, domain_events, event_store,
};
use serde::{Deserialize, Serialize};

use crate::support;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Amount {
    cents: i64,
}

domain_events! {
    /// What happens to an account.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum AccountEvent {
        /// Money came.
        Deposited(Amount) => "account.deposited" v 1,
        /// Money went.
        Withdrawn(Amount) => "account.withdrawn" v 2,
        /// It is no more.
        Closed => "account.closed" v 1,
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Account {
    cents: i64,
    closed: bool,
}

enum Command {
    Deposit(i64),
    Withdraw(i64),
    /// Takes all and closes: several events.
    Close,
    Nothing,
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum Refused {
    #[error("there are only {cents} cents")]
    NotEnough { cents: i64 },
    #[error("the account is closed")]
    Closed,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = Command;
    type Event = AccountEvent;
    type Error = Refused;

    fn decide(&self, command: &Command) -> Result<Vec<AccountEvent>, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        match command {
            Command::Deposit(cents) => Ok(vec![AccountEvent::Deposited(Amount { cents: *cents })]),
            Command::Withdraw(cents) if *cents > self.cents => {
                Err(Refused::NotEnough { cents: self.cents })
            }
            Command::Withdraw(cents) => Ok(vec![AccountEvent::Withdrawn(Amount { cents: *cents })]),
            Command::Close => Ok(vec![
                AccountEvent::Withdrawn(Amount { cents: self.cents }),
                AccountEvent::Closed,
            ]),
            Command::Nothing => Ok(vec![]),
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited(amount) => self.cents += amount.cents,
            AccountEvent::Withdrawn(amount) => self.cents -= amount.cents,
            AccountEvent::Closed => self.closed = true,
        }
    }
}

async fn on_every_engine(check: impl AsyncFn(Arc<dyn EventStore>)) {
    check(event_store(&Database::memory()).unwrap()).await;
    let sqlite = support::sqlite().await;
    check(Arc::clone(&sqlite.store)).await;
    let postgres = support::postgres().await;
    check(Arc::clone(&postgres.store)).await;
}

fn id() -> String {
    potter_core::new_id().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_becomes_events() {
    on_every_engine(async |store| {
        let accounts = Repository::<Account>::new(store);
        let id = id();
        let loaded = accounts.load(&id).await.unwrap();
        assert_eq!((loaded.state, loaded.version), (Account::default(), 0));

        let metadata = Metadata::correlated();
        let done = accounts.execute(&id, &Command::Deposit(10), metadata.clone()).await.unwrap();
        assert_eq!((done.state.cents, done.version, done.duplicate), (10, 1, false));
        let done = accounts.execute(&id, &Command::Close, Metadata::new()).await.unwrap();
        assert_eq!((done.version, done.events.len()), (3, 2));
        assert_eq!(done.state, Account { cents: 0, closed: true });
        let loaded = accounts.load(&id).await.unwrap();
        assert_eq!((loaded.state, loaded.version), (done.state, 3));

        let stream = accounts.stream_id(&id).unwrap();
        let events: Vec<RecordedEvent> = accounts
            .store()
            .read_stream(&stream, ReadOptions::forwards())
            .try_collect()
            .await
            .unwrap();
        let types: Vec<_> =
            events.iter().map(|event| (event.event_type.as_str(), event.schema_version)).collect();
        assert_eq!(
            types,
            [("account.deposited", 1), ("account.withdrawn", 2), ("account.closed", 1)]
        );
        assert_eq!(events[0].metadata, metadata);
        assert_eq!(events[0].payload.as_str(), r#"{"cents":10}"#);
        assert_eq!(events[2].payload.as_str(), "{}");
        assert_eq!(done.last_position, Some(events[2].global_position));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_leaves_nothing() {
    on_every_engine(async |store| {
        let accounts = Repository::<Account>::new(store);
        let id = id();
        let error =
            accounts.execute(&id, &Command::Withdraw(1), Metadata::new()).await.unwrap_err();
        assert_eq!(error.rejected(), Some(&Refused::NotEnough { cents: 0 }));
        assert!(!error.is_retryable() && !error.is_conflict());
        assert_eq!(error.to_string(), "the command was refused: there are only 0 cents");
        let done = accounts.execute(&id, &Command::Nothing, Metadata::new()).await.unwrap();
        assert_eq!((done.version, done.last_position, done.events.len()), (0, None, 0));
        assert_eq!(accounts.load(&id).await.unwrap().version, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_decided_again() {
    on_every_engine(async |store| {
        let accounts =
            Repository::<Account>::new(store).retry(Backoff::default().max_attempts(100));
        let id = id();
        accounts.execute(&id, &Command::Deposit(10), Metadata::new()).await.unwrap();
        // 20 withdrawals of 1 from 10: exactly 10 are covered, however they interleave.
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (accounts, id) = (accounts.clone(), id.clone());
                tokio::spawn(async move {
                    accounts.execute(&id, &Command::Withdraw(1), Metadata::new()).await
                })
            })
            .collect();
        let (mut done, mut refused) = (0, 0);
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => done += 1,
                Err(ExecuteError::Rejected(Refused::NotEnough { cents: 0 })) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((done, refused), (10, 10));
        let loaded = accounts.load(&id).await.unwrap();
        assert_eq!((loaded.state.cents, loaded.version), (0, 11));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_with_a_key_is_carried_out_once() {
    on_every_engine(async |store| {
        let accounts = Repository::<Account>::new(store);
        let id = id();
        let once = async |key: &str, command: Command| {
            accounts.execute_once(&id, key, &command, Metadata::new()).await
        };
        let first = once("a", Command::Deposit(10)).await.unwrap();
        let closed = once("b", Command::Close).await.unwrap();
        assert_eq!((first.duplicate, closed.duplicate), (false, false));
        // The account is closed by now: deciding again would refuse.
        let again = once("a", Command::Deposit(10)).await.unwrap();
        assert!(again.duplicate);
        assert_eq!((again.state, again.version), (first.state, 1));
        assert_eq!((again.events, again.last_position), (first.events, first.last_position));
        let again = once("b", Command::Close).await.unwrap();
        assert_eq!((again.state, again.events), (closed.state, closed.events));
        assert!(once("c", Command::Close).await.is_err());
        assert_eq!(accounts.load(&id).await.unwrap().version, 3);

        let other = self::id();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (accounts, id) = (accounts.clone(), other.clone());
                tokio::spawn(async move {
                    let command = Command::Deposit(5);
                    accounts.execute_once(&id, "same", &command, Metadata::new()).await
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().version, 1);
        }
        assert_eq!(accounts.load(&other).await.unwrap().state.cents, 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_in_one_transaction() {
    on_every_engine(async |store| {
        let accounts = Repository::<Account>::new(Arc::clone(&store));
        let (from, to) = (id(), id());
        accounts.execute(&from, &Command::Deposit(10), Metadata::new()).await.unwrap();
        for (cents, keep) in [(4, false), (4, true), (100, true)] {
            let mut tx = store.database().unwrap().begin().await.unwrap();
            let metadata = Metadata::new;
            let deposit = Command::Deposit(cents);
            accounts.execute_in(&mut tx, &to, &deposit, metadata()).await.unwrap();
            let withdraw = Command::Withdraw(cents);
            match accounts.execute_in(&mut tx, &from, &withdraw, metadata()).await {
                Ok(done) if keep => {
                    let seen = accounts.load_in(&mut tx, &from).await.unwrap();
                    assert_eq!((seen.state, seen.version), (done.state, done.version));
                    tx.commit().await.unwrap();
                }
                Ok(_) => tx.rollback().await.unwrap(),
                Err(error) => {
                    assert_eq!(error.rejected(), Some(&Refused::NotEnough { cents: 6 }));
                    drop(tx);
                }
            }
        }
        assert_eq!(accounts.load(&from).await.unwrap().state.cents, 6);
        assert_eq!(accounts.load(&to).await.unwrap().state.cents, 4);

        let mut tx = store.database().unwrap().begin().await.unwrap();
        let command = Command::Deposit(1);
        for duplicate in [false, true] {
            let done =
                accounts.execute_once_in(&mut tx, &to, "key", &command, Metadata::new()).await;
            assert_eq!(done.unwrap().duplicate, duplicate);
        }
        tx.commit().await.unwrap();
        assert_eq!(accounts.load(&to).await.unwrap().state.cents, 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_streams_are_loaded_in_and_out_of_a_transaction() {
    on_every_engine(async |store| {
        let accounts = Repository::<Account>::new(Arc::clone(&store));
        let id = id();
        let stream = accounts.stream_id(&id).unwrap();
        let one = AccountEvent::Deposited(Amount { cents: 1 });
        let events = (0..1000).map(|_| NewEvent::of(&one).unwrap()).collect();
        store.append(&stream, ExpectedVersion::NoStream, events).await.unwrap();
        accounts.execute_once(&id, "k", &Command::Deposit(7), Metadata::new()).await.unwrap();
        accounts.execute(&id, &Command::Deposit(1), Metadata::new()).await.unwrap();
        let loaded = accounts.load(&id).await.unwrap();
        assert_eq!((loaded.state.cents, loaded.version), (1008, 1002));
        let mut tx = store.database().unwrap().begin().await.unwrap();
        assert_eq!(accounts.load_in(&mut tx, &id).await.unwrap(), loaded);
        let command = Command::Deposit(7);
        let then = accounts.execute_once_in(&mut tx, &id, "k", &command, Metadata::new()).await;
        let then = then.unwrap();
        assert_eq!((then.duplicate, then.version, then.state.cents), (true, 1001, 1007));
    })
    .await;
}

#[tokio::test]
async fn an_event_that_the_code_does_not_know_is_named() {
    let store = event_store(&Database::memory()).unwrap();
    let accounts = Repository::<Account>::new(Arc::clone(&store));
    let stream = accounts.stream_id("1").unwrap();
    let unknown = NewEvent::new("account.frozen", &1).unwrap();
    store.append(&stream, ExpectedVersion::Any, vec![unknown]).await.unwrap();
    let error = accounts.load("1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownEvent);
    assert!(error.to_string().contains("account-1"), "{error}");
    assert!(error.to_string().contains("account.frozen"), "{error}");
    let wrong_schema =
        AccountEvent::decode("account.withdrawn", 1, &potter_core::Json::null()).unwrap_err();
    assert_eq!(wrong_schema.kind(), ErrorKind::UnknownEvent);
}
