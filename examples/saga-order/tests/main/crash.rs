//! Killed at any moment, again and again, and nothing is lost or done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::books::{all_sagas, check_order, check_stock};
use crate::place::Place;
use crate::process::{PATIENCE, Process, exchange, order_head};

const ORDERS: usize = 200;
const KILLS: usize = 16;
/// Too few for all who want them.
const RARE: i64 = 20;
const REFUNDED: &str = "SELECT count(*) AS n FROM payments WHERE status = 'refunded'";

crate::on_both_engines! {
    two_hundred_orders_survive_sixteen_kills;
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

fn order(index: usize) -> String {
    let item = |product_id: &str, quantity: usize, price: f64| json!({ "product_id": product_id, "quantity": quantity, "price": price });
    let items = match index % 5 {
        0 => vec![item("prod-rare", 1, 9.99), item("prod-1", 1, 29.99)],
        1 => vec![item("prod-1", 2, 29.99), item("prod-2", 1, 49.9)],
        2 => vec![item("prod-2", 3, 49.9), item("prod-1", 1, 29.99), item("prod-3", 1, 0.01)],
        3 => vec![item("prod-3", 1, 10_000.01)],
        _ => vec![item("prod-1", 1, 29.99)],
    };
    json!({ "customer_id": format!("customer-{index}"), "items": items }).to_string()
}

/// Sends orders that were not answered yet, until the process is gone. A process that gets no
/// processor for longer than the database lets a transaction stand still answers 503: a client
/// tries again.
fn send(address: &str, open: &[usize], answered: &Mutex<BTreeMap<usize, Value>>) {
    for index in open {
        let head = order_head(&format!("key-{index}"));
        let began = Instant::now();
        let answer = loop {
            let Ok(answer) = exchange(address, &head, order(*index).as_bytes()) else { return };
            if answer.status != 503 || began.elapsed() > PATIENCE {
                break answer;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(answer.status, 202, "{}", answer.body);
        let accepted = answer.json();
        let mut answered = answered.lock().unwrap();
        let first = answered.entry(*index).or_insert_with(|| accepted.clone());
        assert_eq!(*first, accepted, "the same key is the same order, before a crash and after");
    }
}

const SETTINGS: [(&str, &str); 2] = [("STEP_DELAY_MS", "20"), ("LEASE_MS", "300")];

fn two_hundred_orders_survive_sixteen_kills(place: &Place) {
    let began = Instant::now();
    let mut random = Random(0x5eed_0000_0000_0001);
    let answered = Mutex::new(BTreeMap::new());
    let mut published = BTreeSet::new();
    drop(Process::start(place, &SETTINGS));
    place.execute("UPDATE stock SET available = 20 WHERE product_id = 'prod-rare'");
    let in_all = place.number("SELECT CAST(sum(available) AS bigint) AS n FROM stock");

    for life in 0..KILLS {
        published.extend(live(place, life, &mut random, &answered));
    }
    let last = Process::start(place, &SETTINGS);
    send(&last.address, &(0..ORDERS).collect::<Vec<_>>(), &answered);
    let sagas = finished(place, &last);
    for saga in &sagas {
        check_order(place, &last, saga);
    }
    check_stock(place, in_all);
    published.extend(emptied(place, &last));
    let completed: BTreeSet<_> = sagas
        .iter()
        .filter(|saga| saga["status"] == "completed")
        .map(|saga| saga["order_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(published, completed, "of every completed order, and no other, was told");
    check_variety(place, completed.len(), began);
}

/// One life of the program: it gets orders, and is killed at some moment. Gives the orders that
/// it told of.
fn live(
    place: &Place,
    life: usize,
    random: &mut Random,
    answered: &Mutex<BTreeMap<usize, Value>>,
) -> Vec<String> {
    // In every fourth life the last step refuses, so that there is something to undo.
    let refuses = life % 4 == 3;
    let mut variables = SETTINGS.to_vec();
    variables.extend(refuses.then_some(("FAIL_AT", "complete_order")));
    let process = Process::launch(place, &variables);
    // One in eight does not live until it listens.
    let limit = if life % 8 == 5 { Duration::from_millis(random.below(60)) } else { PATIENCE };
    let Some(mut process) = process.listening(limit) else { return Vec::new() };
    // The new ones of this life, those without an answer, and one again.
    let known = answered.lock().unwrap().clone();
    let until = (life + 1) * ORDERS / KILLS;
    let mut open: Vec<_> = (0..until).filter(|index| !known.contains_key(index)).collect();
    open.extend((life * ORDERS / KILLS).checked_sub(1));
    let address = process.address.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| send(&address, &open, answered));
        let at_least = if refuses { 120 } else { 20 };
        std::thread::sleep(Duration::from_millis(at_least + random.below(300)));
        // Some get as far as the step that refuses, on a busy machine too.
        let begin = Instant::now();
        while refuses && place.number(REFUNDED) == 0 && begin.elapsed() < PATIENCE / 4 {
            std::thread::sleep(Duration::from_millis(20));
        }
        process.kill();
    });
    told(&process)
}

/// There was something of everything.
#[expect(clippy::print_stdout, reason = "the figures, with --nocapture")]
fn check_variety(place: &Place, completed: usize, began: Instant) {
    let compensated = ORDERS - completed;
    assert!(completed >= 40 && compensated >= 40, "{completed} completed");
    let refunded = place.number(REFUNDED);
    assert!(refunded > 0, "the last step refused in some lives");
    let taken_over = place.number("SELECT count(*) AS n FROM potter_sagas WHERE fence > 1");
    assert!(taken_over > 10, "{taken_over} sagas were under way when their process was killed");
    let rare = place.number("SELECT available AS n FROM stock WHERE product_id = 'prod-rare'");
    assert!((0..RARE).contains(&rare), "{rare} left");
    println!(
        "{KILLS} kills, {completed} completed, {compensated} compensated, {refunded} refunded, \
         {taken_over} taken over, {:?} in all",
        began.elapsed()
    );
}

/// Waits until all messages are out. Gives the orders that this process told of.
fn emptied(place: &Place, process: &Process) -> Vec<String> {
    let begin = Instant::now();
    while place.number("SELECT count(*) AS n FROM potter_outbox") > 0 {
        assert!(begin.elapsed() < PATIENCE, "the outbox is not emptied");
        std::thread::sleep(Duration::from_millis(50));
    }
    told(process)
}

/// The orders that the log says were published.
fn told(process: &Process) -> Vec<String> {
    let lines = process.log_lines("published");
    lines.iter().filter_map(|line| line["order_id"].as_str().map(ToOwned::to_owned)).collect()
}

/// All sagas, once they are final.
fn finished(place: &Place, process: &Process) -> Vec<Value> {
    let begin = Instant::now();
    let open = "SELECT count(*) AS n FROM potter_sagas
        WHERE status NOT IN ('completed', 'compensated', 'cancelled')";
    while place.number(open) > 0 {
        assert!(begin.elapsed() < PATIENCE, "not all orders are final");
        std::thread::sleep(Duration::from_millis(50));
    }
    let sagas = all_sagas(process);
    assert_eq!(sagas.len(), ORDERS, "each order has one saga");
    sagas.iter().map(|saga| process.finished(saga["saga_id"].as_str().unwrap())).collect()
}
