//! Sets: joins of 100,000 elements, adds, memory.
//!
//! yrs, automerge and loro have no set; a map from the element's text to `true` stands for one.
//! Their merge is what a user of them does: make the update that the other lacks, apply it.

use automerge::transaction::Transactable;
use crdts::{CmRDT, CvRDT};
use loro::{ExportMode, LoroDoc};
use potter_crdt::{ActorId, Join, OrSet, Writer};
use stats_alloc::Region;
use std::hash::Hash;
use yrs::updates::decoder::Decode;
use yrs::{Map, ReadTxn, Transact};

use crate::{ALLOCATOR, Case, MS, NS, row, time, times};

pub const N: u64 = 100_000;

/// Which elements a side removes and adds after the common part.
#[derive(Clone)]
pub struct Side {
    pub actor: u64,
    pub removes: Vec<u64>,
    pub adds: Vec<u64>,
}

/// Each side removes `percent / 2` and adds `percent / 2` of the elements; at 100 the two have
/// nothing in common.
fn sides(percent: u64) -> (Vec<u64>, [Side; 2]) {
    let half = N * percent / 200;
    let side = |at: u64| Side {
        actor: at + 1,
        removes: (at * half..(at + 1) * half).collect(),
        adds: (N * (at + 2)..N * (at + 2) + half).collect(),
    };
    if percent < 100 {
        return ((0..N).collect(), [side(0), side(1)]);
    }
    let disjoint = |at: u64| Side {
        actor: at + 1,
        removes: Vec::new(),
        adds: (N * (at + 2)..N * (at + 3)).collect(),
    };
    (Vec::new(), [disjoint(0), disjoint(1)])
}

pub fn text(element: u64) -> String {
    format!("element-{element:08}")
}

type Potter<T> = OrSet<T>;
type Peer<T> = crdts::Orswot<T, u64>;

fn potter_side<T: potter_crdt::Value>(
    base: &Potter<T>,
    side: &Side,
    of: impl Fn(u64) -> T,
) -> Potter<T> {
    let mut set = base.clone();
    let mut writer = Writer::new(ActorId::from(side.actor));
    for &element in &side.removes {
        set.remove(&of(element)).unwrap();
    }
    for &element in &side.adds {
        set.add(&mut writer, of(element)).unwrap();
    }
    set
}

pub fn potter_base<T: potter_crdt::Value>(base: &[u64], of: impl Fn(u64) -> T) -> Potter<T> {
    let side = Side { actor: 9, removes: Vec::new(), adds: base.to_vec() };
    potter_side(&OrSet::new(), &side, of)
}

fn crdts_side<T: Hash + Eq + Clone + std::fmt::Debug>(
    base: &Peer<T>,
    side: &Side,
    of: impl Fn(u64) -> T,
) -> Peer<T> {
    let mut set = base.clone();
    for &element in &side.removes {
        let context = set.contains(&of(element)).derive_rm_ctx();
        let op = set.rm(of(element), context);
        set.apply(op);
    }
    for &element in &side.adds {
        let op = set.add(of(element), set.read_ctx().derive_add_ctx(side.actor));
        set.apply(op);
    }
    set
}

pub fn crdts_base<T: Hash + Eq + Clone + std::fmt::Debug>(
    base: &[u64],
    of: impl Fn(u64) -> T,
) -> Peer<T> {
    let side = Side { actor: 9, removes: Vec::new(), adds: base.to_vec() };
    crdts_side(&crdts::Orswot::new(), &side, of)
}

pub fn yrs_write(doc: &yrs::Doc, side: &Side) {
    let map = doc.get_or_insert_map("set");
    let mut txn = doc.transact_mut();
    for &element in &side.removes {
        map.remove(&mut txn, &text(element));
    }
    for &element in &side.adds {
        map.insert(&mut txn, text(element), true);
    }
}

pub fn yrs_base(base: &[u64]) -> Vec<u8> {
    let doc = yrs::Doc::with_client_id(9);
    yrs_write(&doc, &Side { actor: 9, removes: Vec::new(), adds: base.to_vec() });
    doc.transact().encode_state_as_update_v1(&yrs::StateVector::default())
}

pub fn yrs_fork(state: &[u8], client: u64) -> yrs::Doc {
    let doc = yrs::Doc::with_client_id(client);
    doc.get_or_insert_map("set");
    doc.transact_mut().apply_update(yrs::Update::decode_v1(state).unwrap()).unwrap();
    doc
}

pub fn automerge_write(doc: &mut automerge::AutoCommit, side: &Side) {
    for &element in &side.removes {
        doc.delete(automerge::ROOT, text(element)).unwrap();
    }
    for &element in &side.adds {
        doc.put(automerge::ROOT, text(element), true).unwrap();
    }
    doc.commit();
}

pub fn loro_write(doc: &LoroDoc, side: &Side) {
    let map = doc.get_map("set");
    for &element in &side.removes {
        map.delete(&text(element)).unwrap();
    }
    for &element in &side.adds {
        map.insert(&text(element), true).unwrap();
    }
    doc.commit();
}

fn sets<T: potter_crdt::Value>(base: &[u64], sides: &[Side; 2], of: fn(u64) -> T) -> Vec<Case<'static>>
where
    T: 'static,
{
    let common = potter_base(base, of);
    let [a, b] = [&sides[0], &sides[1]].map(|side| potter_side(&common, side, of));
    let other = crdts_base(base, of);
    let [x, y] = [&sides[0], &sides[1]].map(|side| crdts_side(&other, side, of));
    // The same elements come out.
    let (mut ours, mut theirs) = (a.clone(), x.clone());
    ours.join(&b).unwrap();
    theirs.merge(y.clone());
    assert_eq!(ours.len(), theirs.read().val.len());
    assert!(theirs.read().val.iter().all(|element| ours.contains(element)));
    let potter = move || {
        let mut mine = a.clone();
        time(|| mine.join(&b).unwrap())
    };
    let crdts = move || {
        let (mut mine, other) = (x.clone(), y.clone());
        time(|| mine.merge(other))
    };
    vec![("potter", Box::new(potter)), ("crdts", Box::new(crdts))]
}

fn documents(base: &[u64], sides: &[Side; 2]) -> Vec<Case<'static>> {
    let state = yrs_base(base);
    let docs = [&sides[0], &sides[1]].map(|side| {
        let doc = yrs_fork(&state, side.actor);
        yrs_write(&doc, side);
        doc
    });
    let mine = docs[0].transact().encode_state_as_update_v1(&yrs::StateVector::default());
    let yrs = {
        let theirs = docs[1].clone();
        move || {
            let doc = yrs_fork(&mine, 7);
            time(|| {
                let update = theirs.transact().encode_diff_v1(&doc.transact().state_vector());
                doc.transact_mut().apply_update(yrs::Update::decode_v1(&update).unwrap()).unwrap();
            })
        }
    };
    let mut common = automerge::AutoCommit::new();
    automerge_write(&mut common, &Side { actor: 9, removes: vec![], adds: base.to_vec() });
    let [mut a, mut b] = [0, 1].map(|at| {
        let mut doc = common.fork();
        automerge_write(&mut doc, &sides[at]);
        doc
    });
    let automerge = move || {
        let mut mine = a.fork();
        time(|| mine.merge(&mut b).unwrap())
    };
    let common = LoroDoc::new();
    loro_write(&common, &Side { actor: 9, removes: vec![], adds: base.to_vec() });
    let [x, y] = [0, 1].map(|at| {
        let doc = common.fork();
        doc.set_peer_id(sides[at].actor).unwrap();
        loro_write(&doc, &sides[at]);
        doc
    });
    let loro = move || {
        let mine = x.fork();
        time(|| {
            let update = y.export(ExportMode::updates(&mine.oplog_vv())).unwrap();
            mine.import(&update).unwrap();
        })
    };
    vec![("yrs", Box::new(yrs)), ("automerge", Box::new(automerge)), ("loro", Box::new(loro))]
}

pub fn run() {
    for percent in [0, 1, 10, 100] {
        let (base, sides) = sides(percent);
        let title = format!("set, merge 100 k × 100 k, {percent} % apart, u64, ms");
        let mut cases = sets(&base, &sides, |element| element);
        cases.extend(documents(&base, &sides));
        times(&title, 7, MS, cases);
        let title = format!("set, merge 100 k × 100 k, {percent} % apart, String, ms");
        times(&title, 7, MS, sets(&base, &sides, text));
    }
    adds();
}

const ADDS: u32 = 10_000;

fn adds() {
    let mut potter: OrSet<u64> = OrSet::new();
    let mut crdts: Peer<u64> = crdts::Orswot::new();
    for actor in 0..1_000 {
        let side = Side { actor, removes: Vec::new(), adds: vec![actor] };
        potter = potter_side(&potter, &side, |element| element);
        crdts = crdts_side(&crdts, &side, |element| element);
    }
    let ours = || {
        let mut set = potter.clone();
        let mut writer = Writer::open(ActorId::from(500), &set);
        time(|| {
            for element in 0..u64::from(ADDS) {
                set.add(&mut writer, 10_000 + element).unwrap();
            }
        })
    };
    let theirs = || {
        let mut set = crdts.clone();
        time(|| {
            for element in 0..u64::from(ADDS) {
                let op = set.add(10_000 + element, set.read_ctx().derive_add_ctx(500));
                set.apply(op);
            }
        })
    };
    let cases: Vec<Case<'_>> = vec![("potter", Box::new(ours)), ("crdts", Box::new(theirs))];
    times("set, add among 1,000 actors, ns", 7, NS / f64::from(ADDS), cases);
}

/// Bytes that are allocated for 100,000 elements once they are in, by the element.
pub fn memory() {
    fn held<R>(build: impl FnOnce() -> R) -> String {
        let region = Region::new(ALLOCATOR);
        let kept = build();
        let change = region.change();
        // What a reallocation adds or gives back is in these two already.
        let bytes = change.bytes_allocated as i64 - change.bytes_deallocated as i64;
        drop(kept);
        format!("{:.1}", bytes as f64 / N as f64)
    }
    let all: Vec<u64> = (0..N).collect();
    row("set, 100 k u64, bytes an element", &[
        ("potter", held(|| potter_base(&all, |element| element))),
        ("crdts", held(|| crdts_base(&all, |element| element))),
    ]);
    row("set, 100 k texts of 16 bytes, bytes an element", &[
        ("potter", held(|| potter_base(&all, text))),
        ("crdts", held(|| crdts_base(&all, text))),
        ("yrs", {
            let side = Side { actor: 9, removes: Vec::new(), adds: all.clone() };
            held(|| {
                let doc = yrs::Doc::with_client_id(9);
                yrs_write(&doc, &side);
                doc
            })
        }),
        ("automerge", {
            let side = Side { actor: 9, removes: Vec::new(), adds: all.clone() };
            held(|| {
                let mut doc = automerge::AutoCommit::new();
                automerge_write(&mut doc, &side);
                doc
            })
        }),
        ("loro", {
            let side = Side { actor: 9, removes: Vec::new(), adds: all.clone() };
            held(|| {
                let doc = LoroDoc::new();
                loro_write(&doc, &side);
                doc
            })
        }),
    ]);
}
