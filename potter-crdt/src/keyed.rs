//! Hashes with a key that each process draws anew, so nobody can prepare inputs that collide.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::OnceLock;

fn state() -> &'static RandomState {
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new)
}

fn keys() -> &'static [u64; 4] {
    static KEYS: OnceLock<[u64; 4]> = OnceLock::new();
    KEYS.get_or_init(|| [1u64, 2, 3, 4].map(|n| state().hash_one(n) | 1))
}

pub(crate) fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    state().hash_one(value)
}

/// The low half of a hash: a fingerprint.
#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
pub(crate) fn fingerprint(hash: u64) -> u32 {
    hash as u32
}

/// A digest of a set of (word, word) pairs that adding and removing keep up to date: the sum of
/// each pair's 128-bit keyed hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetDigest(u128);

impl SetDigest {
    pub(crate) fn add(&mut self, a: u64, b: u64) {
        self.0 = self.0.wrapping_add(mix(a, b));
    }

    pub(crate) fn remove(&mut self, a: u64, b: u64) {
        self.0 = self.0.wrapping_sub(mix(a, b));
    }
}

fn mix(a: u64, b: u64) -> u128 {
    let k = keys();
    let one = fold(fold(a ^ k[0], k[1]) ^ b, k[2] ^ a);
    let two = fold(fold(b ^ k[2], k[3]) ^ a, k[0] ^ b.rotate_left(32));
    (u128::from(one) << 64) | u128::from(two)
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}
