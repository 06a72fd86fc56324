//! From the spool to the queue. A pushed result stays in `sent/` until the host's mailbox says that its report exists; until
//! then each run offers it again, which does nothing where Redis knows it, and heals a Redis that lost its last second.
//!
//! An end counts only when Redis can't lose it any more: what is settled within the seconds that a kill of Redis takes away may be
//! gone before an indexer read it, and when an earlier kill took the lease, nobody but this host would offer the job again.
//!
//! Order of the end: the file goes first, durably, then the mailbox entry. Killed between, an entry is left over, and is
//! dropped when it is old. The other way round a job could be fetched twice.

use std::{collections::BTreeMap, path::PathBuf, sync::Mutex, time::Duration};

use longshore_core::{
    JobId, Millis, Outcome, Report, ServerId,
    queue::{MailboxEntry, Offered, Queue},
    redis_link::LinkError,
    step,
};

use crate::{
    durable::StateError,
    intent::InstanceFolder,
    spool::{Half, Spool, Spooled},
};

/// A mailbox entry that nobody here waits for is dropped after this long: it may be another state folder's.
const ORPHANS_ARE_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// An end younger than this is left for the next run: twice the two seconds that a killed Redis may lose (`appendfsync everysec`),
/// and a margin for a slow disk.
const END_MAY_BE_LOST: Duration = Duration::from_secs(10);

/// An end of the future counts as a young one up to here: Redis' clock went back, or its time was asked long before the end was
/// seen. Beyond it is old, lest a clock that was wrong once keeps files for years.
const CLOCK_MAY_GO_BACK: Duration = Duration::from_secs(3600);

/// Why something stays in the spool.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The queue.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The disk.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Pushes what the spool holds.
#[derive(Debug)]
pub struct Pusher {
    queue: Queue,
    spool: Spool,
    state_dir: PathBuf,
    server_id: ServerId,
    /// What has gone wrong beside the queue being away: damaged files, refused jobs.
    faults: Mutex<u64>,
}

impl Pusher {
    /// One for the spool below `state_dir`, whose jobs are mostly of `server_id`.
    pub fn new(queue: Queue, spool: Spool, state_dir: PathBuf, server_id: ServerId) -> Self {
        Self { queue, spool, state_dir, server_id, faults: Mutex::new(0) }
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The spool.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// How many files could not be used, or were refused for good.
    pub fn faults(&self) -> u64 {
        self.faults.lock().map_or(0, |faults| *faults)
    }

    fn fault(&self, error: &impl std::fmt::Display) {
        tracing::error!("{error}");
        if let Ok(mut faults) = self.faults.lock() {
            *faults += 1;
        }
    }

    /// Pushes everything that waits, oldest run first, until the queue cannot be reached.
    ///
    /// # Errors
    /// [`PushError`] at the first result that has to wait; those after it wait as well, so that the order is kept.
    pub async fn push_waiting(&self) -> Result<(), PushError> {
        let waiting = self.spool.ids(Half::Waiting)?;
        if waiting.is_empty() {
            return Ok(());
        }
        let now = self.queue.now_micros().await?;
        for id in waiting {
            let Some(spooled) = self.read(Half::Waiting, id) else { continue };
            match self.offer(&spooled).await {
                Ok(end) => {
                    step::reached("agent.offered");
                    self.spool.mark_sent(id)?;
                    step::reached("agent.sent");
                    if let Some(end) = end.filter(|end| is_safe(end, now)) {
                        self.end(&spooled.job.server_id, &[(id, end)]).await?;
                    }
                }
                Err(error) if error.is_transient() || matches!(error, LinkError::Login { .. }) => {
                    return Err(error.into());
                }
                // This one alone cannot be pushed: it stays, is told each time, and holds up no other.
                Err(error) => self.fault(&format!("job {id} of {}: {error}", spooled.job.key())),
            }
        }
        Ok(())
    }

    /// Cleans `sent/` by the mailbox, and offers the rest again.
    ///
    /// # Errors
    /// [`PushError`] when the queue cannot be reached, or the disk does not take it.
    pub async fn reconcile(&self) -> Result<(), PushError> {
        let mut hosts: BTreeMap<ServerId, BTreeMap<JobId, Spooled>> = BTreeMap::new();
        hosts.entry(self.server_id.clone()).or_default();
        for id in self.spool.ids(Half::Sent)? {
            if let Some(spooled) = self.read(Half::Sent, id) {
                hosts.entry(spooled.job.server_id.clone()).or_default().insert(id, spooled);
            }
        }
        // Asked before any end is read: by an answer of afterwards, an end that a restart in between took away would look old.
        let now = self.queue.now_micros().await?;
        for (host, sent) in hosts {
            let mailbox = self.queue.mailbox(&host).await?;
            step::reached("agent.mailbox_read");
            let is_old = |id: &JobId| Millis::now().since(id.time()) > ORPHANS_ARE_KEPT;
            let may_end = |(id, end): &(&JobId, &MailboxEntry)| match sent.contains_key(id) {
                true => is_safe(end, now),
                false => is_old(id) && !self.spool.holds(**id),
            };
            let ended: Vec<_> = mailbox.iter().filter(may_end).map(|(id, end)| (*id, *end)).collect();
            self.end(&host, &ended).await?;
            let is_ended = |id: &JobId| mailbox.contains_key(id);
            // Looked for once more: what another agent has taken out of the mailbox it had removed here before, and the queue
            // remembers it no longer than an hour.
            for (id, spooled) in sent.iter().filter(|(id, _)| !is_ended(id) && self.spool.holds(**id)) {
                match self.offer(spooled).await {
                    Ok(Some(end)) if is_safe(&end, now) => self.end(&host, &[(*id, end)]).await?,
                    Ok(_) => {}
                    Err(error) if error.is_transient() || matches!(error, LinkError::Login { .. }) => {
                        return Err(error.into());
                    }
                    Err(error) => self.fault(&format!("job {id} of {}: {error}", spooled.job.key())),
                }
            }
        }
        Ok(())
    }

    /// Hands over a result that the disk did not take.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn push_unspooled(&self, spooled: &Spooled) -> Result<(), LinkError> {
        self.offer(spooled).await.map(drop)
    }

    /// Offers a job, or reports a failure; tells the end of a job that has its report already.
    async fn offer(&self, spooled: &Spooled) -> Result<Option<MailboxEntry>, LinkError> {
        let job = &spooled.job;
        if let Some(failure) = &spooled.failure {
            let revision = self.queue.now_micros().await?;
            let reason = failure.reason.clone();
            let report = Report::without_transfer(job.clone(), revision, Outcome::Failed, reason, failure.at);
            self.queue.report(&report).await?;
            // Its report exists now; its mailbox entry is read by the next run.
            return Ok(None);
        }
        match self.queue.offer(job).await? {
            Offered::Pushed => {
                tracing::debug!(job = %job.id, instance = %job.key(), queue = %job.queue, "job pushed");
                Ok(None)
            }
            Offered::Known => Ok(None),
            Offered::Ended(end) => Ok(Some(end)),
        }
    }

    /// Forgets results whose reports exist: here first, then in the mailbox.
    async fn end(&self, host: &ServerId, ended: &[(JobId, MailboxEntry)]) -> Result<(), PushError> {
        if ended.is_empty() {
            return Ok(());
        }
        let ids: Vec<JobId> = ended.iter().map(|(id, _)| *id).collect();
        for (id, entry) in ended {
            if let Some(spooled) = self.read(Half::Sent, *id) {
                let (job, instance) = (spooled.job.id, spooled.job.key());
                tracing::debug!(%job, %instance, outcome = entry.outcome.as_str(), "report seen");
                self.end_intent(&spooled)?;
            }
        }
        self.spool.forget(&ids)?;
        step::reached("agent.sent_cleaned");
        self.queue.acknowledge(host, &ids).await?;
        step::reached("agent.acknowledged");
        Ok(())
    }

    /// An agent killed between spooling and removing its intent would make the job anew, once the spool has forgotten it.
    fn end_intent(&self, spooled: &Spooled) -> Result<(), StateError> {
        let folder = InstanceFolder::new(&self.state_dir, &spooled.job.key());
        match folder.intent() {
            Ok(Some(intent)) if intent.job == spooled.job.id => folder.remove_intent(),
            _ => Ok(()),
        }
    }

    fn read(&self, half: Half, id: JobId) -> Option<Spooled> {
        self.spool.read(half, id).unwrap_or_else(|error| {
            self.fault(&error);
            None
        })
    }
}

/// Whether a job with this end is known to Redis for good, by its time as it was asked before the end was read.
fn is_safe(end: &MailboxEntry, now: u64) -> bool {
    let micros = |time: Duration| time.as_micros() as u64;
    let unsafe_since = now.saturating_sub(micros(END_MAY_BE_LOST));
    !(unsafe_since + 1..=now + micros(CLOCK_MAY_GO_BACK)).contains(&end.written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_safe_when_it_is_old_or_of_a_clock_that_was_far_ahead() {
        const SECOND: u64 = 1_000_000;
        let now = 1_795_143_655 * SECOND;
        let is_safe = |written| is_safe(&MailboxEntry { revision: 1, outcome: Outcome::Stored, written }, now);
        for (written, expected) in [
            (0, true),
            (now - 10 * SECOND, true),
            (now - 10 * SECOND + 1, false),
            (now, false),
            (now + 3600 * SECOND, false),
            (now + 3600 * SECOND + 1, true),
        ] {
            assert_eq!(is_safe(written), expected, "{written}");
        }
    }
}
