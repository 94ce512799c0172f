//! Amounts of money: whole cents, read from JSON numbers digit by digit and never as a float.

use std::fmt;

use potter_core::Json;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// An amount, zero or more. As JSON it is a number with two decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(i64);

impl Money {
    /// The most: as many cents as a reader of JSON that knows only floats can tell apart.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// So many cents, or the nearest amount that there is.
    pub const fn from_cents(cents: i64) -> Self {
        match cents {
            ..0 => Self(0),
            _ if cents > Self::MAX.0 => Self::MAX,
            _ => Self(cents),
        }
    }

    /// In cents.
    pub const fn cents(self) -> i64 {
        self.0
    }

    /// The sum, unless it is over [`MAX`](Self::MAX).
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::in_range(self.0.checked_add(other.0)?)
    }

    /// So many times, unless that is over [`MAX`](Self::MAX).
    pub fn checked_times(self, quantity: i64) -> Option<Self> {
        Self::in_range(self.0.checked_mul(quantity)?)
    }

    fn in_range(cents: i64) -> Option<Self> {
        (0..=Self::MAX.0).contains(&cents).then_some(Self(cents))
    }

    /// Reads a JSON number.
    fn parse(number: &str) -> Result<Self, &'static str> {
        const NOT_A_NUMBER: &str = "must be a number, such as 29.99";
        const TOO_LARGE: &str = "is too large";
        if !number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Err(NOT_A_NUMBER);
        }
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (is_negative, mantissa) =
            mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_end_matches('0');
        if significant.is_empty() {
            return Ok(Self(0));
        }
        if is_negative {
            return Err("must not be negative");
        }
        // The value is `significant` times ten to the power of `scale`, in cents.
        let length = |text: &str| i64::try_from(text.len()).map_err(|_| TOO_LARGE);
        let exponent: i64 = exponent.trim_start_matches('+').parse().map_err(|_| {
            if exponent.starts_with('-') { "must have at most two decimals" } else { TOO_LARGE }
        })?;
        let scale = exponent
            .checked_add(2 + length(&digits)? - length(significant)? - length(fraction)?)
            .ok_or(TOO_LARGE)?;
        let scale = match u32::try_from(scale) {
            Ok(scale) => scale,
            Err(_) if scale < 0 => return Err("must have at most two decimals"),
            Err(_) => return Err(TOO_LARGE),
        };
        let significant: i64 = significant.parse().map_err(|_| TOO_LARGE)?;
        let cents = 10i64.checked_pow(scale).and_then(|power| significant.checked_mul(power));
        cents.and_then(Self::in_range).ok_or(TOO_LARGE)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json::parse(self.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Json::deserialize(deserializer)?;
        Self::parse(number.as_str()).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly_or_refused() {
        for (number, cents) in [
            ("0", 0),
            ("-0", 0),
            ("0e99999999999999999999", 0),
            ("29.99", 2999),
            ("29.9900", 2999),
            ("0.1", 10),
            ("1e2", 10_000),
            ("1.5E+1", 1500),
            ("150e-1", 1500),
            ("90071992547409.91", Money::MAX.cents()),
        ] {
            assert_eq!(Money::parse(number), Ok(Money(cents)), "{number}");
        }
        for (number, why) in [
            ("-0.01", "negative"),
            ("29.999", "two decimals"),
            ("1e-3", "two decimals"),
            ("1e-99999999999999999999", "two decimals"),
            ("1e99999999999999999999", "too large"),
            ("1e400", "too large"),
            ("90071992547409.92", "too large"),
            ("99999999999999999999999", "too large"),
            ("\"29.99\"", "a number"),
            ("null", "a number"),
            ("[1]", "a number"),
        ] {
            let refused = Money::parse(number).unwrap_err();
            assert!(refused.contains(why), "{number}: {refused}");
        }
    }

    #[test]
    fn sums_do_not_overflow() {
        let price = Money::from_cents(2999);
        assert_eq!(price.checked_times(3).unwrap().to_string(), "89.97");
        assert_eq!(price.checked_times(i64::MAX), None);
        assert_eq!(Money::MAX.checked_add(Money::from_cents(1)), None);
        assert_eq!(Json::of(&Money::from_cents(5)).unwrap().as_str(), "0.05");
    }
}
