//! Personal data that is erased by deleting its key, on every SQL engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use potter_core::testing::TestDatabase;
use potter_core::{Json, Metadata, Sql, Tx, new_id, values};
use potter_eventsourcing::{
    Aggregate, AppendCondition, DataKey, ErrorKind, EventFilter, EventQuery, EventStore,
    ExpectedVersion, Frequency, HandlerError, InlineEventStore, KeyStore, KeyTable, MemoryKeys,
    NewEvent, Personal, Projection, ReadAllOptions, ReadOptions, RecordedEvent, Repository, Result,
    Snapshots, Snapshottable, StreamAppend, StreamId, SubjectKey, Vault, Worker, domain_events,
    event_store, snapshot_store,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Contact {
    name: String,
    born: u16,
}

/// Two subjects in one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opened {
    plan: String,
    owner: Personal<Contact>,
    agents: Vec<Personal<String>>,
}

domain_events! {
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum AccountEvent {
        Opened(Opened) => "account.opened" v 1,
        Renamed(Personal<Contact>) => "account.renamed" v 1,
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Account {
    plan: String,
    owner: Option<Personal<Contact>>,
    agents: Vec<Personal<String>>,
    events: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = AccountEvent;
    type Event = AccountEvent;
    type Error = Never;

    fn decide(&self, command: &AccountEvent) -> std::result::Result<Vec<AccountEvent>, Never> {
        Ok(vec![command.clone()])
    }

    fn evolve(&mut self, event: &AccountEvent) {
        self.events += 1;
        match event {
            AccountEvent::Opened(opened) => {
                self.plan.clone_from(&opened.plan);
                self.owner = Some(opened.owner.clone());
                self.agents.clone_from(&opened.agents);
            }
            AccountEvent::Renamed(owner) => self.owner = Some(owner.clone()),
        }
    }
}

impl Snapshottable for Account {
    const SNAPSHOT_VERSION: u32 = 1;
}

/// A read model with the owner's contact, sealed.
struct Owners {
    vault: Vault,
}

const PUT: Sql = Sql::same(
    "INSERT INTO owners (account, owner) VALUES ($1, $2)
     ON CONFLICT (account) DO UPDATE SET owner = $2",
);

#[async_trait]
impl Projection for Owners {
    fn name(&self) -> &str {
        "owners"
    }

    async fn handle(
        &self,
        tx: &mut Tx,
        event: &RecordedEvent,
    ) -> std::result::Result<(), HandlerError> {
        let owner = match event.decode::<AccountEvent>()? {
            AccountEvent::Opened(opened) => opened.owner,
            AccountEvent::Renamed(owner) => owner,
        };
        let account = event.stream_id.id();
        let sealed = self.vault.seal(&format!("owners|{account}"), &Json::of(&owner)?).await?;
        tx.execute(PUT, values![account, sealed.as_str()]).await?;
        Ok(())
    }
}

fn contact(name: &str) -> Contact {
    Contact { name: name.to_owned(), born: 1815 }
}

fn opened() -> AccountEvent {
    AccountEvent::Opened(Opened {
        plan: "free".to_owned(),
        owner: Personal::new("user:1", contact("Ada \"Countess\" {Lovelace}")),
        agents: vec![
            Personal::new("user:2", "Babbage".to_owned()),
            Personal::new("user:3", "Menabrea".to_owned()),
        ],
    })
}

const SECRETS: [&str; 4] = ["Lovelace", "Babbage", "Menabrea", "1815"];

/// Everything in these tables, as text.
async fn everything(test: &TestDatabase, tables: &[&str]) -> String {
    let mut all = String::new();
    for table in tables {
        let (column, table) = table.split_once('@').unwrap();
        let text = format!("SELECT CAST({column} AS text) AS t FROM {table}");
        for row in test.database().read(Sql::checked(text), &[]).await.unwrap() {
            all.push_str(&row.text("t").unwrap());
        }
    }
    all
}

async fn all(store: &dyn EventStore) -> Vec<RecordedEvent> {
    store.read_all(0, ReadAllOptions::new()).try_collect().await.unwrap()
}

async fn erased_subject_unreadable_in_snapshot_view_and_backup_copy(test: TestDatabase) {
    // The keys are in a database of their own, encrypted with a master key.
    let key_base = TestDatabase::sqlite().await;
    let master = DataKey::generate().unwrap();
    let table = || {
        let table = KeyTable::new(key_base.database().clone()).unwrap();
        table.with_master_key(master.clone())
    };
    table().migrate().await.unwrap();
    let vault = Vault::new(Arc::new(table()));
    let plain = event_store(test.database()).unwrap();
    plain.migrate().await.unwrap();
    let store = vault.events(Arc::clone(&plain));
    let snapshots = Snapshots::new(vault.snapshots(snapshot_store(test.database())), Frequency(1));
    let accounts = Repository::<Account>::new(store.clone()).with_snapshots(snapshots.clone());
    accounts.execute("a", &opened(), Metadata::new()).await.unwrap();
    let renamed = AccountEvent::Renamed(Personal::new("user:1", contact("Ada Lovelace")));
    accounts.execute("a", &renamed, Metadata::new()).await.unwrap();
    snapshots.flush().await;

    let create = "CREATE TABLE owners (account text PRIMARY KEY, owner text NOT NULL)";
    test.database().execute(create, &[]).await.unwrap();
    let worker = Worker::new(store.clone(), Owners { vault: vault.clone() }).unwrap();
    worker.catch_up().await.unwrap();
    for copy in [
        "CREATE TABLE backup_events AS SELECT * FROM potter_events",
        "CREATE TABLE backup_snapshots AS SELECT * FROM potter_snapshots",
    ] {
        test.database().execute(copy, &[]).await.unwrap();
    }

    // Nothing is in clear anywhere, and all of it can be read.
    let tables = [
        "payload@potter_events",
        "state@potter_snapshots",
        "owner@owners",
        "payload@backup_events",
        "state@backup_snapshots",
    ];
    let text = everything(&test, &tables).await;
    assert!(text.contains("$sealed") && text.contains("free"));
    assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{text}");
    let read = all(&*store).await;
    let expected = [opened(), renamed.clone()];
    let decoded: Vec<AccountEvent> = read.iter().map(|one| one.decode().unwrap()).collect();
    assert_eq!(decoded, expected);
    let loaded = accounts.load("a").await.unwrap();
    assert_eq!(loaded.state.owner.unwrap().known(), Some(&contact("Ada Lovelace")));
    let view = async || -> Personal<Contact> {
        let rows = test.database().read("SELECT owner FROM owners", &[]).await.unwrap();
        let sealed = Json::parse(rows[0].text("owner").unwrap()).unwrap();
        vault.open("owners|a", &sealed).await.unwrap().get().unwrap()
    };
    assert_eq!(view().await.known(), Some(&contact("Ada Lovelace")));

    assert!(vault.forget("user:1").await.unwrap());
    assert!(!vault.forget("user:1").await.unwrap(), "it was forgotten already");

    // Events: as many as before, readable but for the erased fields; other subjects stay.
    let read = all(&*store).await;
    assert_eq!(read.len(), 2);
    assert_eq!(store.count(0, u64::MAX, &EventFilter::all()).await.unwrap(), 2);
    let AccountEvent::Opened(first) = read[0].decode().unwrap() else { panic!("the first event") };
    assert_eq!(first.owner, Personal::Erased { subject: "user:1".to_owned() });
    assert_eq!(
        (first.plan.as_str(), first.agents[0].known().unwrap().as_str()),
        ("free", "Babbage")
    );
    // Snapshot and state.
    let kept = vault.snapshots(snapshot_store(test.database()));
    let stream = accounts.stream_id("a").unwrap();
    let snapshot = kept.latest(&stream, 1, 9).await.unwrap().unwrap();
    assert!(snapshot.state.get::<Account>().unwrap().owner.unwrap().is_erased());
    let state = accounts.load("a").await.unwrap().state;
    assert!(state.owner.unwrap().is_erased());
    assert_eq!((state.plan.as_str(), state.events), ("free", 2));
    assert_eq!(state.agents[1].known().unwrap(), "Menabrea");
    // View.
    assert!(view().await.is_erased());
    // The backup comes back: its keys are as gone as those of the live tables.
    for restore in [
        "DELETE FROM potter_snapshots",
        "INSERT INTO potter_snapshots SELECT * FROM backup_snapshots",
    ] {
        test.database().execute(restore, &[]).await.unwrap();
    }
    let restored = kept.latest(&stream, 1, 9).await.unwrap().unwrap();
    assert!(restored.state.get::<Account>().unwrap().owner.unwrap().is_erased());
    let backup = test.database().read("SELECT payload FROM backup_events", &[]).await.unwrap();
    let opened_from_backup = vault
        .open(&format!("{stream}|{}", read[0].event_id), &backup[0].json("payload").unwrap())
        .await
        .unwrap();
    assert!(opened_from_backup.get::<Opened>().unwrap().owner.is_erased());
    // Not even in the key store's file.
    let keys = key_base.database().read("SELECT key FROM potter_subject_keys", &[]).await.unwrap();
    assert_eq!(keys.iter().filter(|row| row.opt_bytes("key").unwrap().is_none()).count(), 1);

    // Nothing new about the forgotten one.
    let again = accounts.execute("a", &renamed, Metadata::new()).await.unwrap_err();
    assert!(again.to_string().contains("forgotten"), "{again}");
    test.close().await;
    key_base.close().await;
}

async fn a_wrong_key_is_an_error(test: TestDatabase) {
    let plain = event_store(test.database()).unwrap();
    plain.migrate().await.unwrap();
    let vault = Vault::new(Arc::new(MemoryKeys::new()));
    let store = vault.events(Arc::clone(&plain));
    let stream = StreamId::new("user", 1).unwrap();
    let event = NewEvent::new("t", &Personal::new("user:1", "Ada")).unwrap();
    let any = ExpectedVersion::Any;
    store.append(&stream, any, vec![event.clone()]).await.unwrap();
    // Sealed again it is the same: a repetition.
    assert!(store.append(&stream, any, vec![event.clone()]).await.unwrap().duplicate);

    // Another key for the same subject.
    let other = Arc::new(MemoryKeys::new());
    other.ensure(&BTreeSet::from(["user:1".to_owned()])).await.unwrap();
    let wrong = Vault::new(other).events(Arc::clone(&plain));
    let error = wrong.event(event.event_id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // A key store that never heard of it: not erased, but the wrong one.
    let empty = Vault::new(Arc::new(MemoryKeys::new())).events(Arc::clone(&plain));
    let read: Result<Vec<RecordedEvent>> =
        empty.read_stream(&stream, ReadOptions::forwards()).try_collect().await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Config);
    // Moved to another event: an envelope is bound to its place.
    let sealed = plain.event(event.event_id).await.unwrap().unwrap().payload;
    let moved = NewEvent::from_json("t", sealed);
    plain.append(&stream, any, vec![moved.clone()]).await.unwrap();
    assert_eq!(store.event(moved.event_id).await.unwrap_err().kind(), ErrorKind::Corrupt);

    // Without a vault it is neither written in clear nor read as something else.
    let refused = plain.append(&stream, any, vec![event.clone()]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let read = plain.event(event.event_id).await.unwrap().unwrap();
    assert!(read.payload.get::<Personal<String>>().is_err());

    // A master key that is another one.
    let keys = || KeyTable::new(test.database().clone()).unwrap();
    keys().migrate().await.unwrap();
    let subjects = BTreeSet::from(["user:9".to_owned()]);
    let master = || keys().with_master_key(DataKey::from_bytes([1; 32]));
    master().ensure(&subjects).await.unwrap();
    for wrong in [keys(), keys().with_master_key(DataKey::from_bytes([2; 32]))] {
        let error = wrong.find(&subjects).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    let shown = format!("{:?} {:?}", master(), master().find(&subjects).await.unwrap());
    assert!(shown.contains("DataKey(…)"), "{shown}");
    test.close().await;
}

async fn every_way_in_and_out_is_sealed(test: TestDatabase) {
    let plain = event_store(test.database()).unwrap();
    plain.migrate().await.unwrap();
    let vault = Vault::new(Arc::new(MemoryKeys::new()));
    let store = vault.events(Arc::clone(&plain));
    let stream = |n: u64| StreamId::new("user", n).unwrap();
    let any = ExpectedVersion::Any;
    // What is around a field stays bit for bit.
    let field = r#"{"$personal":{"subject":"user:1","value":{"z":1e400,"a": 1.10}}}"#;
    let text = format!(r#"{{ "z":1e400,"a":[{field} ,{field}],"a":-0.0 }}"#);
    let event = |tags: &[&str]| {
        let payload = Json::parse(text.clone()).unwrap();
        NewEvent::from_json("t", payload).with_tags(tags.iter().copied())
    };
    store.append(&stream(1), any, vec![event(&[])]).await.unwrap();
    let part = |n| vec![StreamAppend::new(stream(n), any, vec![event(&["course:1"])])];
    store.append_streams(part(2)).await.unwrap();
    let mut tx = test.database().begin().await.unwrap();
    store.append_in(&mut tx, &stream(3), any, vec![event(&[])]).await.unwrap();
    store.append_if_in(&mut tx, part(4), AppendCondition::none()).await.unwrap();
    let inside = store.read_stream_in(&mut tx, &stream(4), ReadOptions::forwards()).await.unwrap();
    assert_eq!(inside[0].payload.as_str(), text);
    tx.commit().await.unwrap();
    let raw = all(&*plain).await;
    assert_eq!(raw.len(), 4);
    assert!(raw.iter().all(|event| !event.payload.as_str().contains("1.10")));
    let page = store.read_page(0, &EventFilter::all(), 10).await.unwrap();
    let found = store.read_matching(&EventQuery::tags(["course:1"]), 0).await.unwrap();
    assert_eq!((page.events.len(), found.events.len()), (4, 2));
    let one = store.event(raw[0].event_id).await.unwrap();
    let read = all(&*store).await.into_iter().chain(page.events).chain(found.events).chain(one);
    assert!(read.into_iter().all(|event| event.payload.as_str() == text));
    test.close().await;
}

/// Whoever is first: one key for all, and forgetting is for good.
async fn a_subject_has_one_key(test: TestDatabase) {
    let table = KeyTable::new(test.database().clone()).unwrap();
    table.migrate().await.unwrap();
    let subjects: BTreeSet<String> = (0..5).map(|n| format!("s:{n} \"'")).collect();
    let tables: Vec<_> = (0..4).map(|_| KeyTable::new(test.database().clone()).unwrap()).collect();
    let found = futures::future::join_all(tables.iter().map(|one| one.ensure(&subjects))).await;
    let found: Vec<BTreeMap<String, SubjectKey>> = found.into_iter().map(Result::unwrap).collect();
    assert_eq!(found[0].len(), 5);
    assert!(found.iter().all(|keys| *keys == found[0]));
    let gone = subjects.first().unwrap();
    assert!(table.forget(gone).await.unwrap());
    assert_eq!(table.ensure(&subjects).await.unwrap()[gone], SubjectKey::Forgotten);
    let never = new_id().to_string();
    assert!(!table.forget(&never).await.unwrap());
    let never = BTreeSet::from([never]);
    assert_eq!(
        table.ensure(&never).await.unwrap().into_values().next(),
        Some(SubjectKey::Forgotten)
    );
    assert!(table.find(&BTreeSet::from(["x".to_owned()])).await.unwrap().is_empty());
    test.close().await;
}

/// Counts those whose name it can read.
struct Names;

#[async_trait]
impl Projection for Names {
    fn name(&self) -> &str {
        "names"
    }

    async fn handle(
        &self,
        tx: &mut Tx,
        event: &RecordedEvent,
    ) -> std::result::Result<(), HandlerError> {
        let name: Personal<String> = event.payload.get()?;
        let name = name.known().ok_or("it is erased")?;
        tx.execute("INSERT INTO names (name) VALUES ($1)", values![name]).await?;
        Ok(())
    }
}

/// The keys are in the database of the events. On SQLite the transaction has the only right to write,
/// so a key that waits for it to end would wait for itself.
async fn a_new_subject_inside_of_a_transaction(test: TestDatabase) {
    let database = test.database();
    let raw = event_store(database).unwrap();
    raw.migrate().await.unwrap();
    let keys = Arc::new(KeyTable::new(database.clone()).unwrap());
    keys.migrate().await.unwrap();
    let vault = Vault::new(Arc::clone(&keys) as Arc<dyn KeyStore>);
    let store = vault.events(Arc::clone(&raw));
    let stream = |n: u32| StreamId::new("user", n).unwrap();
    let event = |n: u32| {
        let name = Personal::new(format!("user:{n}"), format!("Name {n}"));
        vec![NewEvent::new("user.registered", &name).unwrap()]
    };
    let name = |events: &[RecordedEvent]| events[0].payload.get::<Personal<String>>().unwrap();
    let read = async |n: u32| -> Vec<RecordedEvent> {
        store.read_stream(&stream(n), ReadOptions::forwards()).try_collect().await.unwrap()
    };

    for commits in [false, true] {
        let mut tx = database.begin().await.unwrap();
        store.append_in(&mut tx, &stream(1), ExpectedVersion::NoStream, event(1)).await.unwrap();
        let append = StreamAppend::new(stream(2), ExpectedVersion::NoStream, event(2));
        store.append_if_in(&mut tx, vec![append], AppendCondition::none()).await.unwrap();
        let own = store.read_stream_in(&mut tx, &stream(1), ReadOptions::forwards()).await.unwrap();
        assert_eq!(name(&own).known().unwrap(), "Name 1");
        let row = Json::of(&Personal::new("user:3", 3)).unwrap();
        let sealed = vault.seal_in(&mut tx, "row 3", &row).await.unwrap();
        assert!(sealed.as_str().contains("$sealed"), "{sealed}");
        assert_eq!(vault.open_in(&mut tx, "row 3", &sealed).await.unwrap(), row);
        if commits {
            tx.commit().await.unwrap();
            assert_eq!(vault.open("row 3", &sealed).await.unwrap(), row);
        } else {
            tx.rollback().await.unwrap();
            assert!(read(1).await.is_empty());
        }
    }
    assert_eq!(name(&read(1).await).known().unwrap(), "Name 1");
    assert_eq!(name(&read(2).await).known().unwrap(), "Name 2");
    assert!(vault.forget("user:1").await.unwrap());
    assert!(name(&read(1).await).is_erased());
    let mut tx = database.begin().await.unwrap();
    let again = store.append_in(&mut tx, &stream(4), ExpectedVersion::Any, event(1)).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Erased);
    tx.rollback().await.unwrap();

    // Projections inside of the append's transaction read in clear: they are around the vault.
    database.execute("CREATE TABLE names (name TEXT NOT NULL)", &[]).await.unwrap();
    let inline = InlineEventStore::new(store).unwrap().projection(Names);
    inline.append(&stream(5), ExpectedVersion::Any, event(5)).await.unwrap();
    let rows = database.read("SELECT name FROM names", &[]).await.unwrap();
    assert_eq!(rows[0].text("name").unwrap(), "Name 5");
    test.close().await;
}

/// Keys in a file of their own are made beside the transaction, and outlive it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_in_another_file_are_not_in_the_transaction() {
    let (events, kept) = (TestDatabase::sqlite().await, TestDatabase::sqlite().await);
    let raw = event_store(events.database()).unwrap();
    raw.migrate().await.unwrap();
    let keys = Arc::new(KeyTable::new(kept.database().clone()).unwrap());
    keys.migrate().await.unwrap();
    let store = Vault::new(Arc::clone(&keys) as Arc<dyn KeyStore>).events(raw);
    let mut tx = events.database().begin().await.unwrap();
    let event = vec![NewEvent::new("registered", &Personal::new("user:1", "Ada")).unwrap()];
    let stream = StreamId::new("user", 1).unwrap();
    store.append_in(&mut tx, &stream, ExpectedVersion::Any, event).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(keys.find(&BTreeSet::from(["user:1".to_owned()])).await.unwrap().len(), 1);
    events.close().await;
    kept.close().await;
}

potter_core::on_every_sql_engine!(
    a_new_subject_inside_of_a_transaction,
    erased_subject_unreadable_in_snapshot_view_and_backup_copy,
    a_wrong_key_is_an_error,
    every_way_in_and_out_is_sealed,
    a_subject_has_one_key,
);

/// The suite passes through a vault: what is not personal is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn the_conformance_suite_through_a_vault() {
    let test = TestDatabase::sqlite().await;
    let store = event_store(test.database()).unwrap();
    store.migrate().await.unwrap();
    let store: Arc<dyn EventStore> = Vault::new(Arc::new(MemoryKeys::new())).events(store);
    potter_eventsourcing::testing::conformance(async || Arc::clone(&store)).await;
    potter_eventsourcing::testing::boundaries(async || Arc::clone(&store)).await;
    test.close().await;
}
