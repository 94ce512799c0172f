//! Identifiers.

use uuid::Uuid;

/// A new time-ordered identifier (UUID version 7, RFC 9562): unique anywhere, and close in an
/// index to those made at the same time.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// The identifier that is the same for the same parts, and different for any others (UUID
/// version 5, RFC 9562): for idempotency keys that every attempt must agree on.
///
/// ```
/// let one = potter_core::derived_id(&["order-42", "charge", "run"]);
/// assert_eq!(one, potter_core::derived_id(&["order-42", "charge", "run"]));
/// assert_ne!(one, potter_core::derived_id(&["order-42", "charge", "undo"]));
/// assert_ne!(potter_core::derived_id(&["ab", "c"]), potter_core::derived_id(&["a", "bc"]));
/// ```
pub fn derived_id(parts: &[&str]) -> Uuid {
    let mut name = Vec::new();
    for part in parts {
        // The length in front keeps ["ab", "c"] and ["a", "bc"] apart.
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

const NAMESPACE: Uuid = Uuid::from_u128(0x8d0f_5f0c_6a51_5b0e_9a4e_2f6c_1d3b_7a90);
