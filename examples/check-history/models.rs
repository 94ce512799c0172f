//! Names of anomalies, and of consistency models that are told by the anomalies that they forbid, as
//! in Adya's thesis and in Elle.

use potter_jepsen::txn::Level;

/// Anomalies by the names that Elle and this crate give them, without `-item`, `-process` and
/// `-realtime`.
const ANOMALIES: [&str; 18] = [
    "g0",
    "g1a",
    "g1b",
    "g1c",
    "g-single",
    "g-nonadjacent",
    "g2",
    "lost-update",
    "dirty-update",
    "internal",
    "future-read",
    "incompatible-order",
    "duplicate-elements",
    "cyclic-versions",
    "garbage-read",
    "fractured-read",
    "causality-violation",
    "non-monotonic-read",
];

/// What read committed forbids.
const G1: [&str; 10] = [
    "g0",
    "g1a",
    "g1b",
    "g1c",
    "dirty-update",
    "future-read",
    "incompatible-order",
    "duplicate-elements",
    "cyclic-versions",
    "garbage-read",
];

/// The models, each with what it forbids beside [`G1`], and whether that counts with the order of
/// processes and of time.
const MODELS: [(&str, &[&str], &[&str]); 14] = [
    ("strong-session-read-committed", &[], &["-process"]),
    ("strong-read-committed", &[], &["-process", "-realtime"]),
    ("monotonic-view", &[], &[]),
    ("monotonic-snapshot-read", &[], &[]),
    ("monotonic-atomic-view", &[], &[]),
    ("cursor-stability", &["lost-update"], &[]),
    ("consistent-view", &["lost-update", "g-single"], &[]),
    ("forward-consistent-view", &["lost-update", "g-single"], &[]),
    ("update-serializable", &["lost-update", "g-single"], &[]),
    ("update-atomic", &["internal", "fractured-read", "lost-update"], &[]),
    ("rola", &["internal", "fractured-read", "lost-update"], &[]),
    ("causal-cerone", &["internal", "fractured-read", "causality-violation"], &[]),
    ("prefix", &["internal", "fractured-read", "causality-violation"], &[]),
    (
        "parallel-snapshot-isolation",
        &["internal", "fractured-read", "causality-violation", "lost-update"],
        &[],
    ),
];

/// Whether it is the name of an anomaly.
pub(crate) fn is_anomaly(name: &str) -> bool {
    ANOMALIES.contains(&stem(&plain(name)).0)
}

/// The name in small letters, without `-item`: where keys are all that transactions ask for, there
/// is nothing else.
pub(crate) fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace("-item", "")
}

/// The class, and `-process` or `-realtime` or nothing.
fn stem(plain: &str) -> (&str, &str) {
    match plain.rfind('-') {
        Some(at) if matches!(&plain[at..], "-process" | "-realtime") => plain.split_at(at),
        _ => (plain, ""),
    }
}

/// Whether it is the name of a model of this table.
pub(crate) fn is_model(name: &str) -> bool {
    MODELS.iter().any(|(model, ..)| *model == name)
}

/// Whether a model of this table forbids an anomaly.
pub(crate) fn forbids(model: &str, anomaly: &str) -> bool {
    let plain = plain(anomaly);
    let (class, order) = stem(&plain);
    MODELS.iter().filter(|(name, ..)| *name == model).any(|(_, more, orders)| {
        (G1.contains(&class) || more.contains(&class))
            && (order.is_empty() || orders.contains(&order))
    })
}

/// Whether an anomaly follows from others that are named: each cycle is a cycle of the classes
/// behind it too, and the weak levels have names of their own for what a cycle breaks.
pub(crate) fn follows(anomaly: &str, named: &[&str]) -> bool {
    let plain = plain(anomaly);
    match plain.as_str() {
        "fractured-read" | "causality-violation" | "non-monotonic-read" => true,
        // Who lost an update read what the other overwrote.
        "g2" => named.contains(&"lost-update"),
        _ => false,
    }
}

/// The text with the names of levels and models as one word each.
pub(crate) fn hyphenated(text: &str) -> String {
    let mut names: Vec<&str> = Level::ALL.iter().map(|level| level.name()).collect();
    names.extend(MODELS.iter().map(|(name, ..)| *name));
    names.extend(["strict-serializability", "strong-serializability", "causal-consistency"]);
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let mut out = text.to_owned();
    for name in names.into_iter().filter(|name| name.contains('-')) {
        out = out.replace(&name.replace('-', " "), name);
    }
    out
}
