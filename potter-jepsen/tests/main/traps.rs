//! What checkers get wrong, one test each.

use std::time::Duration;

use potter_jepsen::linear::{Algorithm, Linearizability, Register};
use potter_jepsen::txn::{Level, ListAppend, Options, RwRegister};
use potter_jepsen::{
    Budget, Checker, Event, EventKind, Format, History, ReasonKind, Spec, Value, Verdict, load_str,
};

use crate::random::Random;

fn check(model: &str, text: &str) -> Verdict {
    let loaded = load_str(text).unwrap();
    let checker = Spec::parse(model).unwrap().checker(loaded.format).unwrap();
    checker.check(&loaded.history, &Budget::default()).unwrap().verdict
}

fn op(process: i64, kind: EventKind, f: &str, value: impl Into<Value>) -> Event {
    Event::new(process, kind, f, value.into())
}

fn register(events: Vec<Event>) -> Verdict {
    let history = History::new(events).unwrap();
    let checker = Linearizability::new(Register::new(Value::Int(0)));
    checker.check(&history, &Budget::default()).unwrap().verdict
}

#[test]
fn a_commit_whose_acknowledgement_was_eaten_may_appear_later() {
    let text = "
        {:process 0 :type :invoke :f :txn :value [[:append 1 7]]}
        {:process 0 :type :info   :f :txn :value [[:append 1 7]] :error :timeout}
        {:process 1 :type :invoke :f :txn :value [[:r 1 nil]]}
        {:process 1 :type :ok     :f :txn :value [[:r 1 []]]}
        {:process 1 :type :invoke :f :txn :value [[:r 1 nil]]}
        {:process 1 :type :ok     :f :txn :value [[:r 1 [7]]]}";
    assert!(check("list-append", text).is_valid());
    // The same taken for failed would be an aborted read.
    assert!(check("list-append", &text.replace(":info  ", ":fail  ")).is_invalid());
}

#[test]
fn a_request_that_was_dropped_may_never_appear() {
    let text = "
        {:process 0 :type :invoke :f :write :value 5}
        {:process 0 :type :info   :f :write :value 5 :error :timeout}
        {:process 1 :type :invoke :f :read :value nil}
        {:process 1 :type :ok     :f :read :value nil}";
    assert!(check("register init=nil", text).is_valid());
    // The same taken for a success would be a lost write.
    assert!(check("register init=nil", &text.replace(":info  ", ":ok  ")).is_invalid());
}

#[test]
fn a_write_of_unknown_outcome_is_seen_a_hundred_reads_later_and_then_stays() {
    let mut events = vec![op(0, EventKind::Invoke, "write", 5), op(0, EventKind::Info, "write", 5)];
    for n in 0..100 {
        events.push(op(1 + n % 3, EventKind::Invoke, "read", Value::Nil));
        events.push(op(1 + n % 3, EventKind::Ok, "read", 0));
    }
    assert!(register(events.clone()).is_valid(), "never seen");
    events.push(op(9, EventKind::Invoke, "read", Value::Nil));
    events.push(op(9, EventKind::Ok, "read", 5));
    assert!(register(events.clone()).is_valid(), "seen at last");
    events.push(op(9, EventKind::Invoke, "read", Value::Nil));
    events.push(op(9, EventKind::Ok, "read", 0));
    assert!(register(events).is_invalid(), "the new value, then the old one");
}

#[test]
fn verdicts_do_not_depend_on_clocks() {
    let texts = [
        ("list-append", include_str!("data/write-skew.edn")),
        ("register init=nil", include_str!("data/register.edn")),
    ];
    for (model, text) in texts {
        let loaded = load_str(text).unwrap();
        let checker = Spec::parse(model).unwrap().checker(loaded.format).unwrap();
        let plain = checker.check(&loaded.history, &Budget::default()).unwrap().verdict.name();
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut events = loaded.history.events().to_vec();
            for event in &mut events {
                let skew = random.below(600_000) as i64 - 300_000;
                event.time = Some(event.time.unwrap_or(0) + skew * 1_000_000);
            }
            let skewed = History::new(events).unwrap();
            let verdict = checker.check(&skewed, &Budget::default()).unwrap().verdict;
            assert_eq!(verdict.name(), plain, "{model}, seed {seed}");
        }
    }
}

#[test]
fn real_time_is_for_those_who_promise_it() {
    let text = "
        {:process 0 :type :invoke :f :txn :value [[:w x 1]]}
        {:process 0 :type :ok     :f :txn :value [[:w x 1]]}
        {:process 1 :type :invoke :f :txn :value [[:r x nil]]}
        {:process 1 :type :ok     :f :txn :value [[:r x nil]]}";
    assert!(check("rw-register level=strict-serializable", text).is_invalid());
    assert!(check("rw-register level=serializable", text).is_valid());
    // Who completes in the same moment in which another begins: the order of the events decides.
    let touching = text.replace(
        "{:process 0 :type :ok     :f :txn :value [[:w x 1]]}\n        {:process 1 :type :invoke :f :txn :value [[:r x nil]]}",
        "{:process 1 :type :invoke :f :txn :value [[:r x nil]]}\n        {:process 0 :type :ok     :f :txn :value [[:w x 1]]}",
    );
    assert_ne!(touching, text);
    assert!(check("rw-register level=strict-serializable", &touching).is_valid());
}

#[test]
fn nothing_proves_nothing() {
    for model in Spec::NAMES {
        for text in ["", "[]", "\n\n"] {
            assert!(check(model, text).is_unknown(), "{model} of an empty history");
        }
        let history = load_str(
            "{:process 0 :type :invoke :f :read :value nil}\n{:process 0 :type :fail :f :read :value nil}",
        );
        let history = history.unwrap();
        let checker = Spec::parse(model).unwrap().checker(history.format).unwrap();
        if let Ok(analysis) = checker.check(&history.history, &Budget::default()) {
            assert!(analysis.verdict.is_unknown(), "{model} without a success");
        }
    }
}

#[test]
fn a_fault_that_was_not_verified_leaves_no_valid() {
    let loaded = load_str(include_str!("data/register.edn")).unwrap();
    let checker = Spec::parse("register init=nil").unwrap().checker(loaded.format).unwrap();
    let analysis = checker.check(&loaded.history, &Budget::default()).unwrap();
    assert!(analysis.verdict.is_valid());
    let Verdict::Unknown { reason } = analysis.with_unverified_fault("partition").verdict else {
        panic!("a verdict without its fault");
    };
    assert_eq!(reason.kind(), ReasonKind::FaultNotVerified);
}

#[test]
fn values_that_are_not_unique_are_no_anomaly() {
    let text = "
        {:process 0 :type :invoke :f :txn :value [[:append 1 7]]}
        {:process 0 :type :ok     :f :txn :value [[:append 1 7]]}
        {:process 0 :type :invoke :f :txn :value [[:append 1 7]]}
        {:process 0 :type :ok     :f :txn :value [[:append 1 7]]}";
    let verdict = check("list-append", text);
    assert!(!verdict.is_invalid(), "{verdict:?}");
}

/// 64 crashed compare-and-sets, no two alike, and then reads one after the other.
fn crashed_by_the_dozen(more: &[(i64, i64)], reads: &[i64]) -> History {
    let mut random = Random::new(64);
    let mut events =
        vec![op(1000, EventKind::Invoke, "write", 0), op(1000, EventKind::Ok, "write", 0)];
    let mut pairs: Vec<(i64, i64)> =
        (0..10).flat_map(|a| (0..10).filter(move |&b| a != b).map(move |b| (a, b))).collect();
    for process in 0..64 - more.len() {
        let (from, to) = pairs.swap_remove(random.below(pairs.len()));
        let pair = Value::from(vec![Value::Int(from), Value::Int(to)]);
        events.push(op(process as i64, EventKind::Invoke, "cas", pair));
    }
    for (process, &(from, to)) in (100..).zip(more) {
        let pair = Value::from(vec![Value::Int(from), Value::Int(to)]);
        events.push(op(process, EventKind::Invoke, "cas", pair));
    }
    for &seen in reads {
        events.push(op(1001, EventKind::Invoke, "read", Value::Nil));
        events.push(op(1001, EventKind::Ok, "read", seen));
    }
    History::new(events).unwrap()
}

fn search(history: &History, algorithm: Algorithm, budget: &Budget) -> Verdict {
    let checker = Linearizability::new(Register::new(Value::Nil)).with_algorithm(algorithm);
    checker.check(history, budget).unwrap().verdict
}

#[test]
fn crashed_operations_by_the_dozen_end_in_time() {
    // 99 comes once, since one operation leads to it. To know that, every way through the 64 has to
    // be gone.
    let history = crashed_by_the_dozen(&[(9, 99), (99, 0)], &[99, 0, 99]);
    for algorithm in [Algorithm::Auto, Algorithm::JustInTime, Algorithm::WingGong] {
        let budget = Budget::new(Duration::from_millis(200), 64 << 20);
        let verdict = search(&history, algorithm, &budget);
        assert!(verdict.is_unknown(), "{algorithm:?}: {verdict:?}");
    }
}

#[test]
fn what_no_crashed_operation_leads_to_is_known_at_once() {
    let history = crashed_by_the_dozen(&[], &[99]);
    assert!(search(&history, Algorithm::Auto, &Budget::default()).is_invalid());
    assert!(search(&history, Algorithm::JustInTime, &Budget::default()).is_invalid());
    // All that the crashed ones lead to is still possible.
    let history = crashed_by_the_dozen(&[(9, 99)], &[5, 5, 99, 99]);
    assert!(search(&history, Algorithm::Auto, &Budget::default()).is_valid());
}

#[test]
fn a_check_can_be_cancelled() {
    let budget = Budget::default();
    budget.cancel_flag().store(true, std::sync::atomic::Ordering::Relaxed);
    let loaded = load_str(include_str!("data/register.edn")).unwrap();
    let checker = Spec::parse("register init=nil").unwrap().checker(loaded.format).unwrap();
    let Verdict::Unknown { reason } = checker.check(&loaded.history, &budget).unwrap().verdict
    else {
        panic!("a verdict in spite of the flag");
    };
    assert_eq!(reason.kind(), ReasonKind::Cancelled);
}

#[test]
fn a_chain_of_a_million_transactions_needs_no_deep_stack() {
    let work = || {
        let mut events = Vec::new();
        let step = |f: &str, key: i64, value: i64| {
            Value::from(vec![Value::Keyword(f.into()), Value::Int(key), Value::Int(value)])
        };
        let count = 1_000_000;
        // Against the order of time, so that no shortcut by order helps.
        for n in (0..count).rev() {
            let steps = Value::from(vec![step("r", n - 1, n - 1), step("w", n, n)]);
            let steps = if n == 0 { Value::from(vec![step("w", 0, 0)]) } else { steps };
            events.push(op(n, EventKind::Ok, "txn", steps));
        }
        let history = History::new(events).unwrap();
        let options = Options::default().level(Level::Serializable);
        let analysis = RwRegister::new(options).check(&history, &Budget::default()).unwrap();
        assert!(analysis.verdict.is_valid(), "{:?}", analysis.verdict);
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_stack_of_half_a_million_values_needs_no_deep_stack() {
    let work = || {
        let (mut events, count) = (Vec::new(), 500_000);
        let mut add = |f: &str, n: i64| {
            let value = if f == "pop" { Value::Nil } else { Value::Int(n) };
            events.push(op(n % 2, EventKind::Invoke, f, value));
            events.push(op(n % 2, EventKind::Ok, f, Value::Int(n)));
        };
        (0..count).for_each(|n| add("push", n));
        (0..count).rev().for_each(|n| add("pop", n));
        let checker = Spec::parse("stack").unwrap().checker(Format::Edn).unwrap();
        let history = History::new(events.clone()).unwrap();
        let analysis = checker.check(&history, &Budget::default()).unwrap();
        assert!(analysis.verdict.is_valid(), "{:?}", analysis.verdict);
        // The two lowest come out in the other order.
        let last = events.len() - 1;
        events[last].value = Value::Int(1);
        events[last - 2].value = Value::Int(0);
        let history = History::new(events).unwrap();
        let Verdict::Invalid { counterexample } =
            checker.check(&history, &Budget::default()).unwrap().verdict
        else {
            panic!("not caught");
        };
        assert_eq!(counterexample.operations.len(), 4, "{counterexample:?}");
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap();
    thread.join().unwrap();
}

#[test]
fn what_came_out_from_under_others_is_said_in_words() {
    let said = |text: &str| match check("stack", text) {
        Verdict::Invalid { counterexample } => {
            (counterexample.message, counterexample.details, counterexample.operations.len())
        }
        other => panic!("{other:?}"),
    };
    let call = |process: i64, f: &str, value: &str| {
        let input = if f == "pop" { "nil" } else { value };
        format!(
            "{{:process {process} :type :invoke :f :{f} :value {input}}}
             {{:process {process} :type :ok :f :{f} :value {value}}}"
        )
    };
    let under = [call(0, "push", "1"), call(0, "push", "2"), call(0, "pop", "1")];
    let (message, details, operations) = said(&under.join("\n"));
    assert!(message.contains("from under a value that was pushed later"), "{message}");
    assert_eq!(details.len(), 2, "{details:?}");
    assert_eq!(operations, 3);
    // 3 can't be above 2, which is popped later, and so 2 was pushed before 1 was popped.
    let (begin, end) = (":type :invoke :f :push :value", ":type :ok :f :push :value");
    let chain = [
        format!("{{:process 3 {begin} 3}}"),
        call(1, "push", "1"),
        format!("{{:process 2 {begin} 2}} {{:process 3 {end} 3}}"),
        call(1, "pop", "1"),
        format!("{{:process 2 {end} 2}}"),
        call(3, "pop", "3"),
        call(2, "pop", "2"),
    ];
    let (message, details, operations) = said(&chain.join("\n"));
    assert!(message.contains("none of them can have been below all others"), "{message}");
    assert_eq!((details.len(), operations), (3, 6), "{details:?}");
    let empty = [call(0, "push", "1"), call(0, "pop", "nil"), call(0, "pop", "1")];
    let (message, _, operations) = said(&empty.join("\n"));
    assert!(message.contains("found nothing"), "{message}");
    assert_eq!(operations, 3);
    // A pop that crashed may have taken the value, and then the stack was empty.
    let crashed = "{:process 7 :type :invoke :f :pop} {:process 7 :type :info :f :pop}";
    assert!(check("stack", &format!("{crashed} {}", empty[..2].join("\n"))).is_valid());
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let deep = format!("{{:type :ok :value {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let error = load_str(&deep).unwrap_err();
    assert!(error.to_string().contains("nested"), "{error}");
}

#[test]
fn a_write_skew_is_exactly_that() {
    let loaded = load_str(include_str!("data/write-skew.edn")).unwrap();
    let checker = ListAppend::new(Options::default());
    let analysis = checker.check(&loaded.history, &Budget::default()).unwrap();
    let names: Vec<&str> = analysis.anomalies.iter().map(|a| a.anomaly.as_str()).collect();
    assert_eq!(names, ["G2-item"]);
    for (level, verdict) in &analysis.levels {
        let holds = *level <= Level::StrongSnapshotIsolation;
        assert_eq!(verdict.is_valid(), holds, "{}", level.name());
    }
}

#[test]
fn reading_a_key_twice_is_no_repeatable_read_and_read_committed_all_the_same() {
    let text = "
        {:process 0 :type :invoke :f :txn :value [[:r 1 nil] [:r 1 nil]]}
        {:process 1 :type :invoke :f :txn :value [[:append 1 7]]}
        {:process 1 :type :ok     :f :txn :value [[:append 1 7]]}
        {:process 0 :type :ok     :f :txn :value [[:r 1 nil] [:r 1 [7]]]}";
    assert!(check("list-append level=read-committed", text).is_valid());
    assert!(check("list-append level=read-atomic", text).is_invalid());
    // Its own append is another matter.
    let text = "
        {:process 0 :type :invoke :f :txn :value [[:append 1 7] [:r 1 nil]]}
        {:process 0 :type :ok     :f :txn :value [[:append 1 7] [:r 1 []]]}";
    assert!(check("list-append level=read-committed", text).is_invalid());
}
