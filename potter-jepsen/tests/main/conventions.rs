//! What others' collections of histories take for granted, one test each: how they write operations,
//! which anomalies they name, what they assume of keys.

use potter_jepsen::txn::Level;
use potter_jepsen::{Analysis, Budget, Spec, load_str};

fn analyse(model: &str, text: &str) -> Analysis {
    let loaded = load_str(text).unwrap();
    let checker = Spec::parse(model).unwrap().checker(loaded.format).unwrap();
    checker.check(&loaded.history, &Budget::default()).unwrap()
}

/// Transactions one after the other: the process, how it ended, its steps.
fn txns(all: &[(i64, &str, &str)]) -> String {
    let line = |process: i64, kind: &str, steps: &str| {
        format!("{{:process {process} :type :{kind} :f :txn :value [{steps}]}}\n")
    };
    all.iter()
        .map(|(process, end, steps)| line(*process, "invoke", steps) + &line(*process, end, steps))
        .collect()
}

fn names(analysis: &Analysis) -> Vec<&str> {
    analysis.anomalies.iter().map(|found| found.anomaly.as_str()).collect()
}

fn holds(analysis: &Analysis, level: Level) -> bool {
    analysis.levels.iter().any(|(known, verdict)| *known == level && verdict.is_valid())
}

#[test]
fn an_append_that_was_read_before_it_was_made_is_a_future_read() {
    for steps in [
        "[:r 1 [7]] [:append 1 7]",
        // In the middle: 5 is its own by then, 6 is not.
        "[:append 1 5] [:r 1 [5 6]] [:append 1 6]",
        "[:append 1 5] [:r 1 [6 5]] [:append 1 6]",
    ] {
        let found = analyse("list-append", &txns(&[(0, "ok", steps)]));
        assert!(found.verdict.is_invalid(), "{steps}: {found:#?}");
        assert!(names(&found).contains(&"future-read"), "{steps}: {found:#?}");
        assert!(!holds(&found, Level::ReadCommitted) && holds(&found, Level::ReadUncommitted));
    }
    // A read that contradicts the longest one is looked through too.
    let strays =
        [(0, "ok", "[:r 1 [9 7]] [:append 1 7]"), (1, "ok", "[:append 1 8] [:r 1 [8 6 5]]")];
    assert!(names(&analyse("list-append", &txns(&strays))).contains(&"future-read"));
    // Reading what it appended before is nothing of the kind.
    let own = txns(&[(0, "ok", "[:append 1 7] [:r 1 [7]] [:append 1 8] [:r 1 [7 8]]")]);
    assert!(analyse("list-append", &own).verdict.is_valid());
}

#[test]
fn a_committed_append_behind_an_aborted_one_is_a_dirty_update() {
    let appends =
        [(0, "fail", "[:append 1 1]"), (1, "info", "[:append 1 2]"), (2, "ok", "[:append 1 3]")];
    let seen = |list: &str| {
        let mut all = appends.to_vec();
        let read = format!("[:r 1 {list}]");
        all.push((3, "ok", &read));
        names(&analyse("list-append", &txns(&all)))
            .iter()
            .map(|&n| n.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(seen("[1 2 3]"), ["G1a", "dirty-update"]);
    assert_eq!(seen("[3 1]"), ["G1a"]);
    // Whether the second was committed nobody knows.
    assert_eq!(seen("[1 2]")[..1], ["G1a"]);
    assert!(!seen("[1 2]").contains(&"dirty-update".to_owned()));
    assert!(seen("[2 3]").is_empty());
}

#[test]
fn a_register_that_is_read_twice_differently_is_no_atomic_read() {
    let text = txns(&[(0, "ok", "[:r x 1] [:r x 2]")]);
    let found = analyse("rw-register", &text);
    assert_eq!(names(&found), ["internal"]);
    assert!(holds(&found, Level::ReadCommitted) && !holds(&found, Level::ReadAtomic));
    let text = txns(&[(0, "ok", "[:r x 1] [:w x 2] [:r x 2] [:r x 2]")]);
    assert!(analyse("rw-register", &text).verdict.is_valid());
}

#[test]
fn a_snapshot_that_is_too_old_breaks_only_strong_snapshot_isolation() {
    let history = |reader: i64| {
        txns(&[
            (0, "ok", "[:append 1 1]"),
            (1, "ok", "[:append 1 2]"),
            (reader, "ok", "[:r 1 [1]]"),
            (5, "ok", "[:r 1 [1 2]]"),
        ])
    };
    let other = analyse("list-append level=strong-snapshot-isolation", &history(2));
    assert_eq!(names(&other), ["G-single-realtime"]);
    assert!(holds(&other, Level::Causal));
    assert!(other.verdict.is_invalid());
    assert!(holds(&other, Level::StrongSessionSnapshotIsolation));
    let own = analyse("list-append level=strong-session-snapshot-isolation", &history(1));
    assert_eq!(names(&own), ["G-single-process", "causality-violation"]);
    assert!(own.verdict.is_invalid() && holds(&own, Level::ReadAtomic));
    assert!(holds(&own, Level::SnapshotIsolation) && holds(&own, Level::Serializable));
}

#[test]
fn two_rw_apart_are_seen_with_the_order_of_a_process() {
    // Process 1 appends to x, then does not see z; who sees z does not see x.
    let text = txns(&[
        (0, "ok", "[:r x nil] [:r z [1]]"),
        (1, "ok", "[:append x 1]"),
        (1, "ok", "[:r z nil]"),
        (2, "ok", "[:append z 1]"),
    ]);
    let found = analyse("list-append level=strong-session-snapshot-isolation", &text);
    assert!(found.verdict.is_invalid());
    assert_eq!(names(&found), ["G-nonadjacent-process"]);
    assert!(holds(&found, Level::SnapshotIsolation) && holds(&found, Level::Serializable));
}

#[test]
fn keys_are_linearizable_only_if_that_is_said() {
    // Nobody here wrote 2. If every key is linearizable, and values differ, 1 can't come back.
    let text = txns(&[(0, "ok", "[:w x 1]"), (1, "ok", "[:r x 2]"), (0, "ok", "[:r x 1]")]);
    assert!(analyse("rw-register", &text).verdict.is_valid());
    for model in ["rw-register linearizable-keys", "rw-register :linearizable-keys?=true"] {
        let found = analyse(model, &text);
        assert_eq!(names(&found), ["cyclic-versions"], "{model}");
        assert!(!holds(&found, Level::ReadUncommitted));
    }
    // For a single process nothing of 2 was in the way.
    assert!(analyse("rw-register sequential-keys", &text).verdict.is_valid());
    let alone = text.replace(":process 1", ":process 0");
    assert!(analyse("rw-register sequential-keys", &alone).verdict.is_invalid());
}

#[test]
fn orders_of_keys_tell_weak_levels_apart() {
    // Two writers overwrite each other, the last values of both keys are the second one's and the
    // first one's: a write cycle, if each process sees each key in one order.
    let both = txns(&[
        (0, "ok", "[:w x 1] [:w y 2]"),
        (1, "ok", "[:w x 2] [:w y 1]"),
        (0, "ok", "[:r x 2]"),
        (1, "ok", "[:r y 2]"),
    ]);
    assert!(holds(&analyse("rw-register", &both), Level::ReadUncommitted));
    let found = analyse("rw-register sequential-keys level=read-uncommitted", &both);
    assert!(found.verdict.is_invalid());
    assert!(names(&found).contains(&"G0"), "{found:#?}");
    for edge in &found.anomalies[0].cycle {
        assert!(edge.why.contains("is a later one"), "{}", edge.why);
    }
    // Write skew over values from outside: only an order of x and y shows it.
    let skew = "
        {:process 0 :type :invoke :f :txn :value [[:r x nil] [:r y nil]]}
        {:process 0 :type :ok     :f :txn :value [[:r x 1] [:r y 1]]}
        {:process 1 :type :invoke :f :txn :value [[:r x nil] [:w y 2]]}
        {:process 2 :type :invoke :f :txn :value [[:r y nil] [:w x 2]]}
        {:process 1 :type :ok     :f :txn :value [[:r x 1] [:w y 2]]}
        {:process 2 :type :ok     :f :txn :value [[:r y 1] [:w x 2]]}";
    assert!(analyse("rw-register level=serializable", skew).verdict.is_valid());
    let found = analyse("rw-register level=serializable linearizable-keys", skew);
    assert_eq!(names(&found), ["G2-item"]);
    assert!(holds(&found, Level::StrongSnapshotIsolation));
    // Who reads y = 1 and writes 2 has replaced it; who sees his x and the old y came too late.
    let wfr = txns(&[(0, "ok", "[:r y 1] [:w x 1] [:w y 2]"), (0, "ok", "[:r x 1] [:r y 1]")]);
    assert!(analyse("rw-register level=serializable", &wfr).verdict.is_valid());
    let found = analyse("rw-register level=serializable wfr-keys", &wfr);
    assert_eq!(names(&found)[0], "G-single");
}

#[test]
fn versions_that_nobody_here_wrote_are_passed_through() {
    // x was 1, then 2 from outside, then 3: who reads 1 comes before who writes 3, in y too.
    let text = txns(&[
        (0, "ok", "[:w x 1]"),
        (1, "ok", "[:r x 2]"),
        (2, "ok", "[:w x 3] [:w y 1]"),
        (3, "ok", "[:r x 1] [:r y 1]"),
    ]);
    let found = analyse("rw-register level=read-uncommitted linearizable-keys", &text);
    assert!(found.verdict.is_invalid(), "x goes back to 1");
    let seen = text.replace("[:r x 1] [:r y 1]", "[:r y 1]");
    assert!(analyse("rw-register linearizable-keys", &seen).verdict.is_valid());
    let process = text.replace(":process 3", ":process 0").replace(":process 2", ":process 0");
    let process =
        process.replace("[:w x 3] [:w y 1]", "[:r x 2]").replace("[:r x 1] [:r y 1]", "[:w x 3]");
    assert!(analyse("rw-register sequential-keys", &process).verdict.is_valid());
}

#[test]
fn linearizable_keys_need_times() {
    let loaded = load_str("w 1 5\n-----\nr 1 5\n").unwrap();
    let checker = Spec::parse("transactions linearizable-keys").unwrap();
    let checker = checker.checker(loaded.format).unwrap();
    let error = checker.check(&loaded.history, &Budget::default()).unwrap_err();
    assert!(error.to_string().contains("need times"), "{error}");
}

#[test]
fn a_comment_makes_visible_what_was_there_before_it() {
    let insert = |value: i64| {
        format!(
            "{{:type :invoke :f :write :value {value}}} {{:type :ok :f :write :value {value}}}\n"
        )
    };
    let read = |first: &str, seen: &str| {
        let (begin, end) =
            ("{:type :invoke :f :read}\n", format!("{{:type :ok :f :read :value {seen}}}"));
        format!("{begin}{first}{end}")
    };
    let both = insert(4) + &insert(9);
    // 9 was written after 4, and who sees 9 must see 4, however early the read began.
    assert!(analyse("comments", &read(&both, "#{1 9}")).verdict.is_invalid());
    assert!(analyse("comments", &read(&both, "#{1 4 9}")).verdict.is_valid());
    assert!(analyse("comments", &read(&both, "#{1 4}")).verdict.is_valid());
    assert!(analyse("comments", &read(&both, "[]")).verdict.is_valid());
    // Written side by side, either may be seen first.
    let at_once = "{:process 5 :type :invoke :f :write :value 4}
                   {:process 6 :type :invoke :f :write :value 9}
                   {:process 5 :type :ok :f :write :value 4}
                   {:process 6 :type :ok :f :write :value 9}\n";
    assert!(analyse("comments", &read(at_once, "#{9}")).verdict.is_valid());
    // A failed one need not be seen.
    let failed = both.replacen(":ok", ":fail", 1);
    assert!(analyse("comments", &read(&failed, "#{9}")).verdict.is_valid());
}

#[test]
fn registers_begin_with_values_of_their_own() {
    let text = "
        {:process 0 :type :invoke :f :txn :value [[:read :x] [:read :y nil]]}
        {:process 1 :type :invoke :f :txn :value [[:write :x 3]]}
        {:process 0 :type :ok     :f :txn :value [[:read :x 0] [:read :y 7]]}
        {:process 1 :type :ok     :f :txn :value [[:write :x 3]]}
        {:process 0 :type :invoke :f :txn :value [[:read :x nil]]}
        {:process 0 :type :ok     :f :txn :value [[:read :x nil]]}";
    let json = r#"
        {"process":0,"type":"invoke","f":"txn","value":[["read","x"],["read","y",null]]}
        {"process":0,"type":"ok","f":"txn","value":[["read","x",0],["read","y",7]]}
        {"process":1,"type":"invoke","f":"txn","value":[["write","x",3]]}
        {"process":1,"type":"ok","f":"txn","value":[["write","x",3]]}"#;
    for text in [text, json] {
        for model in ["multi-register init={:x 0, :y 7}", "multi-register x=0 y=7"] {
            assert!(analyse(model, text).verdict.is_valid(), "{model}: {text}");
        }
        assert!(analyse("multi-register init=0", text).verdict.is_invalid(), "{text}");
    }
}

#[test]
fn models_are_named_with_their_library_and_options_with_colons() {
    let text = txns(&[(0, "ok", "[:append 1 1]"), (1, "ok", "[:r 1 [1]]")]);
    for model in [
        "list-append",
        "elle-list-append",
        "Elle-List_Append",
        "list-append consistency-models=[:strict-serializable]",
        "list-append consistency-models=[:snapshot-isolation, :read-committed]",
        "list-append --consistency-models=pl-ss",
    ] {
        assert!(analyse(model, &text).verdict.is_valid(), "{model}");
    }
    let parse = |model: &str| {
        let spec = Spec::parse(model).unwrap();
        spec.options(potter_jepsen::Format::Edn).map(|options| options.level)
    };
    assert_eq!(
        parse("x level=[:read-committed :snapshot-isolation]").unwrap(),
        Level::SnapshotIsolation
    );
    assert!(parse("x level=strong-snapshot-isolation,serializable").is_err());
    assert!(parse("x level=serialisable").is_err());
    assert!(parse("x level=[]").is_err());
}

#[test]
fn operations_come_as_rows() {
    let rows = "; as Knossos kept them\n\
        [0   :invoke :write 3]\n\
        [1   :invoke :cas  [2 1]]\n\
        [0   :ok     :write 3]\n\
        [1   :fail   :cas  [2 1]]\n\
        [:nemesis :info :start \"Cut off [:n3 #[:n4]]\"]\n\
        [2   :invoke :read nil]\n\
        [2   :fail   :read nil :conn-lost]\n\
        [1   :invoke :read nil]\n\
        [1   :ok     :read 3]\n";
    let all = format!("[{}]", rows.lines().skip(1).collect::<Vec<_>>().join("\n"));
    for text in [rows, &rows.replace('\n', "\r\n"), &format!("\u{FEFF}{rows}"), &all] {
        assert!(analyse("cas-register init=0", text).verdict.is_valid(), "{text}");
        let wrong = text.replace(":read 3", ":read 0");
        assert!(analyse("cas-register init=0", &wrong).verdict.is_invalid(), "{wrong}");
    }
    // Here a compare-and-set that failed says only that it did not happen.
    let same = rows.replace("[2 1]", "[3 1]");
    assert!(analyse("cas-register init=0", &same).verdict.is_valid());
    let error = load_str(&format!("{rows}[3 :maybe :read nil]\n")).unwrap_err();
    assert!(error.to_string().contains("line 11"), "{error}");
}

#[test]
fn what_is_serializable_reads_atomically() {
    // Each process goes back behind its own write; without the order of processes that is no matter.
    let text = txns(&[
        (1, "ok", "[:w x 100]"),
        (2, "ok", "[:w x 200]"),
        (1, "ok", "[:r x 200]"),
        (2, "ok", "[:r x 100]"),
    ]);
    let found = analyse("rw-register", &text);
    assert!(found.verdict.is_invalid());
    assert!(holds(&found, Level::Serializable) && holds(&found, Level::ReadAtomic));
    assert!(!holds(&found, Level::Causal) && !holds(&found, Level::StrongSessionSerializable));
}

#[test]
fn a_read_of_nil_is_a_value_or_says_nothing() {
    let text = "
        {:process 0 :type :invoke :f :write :value 1}
        {:process 0 :type :ok     :f :write :value 1}
        {:process 0 :type :invoke :f :read :value nil}
        {:process 0 :type :ok     :f :read :value nil}";
    for (model, valid) in [
        ("register init=nil", false),
        ("register init=nil nil-reads=unknown", true),
        ("register init=0", true),
        ("register init=0 nil-reads=value", false),
    ] {
        assert_eq!(analyse(model, text).verdict.is_valid(), valid, "{model}");
    }
    let spec = Spec::parse("register nil-reads=never").unwrap();
    assert!(spec.checker(potter_jepsen::Format::Edn).is_err());
}

#[test]
fn what_others_appended_is_there_when_it_has_to_be() {
    // 3, 4 and 9 were appended by nobody here.
    let valid = [
        txns(&[(0, "ok", "[:append 1 5]"), (0, "ok", "[:r 1 [3 5]]")]),
        txns(&[(0, "ok", "[:r 1 []]"), (0, "ok", "[:r 1 [3]]"), (0, "ok", "[:r 1 [3 4]]")]),
        txns(&[
            (0, "ok", "[:append 1 5] [:r 1 [3 5]]"),
            (1, "ok", "[:r 1 [3 5 9]]"),
            (0, "ok", "[:append 1 6]"),
            (1, "ok", "[:append 1 7]"),
        ]),
    ];
    for text in &valid {
        let found = analyse("list-append", text);
        assert!(found.verdict.is_valid(), "{text}{found:#?}");
        let found = analyse("list-append unwritten=anomaly", text);
        assert!(found.verdict.is_invalid(), "{text}");
    }
    // A list does not get shorter, whoever appended.
    let shorter = txns(&[(0, "ok", "[:r 1 [3 4]]"), (1, "ok", "[:r 1 [3]]")]);
    let found = analyse("list-append", &shorter);
    assert_eq!(names(&found), ["G-single-realtime"]);
    assert!(holds(&found, Level::Serializable));
    assert!(
        found.anomalies[0].cycle.iter().any(|edge| edge.why.contains("without 4")),
        "{found:#?}"
    );
    // Who sees 9 behind 5 has seen 5, and so what 5's transaction did elsewhere.
    let half = txns(&[
        (0, "ok", "[:append 1 5] [:append 2 5]"),
        (1, "ok", "[:r 1 [5 9]] [:r 2 []]"),
        (2, "ok", "[:r 2 [5]]"),
    ]);
    let found = analyse("list-append level=snapshot-isolation", &half);
    assert_eq!(names(&found)[0], "G-single");
    assert!(found.verdict.is_invalid());
}
