//! A hint that something changed: at once within the process, and on PostgreSQL in the others.
//!
//! A hint may be lost, doubled or come for nothing; whoever waits for one looks by itself from
//! time to time ([`Waiter::wait`] has a limit). NOTIFY inside a transaction takes a lock over the
//! whole server at commit, so it is sent outside, by a task of its own, at most once in
//! [`INTERVAL`]. Servers that speak PostgreSQL's protocol without LISTEN are only polled.
//!
//! A pooler that gives each transaction another session (PgBouncer in transaction mode) must not see a
//! LISTEN: the session keeps it, and its wake-ups reach whoever has that session next, whose driver
//! takes them for a broken protocol. So whoever is to listen looks first whether its session is its
//! own ([`has_own_session`]).

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "postgres")]
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use crate::database::Database;

/// Between two NOTIFYs of a process.
#[cfg(feature = "postgres")]
const INTERVAL: Duration = Duration::from_millis(5);
/// Between attempts to listen.
#[cfg(feature = "postgres")]
const RECONNECT: Duration = Duration::from_secs(1);
/// How often it is looked for a pooler.
#[cfg(feature = "postgres")]
const LOOKS: u32 = 16;
/// Between attempts to listen where a pooler was found.
#[cfg(feature = "postgres")]
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Tells whoever waits that there may be something new. Cheap to clone.
#[derive(Clone)]
pub struct Signal {
    inner: Arc<Inner>,
}

struct Inner {
    local: watch::Sender<u64>,
    #[cfg_attr(
        not(feature = "postgres"),
        allow(dead_code, reason = "only servers have listeners")
    )]
    database: Option<Database>,
    #[cfg_attr(
        not(feature = "postgres"),
        allow(dead_code, reason = "only servers have listeners")
    )]
    channel: String,
    /// How often others were to be told.
    #[cfg(feature = "postgres")]
    asked: std::sync::atomic::AtomicU64,
    #[cfg(feature = "postgres")]
    pending: std::sync::atomic::AtomicBool,
    /// Lives as long as somebody waits.
    #[cfg(feature = "postgres")]
    listener: Mutex<std::sync::Weak<Listener>>,
}

impl Signal {
    /// The signal `name` of `database`; its name begins with `potter_`.
    pub fn new(database: &Database, name: &'static str) -> Self {
        Self::with(Some(database.clone()), database.name_of(name))
    }

    /// A signal that stays in this process, for what is in no [`Database`].
    pub fn in_process(name: &'static str) -> Self {
        Self::with(None, name.to_owned())
    }

    fn with(database: Option<Database>, channel: String) -> Self {
        Self {
            inner: Arc::new(Inner {
                local: watch::Sender::new(0),
                database,
                channel,
                #[cfg(feature = "postgres")]
                asked: std::sync::atomic::AtomicU64::new(0),
                #[cfg(feature = "postgres")]
                pending: std::sync::atomic::AtomicBool::new(false),
                #[cfg(feature = "postgres")]
                listener: Mutex::default(),
            }),
        }
    }

    /// Gives the hint: here at once, to other processes soon. Needs a Tokio runtime on PostgreSQL.
    pub fn send(&self) {
        self.inner.local.send_modify(|count| *count = count.wrapping_add(1));
        self.send_to_others();
    }

    /// Gives the hint to other processes only; without a server there are none.
    pub fn send_to_others(&self) {
        #[cfg(feature = "postgres")]
        self.notify();
    }

    /// Hints from now on.
    pub fn subscribe(&self) -> Waiter {
        Waiter {
            hints: self.inner.local.subscribe(),
            #[cfg(feature = "postgres")]
            _listener: self.listener(),
        }
    }

    #[cfg(feature = "postgres")]
    fn notify(&self) {
        use std::sync::atomic::Ordering;

        let inner = &self.inner;
        let Some(database) = &inner.database else { return };
        inner.asked.fetch_add(1, Ordering::AcqRel);
        if database.postgres().is_none() || inner.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            inner.pending.store(false, Ordering::Release);
            return;
        };
        let (inner, database) = (Arc::clone(inner), database.clone());
        runtime.spawn(async move {
            // First the hint, then the pause: what comes during the pause is told after it.
            loop {
                let before = inner.asked.load(Ordering::Acquire);
                let notify = "SELECT pg_notify($1, '')";
                let sent = database.read(notify, crate::values![&inner.channel]).await;
                if let Err(error) = sent {
                    tracing::debug!(%error, "a wake-up could not be sent; polling finds it");
                }
                tokio::time::sleep(INTERVAL).await;
                if inner.asked.load(Ordering::Acquire) != before {
                    continue;
                }
                inner.pending.store(false, Ordering::Release);
                let late = inner.asked.load(Ordering::Acquire) != before;
                if !late || inner.pending.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    #[cfg(feature = "postgres")]
    fn listener(&self) -> Option<Arc<Listener>> {
        let inner = &self.inner;
        let pool = inner.database.as_ref()?.postgres()?.clone();
        let mut listener = inner.listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(running) = listener.upgrade() {
            return Some(running);
        }
        let (local, channel) = (inner.local.clone(), inner.channel.clone());
        let task = tokio::spawn(listen(pool, channel, local));
        let running = Arc::new(Listener(task));
        *listener = Arc::downgrade(&running);
        Some(running)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({})", self.inner.channel)
    }
}

/// Waits for hints.
pub struct Waiter {
    hints: watch::Receiver<u64>,
    #[cfg(feature = "postgres")]
    _listener: Option<Arc<Listener>>,
}

impl Waiter {
    /// Returns at the next hint, at once for one that came since the last call, and after
    /// `at_most` without any. Safe to drop.
    pub async fn wait(&mut self, at_most: Duration) {
        if let Ok(Err(_)) = tokio::time::timeout(at_most, self.hints.changed()).await {
            // Nobody is left who could give a hint.
            tokio::time::sleep(at_most).await;
        }
    }

    /// Forgets the hints that came until now: for whoever is about to look anyway.
    pub fn clear(&mut self) {
        self.hints.mark_unchanged();
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

#[cfg(feature = "postgres")]
struct Listener(tokio::task::JoinHandle<()>);

#[cfg(feature = "postgres")]
impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(feature = "postgres")]
async fn listen(pool: sqlx::PgPool, channel: String, local: watch::Sender<u64>) {
    let mut warned = false;
    loop {
        let listening = async {
            let mut listener = sqlx::postgres::PgListener::connect_with(&pool).await?;
            if !has_own_session(&pool, &mut listener).await? {
                return Ok(());
            }
            listener.listen(&channel).await?;
            loop {
                // What was sent before LISTEN took hold is lost: look once, and after every
                // reconnection (`None`).
                local.send_modify(|count| *count = count.wrapping_add(1));
                listener.try_recv().await?;
            }
        };
        let ended: Result<(), sqlx::Error> = listening.await;
        match ended {
            Ok(()) => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(
                        channel,
                        "a pooler gives each transaction another session: no wake-ups from other \
                         processes, polling goes on; connect past the pooler to have them"
                    );
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => {
                tracing::debug!(%error, channel, "no wake-ups for now; polling goes on");
                tokio::time::sleep(RECONNECT).await;
            }
        }
    }
}

/// Whether the listener's session is its own. Poolers hand out the session that was free last: then
/// another connection gets the one that the listener had, or the listener gets another one. Among
/// others that come and go it may look otherwise, but not always.
#[cfg(feature = "postgres")]
async fn has_own_session(
    pool: &sqlx::PgPool,
    listener: &mut sqlx::postgres::PgListener,
) -> Result<bool, sqlx::Error> {
    use sqlx::{ConnectOptions, Connection};

    const SESSION: &str = "SELECT pg_backend_pid()";
    let own: i32 = sqlx::query_scalar(SESSION).fetch_one(&mut *listener).await?;
    // Not of the pool: the listener may have its only one.
    let mut connection = pool.connect_options().connect().await?;
    let mut its_own = true;
    for _ in 0..LOOKS {
        let mut other = connection.begin().await?;
        let others: i32 = sqlx::query_scalar(SESSION).fetch_one(&mut *other).await?;
        let now: i32 = sqlx::query_scalar(SESSION).fetch_one(&mut *listener).await?;
        other.rollback().await?;
        its_own = others != own && now == own;
        if !its_own {
            break;
        }
    }
    connection.close().await?;
    Ok(its_own)
}
