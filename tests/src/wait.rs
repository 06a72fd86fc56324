//! Waiting for a condition: looked at often, with a deadline whose end names what did not come.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds: `wait_until("the job is stored", seconds(10), async || depth().await == 0).await`.
///
/// # Panics
/// When it does not hold within `deadline`; the message names `what`.
pub async fn wait_until(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same outside of an async runtime.
///
/// # Panics
/// When it does not hold within `deadline`; the message names `what`.
pub fn wait_until_blocking(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        std::thread::park_timeout(PAUSE);
    }
}
