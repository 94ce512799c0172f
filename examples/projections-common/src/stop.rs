//! Ctrl-C.

use std::future::Future;
use std::io;

use tokio::sync::watch;

/// Is done when the program is to stop: at SIGINT (Ctrl-C) or SIGTERM.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When the system does not let it.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let (send, receive) = watch::channel(false);
        let signal = signal()?;
        tokio::spawn(async move {
            signal.await;
            send.send_replace(true);
            // Kept, so that it stays true for whoever asks later.
            send.closed().await;
        });
        Ok(Self(receive))
    }

    /// Waits for it.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receive = self.0.clone();
        async move {
            if receive.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Was it asked for?
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

#[cfg(unix)]
fn signal() -> io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn signal() -> io::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
