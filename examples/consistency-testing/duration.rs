//! Durations as people write them: "5m", "1m30s", "500ms".

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads a duration. A number without a unit is seconds.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let count: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            _ => return None,
        };
        sum = sum.checked_add(unit.checked_mul(count)?)?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(sum)
}

/// Writes a duration: "5m", "1m30s", "500ms".
pub(crate) fn show(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let mut out = String::new();
    for (count, unit) in [(seconds / 3_600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")] {
        if count > 0 {
            out += &format!("{count}{unit}");
        }
    }
    if millis > 0 || out.is_empty() {
        out += &format!("{millis}ms");
    }
    out
}

/// For fields that may be left out: a text, or a number of seconds.
pub(crate) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let written = Value::deserialize(from)?;
    let duration = match &written {
        Value::String(text) => parse(text),
        Value::Number(seconds) => {
            seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        }
        Value::Null => return Ok(None),
        _ => None,
    };
    duration.map(Some).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "{written} is no duration: write it as \"30s\", \"5m\", \"1m30s\" or \"500ms\""
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis) in
            [("5m", 300_000), ("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1h", 3_600_000)]
        {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(text), Some(duration), "{text}");
            assert_eq!(show(duration), text);
        }
        assert_eq!(parse("15"), Some(Duration::from_secs(15)));
        assert_eq!(show(Duration::ZERO), "0ms");
        for wrong in ["", "m", "5x", "5m 3s", "-1s", "s5", "99999999999s"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
