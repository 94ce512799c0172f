//! What a line of verdicts.tsv expects, in the words that people write there.

use potter_jepsen::Analysis;
use potter_jepsen::txn::Level;

use crate::models;

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

/// Whether the analysis is what is expected: `valid`, `invalid`, `unknown`, `not linearizable`, and
/// statements about levels and anomalies such as `CC, RA and RC hold`, `only RC holds`,
/// `serializability violated`, `not strict-serializable`, `exactly G2-item`, `G1a, dirty-update`.
pub(crate) fn compare(analysis: &Analysis, expected: &str) -> Result<(), String> {
    let mut understood = false;
    for clause in clauses(expected) {
        let lower = clause.to_ascii_lowercase();
        let words: Vec<&str> =
            lower.split([' ', ',', '(', ')']).filter(|word| !word.is_empty()).collect();
        if let Some(verdict) = verdict(analysis, &words) {
            understood = true;
            let says = analysis.verdict.name();
            if says != verdict {
                return Err(format!("the verdict is {says}"));
            }
            continue;
        }
        if words.first() == Some(&"exactly") {
            understood = true;
            exactly(analysis, &words[1..])?;
            continue;
        }
        understood |= levels(analysis, &words)? || named(analysis, &words)?;
    }
    if understood { Ok(()) } else { Err("what is expected there is not understood".to_owned()) }
}

/// The verdict that a clause states as a whole.
fn verdict(analysis: &Analysis, words: &[&str]) -> Option<&'static str> {
    Some(match words {
        ["valid" | "ok" | "true" | "good" | "linearizable"] => "valid",
        ["is", "valid" | "linearizable"] => "valid",
        ["invalid" | "bad" | "false" | "nonlinearizable" | "non-linearizable" | "illegal"] => {
            "invalid"
        }
        ["not", "valid" | "linearizable"] | ["is", "not", "valid" | "linearizable"] => "invalid",
        ["linearizability", "violated"] => "invalid",
        ["linearizability", "holds"] => "valid",
        ["unknown"] => "unknown",
        // Sequential consistency is the model itself, not one of the levels of transactions.
        ["sequentially", "consistent"] if analysis.levels.is_empty() => "valid",
        ["not", "sequentially", "consistent"] if analysis.levels.is_empty() => "invalid",
        _ => return None,
    })
}

/// Parts between semicolons, colons and full stops at the end of a sentence; commas and dashes
/// divide parts only where a new statement begins.
fn clauses(expected: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let sentences = expected.replace(". ", "; ").replace(" - ", "; ").replace(" – ", "; ");
    for part in sentences.split([';', ':']) {
        let part = part.trim().trim_end_matches('.');
        let mut current = String::new();
        for piece in part.split(',') {
            let new = begins(piece) || (begins(&current) && speaks(piece));
            if speaks(&current) || (!current.is_empty() && new) {
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

/// Whether the text says something of what it names.
fn speaks(text: &str) -> bool {
    text.split_whitespace().any(|word| {
        matches!(
            word.to_ascii_lowercase().as_str(),
            "hold" | "holds" | "fails" | "fail" | "violated" | "violates" | "valid" | "invalid"
        )
    })
}

fn begins(piece: &str) -> bool {
    let first = piece.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
    matches!(first.as_str(), "not" | "no" | "without" | "exactly" | "only")
}

fn same(wanted: &str, found: &str) -> bool {
    models::plain(wanted) == models::plain(found)
}

/// All that was found is named or follows from what is named, and the other way round.
fn exactly(analysis: &Analysis, words: &[&str]) -> Result<(), String> {
    let wanted: Vec<&str> = words.iter().copied().filter(|word| *word != "and").collect();
    let found: Vec<&str> = analysis.anomalies.iter().map(|a| a.anomaly.as_str()).collect();
    let there = wanted.iter().all(|name| found.iter().any(|found| same(name, found)));
    let nothing_else = found.iter().all(|found| {
        wanted.iter().any(|name| same(name, found)) || models::follows(found, &wanted)
    });
    if there && nothing_else {
        Ok(())
    } else {
        Err(format!("the anomalies are {}", found.join(", ")))
    }
}

/// A list of anomalies: each was found.
fn named(analysis: &Analysis, words: &[&str]) -> Result<bool, String> {
    let names: Vec<&str> = words.iter().copied().filter(|word| models::is_anomaly(word)).collect();
    let found: Vec<&str> = analysis.anomalies.iter().map(|a| a.anomaly.as_str()).collect();
    let absent = words.iter().any(|word| matches!(*word, "no" | "not" | "without"));
    for name in &names {
        if found.iter().any(|found| same(name, found)) == absent {
            let none = if found.is_empty() { "none" } else { "" };
            return Err(format!("the anomalies are {none}{}", found.join(", ")));
        }
    }
    Ok(!names.is_empty())
}

/// Levels named in the words, each with what is said of it.
fn levels(analysis: &Analysis, words: &[&str]) -> Result<bool, String> {
    let joined = models::hyphenated(&words.join(" "));
    let words: Vec<&str> = joined.split(' ').collect();
    let named: Vec<Level> = words.iter().filter_map(|word| Level::parse(word)).collect();
    let others: Vec<&str> = words.iter().copied().filter(|word| models::is_model(word)).collect();
    let says = |word: &str| words.contains(&word);
    if named.is_empty() && others.is_empty() && !says("none") {
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
    for model in others {
        let broken = analysis.anomalies.iter().find(|a| models::forbids(model, &a.anomaly));
        match broken {
            Some(found) if valid => return Err(format!("{model} forbids {}", found.anomaly)),
            None if !valid => return Err(format!("nothing was found that {model} forbids")),
            _ => {}
        }
    }
    if says("only") {
        for level in known.into_iter().filter(|level| !named.contains(level)) {
            demand(level, false)?;
        }
    }
    Ok(true)
}
