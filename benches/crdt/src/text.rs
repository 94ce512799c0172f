//! A trace of typing: words, corrections, jumps of the cursor. Made from a seed, so that it needs no
//! file: 100,000 edits of one character, one in seven deletes.

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

fn trace() -> (Vec<Edit>, usize) {
    let mut random = Random(42);
    let (mut length, mut cursor) = (0usize, 0usize);
    let mut edits = Vec::new();
    while edits.len() < 100_000 {
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
    let (edits, length) = trace();
    let ours = potter(&edits);
    let theirs = yrs(&edits);
    let yrs_text = theirs.get_or_insert_text("text").get_string(&theirs.transact());
    assert_eq!(ours.to_string(), yrs_text);
    let (mut merge, id) = automerge(&edits);
    assert_eq!(merge.text(&id).unwrap(), yrs_text);
    let loro_doc = loro(&edits);
    assert_eq!(loro_doc.get_text("text").to_string(), yrs_text);
    assert_eq!(ours.len(), length);
    let n = edits.len();
    let local: Vec<Case<'_>> = vec![
        ("potter", Box::new(|| time(|| potter(&edits)))),
        ("yrs", Box::new(|| time(|| yrs(&edits)))),
        ("automerge", Box::new(|| time(|| automerge(&edits)))),
        ("loro", Box::new(|| time(|| loro(&edits)))),
    ];
    times(&format!("text, {n} edits by hand, ms"), 5, MS, local);

    let bytes = ours.to_bytes();
    let v1 = theirs.transact().encode_state_as_update_v1(&yrs::StateVector::default());
    let saved = merge.save();
    let snapshot = loro_doc.export(ExportMode::Snapshot).unwrap();
    let updates = loro_doc.export(ExportMode::all_updates()).unwrap();
    let load: Vec<Case<'_>> = vec![
        ("potter", Box::new(|| time(|| Rga::from_bytes(&bytes).unwrap().to_string()))),
        ("yrs", Box::new(|| {
            time(|| {
                let doc = yrs::Doc::with_client_id(2);
                let text = doc.get_or_insert_text("text");
                doc.transact_mut().apply_update(yrs::Update::decode_v1(&v1).unwrap()).unwrap();
                text.get_string(&doc.transact())
            })
        })),
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
    times("text, load it from bytes and show it (loro: from its updates), ms", 5, MS, load);
    row("text, bytes of the whole", &[
        ("potter", bytes.len().to_string()),
        ("yrs", v1.len().to_string()),
        ("automerge", saved.len().to_string()),
        ("loro", format!("{} (updates {})", snapshot.len(), updates.len())),
    ]);
}
