//! Answers that are kept beside the store, so that they are not made anew for each device.
//!
//! # Invariants
//! - **An entry can't be stale.** Its key has everything that its content follows from: the user,
//!   the epoch, the version and the head with its mark, and what was asked. Every commit of a user
//!   changes its version. A restored server that gives out a version again has another mark under it
//!   if any change was made in between, and else the content is the same. So there is no
//!   invalidation that could come late or be lost: after a write nobody asks for the old key.
//! - The user is read from the store with each request, before the cache is asked, and the content is
//!   read after the user. What turns out to be newer than the user as it was read is not kept: a
//!   server that is restored to just that moment must not show what it has lost.
//! - **An entry can't be forged.** It is kept with a keyed hash (the secret of tokens) over its key
//!   and its content. What is damaged, was written by somebody else, or was moved from another key
//!   is no hit. Keys are keyed hashes too, so they say nothing about users.
//! - Whether a device may ask, its cursor, its lag and its retirement are never looked up here.
//! - Bounded: [`CONTENT_BYTES_MAX`] an entry; the companion forgets it after a while.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::companion::Companion;
use crate::protocol::Secret;
use crate::store::User;

/// Larger answers are not kept, bytes.
const CONTENT_BYTES_MAX: usize = 256 * 1024;
/// Of the keyed hash before the content, bytes.
const TAG_BYTES: usize = 16;
/// Programs of another version keep other content.
const LAYOUT: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));

/// The cache of a service; without a companion it is empty.
#[derive(Debug)]
pub(crate) struct Cache {
    companion: Option<Arc<dyn Companion>>,
    secret: Secret,
}

/// What an answer is kept under.
#[derive(Debug)]
pub(crate) struct Key(String);

impl Cache {
    pub(crate) fn new(companion: Option<Arc<dyn Companion>>, secret: Secret) -> Self {
        Self { companion, secret }
    }

    /// The key of what was asked (`kind`, `asked`) of this user as it is; `None` without a cache.
    pub(crate) fn key(&self, kind: &str, user: &User, asked: &[&str]) -> Option<Key> {
        self.companion.as_ref()?;
        let number = |n: u64| n.to_string();
        let (version, seq, mark) =
            (number(user.version), number(user.head.seq), number(user.head.mark));
        let parts = [LAYOUT, kind, &user.user_id, &user.epoch, &version, &seq, &mark];
        let name = self.secret.name("cache", &[&parts, asked].concat());
        Some(Key(format!("potter-sync:cache:{name}")))
    }

    /// What is kept under a key.
    pub(crate) async fn get<T: DeserializeOwned>(&self, key: Option<&Key>) -> Option<T> {
        let (key, companion) = (key?, self.companion.as_ref()?);
        let kept = companion.get(&key.0).await;
        let content = kept.as_deref().map(|kept| self.opened(key, kept));
        let outcome = match &content {
            Some(Some(_)) => "hit",
            Some(None) => "refused",
            None => "miss",
        };
        metrics::counter!("sync_cache_total", "outcome" => outcome).increment(1);
        serde_json::from_slice(content??).ok()
    }

    /// Keeps an answer.
    pub(crate) fn put(&self, key: Option<Key>, content: &impl Serialize) {
        let (Some(key), Some(companion)) = (key, &self.companion) else { return };
        let Ok(content) = serde_json::to_vec(content) else { return };
        if content.len() > CONTENT_BYTES_MAX {
            return;
        }
        let mut value = self.secret.tag("cached", &[key.0.as_bytes(), &content]).to_vec();
        value.extend(content);
        companion.put(key.0, value);
    }

    fn opened<'a>(&self, key: &Key, kept: &'a [u8]) -> Option<&'a [u8]> {
        let (tag, content) = kept.split_at_checked(TAG_BYTES)?;
        self.secret.check_tag(tag, "cached", &[key.0.as_bytes(), content]).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::protocol::Position;
    use crate::service::News;

    #[derive(Debug, Default)]
    struct Memory {
        news: Arc<News>,
        kept: Mutex<HashMap<String, Vec<u8>>>,
    }

    #[async_trait]
    impl Companion for Memory {
        fn news(&self) -> &Arc<News> {
            &self.news
        }
        fn is_listening(&self) -> bool {
            false
        }
        fn tell(&self, _name: &str) {}
        async fn get(&self, key: &str) -> Option<Vec<u8>> {
            self.kept.lock().unwrap().get(key).cloned()
        }
        fn put(&self, key: String, value: Vec<u8>) {
            self.kept.lock().unwrap().insert(key, value);
        }
    }

    fn user(version: u64, mark: u64) -> User {
        User {
            user_id: "ada".into(),
            version,
            epoch: "e".into(),
            head: Position { seq: 3, mark },
            horizon: Position::default(),
        }
    }

    #[tokio::test]
    async fn every_write_and_every_history_has_keys_of_its_own() {
        let memory = Arc::new(Memory::default());
        let secret = Secret::new(&[7; 32]).unwrap();
        let cache = Cache::new(Some(memory.clone()), secret.clone());
        cache.put(cache.key("state", &user(1, 5), &["document", "n"]), &"one");
        let get = async |user: &User, kind: &str, asked: &[&str]| -> Option<String> {
            cache.get(cache.key(kind, user, asked).as_ref()).await
        };
        assert_eq!(get(&user(1, 5), "state", &["document", "n"]).await.as_deref(), Some("one"));
        assert_eq!(get(&user(2, 5), "state", &["document", "n"]).await, None, "a later version");
        assert_eq!(get(&user(1, 6), "state", &["document", "n"]).await, None, "another history");
        assert_eq!(get(&user(1, 5), "page", &["document", "n"]).await, None, "another question");
        assert_eq!(get(&user(1, 5), "state", &["documentn", ""]).await, None, "other parts");
        let bob = User { user_id: "bob".into(), ..user(1, 5) };
        assert_eq!(get(&bob, "state", &["document", "n"]).await, None, "another user");
        let other = Cache::new(Some(memory.clone()), Secret::new(&[8; 32]).unwrap());
        let key = other.key("state", &user(1, 5), &["document", "n"]);
        assert_eq!(other.get::<String>(key.as_ref()).await, None, "another service");
    }

    #[tokio::test]
    async fn what_was_not_written_here_is_no_hit() {
        let memory = Arc::new(Memory::default());
        let cache = Cache::new(Some(memory.clone()), Secret::new(&[7; 32]).unwrap());
        let key = |asked| cache.key("state", &user(1, 5), &[asked]);
        cache.put(key("one"), &"one");
        cache.put(key("two"), &"two");
        let (one, two) = (key("one").unwrap().0, key("two").unwrap().0);
        let good = memory.kept.lock().unwrap()[&one].clone();
        let mut bad: Vec<Vec<u8>> = (0..good.len())
            .map(|at| {
                let mut bad = good.clone();
                bad[at] ^= 1;
                bad
            })
            .collect();
        bad.extend([vec![], vec![0; 15], vec![0; 16], good[..good.len() - 1].to_vec()]);
        bad.push([good.as_slice(), b" "].concat());
        // From another key.
        bad.push(memory.kept.lock().unwrap()[&two].clone());
        for bad in bad {
            memory.kept.lock().unwrap().insert(one.clone(), bad);
            assert_eq!(cache.get::<String>(key("one").as_ref()).await, None);
        }
        memory.kept.lock().unwrap().insert(one, good);
        assert_eq!(cache.get::<String>(key("one").as_ref()).await.as_deref(), Some("one"));
    }
}
