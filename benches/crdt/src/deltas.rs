//! Bytes that travel after 1, 100 and 10,000 operations on a set of 100,000 texts of 16 bytes.

use crdts::CmRDT;
use loro::{ExportMode, LoroDoc};
use potter_crdt::{ActorId, Codec, Delta, Writer};
use yrs::{ReadTxn, Transact};

use crate::row;
use crate::sets::{
    N, Side, automerge_write, crdts_base, loro_write, potter_base, text, yrs_base, yrs_fork,
    yrs_write,
};

fn potter<T: potter_crdt::Value>(side: &Side, of: fn(u64) -> T) -> (usize, usize) {
    let all: Vec<u64> = (0..N).collect();
    let mut set = potter_base(&all, of);
    let before = set.summary();
    let mut writer = Writer::new(ActorId::from(side.actor));
    side.removes.iter().for_each(|element| drop(set.remove(&of(*element)).unwrap()));
    for &element in &side.adds {
        set.add(&mut writer, of(element)).unwrap();
    }
    let delta = set.delta(&before);
    (delta.to_bytes().len(), delta.to_json().len())
}

fn crdts<T: std::hash::Hash + Eq + Clone + std::fmt::Debug + serde::Serialize>(
    side: &Side,
    of: fn(u64) -> T,
) -> usize {
    let all: Vec<u64> = (0..N).collect();
    let mut set = crdts_base(&all, of);
    let mut bytes = 0;
    for &element in &side.removes {
        let op = set.rm(of(element), set.contains(&of(element)).derive_rm_ctx());
        bytes += bincode::serialized_size(&op).unwrap() as usize;
        set.apply(op);
    }
    for &element in &side.adds {
        let op = set.add(of(element), set.read_ctx().derive_add_ctx(side.actor));
        bytes += bincode::serialized_size(&op).unwrap() as usize;
        set.apply(op);
    }
    bytes
}

fn yrs(side: &Side) -> usize {
    let all: Vec<u64> = (0..N).collect();
    let doc = yrs_fork(&yrs_base(&all), side.actor);
    let before = doc.transact().state_vector();
    yrs_write(&doc, side);
    let txn = doc.transact();
    txn.encode_diff_v2(&before).len().min(txn.encode_diff_v1(&before).len())
}

fn automerge(side: &Side) -> usize {
    let mut doc = automerge::AutoCommit::new();
    automerge_write(&mut doc, &Side { actor: 9, removes: vec![], adds: (0..N).collect() });
    let before = doc.get_heads();
    let mut doc = doc.fork();
    automerge_write(&mut doc, side);
    doc.save_after(&before).len()
}

fn loro(side: &Side) -> usize {
    let doc = LoroDoc::new();
    loro_write(&doc, &Side { actor: 9, removes: vec![], adds: (0..N).collect() });
    let before = doc.oplog_vv();
    let doc = doc.fork();
    doc.set_peer_id(side.actor).unwrap();
    loro_write(&doc, side);
    doc.export(ExportMode::updates(&before)).unwrap().len()
}

pub fn run() {
    let show = |bytes: usize, ops: u64| format!("{bytes} ({:.1} an op)", bytes as f64 / ops as f64);
    for ops in [1u64, 100, 10_000] {
        let adds = Side { actor: 1, removes: vec![], adds: (2 * N..2 * N + ops).collect() };
        let (binary, json) = potter(&adds, |element| element);
        row(&format!("delta of {ops} adds, u64, bytes"), &[
            ("potter", show(binary, ops)),
            ("crdts", show(crdts(&adds, |element| element), ops)),
        ]);
        row(&format!("the same as JSON, {ops} adds, bytes"), &[("potter", show(json, ops))]);
        let (binary, _) = potter(&adds, text);
        row(&format!("delta of {ops} adds, 16-byte texts, bytes"), &[
            ("potter", show(binary, ops)),
            ("crdts", show(crdts(&adds, text), ops)),
            ("yrs", show(yrs(&adds), ops)),
            ("automerge", show(automerge(&adds), ops)),
            ("loro", show(loro(&adds), ops)),
        ]);
    }
    // Every twentieth element is removed: the worst for ranges.
    let mixed = Side {
        actor: 1,
        removes: (0..5_000).map(|at| at * 20).collect(),
        adds: (2 * N..2 * N + 5_000).collect(),
    };
    row("delta of 5,000 adds and 5,000 scattered removes, u64, bytes", &[
        ("potter", show(potter(&mixed, |element| element).0, 10_000)),
        ("crdts", show(crdts(&mixed, |element| element), 10_000)),
    ]);
    row("delta of 5,000 adds and 5,000 scattered removes, 16-byte texts, bytes", &[
        ("potter", show(potter(&mixed, text).0, 10_000)),
        ("crdts", show(crdts(&mixed, text), 10_000)),
        ("yrs", show(yrs(&mixed), 10_000)),
        ("automerge", show(automerge(&mixed), 10_000)),
        ("loro", show(loro(&mixed), 10_000)),
    ]);
}
