//! Eight clients upload the same batches at once, with retries, while the service is killed at random:
//! every device ends with the same state, and each increment is counted once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use example_sync_service::client::{Failure, Local};
use example_sync_service::document::Kind;
use examples_test_support::{Program, exchange};
use serde_json::{Value, json};

use crate::devices::{Port, act, key, meet, shown};
use crate::place::{API, Place, operations, register, value};

const CLIENTS: usize = 8;
const BATCHES: usize = 12;
const OPS: usize = 25;
const KILLS_MIN: usize = 16;
const PATIENCE: Duration = Duration::from_secs(300);

crate::on_every_store! {
    eight_clients_and_a_service_that_is_killed;
}

/// A random number generator that is the same at every run (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Batch `n` of those that all clients send: with a batch id, or with ids of the operations.
fn batch(device: &str, n: usize) -> Value {
    let ops: Vec<Value> = (0..OPS)
        .map(|at| {
            let mut op = json!({ "type": "increment", "value": 1 });
            if n.is_multiple_of(2) {
                op["op_id"] = json!(format!("batch-{n}-{at}"));
            }
            op
        })
        .collect();
    let mut batch = operations(device, "shared", "PNCounter", &json!(ops));
    if n % 2 == 1 {
        batch["batch_id"] = json!(format!("batch-{n}"));
    }
    batch
}

/// The service as it is at the moment, or not.
struct Stage {
    program: Mutex<Option<Program>>,
    kills: AtomicUsize,
    done: AtomicBool,
    failed: AtomicBool,
}

/// Tells the others when a thread panics: nobody waits for what does not come.
struct Alarm<'a>(&'a Stage);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

impl Stage {
    /// It is not over yet, and nobody failed.
    fn check(&self, began: Instant) {
        assert!(!self.failed.load(Ordering::SeqCst), "another thread failed");
        assert!(began.elapsed() < PATIENCE, "not done in time");
    }

    /// Where it listens; it may be killed at any moment after.
    fn address(&self) -> Option<String> {
        let held = self.program.lock().unwrap();
        held.as_ref().map(|program| program.address().to_owned())
    }
}

fn eight_clients_and_a_service_that_is_killed(place: &Place) {
    let first = place.start();
    for client in 0..CLIENTS {
        register(&first, &format!("c{client}"), "ada");
    }
    let stage = Stage {
        program: Mutex::new(Some(first)),
        kills: AtomicUsize::new(0),
        done: AtomicBool::new(false),
        failed: AtomicBool::new(false),
    };
    let began = Instant::now();
    let left = AtomicUsize::new(CLIENTS);
    let mut devices: Vec<Local> = Vec::new();
    thread::scope(|scope| {
        let killer = scope.spawn(|| kill(place, &stage));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (stage, left) = (&stage, &left);
                scope.spawn(move || {
                    let device = run(stage, client, began);
                    if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                        stage.done.store(true, Ordering::SeqCst);
                    }
                    device
                })
            })
            .collect();
        devices.extend(clients.into_iter().map(|client| client.join().unwrap()));
        killer.join().unwrap();
    });
    let program = place.start();
    let port = Port::of(&program);
    // What the last of them sends, the first gets in the second round.
    for _ in 0..2 {
        for device in &mut devices {
            meet(device, &port).unwrap();
        }
    }
    check(&program, &devices);
    report(stage.kills.load(Ordering::SeqCst), began);
}

#[expect(clippy::print_stdout, reason = "the figures, with --nocapture")]
fn report(kills: usize, began: Instant) {
    assert!(kills >= KILLS_MIN, "{kills} kills");
    println!("{kills} kills, {CLIENTS} clients, {BATCHES} shared batches, {:?}", began.elapsed());
}

/// Kills and starts it until the clients are done and it was killed often enough.
fn kill(place: &Place, stage: &Stage) {
    let _alarm = Alarm(stage);
    let mut random = Random(0x5eed_0000_0000_0002);
    while !stage.failed.load(Ordering::SeqCst) {
        // Once it was killed often enough its lives get longer, so that slow stores come to an end.
        let kills = stage.kills.load(Ordering::SeqCst);
        let longest = 250 * (kills.saturating_sub(KILLS_MIN) as u64 + 1);
        thread::sleep(Duration::from_millis(30 + random.below(longest.min(10_000))));
        let done = stage.done.load(Ordering::SeqCst);
        if let Some(mut program) = stage.program.lock().unwrap().take() {
            program.kill();
        }
        if done {
            return;
        }
        stage.kills.fetch_add(1, Ordering::SeqCst);
        let next = place.start();
        *stage.program.lock().unwrap() = Some(next);
    }
}

/// One client: all shared batches, each until it is answered and then once more; between them
/// operations of its own, by the client library.
fn run(stage: &Stage, client: usize, began: Instant) -> Local {
    let _alarm = Alarm(stage);
    let name = format!("c{client}");
    let mut device = Local::new(&name, "ada");
    for n in 0..BATCHES {
        act(&mut device, "own", Kind::PnCounter, "increment", json!(1));
        act(&mut device, "set", Kind::OrSet, "add", json!(format!("{client}-{n}")));
        let body = batch(&name, n).to_string();
        let mut answers: Vec<String> = Vec::new();
        while answers.len() < 2 {
            stage.check(began);
            let Some(address) = stage.address() else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let headers = ["content-type: application/json"];
            let path = format!("{API}/sync/upload");
            match exchange(&address, "POST", &path, &headers, &body) {
                Ok(answer) if answer.status == 200 => answers.push(answer.body),
                Ok(answer) if answer.status >= 500 => {}
                Ok(answer) => panic!("{} {}", answer.status, answer.body),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
            match meet(&mut device, &Port::at(&address)) {
                Ok(_) | Err(Failure::Unreachable(_)) => {}
                Err(failure) => panic!("{failure}"),
            }
        }
        if n % 2 == 1 {
            assert_eq!(answers[0], answers[1], "a batch is answered once");
        }
        // Until the kills are as many as wanted, there is something to do.
        while n + 1 == BATCHES && stage.kills.load(Ordering::SeqCst) < KILLS_MIN {
            stage.check(began);
            thread::sleep(Duration::from_millis(10));
        }
    }
    device
}

fn check(program: &Program, devices: &[Local]) {
    assert_eq!(value(program, "shared"), BATCHES * OPS, "each increment once");
    assert_eq!(value(program, "own"), CLIENTS * BATCHES);
    assert_eq!(value(program, "set").as_array().unwrap().len(), CLIENTS * BATCHES);
    for device in devices {
        for entity in ["shared", "own", "set"] {
            assert_eq!(shown(device, entity), value(program, entity), "{}", device.meta.device_id);
            let same = device.entities[&key(entity)].to_bytes();
            assert_eq!(same, devices[0].entities[&key(entity)].to_bytes(), "byte for byte");
        }
    }
}
