//! The defects that are known from other libraries, one by one.
//!
//! Each is a check that is run twice: on this crate, where it must hold, and on a copy that has the
//! defect on purpose ([`crate::broken`]), where it must not. So none of them is a check that can't
//! fail.

use std::cell::Cell;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::time::Duration;

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;

use crate::broken;

pub(crate) fn actor(name: &str) -> ActorId {
    ActorId::new(name).unwrap()
}

pub(crate) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn ours<C: Join + Clone>(a: &C, b: &C) -> C {
    let mut out = a.clone();
    out.join(b).unwrap();
    out
}

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

thread_local! {
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// A value that counts how often it is compared, hashed or cloned.
#[derive(Debug, Eq)]
pub(crate) struct Counted(pub(crate) u64);

fn look() {
    LOOKS.with(|looks| looks.set(looks.get() + 1));
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        look();
        Self(self.0)
    }
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        look();
        self.0 == other.0
    }
}

impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Counted {
    fn cmp(&self, other: &Self) -> Ordering {
        look();
        self.0.cmp(&other.0)
    }
}

impl Hash for Counted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        look();
        self.0.hash(state);
    }
}

impl Value for Counted {
    fn encode(&self, out: &mut Encoder) {
        out.uint(self.0);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        input.uint().map(Self)
    }

    fn to_json(&self) -> serde_json::Value {
        self.0.to_json()
    }

    fn from_json(json: &serde_json::Value) -> Result<Self> {
        u64::from_json(json).map(Self)
    }
}

fn looks(run: impl FnOnce()) -> u64 {
    let before = LOOKS.with(Cell::get);
    run();
    LOOKS.with(Cell::get) - before
}

fn counted_set(n: u64) -> (OrSet<Counted>, Writer) {
    let mut writer = Writer::new(actor("a"));
    let mut set = OrSet::new();
    for x in 0..n {
        set.add(&mut writer, Counted(x)).unwrap();
    }
    (set, writer)
}

/// crdts 7.3.2: `validate_merge` compares every element with every element, and finds fault with a
/// state beside itself.
#[test]
fn validation_is_linear_in_the_delta() {
    let (n, m) = (2_000, 20);
    let (mut set, mut writer) = counted_set(n);
    let before = set.clone();
    for x in 0..m {
        set.add(&mut writer, Counted(n + x)).unwrap();
    }
    let delta = set.delta(&before.summary());
    assert_eq!(delta.len() as u64, m);
    let few = |validate: &dyn Fn()| looks(validate) <= 4 * m;
    assert!(few(&|| before.validate(&delta).unwrap()));
    assert!(few(&|| set.validate(&set).unwrap()), "not even the whole state is looked at");
    let elements: Vec<_> = before.iter().cloned().collect();
    let new: Vec<_> = delta.iter().cloned().collect();
    assert!(!few(&|| broken::validate_all_pairs(&elements, &new)), "the broken copy is caught");
}

/// Merging identical states costs as much as merging different ones in crdts 7.3.2.
#[test]
fn joins_look_only_at_what_differs() {
    let (set, mut writer) = counted_set(2_000);
    let same = set.clone();
    let mut mine = set.clone();
    assert_eq!(looks(|| assert!(!mine.join(&same).unwrap())), 0, "nothing for identical states");
    let mut more = set;
    more.add(&mut writer, Counted(9_999)).unwrap();
    let seen = looks(|| assert!(mine.join(&more).unwrap()));
    assert!(seen < 10, "one element differs, {seen} looks");
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

/// crdts 7.3.2: both elements vanish; yrs: each side keeps its own for ever; neither says so.
#[test]
fn a_restored_actor_is_detected() {
    let loses_nothing_silently = |run: &dyn Fn() -> Result<Vec<u64>, ()>| match run() {
        Ok(merged) => merged.contains(&2) && merged.contains(&3),
        Err(()) => true,
    };
    let restore = |merge: fn(&OrSet<u64>, &OrSet<u64>) -> Result<OrSet<u64>>| {
        let mut writer = Writer::new(actor("a"));
        let mut set = OrSet::new();
        set.add(&mut writer, 1).unwrap();
        let backup = set.clone();
        set.add(&mut writer, 2).unwrap();
        let mut second = Writer::open(actor("a"), &backup);
        let mut restored = backup;
        restored.add(&mut second, 3).unwrap();
        let merged = merge(&set, &restored).map_err(|error| {
            assert_eq!(error.kind(), ErrorKind::ActorReused);
            assert!(error.is_conflict());
        })?;
        Ok(merged.iter().copied().collect())
    };
    let join = |a: &OrSet<u64>, b: &OrSet<u64>| {
        let mut out = a.clone();
        let done = out.join(b);
        assert!(done.is_ok() || out == *a, "an error changes nothing");
        assert_eq!(a.validate(b).is_err(), done.is_err(), "validate says the same");
        done.map(|_| out)
    };
    assert!(loses_nothing_silently(&|| restore(join)));
    assert!(loses_nothing_silently(&|| restore(|a, b| {
        let mut out = b.clone();
        out.join(a).map(|_| out)
    })));
    assert!(!loses_nothing_silently(&|| Ok(broken::reused_dots())), "the broken copy is caught");
}

/// The other ways to notice that an actor is used twice.
#[test]
fn writers_and_states_must_belong_together() {
    let mut phone: Replica<OrSet<u64>> = Replica::new(actor("phone"));
    phone.write(|set, writer| set.add(writer, 1)).unwrap();
    let backup = phone.state().clone();
    phone.write(|set, writer| set.add(writer, 2)).unwrap();
    phone.write(|set, _| set.remove(&2)).unwrap();

    // A clone with the same number of events: nothing is live under the same dot, but the other
    // has an event that this writer did not make.
    let mut clone = Replica::open(actor("phone"), backup.clone());
    let error = clone.merge(phone.state()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ActorReused);
    assert_eq!(clone.state(), &backup);

    // A state from elsewhere was put under the writer.
    let mut behind = Writer::resume(actor("phone"), 1);
    let mut state = phone.state().clone();
    assert_eq!(state.add(&mut behind, 9).unwrap_err().kind(), ErrorKind::ActorReused);
    let mut ahead = Writer::resume(actor("phone"), 7);
    assert_eq!(state.add(&mut ahead, 9).unwrap_err().kind(), ErrorKind::StaleState);
    assert_eq!(&state, phone.state());
    let error = Replica::resume(actor("phone"), 7, state).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StaleState);

    // The way out: a new incarnation merges both.
    let next = ActorId::incarnation("phone", 2).unwrap();
    let mut reborn = Replica::open(next, backup);
    reborn.merge(phone.state()).unwrap();
    reborn.write(|set, writer| set.add(writer, 3)).unwrap();
    assert_eq!(reborn.state().len(), 2);
}

#[test]
fn reused_actors_are_detected_in_every_causal_type() {
    fn twice<C: Join + Clone + Default + Authored>(
        write: impl Fn(&mut C, &mut Writer, u64),
    ) -> ErrorKind {
        let (mut a, mut b) = (C::default(), C::default());
        write(&mut a, &mut Writer::new(actor("x")), 1);
        write(&mut b, &mut Writer::new(actor("x")), 2);
        let error = a.join(&b).err();
        error.expect("the second history is noticed").kind()
    }
    let reused = ErrorKind::ActorReused;
    assert_eq!(reused, twice(|c: &mut MvRegister<u64>, w, x| drop(c.write(w, x).unwrap())));
    assert_eq!(reused, twice(|c: &mut OrSet<u64>, w, x| drop(c.add(w, x).unwrap())));
    assert_eq!(
        reused,
        twice(|c: &mut CausalCounter, w, x| {
            c.add(w, i64::try_from(x).unwrap()).unwrap();
        })
    );
    let back_and_forth = |x: u64| if x == 1 { 5 } else { -5 };
    assert_eq!(reused, twice(|c: &mut PnCounter, w, x| c.add(w, back_and_forth(x)).unwrap()));
    assert_eq!(
        reused,
        twice(|c: &mut ResettableCounter, w, x| {
            c.add(w, back_and_forth(x)).unwrap();
        })
    );
    assert_eq!(
        reused,
        twice(|c: &mut BoundedCounter, w, x| {
            c.increment(w, x).unwrap();
            c.decrement(w, x % 2).unwrap();
        })
    );
    assert_eq!(reused, twice(|c: &mut Rga, w, x| c.insert(w, 0, &x.to_string()).unwrap()));
    assert_eq!(
        reused,
        twice(|c: &mut OrMap<u64, SetStore<u64>>, w, x| {
            c.update(w, 7, |set, txn| set.add(txn, x)).unwrap();
        })
    );
    assert_eq!(
        reused,
        twice(|c: &mut LwwMap<u64, u64>, w, x| {
            let stamp = Stamp::new(at("2024-01-01T10:00:00Z"), actor("x"));
            c.put_stamped(w, stamp, 7, Some(x)).unwrap();
        })
    );
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
