//! What a line of verdicts.tsv expects, in the words that people write there.

use potter_jepsen::Analysis;
use potter_jepsen::txn::Level;

/// The verdict in a few words.
pub(crate) fn summary(analysis: &Analysis) -> String {
    let mut out = analysis.verdict.name().to_owned();
    if !analysis.anomalies.is_empty() {
        let names: Vec<&str> = analysis.anomalies.iter().map(|a| a.anomaly.as_str()).collect();
        out.push_str(&format!(" ({})", names.join(", ")));
    }
    if !analysis.levels.is_empty() {
        let holds: Vec<&str> = analysis
            .levels
            .iter()
            .filter(|(_, verdict)| verdict.is_valid())
            .map(|(level, _)| level.name())
            .collect();
        let holds = if holds.is_empty() { "no level".to_owned() } else { holds.join(", ") };
        out.push_str(&format!("; holds: {holds}"));
    }
    out
}

/// Whether the analysis is what is expected: `valid`, `invalid`, `unknown`, and statements about
/// levels and anomalies such as `CC, RA and RC hold`, `only RC holds`, `serializability violated`,
/// `not strict-serializable`, `exactly G2-item`.
pub(crate) fn compare(analysis: &Analysis, expected: &str) -> Result<(), String> {
    let mut understood = false;
    for clause in clauses(expected) {
        let lower = clause.to_ascii_lowercase();
        let words: Vec<&str> = lower.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        if let [verdict @ ("valid" | "invalid" | "unknown")] = words[..] {
            understood = true;
            let says = analysis.verdict.name();
            // A statement about levels may be about others than the one that was asked for.
            if says != verdict {
                return Err(format!("the verdict is {says}"));
            }
            continue;
        }
        if words.first() == Some(&"exactly") {
            understood = true;
            exactly(analysis, &clause)?;
            continue;
        }
        understood |= levels(analysis, &words)?;
    }
    if understood { Ok(()) } else { Err("what is expected there is not understood".to_owned()) }
}

/// Parts between semicolons and colons; commas divide parts only where a new statement begins.
fn clauses(expected: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for part in expected.split([';', ':']) {
        let mut current = String::new();
        for piece in part.split(',') {
            let speaks = |text: &str| {
                text.split_whitespace().any(|word| {
                    matches!(
                        word,
                        "hold" | "holds" | "fails" | "fail" | "violated" | "valid" | "invalid"
                    )
                })
            };
            if speaks(&current) {
                out.push(std::mem::take(&mut current));
            } else if !current.is_empty() {
                current.push(',');
            }
            current.push_str(piece);
        }
        if !current.trim().is_empty() {
            out.push(current);
        }
    }
    out.into_iter().map(|clause| clause.trim().to_owned()).filter(|c| !c.is_empty()).collect()
}

fn exactly(analysis: &Analysis, clause: &str) -> Result<(), String> {
    let wanted: Vec<&str> =
        clause.split([' ', ',']).filter(|word| !matches!(*word, "" | "exactly" | "and")).collect();
    let found: Vec<&str> = analysis.anomalies.iter().map(|a| a.anomaly.as_str()).collect();
    let same = wanted.len() == found.len()
        && wanted.iter().all(|name| found.iter().any(|f| f.eq_ignore_ascii_case(name)));
    if same { Ok(()) } else { Err(format!("the anomalies are {}", found.join(", "))) }
}

/// Levels named in the words, each with what is said of it.
fn levels(analysis: &Analysis, words: &[&str]) -> Result<bool, String> {
    let joined = words.join(" ");
    let joined = joined.replace("snapshot isolation", "snapshot-isolation");
    let joined = joined.replace("repeatable read", "repeatable-read");
    let joined = joined.replace("read committed", "read-committed");
    let joined = joined.replace("read atomic", "read-atomic");
    let words: Vec<&str> = joined.split(' ').collect();
    let named: Vec<Level> = words.iter().filter_map(|word| Level::parse(word)).collect();
    let says = |word: &str| words.contains(&word);
    if named.is_empty() && !says("none") {
        return Ok(false);
    }
    let holds = |level: Level| {
        let verdict = analysis.levels.iter().find(|(known, _)| *known == level);
        verdict.map(|(_, verdict)| (verdict.is_valid(), verdict.is_invalid()))
    };
    let demand = |level: Level, valid: bool| match holds(level) {
        Some((true, _)) if valid => Ok(()),
        Some((_, true)) if !valid => Ok(()),
        Some((true, _)) => Err(format!("{} holds", level.name())),
        Some((_, true)) => Err(format!("{} does not hold", level.name())),
        Some(_) => Err(format!("{} is undecided", level.name())),
        None => Err(format!("nothing is said about {}", level.name())),
    };
    let negated = says("not") || says("none") || says("fails") || says("fail");
    let violated = says("violated") || says("violates");
    let valid = if violated { says("not") } else { !negated };
    let known = [Level::ReadCommitted, Level::ReadAtomic, Level::Causal];
    if says("none") && named.is_empty() {
        for level in known {
            demand(level, false)?;
        }
        return Ok(true);
    }
    for &level in &named {
        demand(level, valid)?;
    }
    if says("only") {
        for level in known.into_iter().filter(|level| !named.contains(level)) {
            demand(level, false)?;
        }
    }
    Ok(true)
}
