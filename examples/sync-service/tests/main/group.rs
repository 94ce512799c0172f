//! Uploads of one user that come together: one commit, and yet each for itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use example_sync_service::document::Kind;
use example_sync_service::ingest::{Ingest, Prepared, Uploader, ingest};
use example_sync_service::protocol::Position;
use example_sync_service::service::{Options, RegisterRequest, SyncService, UploadRequest};
use example_sync_service::store::sql::SqlStore;
use example_sync_service::store::{EntityKey, Loaded, Notes, Replica, Store, User};
use examples_common::Problem;
use potter_core::SystemClock;
use potter_core::testing::TestDatabase;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::gate::{Fate, Gate};

macro_rules! on_both {
    ($($test:ident;)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $test() {
                super::$test(super::World::new(super::TestDatabase::sqlite().await).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test] async fn $test() {
                super::$test(super::World::new(super::TestDatabase::postgres().await).await).await;
            })*
        }
    };
}

on_both! {
    uploads_that_wait_are_one_commit;
    each_batch_of_a_group_has_its_own_answer;
    one_that_the_store_refuses_stops_nobody;
    a_crash_before_and_after_the_commit_of_a_group;
    a_client_that_goes_away_takes_nobody_with_it;
    another_process_commits_first;
    a_group_in_which_one_shows_a_loss;
    a_worker_that_panics_is_followed_by_another;
}

type Answered = JoinHandle<Result<String, Problem>>;

/// A service on a store with a gate, on one thread: what was started has run as far as it can before
/// the test goes on.
struct World {
    test: TestDatabase,
    gate: Arc<Gate>,
    service: SyncService,
}

const DEVICES: [&str; 6] = ["d0", "d1", "d2", "d3", "d4", "d5"];

async fn service_on(store: Arc<dyn Store>) -> SyncService {
    let options = Options { tokens_required: false, ..Options::default() };
    SyncService::open(store, Arc::new(SystemClock), options).await.unwrap()
}

impl World {
    async fn new(test: TestDatabase) -> Self {
        let inner = SqlStore::open(test.database().clone()).await.unwrap();
        let gate = Arc::new(Gate::new(inner));
        let store: Arc<dyn Store> = Arc::<Gate>::clone(&gate);
        let service = service_on(store).await;
        for device in DEVICES {
            let (device_id, user_id) = (device.to_owned(), "ada".to_owned());
            let request = RegisterRequest { device_id, user_id, reissue: false };
            service.register(&request, None).await.unwrap();
        }
        Self { test, gate, service }
    }

    /// Sends an upload, and returns when it waits in the queue.
    async fn send(&self, request: &Value) -> Answered {
        let request: UploadRequest = serde_json::from_value(request.clone()).unwrap();
        let before = self.gate.asked.load(Ordering::SeqCst);
        let service = self.service.clone();
        let sent = tokio::spawn(async move { service.upload(&request, None, None).await });
        while self.gate.asked.load(Ordering::SeqCst) == before {
            tokio::task::yield_now().await;
        }
        sent
    }

    /// A commit is under way and held, so what comes now waits.
    async fn held(&self, request: &Value) -> Answered {
        self.gate.shut();
        let tried = self.tried();
        let sent = self.send(request).await;
        while self.tried() == tried {
            tokio::task::yield_now().await;
        }
        sent
    }

    fn tried(&self) -> usize {
        self.gate.tried.lock().unwrap().len()
    }

    async fn value(&self, entity: &str) -> Value {
        let key = key(entity);
        let loaded = self.gate.load("ada", "", &[], &[], std::slice::from_ref(&key)).await.unwrap();
        let Some(entity) = loaded.entities.get(&key) else { return Value::Null };
        let document =
            example_sync_service::document::Document::from_bytes(entity.kind, &entity.state);
        document.unwrap().value()
    }

    async fn user(&self) -> User {
        self.gate.user("ada").await.unwrap().unwrap()
    }

    async fn end(self) {
        drop(self.service);
        self.test.close().await;
    }
}

fn key(entity: &str) -> EntityKey {
    EntityKey { entity_type: "document".to_owned(), entity_id: entity.to_owned() }
}

fn increment(device: &str, batch: &str, op_id: &str) -> Value {
    let op = json!({ "type": "increment", "op_id": op_id });
    let change = json!({ "entity_id": "n", "crdt_type": "PNCounter", "operations": [op] });
    json!({ "device_id": device, "batch_id": batch, "changes": [change] })
}

async fn answer(sent: Answered) -> Value {
    serde_json::from_str(&sent.await.unwrap().unwrap()).unwrap()
}

async fn problem(sent: Answered) -> (u16, String) {
    let problem = sent.await.unwrap().unwrap_err();
    (problem.status, problem.code.into_owned())
}

async fn uploads_that_wait_are_one_commit(world: World) {
    let first = world.held(&increment("d0", "b0", "o0")).await;
    let mut waiting = Vec::new();
    for (n, device) in DEVICES.iter().enumerate().skip(1) {
        waiting.push(world.send(&increment(device, &format!("b{n}"), &format!("o{n}"))).await);
    }
    world.gate.open();
    assert_eq!(answer(first).await["seq"], 1);
    for (n, sent) in waiting.into_iter().enumerate() {
        let answer = answer(sent).await;
        assert_eq!(answer["device_id"], DEVICES[n + 1]);
        assert_eq!(answer["results"][0]["status"], "applied");
        assert_eq!(answer["seq"], n + 2, "in the order in which they came");
    }
    assert_eq!(*world.gate.tried.lock().unwrap(), [1, 5], "two commits for six uploads");
    assert_eq!(world.value("n").await, 6);
    let log = world.gate.log("ada", 0, 100).await.unwrap();
    let told: Vec<_> = log.iter().map(|one| (one.position.seq, one.device_id.as_str())).collect();
    let expected: Vec<_> = DEVICES.iter().enumerate().map(|(n, d)| (n as u64 + 1, *d)).collect();
    assert_eq!(told, expected, "a change for each");
    for replica in world.gate.replicas_of("ada").await.unwrap() {
        assert_eq!(replica.notes.clock[&replica.device_id], 1, "each device counts its own");
    }
    world.end().await;
}

async fn each_batch_of_a_group_has_its_own_answer(world: World) {
    let first = world.held(&increment("d0", "b0", "o0")).await;
    let numbered = |device: &str, sequence: u64, op_id: &str| {
        let mut request = increment(device, "", op_id);
        request.as_object_mut().unwrap().remove("batch_id");
        request["sequence"] = json!(sequence);
        request
    };
    let mut bad = increment("d1", "bad", "o1");
    bad["changes"][0]["crdt_type"] = json!("ORSet");
    bad["changes"][0]["operations"][0] = json!({ "type": "add", "value": 1 });
    let sent = [
        // The entity is a counter, and no set.
        world.send(&bad).await,
        // The same batch by two devices, and another of its name.
        world.send(&increment("d2", "same", "o2")).await,
        world.send(&increment("d3", "same", "o2")).await,
        world.send(&increment("d3", "same", "o3")).await,
        // An operation that another batch of the group has.
        world.send(&increment("d4", "b4", "o2")).await,
        // Numbered: its first, its second, its first again, and another first.
        world.send(&numbered("d5", 1, "o5")).await,
        world.send(&numbered("d5", 2, "o6")).await,
        world.send(&numbered("d5", 1, "o5")).await,
        world.send(&numbered("d5", 1, "o7")).await,
        // One that was committed before, and one of its name.
        world.send(&increment("d1", "b0", "o0")).await,
        world.send(&increment("d1", "b0", "o8")).await,
    ];
    world.gate.open();
    let first = first.await.unwrap().unwrap();
    let mut outcomes = Vec::new();
    for one in sent {
        outcomes.push(one.await.unwrap().map_err(|problem| problem.code.into_owned()));
    }
    let of = |at: usize| -> Value { serde_json::from_str(outcomes[at].as_ref().unwrap()).unwrap() };
    assert_eq!(of(0)["results"][0]["code"], "type_mismatch");
    assert_eq!(of(1)["results"][0]["status"], "applied");
    assert_eq!(outcomes[1], outcomes[2], "byte for byte");
    assert_eq!(outcomes[3], Err("batch_id_reused".to_owned()));
    assert_eq!(of(4)["results"][0]["status"], "duplicate");
    assert_eq!((&of(5)["accepted"], &of(6)["accepted"]), (&json!(1), &json!(1)));
    assert_eq!(outcomes[5], outcomes[7]);
    assert_eq!(outcomes[8], Err("stale_incarnation".to_owned()));
    assert_eq!(outcomes[9], Ok(first));
    assert_eq!(outcomes[10], Err("batch_id_reused".to_owned()));
    assert_eq!(world.tried(), 2, "all of it in one");
    assert_eq!(world.value("n").await, 4, "o0, o2, o5, o6");
    let replicas = world.gate.replicas_of("ada").await.unwrap();
    assert_eq!(replicas.iter().find(|one| one.device_id == "d5").unwrap().last_sequence, 2);
    // All of it is there again.
    let again = answer(world.send(&increment("d4", "same", "o2")).await).await;
    assert_eq!(again, of(1));
    world.end().await;
}

async fn one_that_the_store_refuses_stops_nobody(world: World) {
    let first = world.held(&increment("d0", "b0", "o0")).await;
    *world.gate.poison.lock().unwrap() = Some("batch b2".to_owned());
    let one = world.send(&increment("d1", "b1", "o1")).await;
    let two = world.send(&increment("d2", "b2", "o2")).await;
    let three = world.send(&increment("d3", "b3", "o3")).await;
    world.gate.open();
    assert_eq!(answer(first).await["accepted"], 1);
    assert_eq!(answer(one).await["accepted"], 1);
    assert_eq!(problem(two).await, (500, "internal".to_owned()));
    assert_eq!(answer(three).await["accepted"], 1);
    assert_eq!(world.value("n").await, 3);
    // Nothing of it was left: it is new when it can be taken.
    *world.gate.poison.lock().unwrap() = None;
    let again = answer(world.send(&increment("d2", "b2", "o2")).await).await;
    assert_eq!(again["results"][0]["status"], "applied");
    assert_eq!((world.value("n").await, world.user().await.head.seq), (json!(4), 4));
    world.end().await;
}

async fn a_crash_before_and_after_the_commit_of_a_group(world: World) {
    for (fate, code, times) in
        [(Fate::Before, "unavailable", 0), (Fate::After, "outcome_unknown", 1)]
    {
        let name = format!("{fate:?}");
        let before = world.user().await.head.seq;
        let held = world.held(&increment("d0", &format!("{name}0"), &format!("{name}0"))).await;
        let group = || {
            [1, 2, 3].map(|n| increment(DEVICES[n], &format!("{name}{n}"), &format!("{name}{n}")))
        };
        let mut sent = Vec::new();
        for request in group() {
            sent.push(world.send(&request).await);
        }
        // The one that is held is answered; the group, which is the next commit, is not.
        world.gate.fates.lock().unwrap().extend([Fate::Done, fate]);
        world.gate.open();
        answer(held).await;
        for one in sent {
            assert_eq!(problem(one).await, (503, code.to_owned()));
        }
        assert_eq!(world.user().await.head.seq, before + 1 + 3 * times);
        for request in group() {
            let answer = answer(world.send(&request).await).await;
            assert_eq!(answer["results"][0]["status"], "applied", "the first answer");
        }
        assert_eq!(world.user().await.head.seq, before + 4, "each once");
    }
    assert_eq!(world.value("n").await, 8);
    world.end().await;
}

async fn a_client_that_goes_away_takes_nobody_with_it(world: World) {
    let first = world.held(&increment("d0", "b0", "o0")).await;
    let gone = world.send(&increment("d1", "b1", "o1")).await;
    let stays = world.send(&increment("d2", "b2", "o2")).await;
    first.abort();
    gone.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    world.gate.open();
    assert_eq!(answer(stays).await["seq"], 3);
    assert_eq!(world.value("n").await, 3, "those who went away are counted");
    let again = answer(world.send(&increment("d0", "b0", "o0")).await).await;
    assert_eq!(again["seq"], 1, "and may ask for their answer");
    world.end().await;
}

async fn another_process_commits_first(world: World) {
    let other = service_on(Arc::new(SqlStore::open(world.test.database().clone()).await.unwrap()));
    let other = other.await;
    let first = world.held(&increment("d0", "b0", "o0")).await;
    let second = world.send(&increment("d1", "b1", "o1")).await;
    // The same operation and the same batch, by the other process.
    for (device, batch, op) in [("d2", "b1", "o1"), ("d3", "b3", "o0")] {
        let request = serde_json::from_value(increment(device, batch, op)).unwrap();
        other.upload(&request, None, None).await.unwrap();
    }
    world.gate.open();
    assert_eq!(answer(first).await["results"][0]["status"], "duplicate");
    assert_eq!(answer(second).await["device_id"], "d2", "the answer that the batch got there");
    assert_eq!((world.value("n").await, world.user().await.head.seq), (json!(2), 2));
    world.end().await;
}

async fn a_group_in_which_one_shows_a_loss(world: World) {
    let epoch = world.user().await.epoch;
    let first = world.held(&increment("d0", "b0", "o0")).await;
    let one = world.send(&increment("d1", "b1", "o1")).await;
    let mut gap = increment("d2", "b2", "o2");
    gap["sequence"] = json!(7);
    let gap = world.send(&gap).await;
    let three = world.send(&increment("d3", "b3", "o3")).await;
    world.gate.open();
    for sent in [first, one, three] {
        let answer = answer(sent).await;
        assert_eq!((&answer["accepted"], &answer["epoch"]), (&json!(1), &json!(epoch)));
    }
    assert_eq!(problem(gap).await, (409, "epoch_changed".to_owned()));
    assert_ne!(world.user().await.epoch, epoch);
    assert_eq!(world.value("n").await, 3);
    world.end().await;
}

async fn a_worker_that_panics_is_followed_by_another(world: World) {
    let first = world.held(&increment("d0", "b0", "o0")).await;
    let waits = world.send(&increment("d1", "b1", "o1")).await;
    world.gate.fates.lock().unwrap().push_back(Fate::Panic);
    world.gate.open();
    for sent in [first, waits] {
        assert_eq!(problem(sent).await, (503, "outcome_unknown".to_owned()));
    }
    for (device, n) in [("d0", 0), ("d1", 1)] {
        let request = increment(device, &format!("b{n}"), &format!("o{n}"));
        assert_eq!(answer(world.send(&request).await).await["seq"], n + 1);
    }
    world.end().await;
}

/// A random number generator that is the same at every run (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// Some operations, good and bad, that meet in few entities.
fn operations(random: &mut Random) -> Vec<Prepared> {
    const KINDS: [(&str, Kind); 5] = [
        ("n", Kind::PnCounter),
        ("r", Kind::LwwRegister),
        ("s", Kind::OrSet),
        ("m", Kind::LwwMap),
        ("t", Kind::Rga),
    ];
    (0..1 + random.below(4))
        .map(|_| {
            let (entity, kind) = KINDS[random.below(KINDS.len())];
            let value = random.below(3);
            let mut op = match (kind, random.below(3)) {
                (_, 0) if value == 0 => json!({ "type": "nonsense" }),
                (Kind::PnCounter, _) => json!({ "type": "increment", "value": value }),
                (Kind::LwwRegister, 0) => json!({ "type": "delete" }),
                (Kind::LwwRegister, 1) => {
                    json!({ "type": "set", "value": value, "timestamp": "9999-01-01T00:00:00Z" })
                }
                (Kind::LwwRegister, _) => json!({ "type": "set", "value": value }),
                (Kind::OrSet, 0) => json!({ "type": "remove", "value": value }),
                (Kind::OrSet, _) => json!({ "type": "add", "value": value }),
                (Kind::LwwMap, _) => json!({ "type": "set", "key": value.to_string(), "value": 1 }),
                _ => json!({ "type": "insert", "index": 0, "value": value.to_string() }),
            };
            if random.below(2) == 0 {
                op["op_id"] = json!(random.below(40).to_string());
            }
            Prepared::new("ada", key(entity), kind, &op)
        })
        .collect()
}

fn by<'a>(device_id: &'a str, user: &'a User, replica: &'a Replica) -> Uploader<'a> {
    Uploader { user, device_id, incarnation: 1, replica: Some(replica), now: replica.last_seen }
}

#[test]
fn a_group_is_what_its_batches_are_one_after_the_other() {
    let now = potter_core::Clock::now(&SystemClock);
    for seed in 1..=200 {
        let mut random = Random(seed * 0x9e37_79b9);
        let user = |version, seq| User {
            user_id: "ada".to_owned(),
            version,
            epoch: "e".to_owned(),
            head: Position { seq, mark: 0 },
            horizon: Position::default(),
        };
        let fresh = |device: &str| Replica {
            device_id: device.to_owned(),
            incarnation: 1,
            registered_at: now,
            last_seen: now,
            acked: 0,
            last_sequence: 0,
            retired: false,
            notes: Notes::default(),
        };
        let batches: Vec<_> = (0..2 + random.below(6))
            .map(|_| (["a", "b", "c"][random.below(3)], operations(&mut random)))
            .collect();
        // Together.
        let (nothing, start) = (Loaded::default(), user(0, 0));
        let mut group = Ingest::new(&start, &nothing);
        let mut replicas: HashMap<&str, Replica> = HashMap::new();
        let mut together = Vec::new();
        for (device, ops) in &batches {
            let replica = replicas.get(device).cloned().unwrap_or_else(|| fresh(device));
            let by = by(device, &start, &replica);
            let (results, replica) = group.batch(&by, ops).unwrap();
            replicas.insert(device, replica.unwrap());
            together.push(results);
        }
        let commit = group.finish();
        // One after the other.
        let mut stored = Loaded::default();
        let mut alone: HashMap<&str, Replica> = HashMap::new();
        let (mut seq, mut log, mut conflicts) = (0, Vec::new(), HashMap::new());
        for (at, (device, ops)) in batches.iter().enumerate() {
            let user = user(at as u64, seq);
            let replica = alone.get(device).cloned().unwrap_or_else(|| fresh(device));
            let by = by(device, &user, &replica);
            let done = ingest(&by, ops, &stored).unwrap();
            assert_eq!(done.results, together[at], "seed {seed}");
            let mut commit = done.commit;
            alone.insert(device, commit.replicas.pop().unwrap());
            seq = commit.after.head.seq;
            stored.ops.extend(commit.ops.iter().map(|op| (op.key, op.payload)));
            log.extend(commit.log);
            conflicts.extend(commit.conflicts.into_iter().map(|one| (one.id, one)));
            let entities = commit.entities.into_iter();
            stored.entities.extend(entities.map(|one| (one.key.clone(), one)));
        }
        assert_eq!((commit.after.head.seq, commit.after.version), (seq, 1), "seed {seed}");
        assert_eq!(replicas, alone, "seed {seed}");
        let changes = |log: &[example_sync_service::store::LogEntry]| -> Vec<_> {
            let each = log.iter();
            each.map(|one| {
                (one.position.seq, one.key.clone(), one.device_id.clone(), one.delta.clone())
            })
            .collect()
        };
        assert_eq!(changes(&commit.log), changes(&log), "seed {seed}");
        assert_eq!(commit.entities.len(), stored.entities.len(), "seed {seed}");
        for entity in &commit.entities {
            let same = &stored.entities[&entity.key];
            assert_eq!((&entity.state, entity.seq), (&same.state, same.seq), "seed {seed}");
        }
        let ops: HashMap<_, _> = commit.ops.iter().map(|op| (op.key, op.payload)).collect();
        assert_eq!(ops, stored.ops, "seed {seed}");
        assert_eq!(commit.conflicts.len(), conflicts.len(), "seed {seed}");
        for one in &commit.conflicts {
            let same = &conflicts[&one.id];
            assert_eq!((one.status, &one.siblings), (same.status, &same.siblings), "seed {seed}");
        }
    }
}
