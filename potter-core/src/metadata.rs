//! What travels beside a command, event or message: who caused it, and for whom.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::new_id;

/// The context of a command, event, message or saga. Empty fields are left out of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metadata {
    /// The same for everything that one request set off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The id of the message that directly caused this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The tenant that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// W3C trace context (`00-<trace id>-<span id>-<flags>`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, String>,
}

impl Metadata {
    /// No context.
    pub fn new() -> Self {
        Self::default()
    }

    /// A fresh correlation id: the start of a chain.
    pub fn correlated() -> Self {
        Self::new().with_correlation_id(new_id().to_string())
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets the causation id.
    #[must_use]
    pub fn with_causation_id(mut self, id: impl Into<String>) -> Self {
        self.causation_id = Some(id.into());
        self
    }

    /// Sets the tenant.
    #[must_use]
    pub fn with_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Sets the W3C trace context.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Adds a value of the user's own.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.user.insert(key.into(), value.into());
        self
    }

    /// The metadata of what `cause` causes: the same correlation, tenant and trace; caused by
    /// `cause`.
    #[must_use]
    pub fn caused_by(&self, cause: impl Into<String>) -> Self {
        let cause = cause.into();
        Self {
            correlation_id: self.correlation_id.clone().or_else(|| Some(cause.clone())),
            causation_id: Some(cause),
            tenant: self.tenant.clone(),
            traceparent: self.traceparent.clone(),
            user: BTreeMap::new(),
        }
    }
}
