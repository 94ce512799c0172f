//! The system under test.

use std::fmt;

use async_trait::async_trait;

use super::Failure;

/// A node that clients connect to.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Node {
    /// Its name, for faults and reports.
    pub name: String,
    /// How clients reach it. It may hold a password: never shown by `Debug`, never recorded.
    pub url: String,
}

impl Node {
    /// A node.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self { name: name.into(), url: url.into() }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Starts and stops the system under test.
#[async_trait]
pub trait Db: Send + Sync {
    /// Starts it and waits until it answers. Returns the nodes that clients use.
    async fn start(&self) -> Result<Vec<Node>, Failure>;

    /// Stops it. Called once, also if `start` failed.
    async fn stop(&self) -> Result<(), Failure>;

    /// What its logs say: (name, text).
    async fn logs(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}
