//! A hint from other processes that something is due. Polling finds everything without it.

use potter_core::{Database, Engine, Signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// After so long without a hint it is looked for due sagas anyway, as polling does all the time.
const QUIET: std::time::Duration = std::time::Duration::from_secs(3600);

pub(super) struct Hint {
    /// Where there can be other processes that hear it.
    signal: Option<Signal>,
}

impl Hint {
    pub(super) fn new(database: &Database) -> Self {
        let heard = database.engine() == Engine::Postgres;
        Self { signal: heard.then(|| Signal::new(database, "potter_sagas")) }
    }

    /// Tells other processes, soon, that there may be something due.
    pub(super) fn send(&self) {
        if let Some(signal) = &self.signal {
            signal.send_to_others();
        }
    }

    /// Turns hints of other processes into `wake`, until `stop`.
    pub(super) async fn listen(&self, wake: &Notify, stop: &CancellationToken) {
        let Some(signal) = &self.signal else { return };
        let mut hints = signal.subscribe();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = hints.wait(QUIET) => wake.notify_one(),
            }
        }
    }
}
