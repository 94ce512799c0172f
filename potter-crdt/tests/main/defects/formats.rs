//! What can't be written, counted or read.

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;

use super::actor;
use crate::broken;

/// crdts 7.3.2: a set with a deferred remove can't be written as JSON.
#[test]
fn deferred_removes_go_through_json_and_bytes() {
    let mut writer = Writer::new(actor("a"));
    let mut set: OrSet<String> = OrSet::new();
    set.add(&mut writer, "x".into()).unwrap();
    let dot = set.add(&mut writer, "y".into()).unwrap();
    let mut early: OrSet<String> = OrSet::new();
    assert!(early.remove_dots(&[dot]).unwrap(), "the remove comes before its add");
    let early = OrSet::<String>::from_json(&early.to_json()).unwrap();
    let mut early = OrSet::<String>::from_bytes(&early.to_bytes()).unwrap();
    early.join(&set).unwrap();
    assert!(early.contains(&"x".into()) && !early.contains(&"y".into()), "and is remembered");
    assert!(broken::deferred_as_struct_keys().is_err(), "the broken copy is caught");
}

/// crdts 7.3.2: a counter at `u64::MAX` loses the next increment without a word.
#[test]
fn overflow_is_an_error() {
    let told = |increment: &dyn Fn(u64) -> Option<u64>| increment(u64::MAX).is_none();
    assert!(told(&|from| {
        let mut writer = Writer::new(actor("a"));
        let mut counter = GCounter::new();
        counter.increment(&mut writer, from).unwrap();
        let before = counter.clone();
        match counter.increment(&mut writer, 1) {
            Ok(()) => u64::try_from(counter.value()).ok(),
            Err(error) => {
                assert!(error.kind() == ErrorKind::Overflow && counter == before);
                None
            }
        }
    }));
    assert!(!told(&broken::increment_saturating), "the broken copy is caught");
    assert!(!told(&broken::increment_wrapping), "the broken copy is caught");

    let mut writer = Writer::new(actor("a"));
    let mut counter = PnCounter::new();
    counter.add(&mut writer, i64::MIN).unwrap();
    counter.add(&mut writer, i64::MAX).unwrap();
    assert_eq!(counter.value(), -1);
    let error = counter.add(&mut writer, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overflow, "2^64 - 1 steps were made");
    // A second actor goes on.
    counter.add(&mut Writer::new(actor("b")), 1).unwrap();
    assert_eq!(counter.value(), 0);

    // Sequence numbers have a limit, and say so.
    let mut set: OrSet<u64> = OrSet::new();
    let last = Dot { actor: actor("a"), seq: SEQ_MAX };
    set.remove_dots(&[last]).unwrap();
    let mut writer = Writer::open(actor("a"), &set);
    assert_eq!(set.add(&mut writer, 1).unwrap_err().kind(), ErrorKind::Overflow);
    assert!(set.is_empty());
    let beyond = Dot { actor: actor("a"), seq: SEQ_MAX + 1 };
    assert_eq!(set.remove_dots(&[beyond]).unwrap_err().kind(), ErrorKind::Overflow);
}

/// A decoder is not fooled by a length.
#[test]
fn a_length_is_not_believed() {
    let mut bytes = OrSet::<u64>::new().to_bytes();
    bytes.truncate(4);
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(OrSet::<u64>::from_bytes(&bytes).unwrap_err().kind(), ErrorKind::Malformed);
    let wrong = GCounter::new().to_bytes();
    assert_eq!(OrSet::<u64>::from_bytes(&wrong).unwrap_err().kind(), ErrorKind::WrongType);
    let mut newer = GCounter::new().to_bytes();
    newer[2] = 2;
    let error = GCounter::from_bytes(&newer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    let newer = GCounter::new().to_json().replace("\"version\":1", "\"version\":2");
    let error = GCounter::from_json(&newer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
}
