//! Switches for trying out what happens when things go wrong.

use std::time::Duration;

use examples_common::{StartError, env_parsed, env_text};
use potter_core::{Error, ErrorKind};

use crate::steps::STEPS;

/// `STEP_DELAY_MS` at most.
const DELAY_MS_MAX: u64 = 600_000;

/// What the environment asks for. By default nothing goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Switches {
    /// `FAIL_AT`: this step refuses every order.
    pub fail_at: Option<&'static str>,
    /// `FAIL_ONCE`: the first attempt at this step fails, for every order.
    pub fail_once: Option<&'static str>,
    /// `STEP_DELAY_MS`: how long every step takes before it does anything.
    pub step_delay: Duration,
    /// `LEASE_MS`: how long after a process died others take its sagas over.
    pub lease: Duration,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            fail_at: None,
            fail_once: None,
            step_delay: Duration::ZERO,
            lease: Duration::from_secs(10),
        }
    }
}

impl Switches {
    /// Reads the environment.
    ///
    /// # Errors
    /// `Config` naming the variable and what it may be.
    pub fn from_env() -> Result<Self, StartError> {
        let delay_ms = env_parsed(&["STEP_DELAY_MS"], 0)?;
        if delay_ms > DELAY_MS_MAX {
            return Err(refused("STEP_DELAY_MS", delay_ms, &format!("at most {DELAY_MS_MAX}")));
        }
        let lease_ms = env_parsed(&["LEASE_MS"], 10_000)?;
        if !(100..=3_600_000).contains(&lease_ms) {
            return Err(refused("LEASE_MS", lease_ms, "from 100 to 3600000"));
        }
        Ok(Self {
            fail_at: step("FAIL_AT")?,
            fail_once: step("FAIL_ONCE")?,
            step_delay: Duration::from_millis(delay_ms),
            lease: Duration::from_millis(lease_ms),
        })
    }
}

fn step(variable: &'static str) -> Result<Option<&'static str>, StartError> {
    let Some((_, value)) = env_text(&[variable]) else { return Ok(None) };
    let known = STEPS.into_iter().find(|step| *step == value);
    let steps = STEPS.join(", ");
    known.map(Some).ok_or_else(|| refused(variable, value, &format!("one of {steps}")))
}

fn refused(variable: &str, value: impl std::fmt::Display, allowed: &str) -> StartError {
    let message = format!("{variable}={value} can't be used: it must be {allowed}");
    Error::new(ErrorKind::Config, message).into()
}
