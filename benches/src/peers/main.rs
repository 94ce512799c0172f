//! The side-by-side benchmark of the event store with its peers: each a program of its own (in
//! `benches/peers`), on the same PostgreSQL with the same durability, the same events and the same
//! read model. `scripts/bench-peers` builds them and runs this.
//!
//! Each round has a fresh database (a catch-up: a fresh projection over the same log); rounds of
//! the sides alternate, and the medians are compared. After each round its rows are counted.
//!
//! Arguments: words that the works to run must contain; `--rounds N` (5; catch-up 3), `--seconds S`
//! of an append round (2), `--events N` of the log (1,000,000), `--slow N` (50,000) of the log of
//! sides that take an event at a time, `--sides a,b`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints tables")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark ends at the first error")]

mod database;
mod sides;

use std::collections::BTreeMap;

use database::Fresh;
use sides::{Outcome, SIDES, Side};

struct Options {
    words: Vec<String>,
    sides: Option<Vec<String>>,
    rounds: usize,
    seconds: f64,
    events: u64,
    slow: u64,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            words: Vec::new(),
            sides: None,
            rounds: 5,
            seconds: 2.0,
            events: 1_000_000,
            slow: 50_000,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(word) = arguments.next() {
            let mut value = || arguments.next().expect("a value");
            match word.as_str() {
                "--rounds" => options.rounds = value().parse().expect("a number"),
                "--seconds" => options.seconds = value().parse().expect("a number"),
                "--events" => options.events = value().parse().expect("a number"),
                "--slow" => options.slow = value().parse().expect("a number"),
                "--sides" => {
                    options.sides = Some(value().split(',').map(str::to_owned).collect());
                }
                _ => options.words.push(word),
            }
        }
        options
    }

    fn wants(&self, work: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| work.contains(word.as_str()))
    }

    fn sides(&self) -> impl Iterator<Item = &'static Side> + '_ {
        SIDES.iter().filter(|side| {
            self.sides.as_ref().is_none_or(|sides| sides.iter().any(|name| name == side.name))
        })
    }
}

fn main() {
    let options = Options::parse();
    for (writers, batch) in [(32, 1), (1, 100), (1, 1000)] {
        let what = match batch {
            1 => "append 1 event, 32 writers".to_owned(),
            _ => format!("append batches of {batch}, 1 writer"),
        };
        if options.wants(&what) {
            appends(&options, &what, writers, batch);
        }
    }
    if options.wants("load 1,000 events") {
        loads(&options, "load 1,000 events", "load");
    }
    if options.wants("load-snapshot") {
        loads(&options, "load 1,000 events with a snapshot", "load-snapshot");
    }
    if options.wants("catch-up") {
        catch_ups(&options);
    }
    if options.wants("partition") {
        partition(&options);
    }
    if options.wants("memory") {
        memory(&options);
    }
    if options.wants("latency") {
        latencies(&options);
    }
}

type Rates = BTreeMap<usize, Vec<f64>>;

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One table: a line a side.
fn table(what: &str, unit: &str, rates: &[(String, Vec<f64>)]) {
    println!(
        "\n**{what}** ({unit})\n\n| side | median | min–max | × floor | rounds |\n|---|---|---|---|---|"
    );
    let floor = rates.first().map_or(1.0, |(_, values)| median(values));
    for (side, values) in rates {
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(least, most), value| {
            (least.min(*value), most.max(*value))
        });
        let middle = median(values);
        let (least, most, times) = (number(least), number(most), middle / floor);
        println!(
            "| {side} | {} | {least}–{most} | {times:.2} | {} |",
            number(middle),
            values.len()
        );
    }
}

fn named(sides: &[&Side], rates: Rates) -> Vec<(String, Vec<f64>)> {
    rates.into_iter().map(|(at, values)| (sides[at].label(), values)).collect()
}

fn appends(options: &Options, what: &str, writers: u64, batch: u64) {
    let sides: Vec<_> = options.sides().filter(|side| side.appends).collect();
    let mut operations = Vec::new();
    let mut rates = Rates::new();
    for side in &sides {
        // A short round says how much a round of the wanted length is.
        let few = (640 / batch).max(writers * 4);
        let Some(rate) = append(side, few, writers, batch) else {
            operations.push(0);
            continue;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "small numbers"
        )]
        let wanted = (rate / batch as f64 * options.seconds) as u64;
        operations.push((wanted / writers).max(2) * writers);
    }
    for round in 0..options.rounds {
        for step in 0..sides.len() {
            // Another one is the first each time.
            let at = (step + round) % sides.len();
            if operations[at] > 0
                && let Some(rate) = append(sides[at], operations[at], writers, batch)
            {
                rates.entry(at).or_default().push(rate);
            }
        }
    }
    table(what, "events/s", &named(&sides, rates));
}

fn append(side: &Side, operations: u64, writers: u64, batch: u64) -> Option<f64> {
    let database = Fresh::new();
    side.setup(&database);
    let sizes = [("OPERATIONS", operations), ("WRITERS", writers), ("BATCH", batch)];
    let outcome = side.run("append", &database, &sizes, &[])?;
    let stored = database.number(&format!("SELECT count(*) FROM {}", side.events_table));
    assert_eq!(stored, operations * batch, "{} lost or doubled events", side.name);
    Some(outcome.rate())
}

fn loads(options: &Options, what: &str, work: &str) {
    let sides: Vec<_> = options.sides().filter(|side| side.appends).collect();
    let mut rates = Rates::new();
    for round in 0..options.rounds {
        for step in 0..sides.len() {
            let at = (step + round) % sides.len();
            let database = Fresh::new();
            sides[at].setup(&database);
            let sizes = [("OPERATIONS", 400), ("EVENTS", 1000)];
            if let Some(outcome) = sides[at].run(work, &database, &sizes, &[]) {
                rates.entry(at).or_default().push(outcome.rate());
            }
        }
    }
    table(what, "loads/s", &named(&sides, rates));
}

/// One way of catching up: which side, how, with how many workers, over how many events.
struct Way {
    side: &'static Side,
    work: &'static str,
    workers: u64,
    events: u64,
    label: String,
}

fn catch_ups(options: &Options) {
    let mut ways = Vec::new();
    for side in options.sides() {
        for (work, workers) in side.catch_ups {
            let events = if work.starts_with("catch-up-") { options.events } else { options.slow };
            let how = match *work {
                "catch-up-batch" => "a page at a time",
                "catch-up-server" => "inside the server, 1,000 at a time",
                _ => "an event at a time",
            };
            let (label, plural) = (side.label(), if *workers == 1 { "" } else { "s" });
            let label = format!("{label}: {how}, {workers} worker{plural}, {events} events");
            ways.push(Way { side, work, workers: *workers, events, label });
        }
    }
    // The same log for all sides that have the same tables.
    let mut logs = BTreeMap::new();
    for way in &ways {
        let key = (way.side.events_table, way.events);
        logs.entry(key).or_insert_with(|| filled(way.side, way.events));
    }
    let mut rates: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for round in 0..options.rounds.min(3) {
        for (at, way) in ways.iter().enumerate() {
            let database = &logs[&(way.side.events_table, way.events)];
            if let Some(outcome) = catch_up(way, database, &format!("round-{round}-{at}")) {
                rates.entry(at).or_default().push(outcome.rate());
            }
        }
    }
    let lines: Vec<_> =
        rates.into_iter().map(|(at, values)| (ways[at].label.clone(), values)).collect();
    table("catch up a projection that writes a row an event", "events/s", &lines);
}

fn filled(side: &Side, events: u64) -> Fresh {
    let database = Fresh::new();
    side.setup(&database);
    side.run("fill", &database, &[("EVENTS", events)], &[]).expect("fill");
    database.execute("VACUUM ANALYZE");
    database.execute("CHECKPOINT");
    database
}

fn catch_up(way: &Way, database: &Fresh, name: &str) -> Option<Outcome> {
    database.execute("TRUNCATE read_model");
    let sizes = [("EVENTS", way.events), ("WRITERS", way.workers), ("BATCH", way.side.page)];
    let outcome = way.side.run(way.work, database, &sizes, &[("NAME", name)])?;
    let rows = database.number("SELECT count(*) FROM read_model");
    let sum = database.number("SELECT coalesce(sum(amount), 0)::bigint FROM read_model");
    assert_eq!((rows, sum), (way.events, way.events * 1250), "{}: rows, sum", way.label);
    Some(outcome)
}

/// How many rows of the log a partition of 8 reads.
fn partition(options: &Options) {
    let events = options.events.min(100_000);
    println!(
        "\n**one partition of 8 over {events} events**\n\n| side | events of its own | rows of the log read | of the log |\n|---|---|---|---|"
    );
    for side in options.sides().filter(|side| side.partitions) {
        let database = filled(side, events);
        let counters = format!(
            "SELECT (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables WHERE relname = '{}'",
            side.events_table
        );
        std::thread::sleep(std::time::Duration::from_secs(2));
        let before = database.number(&counters);
        let sizes = [("EVENTS", events), ("WRITERS", 8), ("BATCH", side.page)];
        if side.run("catch-up", &database, &sizes, &[("NAME", "part"), ("ONLY", "0")]).is_none() {
            continue;
        }
        std::thread::sleep(std::time::Duration::from_secs(2));
        let read = database.number(&counters) - before;
        let own = database.number("SELECT count(*) FROM read_model");
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let part = read as f64 / events as f64;
        println!("| {} | {own} | {read} | {part:.3} |", side.label());
    }
}

/// The most memory of a process that catches up.
fn memory(options: &Options) {
    let sizes = [10_000, 100_000, options.events];
    println!(
        "\n**peak memory of the process that catches up** (MiB)\n\n| side | 10,000 events | 100,000 | {} |\n|---|---|---|---|",
        options.events
    );
    for side in options.sides().filter(|side| side.memory.is_some()) {
        let work = side.memory.unwrap();
        let mut line = Vec::new();
        for events in sizes {
            let database = filled(side, events);
            let way = Way { side, work, workers: 1, events, label: side.label() };
            let peak = catch_up(&way, &database, "memory").map(|outcome| outcome.peak_kib);
            line.push(peak.map_or("–".to_owned(), |kib| format!("{:.1}", kib / 1024.0)));
        }
        println!("| {} | {} |", side.label(), line.join(" | "));
    }
}

fn latencies(options: &Options) {
    println!(
        "\n**from the append's call to the handler**, 1,000 appends/s for 20 s (ms)\n\n| side | p50 | p99 | most | events/s |\n|---|---|---|---|---|"
    );
    for side in options.sides().filter(|side| side.live) {
        let database = Fresh::new();
        side.setup(&database);
        let name = [("NAME", "live")];
        let sizes = [("OPERATIONS", 20_000), ("BATCH", side.page)];
        let Some(outcome) = side.run("latency", &database, &sizes, &name) else { continue };
        assert_eq!(database.number("SELECT count(*) FROM read_model"), 20_000, "{}", side.name);
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {} |",
            side.label(),
            outcome.p50_ms,
            outcome.p99_ms,
            outcome.max_ms,
            number(outcome.rate())
        );
    }
}
