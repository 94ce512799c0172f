//! Fuzzes both decoders, and what can be done with what they accept.
//!
//! Run with `cargo run --release -p potter-crdt --example fuzz -- --seconds 60`. Inputs that lead
//! to something new are kept in `tests/corpus` with `--keep`; one that panics is written to
//! `fuzz-crash.bin` before the program stops.
#![expect(clippy::print_stdout, reason = "a program")]
#![allow(missing_docs, unreachable_pub, reason = "shared with the tests")]

mod harness;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let keep = arguments.iter().any(|argument| argument == "--keep");
    let seconds = value("--seconds").unwrap_or(60);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut seed = value("--seed").unwrap_or(clock.as_secs());
    println!("seed {seed}, {seconds} s");
    let mut random = move || {
        // xorshift64*
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };

    let mut corpus = harness::corpus();
    let mut known: BTreeSet<String> =
        corpus.iter().flat_map(|input| harness::outcomes(input)).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut runs, mut kept) = (0u64, 0u64);
    while Instant::now() < end {
        for _ in 0..500 {
            let input = harness::mutate(&corpus, &mut random);
            runs += 1;
            let outcomes = std::panic::catch_unwind(|| harness::outcomes(&input));
            let Ok(outcomes) = outcomes else {
                std::fs::write("fuzz-crash.bin", &input)?;
                return Err(format!("a panic after {runs} inputs: see fuzz-crash.bin").into());
            };
            if outcomes.is_subset(&known) {
                continue;
            }
            known.extend(outcomes);
            kept += 1;
            if keep {
                std::fs::create_dir_all(harness::corpus_dir())?;
                let name = format!("{:016x}", fingerprint(&input));
                std::fs::write(harness::corpus_dir().join(name), &input)?;
            }
            corpus.push(input);
        }
    }
    println!("{runs} inputs, {kept} of them new, no panic; {} in the corpus", corpus.len());
    Ok(())
}

/// FNV-1a: a name that stays.
fn fingerprint(input: &[u8]) -> u64 {
    input.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
