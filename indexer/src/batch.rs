//! One batch of the stream, from reading to acknowledgement.
//!
//! The order is the safety: first the catalog has every report durably, then freshness, then what was refused is set aside,
//! and only then is the batch acknowledged. Killed between any two, the batch is read again, and every step gives the
//! same when it is done twice.

use std::time::Instant;

use longshore_catalog::{Catalog, CatalogError, Freshness, HostSeen, Put};
use longshore_core::{
    Millis, Outcome, Report,
    queue::{DeadReport, StreamBody, StreamEntry},
    shutdown::Shutdown,
};

use crate::{
    backoff::Backoff,
    condition::{Condition, Part},
};

/// A batch, sorted by what is done with it.
#[derive(Debug)]
pub struct Batch {
    began: Instant,
    /// Every entry that is acknowledged in the end.
    ids: Vec<String>,
    reports: Vec<Report>,
    /// The stream's id of each report.
    report_ids: Vec<String>,
    hosts: Vec<HostSeen>,
    dead: Vec<DeadReport>,
    undecodable: usize,
}

impl Batch {
    /// Of what was read.
    pub fn new(entries: Vec<StreamEntry>) -> Self {
        let mut batch = Self {
            began: Instant::now(),
            ids: Vec::with_capacity(entries.len()),
            reports: Vec::with_capacity(entries.len()),
            report_ids: Vec::with_capacity(entries.len()),
            hosts: Vec::new(),
            dead: Vec::new(),
            undecodable: 0,
        };
        for StreamEntry { id, body } in entries {
            match body {
                StreamBody::Report(report) => {
                    batch.reports.push(*report);
                    batch.report_ids.push(id);
                }
                StreamBody::HostBeat(beat) => {
                    batch.hosts.push(HostSeen { seen_at: written_at(&id), beat: *beat });
                    batch.ids.push(id);
                }
                StreamBody::Undecodable { kind, bytes, why } => {
                    batch.undecodable += 1;
                    batch.dead.push(DeadReport { id, kind, why, body: bytes });
                }
            }
        }
        batch
    }

    /// Writes it into the catalog, waiting for as long as the catalog is away. `false`: `shutdown` was requested before it
    /// was done; nothing is lost, since nothing is acknowledged.
    pub async fn write(&mut self, catalog: &dyn Catalog, condition: &Condition, shutdown: &Shutdown) -> bool {
        if !self.put(catalog, condition, shutdown).await {
            return false;
        }
        longshore_core::step::reached("indexer.written");
        let records = Freshness::summary(&self.reports);
        let mut backoff = Backoff::new();
        while let Err(error) = self.put_rest(catalog, &records).await {
            condition.trouble(Part::Writing, &error);
            if !backoff.wait(shutdown).await {
                return false;
            }
        }
        condition.clear(Part::Writing);
        longshore_core::step::reached("indexer.freshness");
        true
    }

    async fn put_rest(&self, catalog: &dyn Catalog, records: &[Freshness]) -> Result<(), CatalogError> {
        catalog.put_freshness(records).await?;
        catalog.put_hosts(&self.hosts).await
    }

    /// Puts the reports; afterwards only those that tell of their instance are left in `reports`.
    async fn put(&mut self, catalog: &dyn Catalog, condition: &Condition, shutdown: &Shutdown) -> bool {
        let mut waiting = std::mem::take(&mut self.reports);
        let mut waiting_ids = std::mem::take(&mut self.report_ids);
        let mut backoff = Backoff::new();
        while !waiting.is_empty() {
            let results = match catalog.put(&waiting).await {
                Ok(results) => results,
                Err(error) => {
                    condition.trouble(Part::Writing, &error);
                    if !backoff.wait(shutdown).await {
                        return false;
                    }
                    continue;
                }
            };
            let (mut again, mut again_ids) = (Vec::new(), Vec::new());
            let mut why_again = None;
            for ((report, id), put) in waiting.into_iter().zip(waiting_ids).zip(results) {
                condition.put(&put);
                match put {
                    // Another report of the job tells of the instance: that it failed beside that is no news of it.
                    Put::Older if report.outcome != Outcome::Stored => self.ids.push(id),
                    Put::Written | Put::Older => {
                        self.reports.push(report);
                        self.ids.push(id);
                    }
                    Put::Refused(why) => {
                        tracing::error!(job = %report.job.id, instance = %report.job.key(), %why, "refused by the catalog");
                        let body = serde_json::to_vec(&report).unwrap_or_default();
                        self.dead.push(DeadReport { id, kind: "report".to_owned(), why, body });
                    }
                    Put::Overloaded(why) => {
                        why_again.get_or_insert(why);
                        again.push(report);
                        again_ids.push(id);
                    }
                }
            }
            match why_again {
                None => condition.clear(Part::Writing),
                Some(why) => {
                    condition.trouble(Part::Writing, format!("{} reports are not taken: {why}", again.len()));
                    if !backoff.wait(shutdown).await {
                        return false;
                    }
                }
            }
            (waiting, waiting_ids) = (again, again_ids);
        }
        true
    }

    /// What is set aside.
    pub fn dead(&self) -> &[DeadReport] {
        &self.dead
    }

    /// What is acknowledged, beside what is set aside.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// It was acknowledged.
    pub fn count(&self, condition: &Condition) {
        let refused = self.dead.len() - self.undecodable;
        condition.batch(self.reports.len() + refused, self.hosts.len(), self.undecodable, self.began);
    }
}

/// When an entry reached Redis: its id begins with that, by Redis' clock.
fn written_at(id: &str) -> Millis {
    id.split('-').next().and_then(|millis| millis.parse().ok()).map_or_else(Millis::now, Millis)
}
