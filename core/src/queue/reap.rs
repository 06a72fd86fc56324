//! Reaping: leases that nobody works on any more become ready jobs again.

use std::time::Duration;

use super::{Queue, claim::micros, script};
use crate::{JobId, redis_link::LinkError};

/// A node that has not beaten for this long is taken for dead.
const SILENCE: Duration = Duration::from_secs(30);

impl Queue {
    /// Ends at most `most` leases that are past their time and whose node has been silent for 30 s or no longer counts the job
    /// among its running transfers. To be called by every node every few seconds: calls more than 15 s apart only arm it, so
    /// that neither a clock that steps nor a Redis that was away expires a cluster that lives.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn reap(&self, most: usize) -> Result<Vec<JobId>, LinkError> {
        self.reap_silent(most, SILENCE).await
    }

    /// [`Queue::reap`] with another silence than 30 s.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn reap_silent(&self, most: usize, silence: Duration) -> Result<Vec<JobId>, LinkError> {
        let mut call = script::REAP.prepare_invoke();
        call.arg(most).arg(micros(silence));
        let ids: Vec<String> = self.run(&call).await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }
}
