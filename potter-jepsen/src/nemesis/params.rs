//! Parameters of faults, read with a range and an error that names it.

use std::ops::RangeInclusive;

use super::Fault;
use crate::error::{Error, ErrorKind, Result};
use crate::value::Value;

pub(crate) struct Params<'a>(pub(crate) &'a Fault);

impl Params<'_> {
    /// A whole number in a range; what it is if not said.
    pub(crate) fn number(
        &self,
        name: &str,
        unsaid: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64> {
        let Some(value) = self.0.params.get(name) else { return Ok(unsaid) };
        let number = value.as_int().and_then(|number| u64::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.wrong(&format!("'{name}' is a whole number from {least} to {most}, not {value}"))
        })
    }

    /// The same for a number that may be negative and has to be there.
    pub(crate) fn signed(&self, name: &str, range: RangeInclusive<i64>) -> Result<i64> {
        let value = self.0.params.get(name).cloned().unwrap_or(Value::Nil);
        value.as_int().filter(|number| range.contains(number)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.wrong(&format!("'{name}' is a whole number from {least} to {most}, not {value}"))
        })
    }

    /// A text.
    pub(crate) fn text(&self, name: &str, unsaid: &str) -> Result<String> {
        let Some(value) = self.0.params.get(name) else { return Ok(unsaid.to_owned()) };
        let text = value.as_name().map(str::to_owned);
        text.ok_or_else(|| self.wrong(&format!("'{name}' is a text, not {value}")))
    }

    fn wrong(&self, message: &str) -> Error {
        Error::new(ErrorKind::InvalidFault, format!("the fault '{}': {message}", self.0.kind))
    }
}
