//! The formats do not drift: fixed states have the bytes and the JSON that are kept in
//! `tests/golden`, and those can be read. `POTTER_GOLDEN=write cargo test -p potter-crdt golden`
//! writes the files of a new version; files of old versions stay.

use std::fmt::Debug;
use std::path::PathBuf;

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;

use crate::defects::{actor, at};
use crate::worlds::Nested;

fn check<C: Codec + PartialEq + Debug>(name: &str, state: &C) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let (hex, json) = (dir.join(format!("{name}.v1.hex")), dir.join(format!("{name}.v1.json")));
    let bytes: String = state.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    if std::env::var("POTTER_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&hex, format!("{bytes}\n")).unwrap();
        std::fs::write(&json, format!("{}\n", state.to_json())).unwrap();
    }
    let kept = std::fs::read_to_string(&hex).unwrap();
    assert_eq!(kept.trim_end(), bytes, "{name}");
    let digits = kept.trim_end().as_bytes().chunks(2);
    let kept: Vec<u8> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(&C::from_bytes(&kept).unwrap(), state, "{name}");
    let kept = std::fs::read_to_string(&json).unwrap();
    assert_eq!(kept.trim_end(), state.to_json(), "{name}");
    assert_eq!(&C::from_json(&kept).unwrap(), state, "{name}");
}

fn writers() -> (Writer, Writer) {
    (Writer::new(actor("alice")), Writer::new(actor("bob#2")))
}

#[test]
fn counters() {
    let (mut a, mut b) = writers();
    let mut clock = VectorClock::new();
    clock.increment(&mut a).unwrap();
    clock.increment(&mut b).unwrap();
    clock.increment(&mut b).unwrap();
    check("vector-clock", &clock);

    let (mut a, mut b) = writers();
    let mut counter = GCounter::new();
    counter.increment(&mut a, 1 << 53).unwrap(); // text in JSON
    counter.increment(&mut b, 300).unwrap();
    check("g-counter", &counter);

    let (mut a, mut b) = writers();
    let mut counter = PnCounter::new();
    counter.add(&mut a, 5).unwrap();
    counter.add(&mut b, -700).unwrap();
    check("pn-counter", &counter);

    let (mut a, mut b) = writers();
    let mut counter = ResettableCounter::new();
    counter.add(&mut a, 5).unwrap();
    counter.reset();
    counter.add(&mut b, 7).unwrap();
    check("resettable-counter", &counter);

    let (mut a, mut b) = writers();
    let mut counter = BoundedCounter::new();
    counter.increment(&mut a, 10).unwrap();
    counter.transfer(&mut a, b.actor(), 4).unwrap();
    counter.decrement(&mut b, 3).unwrap();
    check("bounded-counter", &counter);
}

#[test]
fn registers_and_flags() {
    let stamp = Stamp { at: at("2024-01-01T10:00:00.5Z"), counter: 3, node: actor("alice") };
    let value = JsonValue::parse(r#"{"b":[1,2.5,null],"a":"é\n"}"#).unwrap();
    check("lww-register", &LwwRegister::new(stamp, value));
    check("lww-register-empty", &LwwRegister::<String>::default());

    let (mut a, mut b) = writers();
    let (mut register, mut other) = (MvRegister::new(), MvRegister::new());
    register.write(&mut a, "tea".to_owned()).unwrap();
    other.write(&mut b, "coffee".to_owned()).unwrap();
    register.join(&other).unwrap();
    check("mv-register", &register);

    let (mut a, _) = writers();
    let mut flag = EnableWinsFlag::new();
    flag.enable(&mut a).unwrap();
    check("flag", &flag);
}

#[test]
fn sets() {
    check("g-set", &GSet::from_iter([b"one".to_vec(), b"\xff".to_vec()]));

    let mut set = TwoPhaseSet::new();
    for n in [-1i64, 2, i64::MAX] {
        set.insert(n);
    }
    set.remove(&2);
    check("two-phase-set", &set);

    let (mut a, mut b) = writers();
    let (mut set, mut other) = (OrSet::new(), OrSet::new());
    for word in ["one", "two", "three"] {
        set.add(&mut a, word.to_owned()).unwrap();
    }
    set.remove(&"two".to_owned()).unwrap();
    other.add(&mut b, "one".to_owned()).unwrap(); // two dots
    set.join(&other).unwrap();
    let early = Dot { actor: actor("carol"), seq: 1 << 43 };
    set.remove_dots(&[early]).unwrap(); // a gap in the context
    check("or-set", &set);
}

#[test]
fn maps() {
    let (mut a, mut b) = writers();
    let mut clock = Hlc::new(actor("alice"));
    let wall = at("2024-01-01T10:00:00Z");
    let mut map = LwwMap::new();
    map.put(&mut a, &mut clock, wall, "name".to_owned(), "Ada".to_owned()).unwrap();
    map.delete(&mut b, &mut clock, wall, "gone".to_owned()).unwrap();
    check("lww-map", &map);

    let (mut a, mut b) = writers();
    let mut map: OrMap<String, CounterStore> = OrMap::new();
    map.update(&mut a, "x".to_owned(), |counter, txn| counter.add(txn, -9)).unwrap();
    map.update(&mut a, "y".to_owned(), |counter, txn| counter.add(txn, 1)).unwrap();
    map.remove(&mut b, &"y".to_owned()).unwrap();
    check("or-map-of-counters", &map);

    let (mut a, _) = writers();
    let mut map = Nested::new();
    map.update(&mut a, "outer".to_owned(), |inner, txn| {
        inner.update(txn, 7, |register, txn| register.set(txn, &mut clock, wall, Some("v".into())))
    })
    .unwrap();
    check("or-map-nested", &map);

    let (mut a, _) = writers();
    let mut counter = CausalCounter::new();
    counter.add(&mut a, 4).unwrap();
    check("causal-counter", &counter);
}

/// Serde's form is the canonical JSON.
#[test]
fn serde() {
    let (mut a, _) = writers();
    let mut set = OrSet::new();
    set.add(&mut a, "x".to_owned()).unwrap();
    let state = serde_json::to_value(&set).unwrap();
    assert_eq!(state, serde_json::from_str::<serde_json::Value>(&set.to_json()).unwrap());
    assert_eq!(serde_json::from_value::<OrSet<String>>(state).unwrap(), set);
    assert!(serde_json::from_str::<GCounter>("{}").is_err());
    let instant: Timestamp = serde_json::from_str("\"2024-01-01T12:00:00+02:00\"").unwrap();
    assert_eq!(serde_json::to_string(&instant).unwrap(), "\"2024-01-01T10:00:00Z\"");
}

#[test]
fn text() {
    let (mut a, mut b) = writers();
    let mut text = Rga::new();
    text.insert(&mut a, 0, "Grüße, world").unwrap();
    text.insert(&mut b, 5, " Gott").unwrap();
    text.delete(&mut b, 10, 3).unwrap();
    check("rga", &text);
}
