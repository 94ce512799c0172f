//! One actor in two places.

#[allow(clippy::wildcard_imports, reason = "nearly all of it")]
use potter_crdt::*;

use super::{actor, at};
use crate::broken;

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
