//! A graceful stop: signals become a token that everything under way can see.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};

/// What stops a program. SIGTERM or SIGINT cancels [`token`](Self::token): stop taking work, and
/// finish what runs. A program that is not done after the grace (default 10 s), or at a second
/// signal, is ended with exit code 1.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    grace: Duration,
}

impl Shutdown {
    /// Listens for signals from now on, with a grace of 10 s. Must be called within a runtime.
    ///
    /// # Errors
    /// `Internal` when the system refuses a signal handler.
    pub fn on_signals() -> Result<Self> {
        Self::on_signals_with(Duration::from_secs(10))
    }

    /// The same with another grace.
    ///
    /// # Errors
    /// `Internal` when the system refuses a signal handler.
    pub fn on_signals_with(grace: Duration) -> Result<Self> {
        let shutdown = Self { token: CancellationToken::new(), grace };
        let mut signals = Signals::new().map_err(|source| {
            let message = format!("signals can't be handled: {source}");
            Error::with_source(ErrorKind::Internal, message, source)
        })?;
        let token = shutdown.token();
        tokio::spawn(async move {
            let name = signals.next().await;
            tracing::info!(signal = name, grace_seconds = grace.as_secs_f64(), "stopping");
            token.cancel();
            tokio::select! {
                () = tokio::time::sleep(grace) => {
                    tracing::error!("not done in time: stopped with work under way");
                }
                name = signals.next() => {
                    tracing::error!(signal = name, "a second signal: stopped with work under way");
                }
            }
            std::process::exit(1);
        });
        Ok(shutdown)
    }

    /// Without signals: [`stop`](Self::stop) alone stops it. For tests, and for programs that
    /// have their own signal handling.
    pub fn manual(grace: Duration) -> Self {
        Self { token: CancellationToken::new(), grace }
    }

    /// Cancelled when the program is to stop. Children of it can be stopped earlier.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// How long the program has from then on.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Stops the program from within. Unlike a signal it sets no limit on how long that takes.
    pub fn stop(&self) {
        self.token.cancel();
    }

    /// Waits until the program is to stop.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "the same shape as on unix")]
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "ctrl-c",
            Err(_) => std::future::pending().await,
        }
    }
}
