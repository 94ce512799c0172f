//! Histories as they come: odd line ends, comments, tags, missing fields; each with the answer that
//! was worked out by hand.

use potter_jepsen::{Budget, Spec, load_str};

/// `valid`, `invalid`, `unknown`, or the error.
fn answer(model: &str, text: &str) -> String {
    let spec = Spec::parse(model).unwrap();
    let mut loaded = match load_str(text) {
        Ok(loaded) => loaded,
        Err(error) => return error.to_string(),
    };
    if spec.has_independent_keys() {
        loaded.history = loaded.history.with_keys_from_values();
    }
    let checker = spec.checker(loaded.format).unwrap();
    match checker.check(&loaded.history, &Budget::default()) {
        Ok(analysis) => analysis.verdict.name().to_owned(),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn expect(model: &str, text: &str, wanted: &str) {
    let got = answer(model, text);
    assert!(got.contains(wanted), "{wanted} is right, not {got}:\n{text}");
}

const REGISTER: &str = "cas-register init=nil";

/// A write of 1 that completed, then a read that shows `seen`.
fn register(seen: &str) -> String {
    format!(
        "{{:process 0, :type :invoke, :f :write, :value 1}}\n\
         {{:process 0, :type :ok, :f :write, :value 1}}\n\
         {{:process 1, :type :invoke, :f :read, :value nil}}\n\
         {{:process 1, :type :ok, :f :read, :value {seen}}}\n"
    )
}

#[test]
fn the_layout_of_edn_does_not_matter() {
    for (seen, wanted) in [("1", "valid"), ("nil", "invalid"), ("2", "invalid")] {
        let plain = register(seen);
        let maps: Vec<&str> = plain.lines().collect();
        let variants = [
            plain.clone(),
            plain.trim_end().to_owned(),
            plain.replace('\n', "\r\n"),
            plain.replace('\n', "\n\n  \t\n"),
            plain.replace('\n', " "),
            plain.replace(", ", " "),
            // The type first, and no comma behind it: as words this looks like a line of a log.
            plain
                .replace("{:process 0, :type :invoke,", "{:type :invoke :process 0")
                .replace("{:process 0, :type :ok,", "{:type :ok :process 0")
                .replace("{:process 1, :type :invoke,", "{:type :invoke :process 1")
                .replace("{:process 1, :type :ok,", "{:type :ok :process 1"),
            plain.replace('}', ",}"),
            plain.replace(", ", ",\n    "),
            format!("\u{FEFF}{plain}"),
            format!("; what {{follows}} is \"odd\n\n{plain}"),
            plain.replace('\n', " ; \"a remark {:process 7}\n"),
            format!("[{plain}]"),
            format!("({plain})"),
            format!("[{}]", maps.join(",\n")),
            plain.replace('{', "#jepsen.history.Op{:index 3, :time 12345678901, "),
            plain.replace('{', "#knossos.op.Op {"),
            plain.replace('{', "#_{:process 9 :type :ok :f :read :value 9} {"),
            plain
                .replace(":type :", ":type \"")
                .replace(", :f :", "\", :f \"")
                .replace(", :value", "\", :value"),
            plain.replace('}', ", :node \"n1\", :clock-offsets {\"n1\" 0.5, \"n2\" -3e-4}}"),
            plain.replace('}', ", :error nil, :exception {:via [{:type a.b.C, :at [x 1]}]}}"),
            // A process is whatever names it.
            plain.replace("process 0", "process \"a\"").replace("process 1", "process :b"),
        ];
        for text in &variants {
            expect(REGISTER, text, wanted);
        }
    }
}

#[test]
fn the_layout_of_json_does_not_matter() {
    for (seen, wanted) in [("1", "valid"), ("null", "invalid")] {
        let line = |process, kind, f, value| {
            format!(r#"{{"process":{process},"type":"{kind}","f":"{f}","value":{value}}}"#)
        };
        let maps = [
            line(0, "invoke", "write", "1"),
            line(0, "ok", "write", "1"),
            line(1, "invoke", "read", "null"),
            line(1, "ok", "read", seen),
        ];
        let variants = [
            maps.join("\n"),
            maps.join("\r\n") + "\r\n",
            format!("[{}]", maps.join(",\n")),
            format!("[\n  {}\n]\n", maps.join(",\n  ")),
            maps.join("\n").replace(':', " : ").replace(',', " ,\n "),
            maps.join("\n").replace("{", r#"{"index":4,"time":9007199254740993,"node":null,"#),
            maps.join("\n").replace("\"type\":\"", "\"type\":\":"),
        ];
        for text in &variants[..6] {
            expect(REGISTER, text, wanted);
        }
    }
}

#[test]
fn a_nemesis_is_no_client() {
    let nemesis = "{:process :nemesis, :type :info, :f :start, :value nil}\n\
                   {:process :nemesis, :type :info, :f :start, :value {:isolated #{\"n1\" \"n2\"}, \
                    :grudge {\"n1\" #{\"n2\"}}}}\n";
    expect(REGISTER, &format!("{nemesis}{}{nemesis}", register("1")), "valid");
    expect(REGISTER, &format!("{nemesis}{}", register("7")), "invalid");
    // Alone it says nothing.
    expect(REGISTER, nemesis, "unknown");
}

#[test]
fn what_did_not_complete_may_have_happened_at_any_time() {
    let reads = |seen: &str| {
        format!(
            "{{:process 5 :type :invoke :f :read}} {{:process 5 :type :ok :f :read :value {seen}}}\n"
        )
    };
    let crashes = [
        // An info without a value, with an error in its place, and none at all.
        "{:process 0 :type :invoke :f :write :value 1}\n{:process 0 :type :info :f :write}\n",
        "{:process 0 :type :invoke :f :write :value 1}\n\
         {:process 0 :type :info :f :write :value :timed-out :error [:timeout \"x\"]}\n",
        "{:process 0 :type :invoke :f :write :value 1}\n",
    ];
    for crash in crashes {
        expect(REGISTER, &format!("{crash}{}", reads("nil")), "valid");
        expect(REGISTER, &format!("{crash}{}{}", reads("nil"), reads("1")), "valid");
        expect(REGISTER, &format!("{crash}{}{}", reads("1"), reads("nil")), "invalid");
    }
    // It certainly did not happen.
    let failed = crashes[0].replace(":info", ":fail");
    expect(REGISTER, &format!("{failed}{}", reads("1")), "invalid");
    // The process went on under its name, as some clients do after an info.
    let again = "{:process 0 :type :invoke :f :read} {:process 0 :type :ok :f :read :value 1}";
    expect(REGISTER, &format!("{}{again}", crashes[0]), "valid");
}

#[test]
fn logs_of_jepsen_are_read_by_their_conventions() {
    let line = |text: &str| format!("INFO  jepsen.util - {}\n", text.replace(' ', "\t"));
    let log = |lines: &[&str]| lines.iter().map(|text| line(text)).collect::<String>();
    let write = ["0 :invoke :write 1", "0 :ok :write 1"];
    let read = ["1 :invoke :read nil", "1 :ok :read 1"];
    let both = log(&[write, read].concat());
    expect(REGISTER, &both, "valid");
    expect(REGISTER, &both.replace('\n', "\r\n"), "valid");
    expect(REGISTER, &format!("INFO  jepsen.core - Worker 0 starting\n\n{both}"), "valid");
    expect(REGISTER, &both.replace("INFO  jepsen.util - ", ""), "valid");
    let nemesis = log(&[":nemesis :info :start nil", ":nemesis :info :start \"Cut_off\""]);
    expect(REGISTER, &format!("{nemesis}{both}{nemesis}"), "valid");
    // A compare-and-set that failed says what was not there; one that timed out says nothing.
    let cas = |from: i64, end: &str| {
        let begin = "2\t:invoke\t:cas\t";
        format!("{both}INFO  jepsen.util - {begin}[{from} 2]\nINFO  jepsen.util - {end}\n")
    };
    expect(REGISTER, &cas(1, "2\t:fail\t:cas\t[1 2]"), "invalid");
    expect(REGISTER, &cas(3, "2\t:fail\t:cas\t[3 2]"), "valid");
    expect(REGISTER, &cas(1, "2\t:fail\t:cas\t:timed-out"), "valid");
    expect(REGISTER, &cas(1, "2\t:info\t:cas\t:timed-out"), "valid");
    expect(
        &format!("{REGISTER} failed-cas=did-not-happen"),
        &cas(1, "2\t:fail\t:cas\t[1 2]"),
        "valid",
    );
    let late = "INFO  jepsen.util - 3\t:invoke\t:read\tnil\nINFO  jepsen.util - 3\t:ok\t:read\t2\n";
    expect(REGISTER, &format!("{}{late}", cas(1, "2\t:info\t:cas\t:timed-out")), "valid");
    expect(REGISTER, &format!("{}{late}", cas(3, "2\t:info\t:cas\t:timed-out")), "invalid");
    expect(
        REGISTER,
        &format!("{both}{}", log(&["4 :invoke :read nil", "4 :fail :read :timed-out"])),
        "valid",
    );
}

#[test]
fn keys_are_keywords_texts_and_numbers() {
    let kv = |key: &str, seen: &str| {
        format!(
            "{{:process 0, :type :invoke, :f :append, :key {key}, :value \"x 0 0 y\"}}\n\
             {{:process 0, :type :ok, :f :append, :key {key}, :value \"x 0 0 y\"}}\n\
             {{:process 1, :type :invoke, :f :get, :key {key}, :value nil}}\n\
             {{:process 1, :type :ok, :f :get, :key {key}, :value {seen}}}\n"
        )
    };
    for key in ["\"0\"", ":k", "7", "\"a \\\"b\\\" }\""] {
        expect("kv", &kv(key, "\"x 0 0 y\""), "valid");
        expect("kv", &kv(key, "\"\""), "invalid");
        expect("kv", &kv(key, "\"x 0 0 yx 0 0 y\""), "invalid");
    }
    // Two keys know nothing of each other.
    let two = kv("1", "\"x 0 0 y\"") + &kv("2", "\"x 0 0 y\"");
    expect("kv", &two, "valid");
    // Keys in the values, as Jepsen's independent workloads have them.
    let keyed = "{:process 0 :type :invoke :f :write :value [3 1]}
                 {:process 0 :type :ok :f :write :value [3 1]}
                 {:process 0 :type :invoke :f :read :value [4 nil]}
                 {:process 0 :type :ok :f :read :value [4 nil]}";
    expect("register init=nil independent=true", keyed, "valid");
    let stale = keyed.replace("[4 nil]", "[3 nil]");
    expect("register init=nil independent=true", &stale, "invalid");
}

#[test]
fn transactions_without_times_are_read_line_by_line() {
    let plume = "w(1,5,0,1)\nr(1,5,1,2)\nr(1,0,2,3)\n";
    for text in [
        plume.to_owned(),
        plume.replace('\n', "\r\n"),
        plume.replace(',', ", "),
        format!("# x\n\n{plume}"),
    ] {
        expect("transactions level=serializable", &text, "valid");
    }
    expect("transactions level=serializable", &plume.replace("r(1,5,1,2)", "r(1,5,1,2"), "line 2");
    let awdit = "w 1 5\nw 2 5\n-----\nr 1 5\n=====\nr 1 5\nr 2 5\n";
    for text in [awdit.to_owned(), awdit.replace('\n', "\r\n"), format!("{awdit}-----\n=====\n")] {
        expect("transactions level=serializable", &text, "valid");
    }
    expect("transactions level=serializable", &format!("{awdit}x 1 5\n"), "line 8");
}

#[test]
fn lists_of_transactions_come_in_edn_and_json() {
    let edn = "{:type :ok, :process 0, :f :txn, :value [[:append :x 1] [:r :y nil]]}\n\
               {:type :ok, :process 1, :f :txn, :value [[:append :y 1] [:r :x nil]]}\n\
               {:type :ok, :process 2, :f :txn, :value [[:r :x [1]] [:r :y [1]]]}\n";
    let json = r#"{"type":"ok","process":0,"f":"txn","value":[["append","x",1],["r","y",null]]}
                  {"type":"ok","process":1,"f":"txn","value":[["append","y",1],["r","x",null]]}
                  {"type":"ok","process":2,"f":"txn","value":[["r","x",[1]],["r","y",[1]]]}"#;
    for text in [edn, json, &edn.replace(":f :txn, ", ""), &edn.replace("{:type", "#x.Op{:type")] {
        expect("list-append level=serializable", text, "invalid");
        expect("list-append level=snapshot-isolation", text, "valid");
    }
}

#[test]
fn what_is_broken_is_an_error_with_its_line() {
    let good = register("1");
    let cut = good.clone() + "{:process 2, :type :invoke, :f :wri";
    expect(REGISTER, &cut, "line 5");
    let kind = good.clone() + "{:process 2, :type :maybe, :f :write}";
    expect(REGISTER, &kind, "line 5");
    let odd = good.clone() + "\n{:process 2, :type}";
    expect(REGISTER, &odd, "line 6");
    expect(REGISTER, "anything else", "line 1");
    // A process does one thing at a time.
    let twice = good
        + "{:process 3, :type :invoke, :f :write, :value 4}\n\n\
                        {:process 3, :type :invoke, :f :write, :value 5}";
    expect(REGISTER, &twice, "line 7: process 3 invokes write while its operation of line 5");
    let log =
        "INFO  jepsen.util - 0\t:invoke\t:write\t1\nINFO  jepsen.util - 0\t:invoke\t:read\tnil\n";
    expect(REGISTER, log, "line 2: process 0 invokes read while its operation of line 1");
}

#[test]
fn one_number_is_written_in_many_ways() {
    let register = |written: &str, seen: &str| {
        format!(
            "{{:process 0 :type :invoke :f :write :value {written}}}
             {{:process 0 :type :ok :f :write :value {written}}}
             {{:process 1 :type :invoke :f :read :value nil}}
             {{:process 1 :type :ok :f :read :value {seen}}}"
        )
    };
    let beyond = "123456789012345678901234567890";
    for (written, seen, wanted) in [
        (beyond, "123456789012345678901234567890N", "valid"),
        (beyond, "+00123456789012345678901234567890", "valid"),
        (beyond, "123456789012345678901234567891", "invalid"),
        (beyond, "-123456789012345678901234567890", "invalid"),
        ("-99999999999999999999", "-99999999999999999999N", "valid"),
        ("7", "+7", "valid"),
        ("7", "7N", "valid"),
        ("1.5", "1.50", "valid"),
        ("1.5", "15e-1", "valid"),
        ("1.5", "1.6", "invalid"),
        ("7", "7.0", "invalid"),
        ("1/3", "1/3", "valid"),
        ("1.5M", "1.5M", "valid"),
    ] {
        expect(REGISTER, &register(written, seen), wanted);
    }
}

#[test]
fn a_history_stands_in_its_test_or_is_nothing_but_remarks() {
    let plain = register("1");
    for text in [
        format!("{{:name \"t\", :history [{plain}], :valid? true}}"),
        format!("{{:start-time 7 :history ({plain})}}"),
    ] {
        expect(REGISTER, &text, "valid");
        expect(
            REGISTER,
            &text.replace(":ok, :f :read, :value 1", ":ok, :f :read, :value 2"),
            "invalid",
        );
    }
    for text in ["", "\n\r\n", "\u{FEFF}", "; nothing\n;; at all\n", "[]", "()", "// x", "# x\n\n"]
    {
        expect(REGISTER, text, "unknown");
    }
}
