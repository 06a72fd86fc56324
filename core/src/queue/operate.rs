//! What operators do with jobs: hold and let go, move to another level, try again, cancel, and drop what was given up.
//!
//! Each is one script and may be repeated when its answer was lost. A held job is out of the index but not out of the queue: its
//! record says who keeps it and why, and it counts as waiting. What a node is fetching is only touched by what must touch it, a
//! cancel or a retry: both end the lease, so that the fence stops the node before it publishes or settles.

use redis::ScriptInvocation;
use uuid::Uuid;

use super::{Level, Queue, browse::JobState, claim::millis, key, script};
use crate::{Job, JobId, Outcome, ReasonCode, Report, redis_link::LinkError, report::Reason};

/// A job that is claimed again and again between being read and being cancelled is given up on.
const MOST_TRIES: usize = 8;

/// What came of an operator's wish for one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Changed {
    /// It is so now, by this or an earlier request.
    Done,
    /// Left alone: it is in a state where this can't be done.
    Left(JobState),
    /// Left alone: it is a second copy, which waits in the level of the node that has the first.
    Copy,
    /// There is no such job in the queue.
    Unknown,
    /// Its record can't be read by this version, and a report must have the job in it.
    Unreadable,
}

impl Queue {
    /// Keeps a waiting job from being claimed until it is let go. `by` says who, `why` may be empty.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn hold(&self, job: &JobId, by: &str, why: &str) -> Result<Changed, LinkError> {
        let mut call = script::HOLD.prepare_invoke();
        call.arg(job.to_string()).arg(by).arg(why);
        self.change(&call).await
    }

    /// Lets a held job go on, at its old place.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn let_go(&self, job: &JobId) -> Result<Changed, LinkError> {
        let mut call = script::LET_GO.prepare_invoke();
        call.arg(job.to_string());
        self.change(&call).await
    }

    /// Puts a waiting or held job into another level, where it stands as the level's rule says.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn move_to(&self, job: &JobId, level: &Level) -> Result<Changed, LinkError> {
        let mut call = script::MOVE.prepare_invoke();
        call.arg(job.to_string()).arg(self.inbox(&level.name)?).arg(level.order_text()).arg(level.max_wait_text());
        self.change(&call).await
    }

    /// Makes a job ready at once, its attempts counted anew: one that was given up, one that waits for a retry's time, or one that
    /// a node is fetching, which loses it. Only if it is in one of the states that are `meant` when it comes to it.
    /// The same `request` again, its answer lost, does nothing more.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn requeue(&self, job: &JobId, meant: &[JobState], request: Uuid) -> Result<Changed, LinkError> {
        let mut call = script::REQUEUE.prepare_invoke();
        call.arg(job.to_string()).arg(words(meant)).arg(request.to_string());
        self.change(&call).await
    }

    /// Takes a job out of the queue, wherever it is but among the dead letters, and writes its one report: cancelled, with
    /// `reason`. A node that is fetching it loses it. A second copy has no report: its backup stays stored. Only if it is in one of
    /// the states that are `meant` when it comes to it.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn cancel(&self, job: &JobId, reason: &Reason, meant: &[JobState]) -> Result<Changed, LinkError> {
        let id = job.to_string();
        for _ in 0..MOST_TRIES {
            let mut command = redis::cmd("HMGET");
            command.arg(key(&format!("job:{id}"))).arg(&["revision", "attempts"]);
            let (seen, attempts): (Option<u64>, Option<u32>) = self.query(&command).await?;
            let body: Option<Vec<u8>> = self.query(redis::cmd("GET").arg(key(&format!("body:{id}")))).await?;
            let mut call = script::CANCEL.prepare_invoke();
            call.arg(&id).arg(words(meant));
            if let Some(seen) = seen {
                let job = body.and_then(|body| serde_json::from_slice::<Job>(&body).ok());
                let Some(job) = job else { return Ok(Changed::Unreadable) };
                let revision = self.now_micros().await?.max(seen + 1);
                let at = millis(revision);
                let report = Report {
                    attempts: attempts.unwrap_or(0),
                    ..Report::without_transfer(job, revision, Outcome::Cancelled, reason.clone(), at)
                };
                call.arg(seen).arg(revision).arg(self.json(&report, &id)?);
            }
            let answer: String = self.run(&call).await?;
            // Claimed meanwhile: the report must be newer than that claim.
            if answer != "changed" {
                return self.changed(&answer);
            }
        }
        Ok(Changed::Left(JobState::Leased))
    }

    /// Throws a dead letter away: `job:ID` or `raw:N`. The report that its job ended with stands. Whether it is gone now.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn drop_letter(&self, letter: &str) -> Result<Changed, LinkError> {
        let mut call = script::DROP.prepare_invoke();
        call.arg(letter);
        self.change(&call).await
    }

    /// Gives a dead letter another chance: a job is made ready, an inbox entry goes back to where it came from.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn retry_letter(&self, letter: &str) -> Result<Changed, LinkError> {
        if let Some(job) = letter.strip_prefix("job:").and_then(|id| id.parse().ok()) {
            return self.requeue(&job, &[JobState::Dead], Uuid::now_v7()).await;
        }
        let mut call = script::PUSH_AGAIN.prepare_invoke();
        call.arg(letter);
        self.change(&call).await
    }

    /// The reason of a cancelled job's report.
    pub fn cancel_reason(by: &str, why: &str) -> Reason {
        let text = if why.is_empty() { format!("cancelled by {by}") } else { format!("cancelled by {by}: {why}") };
        Reason::new(ReasonCode::Cancelled, text)
    }

    async fn change(&self, call: &ScriptInvocation<'_>) -> Result<Changed, LinkError> {
        let answer: String = self.run(call).await?;
        self.changed(&answer)
    }

    fn changed(&self, answer: &str) -> Result<Changed, LinkError> {
        match answer {
            "done" => Ok(Changed::Done),
            "unknown" => Ok(Changed::Unknown),
            "copy" => Ok(Changed::Copy),
            state => state.parse().map(Changed::Left).map_err(|error| self.damaged("the reply to an operator", error)),
        }
    }
}

/// As the scripts look for one: `,ready,held,`.
fn words(states: &[JobState]) -> String {
    states.iter().fold(",".to_owned(), |words, state| words + state.as_str() + ",")
}
