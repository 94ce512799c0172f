//! An instant in UTC, read from and written as RFC 3339.
//!
//! Invariant: `0 <= nanos < 10^9` and the year is within 0 to 9999, so the text form is total and
//! has one spelling. Instants are compared as numbers, never as text.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// An instant with nanoseconds.
///
/// ```
/// use potter_crdt::Timestamp;
///
/// let noon = Timestamp::parse("2024-01-01T12:00:00+02:00")?;
/// assert_eq!(noon, Timestamp::parse("2024-01-01T10:00:00Z")?);
/// assert!(Timestamp::parse("2024-01-01T10:00:00.5Z")? > noon);
/// assert_eq!(noon.to_string(), "2024-01-01T10:00:00Z");
/// # Ok::<(), potter_crdt::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    secs: i64,
    nanos: u32,
}

const SECS_MIN: i64 = -62_167_219_200; // 0000-01-01T00:00:00Z
const SECS_MAX: i64 = 253_402_300_799; // 9999-12-31T23:59:59Z
const NANOS: u32 = 1_000_000_000;

impl Timestamp {
    /// The first instant of the year 0.
    pub const MIN: Self = Self { secs: SECS_MIN, nanos: 0 };
    /// The last of the year 9999.
    pub const MAX: Self = Self { secs: SECS_MAX, nanos: NANOS - 1 };

    /// Seconds since 1970 and nanoseconds. [`ErrorKind::InvalidInput`] outside the years 0 to
    /// 9999 or for more than 999,999,999 ns.
    pub fn from_unix(secs: i64, nanos: u32) -> Result<Self> {
        if !(SECS_MIN..=SECS_MAX).contains(&secs) || nanos >= NANOS {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{secs} s and {nanos} ns are no instant of the years 0 to 9999"),
            ));
        }
        Ok(Self { secs, nanos })
    }

    /// Milliseconds since 1970.
    pub fn from_unix_millis(millis: i64) -> Result<Self> {
        let rest = u32::try_from(millis.rem_euclid(1_000)).unwrap_or(0);
        Self::from_unix(millis.div_euclid(1_000), rest * 1_000_000)
    }

    /// Seconds since 1970 and the nanoseconds on top.
    pub fn unix(self) -> (i64, u32) {
        (self.secs, self.nanos)
    }

    /// This instant and `by`. [`ErrorKind::Overflow`] past the year 9999.
    pub fn plus(self, by: Duration) -> Result<Self> {
        let nanos = self.nanos + by.subsec_nanos();
        i64::try_from(by.as_secs())
            .ok()
            .and_then(|secs| self.secs.checked_add(secs))
            .and_then(|secs| secs.checked_add(i64::from(nanos / NANOS)))
            .and_then(|secs| Self::from_unix(secs, nanos % NANOS).ok())
            .ok_or_else(|| Error::overflow("a timestamp"))
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        if self <= earlier {
            return Duration::ZERO;
        }
        let nanos = (i128::from(self.secs) - i128::from(earlier.secs)) * i128::from(NANOS)
            + i128::from(self.nanos)
            - i128::from(earlier.nanos);
        let secs = u64::try_from(nanos / i128::from(NANOS)).unwrap_or(u64::MAX);
        Duration::new(secs, u32::try_from(nanos % i128::from(NANOS)).unwrap_or(0))
    }

    /// Reads RFC 3339: `2024-01-01T10:00:00Z`, with a fraction of up to nine digits (more are
    /// cut), with an offset. A leap second counts as the second after.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text.as_bytes()).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::new(ErrorKind::InvalidInput, format!("{shown:?} is no RFC 3339 timestamp"))
        })
    }
}

fn parse(text: &[u8]) -> Option<Timestamp> {
    let digits = |from: usize, n: usize| -> Option<i64> {
        text.get(from..from + n)?.iter().try_fold(0i64, |value, byte| {
            byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
        })
    };
    let is = |at: usize, one_of: &[u8]| text.get(at).is_some_and(|byte| one_of.contains(byte));
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    let shape = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let within = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 60;
    if !shape || !within {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if is(at, b".") {
        let length = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let kept = length.min(9);
        let missing = u32::try_from(9 - kept).ok()?;
        nanos = u32::try_from(digits(at + 1, kept)?).ok()? * 10u32.pow(missing);
        if length == 0 {
            return None;
        }
        at += 1 + length;
    }
    let offset = match *text.get(at)? {
        b'Z' | b'z' if text.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if text.len() == at + 6 && is(at + 3, b":") => {
            let (hours, minutes) = (digits(at + 1, 2)?, digits(at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3_600 + minutes * 60;
            if sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let secs = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    Timestamp::from_unix(secs, nanos).ok()
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970 of a date (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = date(self.secs.div_euclid(86_400));
        let rest = self.secs.rem_euclid(86_400);
        let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.nanos > 0 {
            let fraction = format!("{:09}", self.nanos);
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl std::str::FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}
