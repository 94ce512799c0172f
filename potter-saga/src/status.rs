//! The words for where a saga and its steps are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// Where a saga is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SagaStatus {
    /// Stored, and no step was finished yet.
    Pending,
    /// Steps are being run.
    Running,
    /// All steps are done. Final.
    Completed,
    /// Steps are being undone.
    Compensating,
    /// All that was done is undone. Final.
    Compensated,
    /// It can't go on by itself and waits for a decision: resume or cancel. The others go on.
    Failed,
    /// Undone because it was cancelled. Final.
    Cancelled,
}

/// Where a step of a saga is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// Being run, or waiting for its next attempt.
    Running,
    /// Done.
    Completed,
    /// This attempt failed.
    Failed,
    /// Being undone, or waiting for the next attempt of that.
    Compensating,
    /// Undone.
    Compensated,
    /// Not needed.
    Skipped,
}

impl SagaStatus {
    /// Nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Cancelled)
    }

    /// The word in JSON and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for SagaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SagaStatus {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        Ok(match word.to_ascii_lowercase().as_str() {
            "pending" => Self::Pending,
            "running" => Self::Running,
            "completed" => Self::Completed,
            "compensating" => Self::Compensating,
            "compensated" => Self::Compensated,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "\"{word}\" is no saga status: pending, running, completed, compensating, \
                         compensated, failed or cancelled"
                    ),
                ));
            }
        })
    }
}
