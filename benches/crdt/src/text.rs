//! A trace of typing: words, corrections, jumps of the cursor, a third of them anywhere. Made from a
//! seed, so that it needs no file; every edit is one character. yrs looks an index up by walking from
//! the beginning, which takes minutes on the longer trace: it runs the shorter one.

use automerge::ReadDoc;
use automerge::transaction::Transactable;
use loro::{ExportMode, LoroDoc};
use potter_crdt::{ActorId, Codec, Rga, Writer};
use yrs::updates::decoder::Decode;
use yrs::{GetString, ReadTxn, Text, Transact};

use crate::{Case, MS, Random, row, time, times};

enum Edit {
    Insert(usize, char),
    Delete(usize),
}

fn trace(n: usize) -> (Vec<Edit>, usize) {
    let mut random = Random(42);
    let (mut length, mut cursor) = (0usize, 0usize);
    let mut edits = Vec::new();
    while edits.len() < n {
        if random.below(4) == 0 && length > 0 {
            // Most jumps are near.
            cursor = match random.below(3) {
                0 => random.below(length + 1),
                _ => (cursor + random.below(200)).saturating_sub(100).min(length),
            };
        }
        for _ in 0..random.below(12) {
            edits.push(Edit::Insert(cursor, (b'a' + random.below(26) as u8) as char));
            cursor += 1;
            length += 1;
        }
        if random.below(2) == 0 {
            for _ in 0..random.below(4).min(cursor) {
                cursor -= 1;
                length -= 1;
                edits.push(Edit::Delete(cursor));
            }
        }
    }
    (edits, length)
}

fn potter(edits: &[Edit]) -> Rga {
    let mut text = Rga::new();
    let mut writer = Writer::new(ActorId::from(1));
    let mut buffer = [0; 4];
    for edit in edits {
        match edit {
            Edit::Insert(at, c) => text.insert(&mut writer, *at, c.encode_utf8(&mut buffer)).unwrap(),
            Edit::Delete(at) => text.delete(&mut writer, *at, 1).unwrap(),
        }
    }
    text
}

fn yrs(edits: &[Edit]) -> yrs::Doc {
    let doc = yrs::Doc::with_client_id(1);
    let text = doc.get_or_insert_text("text");
    let mut txn = doc.transact_mut();
    let mut buffer = [0; 4];
    for edit in edits {
        match edit {
            Edit::Insert(at, c) => text.insert(&mut txn, *at as u32, c.encode_utf8(&mut buffer)),
            Edit::Delete(at) => text.remove_range(&mut txn, *at as u32, 1),
        }
    }
    drop(txn);
    doc
}

fn automerge(edits: &[Edit]) -> (automerge::AutoCommit, automerge::ObjId) {
    let mut doc = automerge::AutoCommit::new();
    let text = doc.put_object(automerge::ROOT, "text", automerge::ObjType::Text).unwrap();
    let mut buffer = [0; 4];
    for edit in edits {
        match edit {
            Edit::Insert(at, c) => doc.splice_text(&text, *at, 0, c.encode_utf8(&mut buffer)),
            Edit::Delete(at) => doc.splice_text(&text, *at, 1, ""),
        }
        .unwrap();
    }
    doc.commit();
    (doc, text)
}

fn loro(edits: &[Edit]) -> LoroDoc {
    let doc = LoroDoc::new();
    let text = doc.get_text("text");
    let mut buffer = [0; 4];
    for edit in edits {
        match edit {
            Edit::Insert(at, c) => text.insert(*at, c.encode_utf8(&mut buffer)).unwrap(),
            Edit::Delete(at) => text.delete(*at, 1).unwrap(),
        }
    }
    doc.commit();
    doc
}

pub fn run() {
    run_trace(20_000, true);
    run_trace(100_000, false);
}

fn run_trace(n: usize, with_yrs: bool) {
    let (edits, length) = trace(n);
    let deletes = edits.iter().filter(|edit| matches!(edit, Edit::Delete(_))).count();
    let ours = potter(&edits);
    let (mut merge, id) = automerge(&edits);
    let loro_doc = loro(&edits);
    let theirs = with_yrs.then(|| yrs(&edits));
    // All show the same.
    let shown = ours.to_string();
    assert_eq!(merge.text(&id).unwrap(), shown);
    assert_eq!(loro_doc.get_text("text").to_string(), shown);
    if let Some(doc) = &theirs {
        assert_eq!(doc.get_or_insert_text("text").get_string(&doc.transact()), shown);
    }
    assert_eq!(ours.len(), length);
    let mut local: Vec<Case<'_>> = vec![
        ("potter", Box::new(|| time(|| potter(&edits)))),
        ("automerge", Box::new(|| time(|| automerge(&edits)))),
        ("loro", Box::new(|| time(|| loro(&edits)))),
    ];
    if with_yrs {
        local.push(("yrs", Box::new(|| time(|| yrs(&edits)))));
    }
    let n = edits.len();
    times(&format!("text, {n} edits by hand, {deletes} of them deletes, ms"), 5, MS, local);

    let bytes = ours.to_bytes();
    let v1 = theirs.map(|doc| {
        doc.transact().encode_state_as_update_v1(&yrs::StateVector::default())
    });
    let saved = merge.save();
    let snapshot = loro_doc.export(ExportMode::Snapshot).unwrap();
    let updates = loro_doc.export(ExportMode::all_updates()).unwrap();
    let mut load: Vec<Case<'_>> = vec![
        ("potter", Box::new(|| time(|| Rga::from_bytes(&bytes).unwrap().to_string()))),
        ("automerge", Box::new(|| {
            time(|| automerge::AutoCommit::load(&saved).unwrap().text(&id).unwrap())
        })),
        ("loro", Box::new(|| {
            time(|| {
                let doc = LoroDoc::new();
                doc.import(&updates).unwrap();
                doc.get_text("text").to_string()
            })
        })),
    ];
    if let Some(v1) = &v1 {
        load.push(("yrs", Box::new(|| {
            time(|| {
                let doc = yrs::Doc::with_client_id(2);
                let text = doc.get_or_insert_text("text");
                doc.transact_mut().apply_update(yrs::Update::decode_v1(v1).unwrap()).unwrap();
                text.get_string(&doc.transact())
            })
        })));
    }
    times("the same, loaded from bytes and shown (loro: from its updates), ms", 5, MS, load);
    let mut sizes = vec![
        ("potter", bytes.len().to_string()),
        ("automerge", saved.len().to_string()),
        ("loro", format!("{} (updates {})", snapshot.len(), updates.len())),
    ];
    sizes.extend(v1.map(|v1| ("yrs", v1.len().to_string())));
    row("the same, bytes of the whole", &sizes);
}
