//! Removes, resets and what is reclaimed.

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;

use super::{actor, at, ours};
use crate::broken;

/// riak_dt#82 and #78: an element that one side removed comes back with a merge.
#[test]
fn removes_survive_merges() {
    let stays_away = |run: &dyn Fn() -> bool| !run();
    assert!(stays_away(&|| {
        let mut writer = Writer::new(actor("a"));
        let mut here: OrSet<u64> = OrSet::new();
        here.add(&mut writer, 1).unwrap();
        let there = here.clone();
        here.remove(&1).unwrap();
        ours(&here, &there).contains(&1) || ours(&there, &here).contains(&1)
    }));
    assert!(!stays_away(&broken::union_brings_back), "the broken copy is caught");
}

/// Keeping only the winner of a last-writer-wins map is not associative together with removes.
#[test]
fn lww_with_removes_is_associative() {
    let associative = |join: &dyn Fn(usize, bool) -> Option<u64>| join(0, true) == join(0, false);
    let stamp =
        |second: i64, node: &str| Stamp::new(Timestamp::from_unix(second, 0).unwrap(), actor(node));
    type Map = OrMap<u64, LwwStore<u64>>;
    let write = |node: &str, second: i64, value: u64| {
        let mut map = Map::new();
        let mut writer = Writer::new(actor(node));
        let stamp = stamp(second, node);
        map.update(&mut writer, 0, |register, txn| register.set_stamped(txn, stamp, Some(value)))
            .unwrap();
        map
    };
    let (x, y) = (write("a", 5, 5), write("c", 4, 4));
    let mut removed = x.clone();
    removed.remove(&mut Writer::new(actor("b")), &0).unwrap();
    assert!(associative(&|key, left| {
        let map = if left { ours(&ours(&x, &y), &removed) } else { ours(&x, &ours(&y, &removed)) };
        map.get(&(key as u64)).and_then(LwwStore::get).copied()
    }));
    assert!(!associative(&|_, left| broken::winner_only(left)), "the broken copy is caught");
}

/// riak_dt#98: an increment at the same time as a reset brings back what was reset, or is lost.
#[test]
fn a_reset_takes_what_it_saw_and_no_more() {
    let right = |run: &dyn Fn() -> i128| run() == 1;
    assert!(right(&|| {
        let mut writer = Writer::new(actor("a"));
        let mut map: OrMap<u64, CounterStore> = OrMap::new();
        map.update(&mut writer, 0, |counter, txn| counter.add(txn, 5)).unwrap();
        let mut there = map.clone();
        there.remove(&mut Writer::new(actor("b")), &0).unwrap();
        assert!(there.is_empty());
        map.update(&mut writer, 0, |counter, txn| counter.add(txn, 1)).unwrap();
        ours(&map, &there).get(&0).unwrap().value()
    }));
    assert!(!right(&|| broken::counter_by_last_dot(5, 1)), "the broken copy is caught");
    assert!(!right(&|| broken::counter_remove_wins(5, 1)), "the broken copy is caught");
}

/// A remove of a key at the same time as an update of it: the update stays, the rest goes.
#[test]
fn an_update_wins_over_a_concurrent_remove_of_its_key() {
    let mut a = Writer::new(actor("a"));
    let mut here: OrMap<u64, SetStore<u64>> = OrMap::new();
    here.update(&mut a, 0, |set, txn| set.add(txn, 1)).unwrap();
    let mut there = here.clone();
    assert!(there.remove(&mut Writer::new(actor("b")), &0).unwrap());
    here.update(&mut a, 0, |set, txn| set.add(txn, 2)).unwrap();
    for merged in [ours(&here, &there), ours(&there, &here)] {
        assert_eq!(merged.get(&0).unwrap().iter().collect::<Vec<_>>(), [&2]);
    }
    let clobbers = broken::map_remove_clobbers();
    assert_eq!(clobbers, None, "the broken copy loses the update");
}

/// A replica that comes back after others have reclaimed brings nothing back.
#[test]
fn reclaiming_brings_nothing_back() {
    let (mut a, mut b) = (Writer::new(actor("a")), Writer::new(actor("b")));
    let mut here = Rga::new();
    here.insert(&mut a, 0, "hello world").unwrap();
    let mut there = here.clone();
    here.delete(&mut a, 5, 6).unwrap();
    assert_eq!(here.reclaim(&there.summary()), 0, "the other has not seen the deletion");
    let late = there.clone();
    there.join(&here).unwrap();
    assert_eq!(here.reclaim(&here.context().meet(there.context())), 6);
    assert_eq!((here.tombstones(), there.tombstones()), (0, 6));
    here.join(&late).unwrap();
    here.join(&there).unwrap();
    assert_eq!((here.to_string().as_str(), here.tombstones()), ("hello", 0));
    there.insert(&mut b, 5, "!").unwrap();
    here.join(&there.delta(&here.summary())).unwrap();
    there.join(&here).unwrap();
    assert_eq!((here.to_string(), there.to_string()), ("hello!".into(), "hello!".into()));
    let mut fresh = Rga::new();
    fresh.join(&here).unwrap();
    assert_eq!(fresh.to_string(), "hello!", "a newcomer needs no tombstones");
}

/// A deletion that not all have seen is kept: an earlier write that is still on its way must lose
/// against it.
#[test]
fn a_deletion_waits_for_those_who_have_not_seen_it() {
    let stamp = |time: &str, name: &str| Stamp::new(at(time), actor(name));
    let (mut a, mut b) = (Writer::new(actor("a")), Writer::new(actor("b")));
    let (mut here, mut there) = (LwwMap::<u64, u64>::new(), LwwMap::new());
    there.put_stamped(&mut b, stamp("2026-01-01T10:00:00Z", "b"), 1, Some(7)).unwrap();
    here.put_stamped(&mut a, stamp("2026-01-01T11:00:00Z", "a"), 1, None).unwrap();
    assert_eq!(here.reclaim(there.context()), 0, "the other has not seen it");
    here.join(&there).unwrap();
    assert_eq!(here.get(&1), None, "the earlier write came late");
    there.join(&here).unwrap();
    assert_eq!(there.get(&1), None);
    here.reclaim(&here.context().meet(there.context()));
    here.join(&there).unwrap();
    assert_eq!(here.get(&1), None, "and stays away");
}
