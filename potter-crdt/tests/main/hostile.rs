//! Bytes and JSON from nobody we trust: an error, or a state that behaves.

use proptest::prelude::*;

use crate::fuzz::{check, corpus, mutate};
use crate::simulator::Random;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn any_bytes_of_a_type(tag in 0u8..17, bytes in proptest::collection::vec(0u8..8, 0..60)) {
        let mut input = vec![0x50, 0xc4, 1, tag];
        input.extend(bytes);
        check(&input);
    }

    #[test]
    fn any_text(text in "[\\[\\]{}\",:0-9a-z ]{0,80}") {
        check(text.as_bytes());
    }
}

/// What a run of `cargo run --release -p potter-crdt --example fuzz` does, for a moment, from a
/// fixed seed; and the corpus as it is.
#[test]
fn mutations_of_the_corpus() {
    let corpus = corpus();
    assert!(corpus.len() > 20, "the corpus is there");
    corpus.iter().for_each(|input| check(input));
    let mut random = Random(7);
    for _ in 0..5_000 {
        let input = mutate(&corpus, &mut || random.next());
        check(&input);
    }
}
