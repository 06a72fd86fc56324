//! Dead letters: what is kept for a person. Jobs given up, and inbox entries that were refused or could not be read.

use super::{Queue, claim::millis, key};
use crate::{Job, JobId, Millis, QueueName, ReasonCode, redis_link::LinkError, report::Reason};

/// So much of an inbox entry is shown; the rest stays in Redis.
const SHOWN_BYTES: usize = 4096;

/// Some of the dead letters.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetters {
    /// How many there are in all.
    pub total: u64,
    /// Those asked for, the newest first.
    pub letters: Vec<DeadLetter>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its name: `job:` and the job's id, or `raw:` and a number.
    pub id: String,
    /// The level that it was in.
    pub queue: Option<QueueName>,
    /// Since when it is here, by Redis' clock.
    pub at: Millis,
    /// Why.
    pub reason: Reason,
    /// What is left of it.
    pub remains: Remains,
}

/// What a dead letter consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Remains {
    /// A job that nodes gave up.
    Job {
        /// The job.
        job: Box<Job>,
        /// Transfers begun for it.
        attempts: u32,
    },
    /// An inbox entry as it came, or a job's record that this version can't read.
    Bytes {
        /// Its beginning.
        beginning: Vec<u8>,
        /// How long it is.
        bytes: u64,
        /// The job that it was reported as, when it named an instance, or that it is the record of.
        job: Option<JobId>,
    },
}

impl Queue {
    /// The dead letters, the newest first: `most` of them after leaving out the first `skip`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn dead_letters(&self, skip: usize, most: usize) -> Result<DeadLetters, LinkError> {
        let total = self.query(redis::cmd("ZCARD").arg(key("dead"))).await?;
        if most == 0 {
            return Ok(DeadLetters { total, letters: Vec::new() });
        }
        let mut command = redis::cmd("ZREVRANGE");
        command.arg(key("dead")).arg(skip).arg(skip.saturating_add(most - 1)).arg("WITHSCORES");
        let names: Vec<(String, u64)> = self.query(&command).await?;
        let mut letters = Vec::with_capacity(names.len());
        for (name, at) in names {
            letters.extend(self.dead_letter(name, millis(at)).await?);
        }
        Ok(DeadLetters { total, letters })
    }

    /// `None` when it was taken out between two looks.
    async fn dead_letter(&self, id: String, at: Millis) -> Result<Option<DeadLetter>, LinkError> {
        let mut command = redis::cmd("HMGET");
        command.arg(key(&id)).arg(&["queue", "code", "text", "attempts", "job"]);
        let fields: Vec<Option<String>> = self.query(&command).await?;
        let [queue, code, text, attempts, job] = fields.as_slice() else {
            return Err(self.damaged(id, "a short reply"));
        };
        let (Some(queue), Some(code)) = (queue, code) else { return Ok(None) };
        let remains = match id.strip_prefix("job:") {
            Some(job) => {
                let body: Option<Vec<u8>> = self.query(redis::cmd("GET").arg(key(&format!("body:{job}")))).await?;
                let body = body.unwrap_or_default();
                match serde_json::from_slice(&body) {
                    Ok(job) => {
                        let attempts = attempts.as_ref().and_then(|text| text.parse().ok()).unwrap_or(0);
                        Remains::Job { job: Box::new(job), attempts }
                    }
                    // Of another version, perhaps: shown as it is, and the other letters with it.
                    Err(_) => Remains::Bytes {
                        beginning: body[..body.len().min(SHOWN_BYTES)].to_vec(),
                        bytes: body.len() as u64,
                        job: job.parse().ok(),
                    },
                }
            }
            None => {
                let place = key(&format!("bytes:{id}"));
                let mut command = redis::cmd("GETRANGE");
                let beginning: Vec<u8> = self.query(command.arg(&place).arg(0).arg(SHOWN_BYTES - 1)).await?;
                let bytes = self.query(redis::cmd("STRLEN").arg(&place)).await?;
                Remains::Bytes { beginning, bytes, job: job.as_ref().and_then(|id| id.parse().ok()) }
            }
        };
        let reason = Reason::new(ReasonCode::from(code.clone()), text.as_deref().unwrap_or_default());
        Ok(Some(DeadLetter { id, queue: queue.parse().ok(), at, reason, remains }))
    }
}
