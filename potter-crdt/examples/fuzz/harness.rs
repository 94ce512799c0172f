//! What the fuzzer asks of every input, and how it makes new ones.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;

use potter_crdt::{
    BoundedCounter, CausalCounter, Codec, CounterStore, Delta, EnableWinsFlag, GCounter, GSet,
    JsonValue, LwwMap, LwwRegister, LwwStore, MapStore, MvRegister, OrMap, OrSet, PnCounter,
    ResettableCounter, Rga, SetStore, TwoPhaseSet, VectorClock,
};

/// An error, or a state that goes through both formats, joins, splits and writes without a panic.
#[allow(dead_code, reason = "the tests use it")]
pub fn check(input: &[u8]) {
    outcomes(input);
}

/// What became of the input, one line a type that took it or refused it for a reason of its own.
pub fn outcomes(input: &[u8]) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut run = |outcome: String| {
        out.insert(outcome.chars().filter(|c| !c.is_ascii_digit()).collect());
    };
    run(exercise::<VectorClock>(input));
    run(exercise::<GCounter>(input));
    run(exercise::<PnCounter>(input));
    run(exercise::<ResettableCounter>(input));
    run(exercise::<BoundedCounter>(input));
    run(exercise::<LwwRegister<JsonValue>>(input));
    run(exercise::<GSet<Vec<u8>>>(input));
    run(exercise::<TwoPhaseSet<i64>>(input));
    run(exercise::<OrSet<String>>(input));
    run(exercise::<MvRegister<String>>(input));
    run(exercise::<EnableWinsFlag>(input));
    run(exercise::<LwwMap<String, String>>(input));
    run(exercise::<CausalCounter>(input));
    run(exercise::<OrMap<String, CounterStore>>(input));
    run(exercise::<OrMap<String, SetStore<u64>>>(input));
    run(exercise::<OrMap<String, MapStore<u64, LwwStore<String>>>>(input));
    run(exercise::<Rga>(input));
    out
}

fn exercise<C: Codec + Delta + Clone + Default + PartialEq + Debug>(input: &[u8]) -> String {
    let state = match C::from_bytes(input) {
        Ok(state) => state,
        Err(error) => match std::str::from_utf8(input).map(C::from_json) {
            Ok(Ok(state)) => state,
            Ok(Err(json)) => return format!("{error} {}", json.to_string().len() / 8),
            Err(_) => return error.to_string(),
        },
    };
    let bytes = state.to_bytes();
    assert_eq!(C::from_bytes(&bytes).ok().as_ref(), Some(&state), "binary");
    assert_eq!(C::from_json(&state.to_json()).ok().as_ref(), Some(&state), "JSON");
    let mut twice = state.clone();
    assert!(matches!(twice.join(&state), Ok(false)), "idempotent");
    let mut empty = C::default();
    if empty.join(&state).is_ok() {
        assert!(matches!(empty.join(&state), Ok(false)));
    }
    assert!(state.validate(&state).is_ok());
    let delta = state.delta(&C::default().summary());
    let mut built = C::default();
    let parts = state.decompose();
    for part in &parts {
        // Parts of a state that no writer could have made may clash; that is an error, no panic.
        let _ = built.join(part);
        let _ = built.join(&delta);
    }
    let _ = state.delta_against(&built);
    format!("{} {} parts", C::TYPE, parts.len().min(9).ilog2_or_zero())
}

trait Log {
    fn ilog2_or_zero(self) -> u32;
}

impl Log for usize {
    fn ilog2_or_zero(self) -> u32 {
        self.checked_ilog2().map_or(0, |log| log + 1)
    }
}

pub fn corpus_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The files of `tests/corpus`, and the golden vectors.
pub fn corpus() -> Vec<Vec<u8>> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = [corpus_dir(), golden]
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    files.sort();
    let read = |path: &PathBuf| {
        let bytes = std::fs::read(path).ok()?;
        let hex = path.extension().is_some_and(|extension| extension == "hex");
        Some(if hex { unhex(&bytes) } else { bytes })
    };
    files.iter().filter_map(read).collect()
}

fn unhex(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| u8::try_from((byte as char).to_digit(16).unwrap_or(0)).unwrap_or(0);
    text.trim_ascii().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A new input from the corpus.
pub fn mutate(corpus: &[Vec<u8>], random: &mut dyn FnMut() -> u64) -> Vec<u8> {
    let mut below = |n: usize| usize::try_from(random() % (n.max(1) as u64)).unwrap_or(0);
    let mut input = corpus[below(corpus.len())].clone();
    for _ in 0..=below(4) {
        let at = below(input.len() + 1).min(input.len().saturating_sub(1));
        if input.is_empty() {
            input.push(0);
        }
        match below(9) {
            0 => input[at] ^= 1 << below(8),
            1 => input[at] = [0, 1, 2, 0x7f, 0x80, 0xff, b'"', b'{', b'9'][below(9)],
            2 => input[at] = input[at].wrapping_add(1),
            3 => input.truncate(at),
            4 => {
                input.remove(at);
            }
            5 => {
                let byte = u8::try_from(below(256)).unwrap_or(0);
                input.insert(at, byte);
            }
            6 => {
                // A piece of itself once more.
                let end = (at + below(24)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = below(input.len());
                input.splice(to..to, piece);
            }
            7 => {
                // A piece of another.
                let other = &corpus[below(corpus.len())];
                let from = below(other.len());
                let end = (from + below(40)).min(other.len());
                let until = (at + below(8)).min(input.len());
                input.splice(at..until, other[from.min(end)..end].iter().copied());
            }
            _ => {
                // A large integer.
                let until = (at + 1).min(input.len());
                let large: &[u8] = match below(3) {
                    0 => &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
                    1 => &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                    _ => b"18446744073709551615",
                };
                input.splice(at..until, large.iter().copied());
            }
        }
        input.truncate(64 << 10);
    }
    input
}
