//! The indexers' end: reports and host beats off the stream, by consumer group. An entry stays in the stream until it is
//! acknowledged, which its reader does once the catalog has it durably.

use std::{collections::HashSet, time::Duration};

use redis::Value;
use tokio::time::Instant;

use super::{Queue, claim::micros, key};
use crate::{
    HostBeat, Millis, Report, beat::BEAT_VERSION, jitter::jittered, redis_link::LinkError, report::REPORT_VERSION,
    shutdown::Shutdown,
};

/// While nothing comes, the stream is asked after this long, then after twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One entry of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamEntry {
    /// The stream's id of it, for [`ReportReader::acknowledge`].
    pub id: String,
    /// What it is.
    pub body: StreamBody,
}

/// What an entry of the stream is.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamBody {
    /// What became of a job.
    Report(Box<Report>),
    /// What a host's agent saw.
    HostBeat(Box<HostBeat>),
    /// Neither: set it aside and acknowledge it.
    Undecodable {
        /// What the entry calls itself.
        kind: String,
        /// The body as it is.
        bytes: Vec<u8>,
        /// Why it can't be read.
        why: String,
    },
}

/// How far a group is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Entries in the stream: not read yet, or read and not acknowledged.
    pub entries: u64,
    /// Of these, read and not acknowledged.
    pub pending: u64,
    /// When the oldest entry was written, by Redis' clock.
    pub oldest_at: Option<Millis>,
}

/// One consumer of a group. What it had read and not acknowledged before it was restarted comes first.
#[derive(Debug)]
pub struct ReportReader {
    queue: Queue,
    stream: String,
    group: String,
    consumer: String,
    /// Where to go on among this consumer's own pending entries; `None` when all of them are in hand.
    own_after: Option<String>,
    /// Given out and not acknowledged.
    in_hand: HashSet<String>,
    has_group: bool,
}

impl Queue {
    /// A reader of the report stream. `consumer` must be the same after a restart and another in every running process.
    pub fn reports(&self, group: &str, consumer: &str) -> ReportReader {
        ReportReader {
            queue: self.clone(),
            stream: key("reports"),
            group: group.to_owned(),
            consumer: consumer.to_owned(),
            own_after: Some("0".to_owned()),
            in_hand: HashSet::new(),
            has_group: false,
        }
    }
}

impl ReportReader {
    /// The next entries, at most `most`, waiting up to `wait` for the first; none when nothing came or `shutdown` was requested.
    /// Dropped while it waits, it loses nothing: the entries come with a later call.
    ///
    /// # Errors
    /// [`LinkError`]; read again when it is transient.
    pub async fn read(
        &mut self,
        most: usize,
        wait: Duration,
        shutdown: &Shutdown,
    ) -> Result<Vec<StreamEntry>, LinkError> {
        let until = Instant::now() + wait;
        let mut pause = FIRST_PAUSE;
        loop {
            let entries = self.read_now(most).await?;
            if !entries.is_empty() || shutdown.is_requested() || Instant::now() >= until {
                return Ok(entries);
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.min(Instant::now() + jittered(pause))) => {}
                () = shutdown.requested() => return Ok(Vec::new()),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The queue that it reads from.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Says that the catalog has these durably: they leave the stream.
    ///
    /// # Errors
    /// [`LinkError`]; what is not acknowledged is read again after a restart.
    pub async fn acknowledge(&mut self, ids: &[String]) -> Result<(), LinkError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("XACK").arg(&self.stream).arg(&self.group).arg(ids).ignore();
        pipe.cmd("XDEL").arg(&self.stream).arg(ids).ignore();
        self.queue.pipe(&pipe).await?;
        for id in ids {
            self.in_hand.remove(id);
        }
        Ok(())
    }

    /// Takes over entries that other consumers of the group read at least `idle` ago and never acknowledged: they are dead. To be
    /// called now and then: the next read also gives what this consumer has pending and not in hand, since Redis forgot that it
    /// was acknowledged.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn adopt(&mut self, idle: Duration, most: usize) -> Result<Vec<StreamEntry>, LinkError> {
        self.ensure_group().await?;
        self.own_after = Some("0".to_owned());
        let mut start = "0-0".to_owned();
        // Given out all at once: what an earlier round brought must not be in hand when a later one fails.
        let mut found = Vec::new();
        loop {
            let mut command = redis::cmd("XAUTOCLAIM");
            command.arg(&self.stream).arg(&self.group).arg(&self.consumer).arg(micros(idle) / 1000).arg(&start);
            command.arg("COUNT").arg(most - found.len());
            let mut answer = self.queue.query::<Vec<Value>>(&command).await?.into_iter();
            let next = answer.next().and_then(|next| redis::from_redis_value::<String>(next).ok()).unwrap_or_default();
            if let Some(Value::Array(more)) = answer.next() {
                found.extend(more);
            }
            if next == "0-0" || next.is_empty() || found.len() >= most {
                return self.give_out(Value::Array(found)).await;
            }
            start = next;
        }
    }

    /// How far the group is behind.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn lag(&mut self) -> Result<Backlog, LinkError> {
        self.ensure_group().await?;
        let entries = self.queue.query(redis::cmd("XLEN").arg(&self.stream)).await?;
        let mut command = redis::cmd("XPENDING");
        let summary: Vec<Value> = self.queue.query(command.arg(&self.stream).arg(&self.group)).await?;
        let pending = summary.into_iter().next().and_then(|count| redis::from_redis_value(count).ok()).unwrap_or(0);
        let mut command = redis::cmd("XRANGE");
        let oldest: Vec<Value> =
            self.queue.query(command.arg(&self.stream).arg("-").arg("+").arg("COUNT").arg(1)).await?;
        let oldest_at = oldest.into_iter().next().and_then(|entry| {
            let (id, _) = id_and_fields(entry)?;
            Some(Millis(id.split('-').next()?.parse().ok()?))
        });
        Ok(Backlog { entries, pending, oldest_at })
    }

    async fn read_now(&mut self, most: usize) -> Result<Vec<StreamEntry>, LinkError> {
        self.ensure_group().await?;
        while let Some(after) = self.own_after.clone() {
            let found = self.read_group(most, &after).await?;
            let Some(last) = last_id(&found) else {
                self.own_after = None;
                break;
            };
            let entries = self.give_out(found).await?;
            self.own_after = Some(last);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        // Until the answer is here, what it brings may be lost on the way and then is this consumer's own, pending: should this
        // call fail or be dropped, the next one looks there first.
        self.own_after = Some("0".to_owned());
        let found = self.read_group(most, ">").await?;
        let entries = self.give_out(found).await?;
        self.own_after = None;
        Ok(entries)
    }

    /// The entries after `after`, as Redis sends them.
    async fn read_group(&mut self, most: usize, after: &str) -> Result<Value, LinkError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(most);
        command.arg("STREAMS").arg(&self.stream).arg(after);
        let answer = self.queue.link.query::<Option<Vec<(String, Value)>>>(&command).await;
        if matches!(&answer, Err(LinkError::Refused { text, .. }) if text.contains("NOGROUP")) {
            // The stream was removed under us: the next read makes both anew.
            self.has_group = false;
        }
        Ok(answer?.into_iter().flatten().next().map_or(Value::Nil, |(_, entries)| entries))
    }

    /// Parses what is not in hand already. An entry that was deleted while it was pending is only acknowledged.
    async fn give_out(&mut self, found: Value) -> Result<Vec<StreamEntry>, LinkError> {
        let Value::Array(found) = found else { return Ok(Vec::new()) };
        let (mut there, mut deleted) = (Vec::new(), Vec::new());
        for (id, fields) in found.into_iter().filter_map(id_and_fields) {
            match fields {
                None => deleted.push(id),
                Some(fields) => there.push((id, fields)),
            }
        }
        // Before any is in hand: should this fail, all are found again.
        self.acknowledge(&deleted).await?;
        there.retain(|(id, _)| self.in_hand.insert(id.clone()));
        Ok(there.into_iter().map(|(id, fields)| StreamEntry { id, body: body(fields) }).collect())
    }

    async fn ensure_group(&mut self) -> Result<(), LinkError> {
        if self.has_group {
            return Ok(());
        }
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(&self.group).arg("0").arg("MKSTREAM");
        match self.queue.query::<()>(&command).await {
            Err(LinkError::Refused { text, .. }) if text.contains("BUSYGROUP") => {}
            answer => answer?,
        }
        self.has_group = true;
        Ok(())
    }
}

/// Names are bytes too: an entry that anyone wrote must come to light, whatever it is.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry's id, and its fields unless it was deleted.
fn id_and_fields(entry: Value) -> Option<(String, Option<Fields>)> {
    let Value::Array(parts) = entry else { return None };
    let mut parts = parts.into_iter();
    let id = redis::from_redis_value(parts.next()?).ok()?;
    Some((id, parts.next().and_then(|fields| redis::from_redis_value(fields).ok()?)))
}

fn last_id(found: &Value) -> Option<String> {
    let Value::Array(found) = found else { return None };
    id_and_fields(found.last()?.clone()).map(|(id, _)| id)
}

fn body(fields: Fields) -> StreamBody {
    let (mut kind, mut bytes) = (Vec::new(), Vec::new());
    for (name, value) in fields {
        match name.as_slice() {
            b"kind" => kind = value,
            b"body" => bytes = value,
            _ => {}
        }
    }
    let kind = String::from_utf8_lossy(&kind).into_owned();
    let read = match kind.as_str() {
        "report" => serde_json::from_slice(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|report: Report| known(report.v, REPORT_VERSION).map(|()| StreamBody::Report(Box::new(report)))),
        "host_beat" => serde_json::from_slice(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|beat: HostBeat| known(beat.v, BEAT_VERSION).map(|()| StreamBody::HostBeat(Box::new(beat)))),
        _ => {
            let why = format!("kind {kind:?} is not known to this version");
            return StreamBody::Undecodable { kind, bytes, why };
        }
    };
    read.unwrap_or_else(|why| StreamBody::Undecodable { kind, bytes, why })
}

fn known(version: u32, ours: u32) -> Result<(), String> {
    if version == ours { Ok(()) } else { Err(format!("version {version}; this build reads {ours}")) }
}
