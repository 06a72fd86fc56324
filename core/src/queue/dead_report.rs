//! Reports that no catalog takes, and stream entries that can't be read: kept for a person, by their id in the stream.

use super::{Queue, ReportReader, key};
use crate::{Millis, redis_link::LinkError};

/// One entry of the report stream that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadReport {
    /// Its id in the stream, which begins with the milliseconds of when it was written.
    pub id: String,
    /// Its kind there: `report` or `host_beat`, or what else it said.
    pub kind: String,
    /// Why it was set aside.
    pub why: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl DeadReport {
    /// When it was written to the stream, by Redis' clock.
    pub fn written_at(&self) -> Option<Millis> {
        self.id.split('-').next()?.parse().ok().map(Millis)
    }
}

impl ReportReader {
    /// Moves entries from the stream to the dead reports, in one step. Repeated, they are there once.
    ///
    /// # Errors
    /// [`LinkError`]; what is not moved is read again after a restart.
    pub async fn set_aside(&mut self, dead: &[DeadReport]) -> Result<(), LinkError> {
        if dead.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        pipe.atomic();
        for report in dead {
            pipe.cmd("HSET").arg(key("dead_reports")).arg(&report.id).arg(&report.body).ignore();
            let why = format!("{}\n{}", report.kind, report.why);
            pipe.cmd("HSET").arg(key("dead_reports_why")).arg(&report.id).arg(why).ignore();
        }
        self.queue().pipe(&pipe).await?;
        // Acknowledged after, not with it: killed between the two, the entry is set aside again under the same id.
        self.acknowledge(&dead.iter().map(|report| report.id.clone()).collect::<Vec<_>>()).await
    }
}

impl Queue {
    /// All dead reports, the oldest first.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn dead_reports(&self) -> Result<Vec<DeadReport>, LinkError> {
        let whys: Vec<(String, String)> = self.query(redis::cmd("HGETALL").arg(key("dead_reports_why"))).await?;
        let mut dead = Vec::with_capacity(whys.len());
        for (id, text) in whys {
            let body: Option<Vec<u8>> = self.query(redis::cmd("HGET").arg(key("dead_reports")).arg(&id)).await?;
            let (kind, why) = text.split_once('\n').unwrap_or(("", &text));
            if let Some(body) = body {
                dead.push(DeadReport { kind: kind.to_owned(), why: why.to_owned(), id, body });
            }
        }
        let order = |id: &str| {
            let (millis, number) = id.split_once('-').unwrap_or((id, "0"));
            (millis.parse::<u64>().unwrap_or(0), number.parse::<u64>().unwrap_or(0))
        };
        dead.sort_by_key(|report| order(&report.id));
        Ok(dead)
    }

    /// Puts a dead report back on the stream, to be tried again.
    ///
    /// # Errors
    /// [`LinkError`]; repeated after one, it may be on the stream twice, which ends as once.
    pub async fn retry_report(&self, report: &DeadReport) -> Result<(), LinkError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("XADD").arg(key("reports")).arg("*");
        pipe.arg("kind").arg(&report.kind).arg("body").arg(&report.body).ignore();
        self.forget(&mut pipe, report);
        self.pipe(&pipe).await
    }

    /// Throws a dead report away.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn drop_report(&self, report: &DeadReport) -> Result<(), LinkError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        self.forget(&mut pipe, report);
        self.pipe(&pipe).await
    }

    fn forget(&self, pipe: &mut redis::Pipeline, report: &DeadReport) {
        pipe.cmd("HDEL").arg(key("dead_reports")).arg(&report.id).ignore();
        pipe.cmd("HDEL").arg(key("dead_reports_why")).arg(&report.id).ignore();
    }
}
