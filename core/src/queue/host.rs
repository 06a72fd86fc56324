//! What hosts ask of the queue: hand over jobs and failures, and learn which of them have their report.

use std::collections::BTreeMap;

use super::{Queue, key, script};
use crate::{HostBeat, Job, JobId, Outcome, Report, ServerId, redis_link::LinkError};

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// Put into its inbox now.
    Pushed,
    /// Known to Redis already: in its inbox, waiting, delayed or under lease.
    Known,
    /// Its report exists.
    Ended(MailboxEntry),
}

/// A host's mailbox says this of a job whose final report exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxEntry {
    /// Of the report.
    pub revision: u64,
    /// Of the report.
    pub outcome: Outcome,
    /// When it was written, in microseconds of Redis' clock: a lease may have begun long before.
    pub written: u64,
}

impl MailboxEntry {
    /// From `REVISION OUTCOME WRITTEN`; entries of an earlier version end with the outcome.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (revision, outcome) = (words.next()?.parse().ok()?, Outcome::parse(words.next()?)?);
        let written = words.next().map_or(Ok(revision), str::parse).ok()?;
        Some(Self { revision, outcome, written })
    }
}

impl Queue {
    /// Puts a job into the inbox of its queue, unless Redis knows it already. The host's mailbox will say that it ended when
    /// the job names the agent that made it.
    ///
    /// # Errors
    /// [`LinkError`]. An offer whose answer was lost may be repeated: admission makes two pushes of a job one.
    pub async fn offer(&self, job: &Job) -> Result<Offered, LinkError> {
        let id = job.id.to_string();
        let body = self.json(job, &id)?;
        let mut call = script::OFFER.prepare_invoke();
        call.arg(&id).arg(job.server_id.as_str()).arg(self.inbox(&job.queue)?).arg(body);
        let answer: Vec<String> = self.run(&call).await?;
        match answer.first().map(String::as_str) {
            Some("pushed") => Ok(Offered::Pushed),
            Some("known") => Ok(Offered::Known),
            _ => {
                let entry = answer.get(1).and_then(|entry| MailboxEntry::parse(entry));
                entry.map(Offered::Ended).ok_or_else(|| self.damaged(format!("the end of job {id}"), "not an entry"))
            }
        }
    }

    /// Writes the report of a run that made nothing to fetch. Repeated, it is written once.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn report(&self, report: &Report) -> Result<(), LinkError> {
        let id = report.job.id.to_string();
        let body = self.json(report, &id)?;
        let mut call = script::REPORT.prepare_invoke();
        call.arg(&id).arg(report.job.server_id.as_str()).arg(mail(&report.job));
        call.arg(report.revision).arg(report.outcome.as_str()).arg(body);
        self.run(&call).await
    }

    /// Writes what an agent's run saw to the stream. Repeated, it is there twice, which says the same.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn host_beat(&self, beat: &HostBeat) -> Result<(), LinkError> {
        let body = self.json(beat, beat.server_id.as_str())?;
        let mut command = redis::cmd("XADD");
        command.arg(key("reports")).arg("*").arg("kind").arg("host_beat").arg("body").arg(body);
        let _id: String = self.query(&command).await?;
        Ok(())
    }

    /// The host's jobs whose report exists, and which its agent has not acknowledged yet.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn mailbox(&self, host: &ServerId) -> Result<BTreeMap<JobId, MailboxEntry>, LinkError> {
        let entries: Vec<(String, String)> = self.query(redis::cmd("HGETALL").arg(mailbox_key(host))).await?;
        let parse = |(id, entry): (String, String)| Some((id.parse().ok()?, MailboxEntry::parse(&entry)?));
        Ok(entries.into_iter().filter_map(parse).collect())
    }

    /// Drops mailbox entries, once the host has nothing more to remember of those jobs.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn acknowledge(&self, host: &ServerId, jobs: &[JobId]) -> Result<(), LinkError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("HDEL");
        command.arg(mailbox_key(host));
        for job in jobs {
            command.arg(job.to_string());
        }
        self.query(&command).await
    }

    pub(super) fn json(&self, value: &impl serde::Serialize, what: &str) -> Result<Vec<u8>, LinkError> {
        serde_json::to_vec(value).map_err(|error| self.damaged(what, error))
    }
}

fn mailbox_key(host: &ServerId) -> String {
    key(&format!("mailbox:{host}"))
}

/// Whether an agent will look for this job's end. Seed clients have none and never look.
pub(super) fn mail(job: &Job) -> &'static str {
    if job.agent.is_some() { "1" } else { "0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_an_earlier_version_is_as_old_as_its_lease() {
        let parse = MailboxEntry::parse;
        let (revision, outcome) = (5, Outcome::Stored);
        assert_eq!(parse("5 stored 7"), Some(MailboxEntry { revision, outcome, written: 7 }));
        assert_eq!(parse("5 stored"), Some(MailboxEntry { revision, outcome, written: 5 }));
        for damaged in ["", "5", "5 lost 7", "5 stored x", "x stored 7"] {
            assert_eq!(parse(damaged), None, "{damaged}");
        }
    }
}
