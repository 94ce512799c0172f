//! LISTEN/NOTIFY as a hint that something is due. Polling finds everything without it.
//!
//! NOTIFY inside a transaction takes a lock over the whole server at commit; so it is sent
//! outside, by a task of its own, at most once in [`INTERVAL`].

use potter_core::Database;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "postgres")]
const CHANNEL: &str = "potter_sagas";
#[cfg(feature = "postgres")]
const INTERVAL: std::time::Duration = std::time::Duration::from_millis(10);

pub(super) struct Hint {
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "only servers have listeners")
    )]
    database: Database,
    #[cfg(feature = "postgres")]
    pending: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Hint {
    pub(super) fn new(database: &Database) -> Self {
        Self {
            database: database.clone(),
            #[cfg(feature = "postgres")]
            pending: std::sync::Arc::default(),
        }
    }

    /// Tells other processes, soon, that there may be something due.
    #[cfg(feature = "postgres")]
    pub(super) fn send(&self) {
        use std::sync::atomic::Ordering;

        let Some(pool) = self.database.postgres().cloned() else { return };
        if self.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        let pending = std::sync::Arc::clone(&self.pending);
        tokio::spawn(async move {
            tokio::time::sleep(INTERVAL).await;
            pending.store(false, Ordering::Release);
            let sent = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&pool).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "a wake-up could not be sent; polling finds it");
            }
        });
    }

    #[cfg(not(feature = "postgres"))]
    pub(super) fn send(&self) {}

    /// Turns hints of other processes into `wake`, until `stop`.
    #[cfg(feature = "postgres")]
    pub(super) async fn listen(&self, wake: &Notify, stop: &CancellationToken) {
        let Some(pool) = self.database.postgres() else { return };
        while !stop.is_cancelled() {
            let listening = async {
                let mut listener = sqlx::postgres::PgListener::connect_with(pool).await?;
                listener.listen(CHANNEL).await?;
                loop {
                    // What was sent before LISTEN took hold is lost: look once, and after every
                    // reconnection (`None`).
                    wake.notify_one();
                    listener.try_recv().await?;
                }
            };
            let ended: Result<(), sqlx::Error> = tokio::select! {
                () = stop.cancelled() => return,
                ended = listening => ended,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "no wake-ups for now; polling goes on");
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    #[cfg(not(feature = "postgres"))]
    pub(super) async fn listen(&self, _wake: &Notify, _stop: &CancellationToken) {}
}
