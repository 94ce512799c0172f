//! The service without its HTTP side: loads, lets [`crate::ingest`] decide, commits, and begins again
//! if somebody was first.

mod cache;
mod download;
mod group;
mod news;
mod register;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use examples_common::Problem;
use potter_core::{Backoff, SharedClock, jitter};
use tokio::sync::{Mutex, MutexGuard};

use crate::companion::Companion;
use crate::protocol::{ID_BYTES_MAX, Secret, new_epoch};
use crate::store::{Commit, Device, Identity, Replica, Store, User};

pub use download::{Change, DownloadRequest, Downloaded};
pub use news::News;
pub use register::{ClockAnswer, RegisterRequest, Registered, ReplicaStatus, StatusAnswer};
pub(crate) use upload::kind_of;
pub use upload::{Changes, UploadAnswer, UploadRequest};

/// How often a commit is tried before it is given up.
const ATTEMPTS_MAX: u32 = 32;
/// Users that share a lock wait for each other: more locks, less waiting.
const LOCKS: usize = 256;

/// Settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// A request must show the token of its device.
    pub tokens_required: bool,
    /// After how long a silent replica is retired.
    pub retire_after: Duration,
    /// How often a download that waits looks at the store, for what other processes wrote.
    pub look_every: Duration,
    /// The same while a companion tells of it.
    pub look_every_told: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let retire_after = Duration::from_secs(90 * 24 * 3600);
        Self {
            tokens_required: true,
            retire_after,
            look_every: Duration::from_millis(500),
            look_every_told: Duration::from_secs(5),
        }
    }
}

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SyncService {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    secret: Secret,
    clock: SharedClock,
    options: Options,
    /// Uploads of one user wait for each other here, so that they rarely meet in the database.
    locks: Vec<Mutex<()>>,
    queues: group::Queues,
    news: Arc<News>,
    companion: Option<Arc<dyn Companion>>,
    cache: cache::Cache,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncService").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Inner {
    /// The name under which there is news of a user.
    fn news_name(&self, user_id: &str) -> String {
        self.secret.name("news", &[user_id])
    }

    /// Something was committed for a user.
    fn tell(&self, user_id: &str) {
        let name = self.news_name(user_id);
        self.news.tell(&name);
        if let Some(companion) = &self.companion {
            companion.tell(&name);
        }
    }

    /// How long a waiting download may trust in being told.
    fn look_every(&self) -> Duration {
        let told = self.companion.as_ref().is_some_and(|companion| companion.is_listening());
        if told { self.options.look_every_told } else { self.options.look_every }
    }
}

/// A request's turn to write for its user. Others of this process wait; those of other processes
/// are noticed by the commit.
pub(crate) struct Turn<'a> {
    inner: &'a Inner,
    /// Nobody held the turn before: what was read just before it is as good as new.
    fresh: bool,
    failed: u32,
    _guard: MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Writes. `false`, after a pause: somebody was first, build it anew.
    pub(crate) async fn commit(&mut self, commit: &Commit) -> Result<bool, Problem> {
        let done = match self.inner.store.commit(commit).await {
            // An id was written by another process between our look and our write.
            Err(error) if error.is_conflict() => false,
            done => done?,
        };
        self.fresh = false;
        if done {
            if !commit.log.is_empty() {
                self.inner.tell(&commit.before.user_id);
            }
            return Ok(true);
        }
        let retry = Backoff::exponential(Duration::from_millis(2))
            .cap(Duration::from_millis(100))
            .max_attempts(ATTEMPTS_MAX);
        self.failed += 1;
        let Some(wait) = retry.delay(self.failed, Duration::ZERO, jitter()) else {
            let detail = "Too many others write for this user at the moment: try again.";
            return Err(Problem::unavailable("busy", detail));
        };
        tokio::time::sleep(wait).await;
        Ok(false)
    }
}

/// The token that came with a request.
pub type Bearer<'a> = Option<&'a str>;

/// A device that may ask, and the incarnation of its token if it showed one.
#[derive(Debug)]
struct Caller {
    device: Device,
    incarnation: Option<u64>,
}

impl SyncService {
    /// On a store.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: SharedClock,
        options: Options,
    ) -> potter_core::Result<Self> {
        Self::open_beside(store, None, clock, options).await
    }

    /// On a store that has a companion.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn open_beside(
        store: Arc<dyn Store>,
        companion: Option<Arc<dyn Companion>>,
        clock: SharedClock,
        options: Options,
    ) -> potter_core::Result<Self> {
        let secret = store.secret().await?;
        let inner = Inner {
            store,
            clock,
            options,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            queues: group::Queues::default(),
            news: companion.as_ref().map(|one| Arc::clone(one.news())).unwrap_or_default(),
            cache: cache::Cache::new(companion.clone(), secret.clone()),
            companion,
            secret,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it is kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) fn cache(&self) -> &cache::Cache {
        &self.inner.cache
    }

    /// The settings.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Ends all waits for news, from now on: before the program stops.
    pub fn end_waits(&self) {
        self.inner.news.end();
    }

    /// The server's time.
    pub fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.inner.clock.now()
    }

    /// The right to write for a user, among the requests of this process.
    pub(crate) async fn turn(&self, user: &str) -> Turn<'_> {
        let hash = crate::protocol::digest(&[user.as_bytes()]);
        let lock = &self.inner.locks[usize::from(hash[0]) % LOCKS];
        let (guard, fresh) = match lock.try_lock() {
            Ok(guard) => (guard, true),
            Err(_) => (lock.lock().await, false),
        };
        Turn { inner: &self.inner, fresh, failed: 0, _guard: guard }
    }

    /// The device, if the token is one of its.
    async fn caller(&self, device_id: &str, bearer: Bearer<'_>) -> Result<Caller, Problem> {
        check_id("device_id", device_id)?;
        let device = self.inner.store.device(device_id).await?.ok_or_else(|| {
            let detail =
                format!("Device {device_id} is not registered: POST /api/v1/sync/register-device.");
            Problem::not_found("unknown_device", detail)
        })?;
        let incarnation = match bearer {
            Some(token) => {
                let user = &device.user.user_id;
                let known = self.inner.secret.check_token(token, device_id, user);
                Some(known.ok_or_else(|| {
                    let detail = format!("The token is not one of device {device_id}.");
                    Problem::new(axum::http::StatusCode::UNAUTHORIZED, "invalid_token", detail)
                })?)
            }
            None if self.inner.options.tokens_required => return Err(token_missing()),
            None => None,
        };
        Ok(Caller { device, incarnation })
    }

    /// The user that a request speaks for; `None` is the operator, who needs no token on a loopback
    /// address.
    ///
    /// # Errors
    /// As for any request of a device.
    pub async fn user_of(
        &self,
        device_id: Option<&str>,
        bearer: Bearer<'_>,
    ) -> Result<Option<String>, Problem> {
        Ok(self.asking(device_id, bearer).await?.map(|user| user.user_id))
    }

    /// The same, as the user is now.
    pub(crate) async fn asking(
        &self,
        device_id: Option<&str>,
        bearer: Bearer<'_>,
    ) -> Result<Option<User>, Problem> {
        match device_id {
            Some(device_id) => Ok(Some(self.caller(device_id, bearer).await?.device.user)),
            None if self.inner.options.tokens_required || bearer.is_some() => {
                let detail = "Say as which device you ask: add ?device_id=… to the address.";
                Err(Problem::unprocessable("missing_device", detail)
                    .with_field("device_id", "is missing"))
            }
            None => Ok(None),
        }
    }

    /// Begins a new history of a user: devices learn of it and send what the server lacks.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn begin_epoch(&self, user: &User) -> Result<String, Problem> {
        let mut turn = self.turn(&user.user_id).await;
        loop {
            let now = self.inner.store.user(&user.user_id).await?;
            let now = now.ok_or_else(|| unknown_user(&user.user_id))?;
            // Somebody else noticed too.
            if now.epoch != user.epoch {
                return Ok(now.epoch);
            }
            let mut commit = Commit::of(&now);
            commit.after.epoch = new_epoch();
            if turn.commit(&commit).await? {
                let (user_id, lost, new) = (&user.user_id, &user.epoch, &commit.after.epoch);
                tracing::warn!(user_id, lost, new, "the server lost something: a new epoch");
                return Ok(commit.after.epoch);
            }
        }
    }

    /// The answer that a request got before, if it is this request.
    pub(crate) fn given_before(
        stored: &Identity,
        hash: &[u8],
        code: &'static str,
    ) -> Result<String, Problem> {
        if stored.hash == hash {
            return Ok(stored.answer.clone());
        }
        let detail = format!("{} was used for another request: give each its own.", stored.id);
        if code == "idempotency_key_reused" {
            return Err(Problem::unprocessable(code, detail));
        }
        Err(Problem::conflict(code, detail))
    }
}

/// Of the lives of a device that of that incarnation, or the latest one.
fn replica_of(lives: &[Replica], incarnation: Option<u64>) -> Result<&Replica, Problem> {
    let found = match incarnation {
        Some(wanted) => lives.iter().find(|replica| replica.incarnation == wanted),
        None => lives.last(),
    };
    found.ok_or_else(|| {
        let detail = "The server does not know this incarnation of the device: register again.";
        Problem::conflict("stale_incarnation", detail)
    })
}

fn retired(device_id: &str) -> String {
    format!(
        "Device {device_id} was silent for too long and is retired: register it again, download \
         without a cursor, then upload what it still has."
    )
}

fn epoch_changed() -> Problem {
    Problem::conflict(
        "epoch_changed",
        "The server has another history than this device knows: it was restored from a backup. \
         Register again with reissue, upload all operations that you keep (with their op_ids), and \
         download without a cursor.",
    )
}

fn token_missing() -> Problem {
    let detail = "Send the token that registration returned: Authorization: Bearer …";
    Problem::new(axum::http::StatusCode::UNAUTHORIZED, "missing_token", detail)
}

fn unknown_user(user_id: &str) -> Problem {
    Problem::not_found("unknown_user", format!("There is no user {user_id}."))
}

/// Ids are texts without control characters, of bounded length.
pub(crate) fn check_id(field: &str, id: &str) -> Result<(), Problem> {
    if (1..=ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("must have 1 to {ID_BYTES_MAX} bytes and no control characters");
    Err(Problem::unprocessable("invalid_id", format!("Field {field} {message}."))
        .with_field(field, message))
}
