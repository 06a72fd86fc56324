//! Waiting before trying again: a quarter of a second, then twice as long each time, at most ten seconds.

use std::time::Duration;

use longshore_core::shutdown::Shutdown;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// How long to wait next.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }

    /// Waits; `false` when `shutdown` was requested meanwhile.
    pub(crate) async fn wait(&mut self, shutdown: &Shutdown) -> bool {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        shutdown.unless_requested(tokio::time::sleep(pause)).await.is_some()
    }
}
