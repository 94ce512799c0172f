//! Workloads from seeds: a correct object, clients that overlap, and some that crash.

use std::collections::VecDeque;
use std::fmt::Write as _;

use potter_jepsen::{Event, EventKind, History, Value};

struct Random(u64);

impl Random {
    /// Splitmix64.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// An object as (f, argument) → result; `None` refuses.
type Object<'o> = dyn FnMut(&str, &str) -> Option<String> + 'o;
type Ask<'o> = dyn FnMut(&mut Random) -> (&'static str, String) + 'o;

/// A log of `ops` operations by `clients`; of every thousand, `info` crash.
fn log(seed: u64, ops: usize, clients: usize, info: usize, ask: &mut Ask<'_>, object: &mut Object<'_>) -> String {
    let mut random = Random(seed);
    let mut out = String::new();
    let mut idle: Vec<usize> = (0..clients).collect();
    let mut running: Vec<(usize, &'static str, String, Option<Option<String>>)> = Vec::new();
    let (mut started, mut next) = (0, clients);
    while started < ops || !running.is_empty() {
        if started < ops && !idle.is_empty() && (running.is_empty() || random.below(2) == 0) {
            let process = idle.swap_remove(random.below(idle.len()));
            let (f, input) = ask(&mut random);
            let shown = if matches!(f, "read" | "dequeue" | "pop") { "nil" } else { &input };
            _ = writeln!(out, "INFO  jepsen.util - {process}\t:invoke\t:{f}\t{shown}");
            running.push((process, f, input, None));
            started += 1;
            continue;
        }
        let at = random.below(running.len());
        let (process, f, input, done) = &mut running[at];
        let Some(result) = done else {
            *done = Some(object(f, input));
            continue;
        };
        let crashes = !matches!(*f, "read" | "dequeue" | "pop" | "contains") && random.below(1000) < info;
        match result {
            _ if crashes => {
                _ = writeln!(out, "INFO  jepsen.util - {process}\t:info\t:{f}\t:timed-out");
                idle.push(next);
                next += 1;
            }
            Some(value) => {
                _ = writeln!(out, "INFO  jepsen.util - {process}\t:ok\t:{f}\t{value}");
                idle.push(*process);
            }
            None => {
                _ = writeln!(out, "INFO  jepsen.util - {process}\t:fail\t:{f}\t{input}");
                idle.push(*process);
            }
        }
        running.swap_remove(at);
    }
    out
}

fn cas(seed: u64, ops: usize, clients: usize, info: usize) -> String {
    let mut state: Option<String> = None;
    let mut ask = |random: &mut Random| match random.below(3) {
        0 => ("read", String::new()),
        1 => ("write", random.below(5).to_string()),
        _ => ("cas", format!("[{} {}]", random.below(5), random.below(5))),
    };
    log(seed, ops, clients, info, &mut ask, &mut |f, input| match f {
        "read" => Some(state.clone().unwrap_or("nil".into())),
        "write" => {
            state = Some(input.into());
            Some(input.into())
        }
        _ => {
            let (from, to) = (&input[1..2], &input[3..4]);
            (state.as_deref() == Some(from)).then(|| {
                state = Some(to.into());
                input.to_owned()
            })
        }
    })
}

fn unique_register(seed: u64, ops: usize) -> String {
    let mut state = "nil".to_owned();
    let mut unique = 0;
    let mut ask = |random: &mut Random| {
        unique += 1;
        if random.below(2) == 0 { ("read", String::new()) } else { ("write", unique.to_string()) }
    };
    log(seed, ops, 20, 0, &mut ask, &mut |f, input| {
        if f == "write" {
            state = input.into();
        }
        Some(state.clone())
    })
}

fn queue(seed: u64, ops: usize) -> String {
    let mut state: VecDeque<String> = VecDeque::new();
    let mut unique = 0;
    let mut ask = |random: &mut Random| {
        unique += 1;
        if random.below(2) == 0 { ("dequeue", String::new()) } else { ("enqueue", unique.to_string()) }
    };
    log(seed, ops, 20, 0, &mut ask, &mut |f, input| {
        if f == "enqueue" {
            state.push_back(input.into());
            return Some(input.into());
        }
        Some(state.pop_front().unwrap_or("nil".into()))
    })
}

fn stack(seed: u64, ops: usize) -> String {
    let mut state: Vec<String> = Vec::new();
    let mut unique = 0;
    let mut ask = |random: &mut Random| {
        unique += 1;
        if random.below(2) == 0 { ("pop", String::new()) } else { ("push", unique.to_string()) }
    };
    log(seed, ops, 20, 0, &mut ask, &mut |f, input| {
        if f == "push" {
            state.push(input.into());
            return Some(input.into());
        }
        Some(state.pop().unwrap_or("nil".into()))
    })
}

fn set(seed: u64, ops: usize) -> String {
    let mut state = std::collections::HashSet::new();
    let elements = (ops / 10).max(4);
    let mut ask = |random: &mut Random| {
        let f = ["add", "remove", "contains", "contains"][random.below(4)];
        (f, random.below(elements).to_string())
    };
    log(seed, ops, 20, 0, &mut ask, &mut |f, input| {
        match f {
            "add" => _ = state.insert(input.to_owned()),
            "remove" => _ = state.remove(input),
            _ => return Some(format!("[{input} {}]", state.contains(input))),
        }
        Some(input.into())
    })
}

/// Strings under ten keys, fifty clients: like Porcupine's c50 logs. `bad` changes one late get.
fn kv(seed: u64, ops: usize, clients: usize, bad: bool) -> String {
    let mut random = Random(seed);
    let mut state = vec![String::new(); 10];
    let mut out = String::new();
    let mut idle: Vec<usize> = (0..clients).collect();
    let mut running: Vec<(usize, &'static str, usize, String, Option<String>)> = Vec::new();
    let (mut started, mut spoilt) = (0, !bad);
    while started < ops || !running.is_empty() {
        // Half of the clients are busy on average, as in Porcupine's logs.
        let eager = if running.len() < clients / 2 { 60 } else { 25 };
        if started < ops && !idle.is_empty() && (running.is_empty() || random.below(100) < eager) {
            let process = idle.swap_remove(random.below(idle.len()));
            let choices = if random.below(4) == 0 { 4 } else { 2 };
            let f = ["get", "append", "append", "put"][random.below(choices)];
            let key = random.below(10);
            let value = format!("x {process} {started} y");
            let shown = if f == "get" { "nil".to_owned() } else { format!("{value:?}") };
            _ = writeln!(out, "{{:process {process}, :type :invoke, :f :{f}, :key \"{key}\", :value {shown}}}");
            running.push((process, f, key, value, None));
            started += 1;
            continue;
        }
        let at = random.below(running.len());
        let (process, f, key, value, done) = &mut running[at];
        if done.is_none() {
            match *f {
                "put" => state[*key].clone_from(value),
                "append" => state[*key].push_str(value),
                _ => {}
            }
            *done = Some(if *f == "get" { state[*key].clone() } else { value.clone() });
            continue;
        }
        let mut shown = done.clone().unwrap_or_default();
        if !spoilt && *f == "get" && started > ops * 9 / 10 && !shown.is_empty() {
            shown.push_str("never written");
            spoilt = true;
        }
        _ = writeln!(out, "{{:process {process}, :type :ok, :f :{f}, :key \"{key}\", :value {shown:?}}}");
        idle.push(*process);
        running.swap_remove(at);
    }
    out
}

fn tiny(seed: u64) -> String {
    let mut state = "0".to_owned();
    let mut ask = |random: &mut Random| {
        if random.below(2) == 0 { ("read", String::new()) } else { ("write", random.below(3).to_string()) }
    };
    log(seed, 12, 3, 0, &mut ask, &mut |f, input| {
        if f == "write" {
            state = input.into();
        }
        Some(state.clone())
    })
}

pub(crate) fn all(folder: &str) {
    std::fs::create_dir_all(folder).expect("a folder");
    let write = |name: &str, text: String| std::fs::write(format!("{folder}/{name}"), text).expect("a file");
    for clients in [5, 10, 20, 40] {
        for ops in [1_000, 10_000, 100_000] {
            for info in [0, 1, 5] {
                let seed = (clients * 7 + ops + info) as u64;
                write(&format!("cas-{clients}c-{ops}-{info}pct.log"), cas(seed, ops, clients, info * 10));
            }
        }
    }
    for ops in [10_000, 100_000, 1_000_000] {
        write(&format!("register-{ops}.log"), unique_register(1, ops));
        write(&format!("queue-{ops}.log"), queue(2, ops));
        write(&format!("stack-{ops}.log"), stack(8, ops));
        write(&format!("set-{ops}.log"), set(3, ops));
    }
    write("kv-c50-ok.edn", kv(4, 1_700, 50, false));
    write("kv-c50-bad.edn", kv(5, 1_700, 50, true));
    write("tiny.log", tiny(6));
}

/// Serializable transactions of four steps on lists of up to 32 elements, by 20 clients.
pub(crate) fn append(count: usize) -> History {
    let mut random = Random(7);
    let keyword = |name: &str| Value::Keyword(name.into());
    let (append, read) = (keyword("append"), keyword("r"));
    let f: std::sync::Arc<str> = "txn".into();
    let mut lists: Vec<Vec<Value>> = vec![Vec::new(); 10];
    let mut names: Vec<i64> = (0..10).collect();
    let (mut next_key, mut unique) = (10, 0);
    let mut events = Vec::with_capacity(2 * count);
    let mut running: VecDeque<(i64, Value)> = VecDeque::new();
    let mut event = |process, kind, value| {
        let process = potter_jepsen::Process(process);
        events.push(Event { process, kind, f: f.clone(), key: None, value, time: None, error: None });
    };
    for n in 0..count as i64 {
        let mut result = Vec::with_capacity(4);
        for _ in 0..4 {
            let place = random.below(10);
            let key = Value::Int(names[place]);
            if random.below(2) == 0 {
                result.push(Value::from(vec![read.clone(), key, Value::from(lists[place].clone())]));
                continue;
            }
            unique += 1;
            lists[place].push(Value::Int(unique));
            result.push(Value::from(vec![append.clone(), key, Value::Int(unique)]));
            if lists[place].len() == 32 {
                lists[place].clear();
                names[place] = next_key;
                next_key += 1;
            }
        }
        let process = n % 20;
        if running.len() == 20 || running.front().is_some_and(|(p, _)| *p == process) {
            if let Some((process, value)) = running.pop_front() {
                event(process, EventKind::Ok, value);
            }
        }
        event(process, EventKind::Invoke, Value::Nil);
        running.push_back((process, Value::from(result)));
    }
    for (process, value) in running {
        event(process, EventKind::Ok, value);
    }
    History::new(events).expect("a history")
}
