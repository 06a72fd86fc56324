//! Admission: from what anyone pushed into an inbox to what nodes claim. Parsing is done here, never in Lua; the script moves an
//! entry only if it is still what was parsed.

use std::time::Duration;

use redis::Value;

use super::{
    Level, Queue,
    claim::{micros, size_class},
    host::mail,
    script,
};
use crate::{
    Job, Millis, Outcome, QueueName, ReasonCode, Report,
    incoming::{self, Incoming},
    job::MAX_JOB_BYTES,
    redis_link::LinkError,
    report::Reason,
};

/// Entries of one round trip; the script takes about 15 µs for each.
const BATCH_ENTRIES: usize = 64;
/// About what one reading brings at most.
const BATCH_BYTES: usize = 1024 * 1024;
/// Lua's numbers are exact up to here; in microseconds, the year 2255.
const LAST_MICROS: u64 = 1 << 53;
/// Of a job that says 0, as the seed's do.
const USUAL_INTERVAL: Duration = Duration::from_secs(86_400);
/// What a job says beyond these is taken for these: it only decides when the job is due.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(400 * 86_400));

/// What an admission did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admitted {
    /// Jobs that nodes can claim now.
    pub jobs: u64,
    /// Failures and refusals, reported.
    pub reports: u64,
    /// Entries kept among the dead letters (refusals are in both counts).
    pub dead: u64,
    /// Entries of jobs that were known already.
    pub known: u64,
    /// An inbox that could not be read, and why; the others were.
    pub unread: Option<String>,
}

/// One parsed entry, as the script wants it.
#[derive(Default)]
pub(super) struct Entry {
    kind: &'static str,
    raw: Vec<u8>,
    id: String,
    host: String,
    mail: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) size: String,
    pub(super) need: String,
    pub(super) class: String,
    module: String,
    pub(super) made: String,
    pub(super) interval: String,
    outcome: &'static str,
    revision: String,
    code: String,
    text: String,
}

impl Queue {
    /// Admits the oldest entries of these levels' inboxes, at most `most` in all: an equal part of each, since a job's wait counts
    /// from its admission, then what is left over for the first level first.
    ///
    /// # Errors
    /// [`LinkError`] when Redis is away; what was admitted before it stays admitted.
    pub async fn admit(&self, levels: &[Level], most: usize) -> Result<Admitted, LinkError> {
        let mut admitted = Admitted::default();
        let part = (most / levels.len().max(1)).max(1);
        let (mut left, mut fuller) = (most, Vec::new());
        for level in levels {
            if Box::pin(self.admit_level(level, part, &mut left, &mut admitted)).await? {
                fuller.push(level);
            }
        }
        for level in fuller {
            Box::pin(self.admit_level(level, most, &mut left, &mut admitted)).await?;
        }
        Ok(admitted)
    }

    /// Admits at most `most` entries of one inbox, within what is `left` for all; tells whether there may be more.
    async fn admit_level(
        &self,
        level: &Level,
        most: usize,
        left: &mut usize,
        admitted: &mut Admitted,
    ) -> Result<bool, LinkError> {
        let mut of_this = most.min(*left);
        while of_this > 0 {
            let taken = self.admit_some(level, of_this.min(BATCH_ENTRIES), admitted).await;
            let (entries, taken) = match taken {
                Err(error) if !error.is_transient() => {
                    admitted.unread = Some(format!("{}: {error}", level.name));
                    return Ok(false);
                }
                other => other?,
            };
            (of_this, *left) = (of_this.saturating_sub(taken), left.saturating_sub(taken));
            if taken == 0 || taken < entries {
                // It is empty, or another node admits from it just now.
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many entries were there, and how many of them were admitted.
    async fn admit_some(
        &self,
        level: &Level,
        most: usize,
        admitted: &mut Admitted,
    ) -> Result<(usize, usize), LinkError> {
        let entries = self.peek(&level.name, most).await?;
        let taken = if entries.is_empty() { 0 } else { self.take_in(level, &entries, admitted).await? };
        Ok((entries.len(), taken))
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

    async fn take_in(&self, level: &Level, entries: &[Entry], admitted: &mut Admitted) -> Result<usize, LinkError> {
        let mut call = script::ADMIT.prepare_invoke();
        call.arg(level.name.as_str())
            .arg(MAX_JOB_BYTES)
            .arg(level.order_text())
            .arg(level.max_wait_text())
            .arg(entries.len());
        for entry in entries {
            call.arg(entry.kind).arg(&entry.raw).arg(&entry.id).arg(&entry.host).arg(entry.mail).arg(&entry.body);
            call.arg(&entry.size)
                .arg(&entry.need)
                .arg(&entry.class)
                .arg(&entry.module)
                .arg(&entry.made)
                .arg(&entry.interval);
            call.arg(entry.outcome).arg(&entry.revision);
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
            Incoming::Job(job) => return Ok(Entry { raw, ..self.job_entry(&job)? }),
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

impl Queue {
    /// A job to be fetched, as scripts index it.
    pub(super) fn job_entry(&self, job: &Job) -> Result<Entry, LinkError> {
        let id = job.id.to_string();
        let (bytes, inodes) = job.footprint();
        let made_micros = u64::try_from(job.made_at.0).unwrap_or(0).saturating_mul(1000).min(LAST_MICROS);
        Ok(Entry {
            kind: "job",
            body: self.json(job, &id)?,
            host: job.server_id.to_string(),
            mail: mail(job),
            size: job.size_bytes().to_string(),
            need: format!("{bytes}:{inodes}"),
            class: size_class(bytes).to_string(),
            module: job.source.as_ref().map_or_else(String::new, |source| source.module.to_string()),
            made: made_micros.to_string(),
            interval: micros(interval(job)).to_string(),
            id,
            ..Entry::default()
        })
    }
}

fn interval(job: &Job) -> Duration {
    match job.interval_seconds {
        0 => USUAL_INTERVAL,
        seconds => Duration::from_secs(seconds).clamp(INTERVALS.0, INTERVALS.1),
    }
}

impl Entry {
    fn kept(kind: &'static str, reason: &Reason) -> Self {
        Self { kind, code: reason.code.as_str().to_owned(), text: reason.text.clone(), ..Self::default() }
    }
}
