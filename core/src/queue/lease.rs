//! A lease: a job held by one node until a time. Its revision is the fence: renew, commit, settle, retry and release all ask the
//! server whether it is still the latest, in the same script that acts on it.

use std::time::Duration;

use super::{
    HeldLease, Queue,
    claim::micros,
    copy::{MODULE, Wanted},
    host::mail,
    key, script,
};
use crate::{Job, JobId, Millis, NodeId, QueueName, Report, redis_link::LinkError, report::Reason};

/// A job held by a node until `expires_at`.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// The job.
    pub job: Job,
    /// The holder.
    pub node_id: NodeId,
    /// The fence.
    pub revision: u64,
    /// Transfers begun, this one included.
    pub attempts: u32,
    /// By Redis' clock, as of the claim.
    pub expires_at: Millis,
    /// When it came out of its inbox, by Redis' clock.
    pub admitted_at: Millis,
    /// The level it waited in, mostly the one it was made for.
    pub queue: QueueName,
    /// The report of the backup that is to be copied from the node that has it; `None` for a backup to be fetched from its host.
    pub copy_of: Option<Box<Report>>,
}

/// Whether a lease is still its holder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// Yes.
    Yours,
    /// Another node has it, or it has ended elsewhere: stop, publish nothing.
    Lost,
}

impl Held {
    pub(super) fn from_answer(yours: bool) -> Self {
        if yours { Self::Yours } else { Self::Lost }
    }
}

/// What becomes of a job that its holder can't bring now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// It waits again.
    GivenBack,
    /// It is still its holder's, who is to end it.
    GiveUp,
    /// It is another's.
    Lost,
}

impl Returned {
    pub(super) fn from_answer(answer: u32) -> Self {
        match answer {
            0 => Self::Lost,
            1 => Self::GivenBack,
            _ => Self::GiveUp,
        }
    }
}

/// The answer to a settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settled {
    /// The report is on the stream now.
    Done,
    /// It was already: this is a repetition.
    AlreadyYours,
    /// The job has ended otherwise: nothing was written.
    Over,
    /// The lease is not its holder's any more, and the job goes on: nothing was written.
    Lost,
}

/// Whether a settled job is also kept for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// It is over.
    Final,
    /// It is over, and kept among the dead letters, to be retried by hand. Of a second copy only that: its backup stays stored.
    Bury,
    /// It is stored, and another node is to make a second copy.
    Copy,
}

impl Queue {
    /// Makes the lease good for `lease` from now.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn renew(&self, held: &Lease, lease: Duration) -> Result<Held, LinkError> {
        let mut call = script::RENEW.prepare_invoke();
        call.arg(held.job.id.to_string()).arg(held.node_id.as_str()).arg(held.revision).arg(micros(lease));
        self.run(&call).await.map(Held::from_answer)
    }

    /// Asks for the last time before the file gets its final name, and makes the lease good for `lease` from now: after
    /// [`Held::Yours`], publish and settle within it.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn commit(&self, held: &Lease, lease: Duration) -> Result<Held, LinkError> {
        self.renew(held, lease).await
    }

    /// Ends the job with its report, which must carry the lease's revision. Of a job that the server knows nothing of (it ended
    /// more than an hour ago, or was lost) the report is written, since its backup may be the only one.
    ///
    /// # Errors
    /// [`LinkError`]; when it is transient, settle again: the answer is then [`Settled::AlreadyYours`] if it was done.
    pub async fn settle(&self, held: &Lease, report: &Report, end: End) -> Result<Settled, LinkError> {
        debug_assert_eq!(report.revision, held.revision, "a report carries its lease's revision");
        let id = held.job.id.to_string();
        let is_copy = held.copy_of.is_some();
        let body = if is_copy && end == End::Bury { Vec::new() } else { self.json(report, &id)? };
        let wanted = Wanted::of(report).filter(|_| end == End::Copy);
        if end == End::Copy && wanted.is_none() {
            tracing::error!(job = %id, "no second copy can be asked for: the node's id is too long");
        }
        let mut call = script::SETTLE.prepare_invoke();
        call.arg(&id).arg(held.node_id.as_str()).arg(held.revision).arg(report.outcome.as_str()).arg(body);
        call.arg(match end {
            End::Bury => "bury",
            End::Copy if wanted.is_some() => "copy",
            End::Copy | End::Final => "final",
        });
        call.arg(report.reason.as_ref().map_or("", |reason| reason.code.as_str()));
        call.arg(report.reason.as_ref().map_or("", |reason| reason.text.as_str()));
        call.arg(held.job.server_id.as_str()).arg(if is_copy { "" } else { mail(&held.job) });
        call.arg(u8::from(is_copy));
        if let Some(Wanted { level, host, job }) = wanted {
            let entry = self.job_entry(&job)?;
            call.arg(level.as_str()).arg(host).arg(MODULE).arg(entry.body).arg(entry.need).arg(entry.size);
            call.arg(entry.class).arg(entry.made).arg(entry.interval);
        }
        let answer: String = self.run(&call).await?;
        Ok(match answer.as_str() {
            "done" => Settled::Done,
            "already" => Settled::AlreadyYours,
            "over" => Settled::Over,
            _ => Settled::Lost,
        })
    }

    /// Whether a job has its report, and nothing more is to be done with it. What ended more than an hour ago is not known.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn has_ended(&self, job: &JobId) -> Result<bool, LinkError> {
        let ended: bool = self.query(redis::cmd("EXISTS").arg(key(&format!("ended:{job}")))).await?;
        // Its record is there again while a second copy is to be made of it, or when a person retried it.
        Ok(ended && !self.query::<bool>(redis::cmd("EXISTS").arg(key(&format!("job:{job}")))).await?)
    }

    /// Gives the job back, to be claimed again by any node after `delay`. The attempt stays counted; no report is made. What
    /// differed from its announcement once before, wherever that was, is to be given up.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn retry_later(&self, held: &Lease, delay: Duration, reason: &Reason) -> Result<Returned, LinkError> {
        self.put_off(&held.job.id.to_string(), &held.node_id, &held.revision.to_string(), delay, reason).await
    }

    /// Gives the job back at once, as if it had not been claimed: the attempt is not counted.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn release(&self, held: &Lease) -> Result<Held, LinkError> {
        let mut call = script::RELEASE.prepare_invoke();
        call.arg(held.job.id.to_string()).arg(held.node_id.as_str()).arg(held.revision);
        self.run(&call).await.map(Held::from_answer)
    }

    /// Ends a lease that its node's former process left behind, for a puller that starts: ready again at once, the attempt
    /// counted.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn put_back(&self, held: &HeldLease, reason: &Reason) -> Result<Returned, LinkError> {
        self.put_off(&held.job.to_string(), &held.node_id, &held.revision.to_string(), Duration::ZERO, reason).await
    }

    pub(super) async fn put_off(
        &self,
        id: &str,
        node_id: &NodeId,
        revision: &str,
        delay: Duration,
        reason: &Reason,
    ) -> Result<Returned, LinkError> {
        let mut call = script::RETRY.prepare_invoke();
        call.arg(id).arg(node_id.as_str()).arg(revision).arg(micros(delay));
        call.arg(reason.code.as_str()).arg(&reason.text).arg(u8::from(reason.code.is_difference()));
        self.run(&call).await.map(Returned::from_answer)
    }

    /// Keeps a job for a person whose record can't be read; there is no report of it.
    pub(super) async fn bury(
        &self,
        id: &str,
        node_id: &NodeId,
        revision: &str,
        reason: &Reason,
    ) -> Result<Held, LinkError> {
        let mut call = script::BURY.prepare_invoke();
        call.arg(id).arg(node_id.as_str()).arg(revision).arg(reason.code.as_str()).arg(&reason.text);
        self.run(&call).await.map(Held::from_answer)
    }
}
