//! Whether the store's disk still takes writes. A disk that hangs fails nothing: whoever writes just waits. So a few bytes are
//! written and synced every now and then; while that does not come back nothing is claimed, and what is under way is given to
//! other nodes. One try at a time: a disk that hangs keeps one thread, not one for each question.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::store::Store;

const TRY_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The watch over one disk.
#[derive(Debug)]
pub struct DiskWatch {
    hangs_after: Duration,
    trying_since: Mutex<Option<Instant>>,
}

impl DiskWatch {
    /// Of a disk that hangs when it takes nothing for so long; one that is only busy answers sooner.
    pub fn new(hangs_after: Duration) -> Self {
        Self { hangs_after, trying_since: Mutex::default() }
    }

    /// Tries the disk of `store` until `end`.
    pub async fn watch(&self, store: &Arc<Store>, end: CancellationToken) {
        while end.run_until_cancelled(tokio::time::sleep(TRY_EVERY)).await.is_some() {
            self.since(Some(Instant::now()));
            let store = Arc::clone(store);
            let tried = tokio::task::spawn_blocking(move || store.try_writing());
            // Why it takes none, when it says so, the next transfer is told as well.
            if end.run_until_cancelled(tried).await.is_none() {
                return;
            }
            self.since(None);
        }
    }

    /// For how long it has taken nothing; `None` while it does.
    pub fn hangs(&self) -> Option<Duration> {
        let since = *self.trying_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| since.elapsed()).filter(|time| *time >= self.hangs_after)
    }

    /// Returns when the disk hangs.
    pub async fn hung(&self) {
        while self.hangs().is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn since(&self, since: Option<Instant>) {
        *self.trying_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}
