//! What may stand beside the store: a messenger between the processes on it, and a cache for them.
//!
//! Nothing in it is needed. All that it says is checked (see `service/cache.rs` and
//! `service/news.rs`), so it may be empty, slow, dead, wrong or hostile, and may become so at any
//! moment: answers stay the same, and only come later.

use std::sync::Arc;

use async_trait::async_trait;

use crate::service::News;

/// A messenger and a cache. No call fails, and none waits for long.
#[async_trait]
pub trait Companion: Send + Sync + std::fmt::Debug {
    /// Where it reports what other processes tell.
    fn news(&self) -> &Arc<News>;
    /// Is what they tell heard at the moment?
    fn is_listening(&self) -> bool;
    /// Tells other processes that there is news under this name.
    fn tell(&self, name: &str);
    /// What is kept under a key. It may be anything.
    async fn get(&self, key: &str) -> Option<Vec<u8>>;
    /// Keeps something for a while, perhaps.
    fn put(&self, key: String, value: Vec<u8>);
}
