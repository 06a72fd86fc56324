//! The stop request, as a value passed down. The first TERM or INT asks for an ordered end; the second ends at once, which
//! is safe, since every step commits at one point.

use std::{future::Future, io};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A request to stop that many can await. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// One that only [`Self::request`] requests: for tests, and for parts of a program.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGTERM and SIGINT request. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the signals can't be listened for.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ours = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let (name, number) = tokio::select! {
                    _ = terminate.recv() => ("TERM", 15),
                    _ = interrupt.recv() => ("INT", 2),
                };
                if ours.is_requested() {
                    eprintln!("second signal ({name}): ending at once");
                    std::process::exit(128 + number);
                }
                tracing::info!(signal = name, "stopping; a second signal ends at once");
                ours.request();
            }
        });
        Ok(shutdown)
    }

    /// Asks everyone to stop. Again is nothing.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether it was requested.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns when it was requested, at once when it was already. Safe to drop and to await again.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// A request of its own that is also requested by this one.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// `work`'s result, or nothing when the request comes first; then `work` is dropped where it stands.
    pub async fn unless_requested<F: Future>(&self, work: F) -> Option<F::Output> {
        self.0.run_until_cancelled(work).await
    }

    /// The token itself, for libraries that want one.
    pub fn token(&self) -> &CancellationToken {
        &self.0
    }
}
