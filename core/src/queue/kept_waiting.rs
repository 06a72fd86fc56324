//! How often claims kept jobs waiting, by reason: all that a claim decides of single jobs and hosts. What it decides of a whole
//! question is its answer (`Idle`).

use std::collections::BTreeMap;

use super::Queue;
use crate::redis_link::LinkError;

/// The reasons, which are names of metrics' labels, too:
///
/// - `transfers`: its host or module has all the transfers it may have;
/// - `start_gap`: its host was asked so lately that it may not be asked again yet;
/// - `rests`: its host failed, and is left alone or tried by one other job;
/// - `closed`: its host's window is closed;
/// - `room`: it is overdue, and larger than the room of the node that asked;
/// - `too_large`: it is overdue, and larger than the disk of every node that asks.
pub const KEPT_WAITING: [&str; 6] = ["transfers", "start_gap", "rests", "closed", "room", "too_large"];

impl Queue {
    /// How often each of [`KEPT_WAITING`] was decided since this cluster's queue began. A host's jobs of one module and size class are
    /// decided of once, until that host may be asked again.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn kept_waiting(&self) -> Result<BTreeMap<&'static str, u64>, LinkError> {
        let counts: Vec<Option<u64>> =
            self.link.query(redis::cmd("HMGET").arg(super::key("kept_waiting")).arg(&KEPT_WAITING)).await?;
        Ok(KEPT_WAITING.into_iter().zip(counts.into_iter().map(Option::unwrap_or_default)).collect())
    }
}
