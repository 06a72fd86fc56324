//! Admission: from what anyone pushed into an inbox to what nodes claim. Parsing is done here, never in Lua; the script moves an
//! entry only if it is still what was parsed.

use redis::Value;

use super::{Queue, claim::size_class, host::mail, script};
use crate::{
    Millis, Outcome, QueueName, ReasonCode, Report,
    incoming::{self, Incoming},
    job::MAX_JOB_BYTES,
    redis_link::LinkError,
    report::Reason,
};

/// Entries of one round trip; the script takes about 15 µs for each.
const BATCH_ENTRIES: usize = 64;
/// About what one reading brings at most.
const BATCH_BYTES: usize = 1024 * 1024;

/// What an admission did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Admitted {
    /// Jobs that nodes can claim now.
    pub jobs: u64,
    /// Failures and refusals, reported.
    pub reports: u64,
    /// Entries kept among the dead letters (refusals are in both counts).
    pub dead: u64,
    /// Entries of jobs that were known already.
    pub known: u64,
}

/// One parsed entry, as the script wants it.
#[derive(Default)]
struct Entry {
    kind: &'static str,
    raw: Vec<u8>,
    id: String,
    host: String,
    mail: &'static str,
    body: Vec<u8>,
    size: String,
    class: String,
    outcome: &'static str,
    revision: String,
    code: String,
    text: String,
}

impl Queue {
    /// Admits the oldest entries of these inboxes, at most `most` in all, the first queue first.
    ///
    /// # Errors
    /// [`LinkError`]; what was admitted before it stays admitted.
    pub async fn admit(&self, queues: &[QueueName], most: usize) -> Result<Admitted, LinkError> {
        let mut admitted = Admitted::default();
        let mut left = most;
        for queue in queues {
            while left > 0 {
                let entries = self.peek(queue, left.min(BATCH_ENTRIES)).await?;
                if entries.is_empty() {
                    break;
                }
                let taken = self.take_in(queue, &entries, &mut admitted).await?;
                left = left.saturating_sub(taken);
                if taken < entries.len() {
                    // Another node admits from this inbox just now.
                    break;
                }
            }
        }
        Ok(admitted)
    }

    /// Reads and parses the oldest entries.
    async fn peek(&self, queue: &QueueName, most: usize) -> Result<Vec<Entry>, LinkError> {
        let mut call = script::PEEK.prepare_invoke();
        call.arg(self.inbox(queue)?).arg(most).arg(MAX_JOB_BYTES).arg(BATCH_BYTES);
        let mut found = self.run::<Vec<Value>>(&call).await?.into_iter();
        let now: u64 = found
            .next()
            .and_then(|now| redis::from_redis_value(now).ok())
            .ok_or_else(|| self.damaged("the reply to a look into an inbox", "no time"))?;
        let mut entries = Vec::new();
        for (position, value) in (0..).zip(found) {
            entries.push(match value {
                Value::BulkString(raw) => self.entry(incoming::read(&raw, queue), raw, now + position)?,
                Value::Int(bytes) => {
                    let text = format!("{bytes} bytes; a job has at most {MAX_JOB_BYTES}");
                    Entry::kept("oversize", &Reason::new(ReasonCode::TooLarge, text))
                }
                other => return Err(self.damaged(queue.to_string(), format!("unexpected {other:?}"))),
            });
        }
        Ok(entries)
    }

    async fn take_in(&self, queue: &QueueName, entries: &[Entry], admitted: &mut Admitted) -> Result<usize, LinkError> {
        let mut call = script::ADMIT.prepare_invoke();
        call.arg(queue.as_str()).arg(MAX_JOB_BYTES).arg(entries.len());
        for entry in entries {
            call.arg(entry.kind).arg(&entry.raw).arg(&entry.id).arg(&entry.host).arg(entry.mail).arg(&entry.body);
            call.arg(&entry.size).arg(&entry.class).arg(entry.outcome).arg(&entry.revision);
            call.arg(&entry.code).arg(&entry.text);
        }
        let (jobs, reports, dead, known, taken): (u64, u64, u64, u64, usize) = self.run(&call).await?;
        admitted.jobs += jobs;
        admitted.reports += reports;
        admitted.dead += dead;
        admitted.known += known;
        Ok(taken)
    }

    fn entry(&self, incoming: Incoming, raw: Vec<u8>, revision: u64) -> Result<Entry, LinkError> {
        let (kind, job, outcome, reason) = match incoming {
            Incoming::Undecodable(reason) => return Ok(Entry { raw, ..Entry::kept("undecodable", &reason) }),
            Incoming::Job(job) => {
                let id = job.id.to_string();
                return Ok(Entry {
                    kind: "job",
                    raw,
                    body: self.json(&job, &id)?,
                    host: job.server_id.to_string(),
                    mail: mail(&job),
                    size: job.size_bytes().to_string(),
                    class: size_class(job.size_bytes()).to_string(),
                    id,
                    ..Entry::default()
                });
            }
            Incoming::Failure { job, reason } => ("report", job, Outcome::Failed, reason),
            Incoming::Refused { job, reason } => ("refused", job, Outcome::Refused, reason),
        };
        let (id, host, mail) = (job.id.to_string(), job.server_id.to_string(), mail(&job));
        #[allow(clippy::cast_possible_wrap)] // microseconds of the year 294247 are below the border
        let at = Millis((revision / 1000) as i64);
        let report = Report::without_transfer(*job, revision, outcome, reason.clone(), at);
        Ok(Entry {
            raw,
            body: self.json(&report, &id)?,
            id,
            host,
            mail,
            outcome: outcome.as_str(),
            revision: revision.to_string(),
            ..Entry::kept(kind, &reason)
        })
    }
}

impl Entry {
    fn kept(kind: &'static str, reason: &Reason) -> Self {
        Self { kind, code: reason.code.as_str().to_owned(), text: reason.text.clone(), ..Self::default() }
    }
}
