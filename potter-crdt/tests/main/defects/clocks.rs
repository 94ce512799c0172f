//! Instants, ties and clocks that lie.

use std::cmp::Ordering;
use std::time::Duration;

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;

use super::{actor, at, ours};
use crate::broken;

/// crdts 7.3.2: a register with equal markers keeps its own value on either side.
#[test]
fn lww_ties_are_broken_by_the_value() {
    let write =
        |value: &str| (Stamp::new(at("2024-01-01T10:00:00Z"), actor("n")), value.to_owned());
    type Fold<'a> = &'a dyn Fn(&[(Stamp, String)]) -> String;
    let agrees = |join: Fold<'_>| {
        let (x, y, z) = (write("x"), write("y"), write("z"));
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let writes = [x, y, z];
        let result = |order: [usize; 3]| join(&order.map(|at| writes[at].clone()));
        orders.iter().all(|&order| result(order) == result(orders[0]))
    };
    assert!(agrees(&|writes| {
        let mut register = LwwRegister::default();
        for (stamp, value) in writes {
            register = ours(&register, &LwwRegister::new(stamp.clone(), value.clone()));
        }
        register.get().unwrap().clone()
    }));
    assert!(!agrees(&broken::lww_by_marker), "the broken copy is caught");
}

/// Instants are numbers: as text, 10:00:00.5Z comes before 10:00:00Z, and offsets mean nothing.
#[test]
fn timestamps_are_not_compared_as_text() {
    let right = |compare: &dyn Fn(&str, &str) -> Ordering| {
        compare("2024-01-01T10:00:00Z", "2024-01-01T10:00:00.5Z").is_lt()
            && compare("2024-01-01T12:00:00+02:00", "2024-01-01T10:00:00Z").is_eq()
            && compare("2024-01-01T11:30:00+02:00", "2024-01-01T10:00:00Z").is_lt()
            && compare("2024-01-01t10:00:00.000z", "2024-01-01T10:00:00Z").is_eq()
    };
    assert!(right(&|a, b| at(a).cmp(&at(b))));
    assert!(!right(&|a, b| a.cmp(b)), "the broken copy is caught");
    for bad in [
        "2024-02-30T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01 10:00",
        "2024-01-01T10:00:00",
        "2024-01-01T10:00:00.Z",
        "2024-01-01T10:00:00+1:00",
        "",
        "\u{1f600}",
        "2024-01-01T10:00:00Zx",
        "0000-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "-024-01-01T10:00:00Z",
    ] {
        assert_eq!(Timestamp::parse(bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
    }
    for good in ["2000-02-29T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"] {
        assert_eq!(at(good).to_string(), good);
    }
    assert_eq!(at("1970-01-01T00:00:00Z").unix(), (0, 0));
    assert_eq!(at("2024-01-01T10:00:00Z").unix(), (1_704_103_200, 0));
    assert_eq!(at("1969-12-31T23:59:59.25Z").unix(), (-1, 250_000_000));
}

/// Two writes of one node in one millisecond, and with a clock that goes back.
#[test]
fn the_second_of_two_writes_wins() {
    let walls = ["2024-01-01T10:00:00Z", "2024-01-01T10:00:00Z", "2024-01-01T09:00:00Z"];
    let rises = |now: &mut dyn FnMut(Timestamp) -> Stamp| {
        let stamps: Vec<_> = walls.iter().map(|wall| now(at(wall))).collect();
        stamps.windows(2).all(|pair| pair[0] < pair[1])
    };
    let mut clock = Hlc::new(actor("a"));
    assert!(rises(&mut |wall| clock.now(wall).unwrap()));
    let last = clock.last().unwrap();
    let mut restarted = Hlc::resume(actor("a"), &last);
    assert!(restarted.now(at(walls[0])).unwrap() > last, "across a restart too");
    assert!(!rises(&mut |wall| Stamp::new(wall, actor("a"))), "the broken copy is caught");

    // The counter carries into the instant.
    let full = Stamp { at: at(walls[0]), counter: u32::MAX, node: actor("a") };
    let mut clock = Hlc::resume(actor("a"), &full);
    let next = clock.now(at(walls[0])).unwrap();
    assert!(next > full && next.counter == 0);
    // At the end of time it is an error.
    let end = Stamp { at: Timestamp::MAX, counter: u32::MAX, node: actor("a") };
    let error = Hlc::resume(actor("a"), &end).now(at(walls[0])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overflow);
}

/// A stamp of the year 9999 must not drag the clocks of others along.
#[test]
fn a_clock_from_the_future_poisons_nothing() {
    let now = at("2024-01-01T10:00:00Z");
    let wild = Stamp::new(at("9999-01-01T00:00:00Z"), actor("wild"));
    let unmoved = |observe: &mut dyn FnMut(&Stamp) -> Stamp| observe(&wild).at <= now;
    let mut clock = Hlc::new(actor("server"));
    assert!(unmoved(&mut |stamp| {
        let error = clock.observe(now, stamp).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ClockAhead);
        clock.now(now).unwrap()
    }));
    let mut naive = broken::NaiveClock::default();
    assert!(!unmoved(&mut |stamp| naive.observe(stamp)), "the broken copy is caught");

    // The past is accepted, a near future too.
    let mut clock = Hlc::new(actor("server"));
    clock.observe(now, &Stamp::new(at("1999-01-01T00:00:00Z"), actor("old"))).unwrap();
    let near = Stamp::new(now.plus(Duration::from_secs(60)).unwrap(), actor("near"));
    clock.observe(now, &near).unwrap();
    assert!(clock.now(now).unwrap() > near);
}

/// The server sets far futures back, in the device's own order, and honest writes win later.
#[test]
fn far_futures_are_clamped_in_order() {
    let now = at("2024-01-01T10:00:00Z");
    let mut guard = SkewGuard::default();
    let claim = |text: &str| Stamp::new(at(text), actor("phone"));
    let first = guard.admit(now, &claim("9999-01-01T00:00:00Z")).unwrap();
    let second = guard.admit(now, &claim("9999-01-01T00:00:01Z")).unwrap();
    assert!(first.clamped_by.is_some() && first.effective.at == now);
    assert!(second.effective > first.effective, "the device's order is kept");
    assert_eq!(guard.admit(now, &claim("9999-01-01T00:00:01Z")).unwrap(), second, "repeatable");
    let old = guard.admit(now, &claim("2023-12-01T00:00:00Z")).unwrap();
    assert_eq!(old, Admitted { effective: claim("2023-12-01T00:00:00Z"), clamped_by: None });
    let honest = Stamp::new(now.plus(Duration::from_millis(1)).unwrap(), actor("tablet"));
    let mut register = LwwRegister::new(second.effective, "wild".to_owned());
    assert!(register.set(honest, "honest".to_owned()));
}

/// Who reads and then writes wins over what it read, however slow its clock.
#[test]
fn a_slow_clock_wins_over_what_it_read() {
    let (fast, slow) = (at("2024-01-01T10:00:30Z"), at("2024-01-01T10:00:00Z"));
    let wins = |write: &dyn Fn(&mut LwwRegister<String>)| {
        let mut register = LwwRegister::new(Stamp::new(fast, actor("fast")), "read".to_owned());
        write(&mut register);
        register.get().is_some_and(|value| value == "written")
    };
    assert!(wins(&|register| {
        let mut clock = Hlc::new(actor("slow"));
        register.write(&mut clock, slow, "written".to_owned()).unwrap();
    }));
    assert!(
        !wins(&|register| {
            register.set(Stamp::new(slow, actor("slow")), "written".to_owned());
        }),
        "the broken copy is caught"
    );
}
