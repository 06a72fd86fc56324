//! How fresh each instance is, and when each host was last heard of.
//!
//! A record is a summary of reports whose merge is commutative and idempotent: of two good points the later stays, of two
//! last reports the later stays. So batches may be replayed, reordered, and written by several indexers.

use std::{collections::BTreeMap, time::Duration};

use longshore_core::{
    BackupType, BusinessId, HostBeat, InstanceKey, JobId, Millis, Outcome, Report, ServerId, report::Reason,
};
use serde::{Deserialize, Serialize};

use crate::{Cursor, backup::point_of, entry::LAST_MOMENT};

/// The name of the list of instances, in cursors.
pub(crate) const INSTANCES_LIST: &str = "instances";
/// The name of the list of hosts, in cursors.
pub(crate) const HOSTS_LIST: &str = "hosts";

/// What is known of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Freshness {
    /// The instance: `server_id`, `type`, `instance`.
    #[serde(flatten)]
    pub key: InstanceKey,
    /// Its business, by the last report.
    pub business_id: BusinessId,
    /// How often it is backed up, in seconds, by the last report.
    pub interval_seconds: u64,
    /// The last good stored backup; `None` when there never was one.
    pub last_good: Option<GoodPoint>,
    /// The last report, whatever its outcome.
    pub last_report: LastReport,
    /// When its host was last heard of, by Redis' clock. Filled in by reads; not written.
    #[serde(default)]
    pub host_seen: Option<Millis>,
}

/// The last moment that is protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoodPoint {
    /// The backup.
    pub job: JobId,
    /// The moment: the earlier of made and stored.
    pub point: Millis,
    /// When it was stored, by the node's clock.
    pub stored_at: Millis,
    /// Its bytes.
    pub size_bytes: u64,
}

/// The end of the last job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastReport {
    /// The job.
    pub job: JobId,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was not stored.
    pub reason: Option<Reason>,
    /// When it ended.
    pub at: Millis,
    /// The report's revision.
    pub revision: u64,
}

impl Freshness {
    /// What one report says.
    pub fn of(report: &Report) -> Self {
        let good = || GoodPoint {
            job: report.job.id,
            point: point_of(report),
            stored_at: report.stored_at,
            size_bytes: report.job.size_bytes(),
        };
        Self {
            key: report.job.key(),
            business_id: report.job.business_id.clone(),
            interval_seconds: report.job.interval_seconds,
            last_good: (report.outcome == Outcome::Stored).then(good),
            last_report: LastReport {
                job: report.job.id,
                outcome: report.outcome,
                reason: report.reason.clone(),
                at: report.stored_at,
                revision: report.revision,
            },
            host_seen: None,
        }
    }

    /// One record an instance, of all `reports`, ordered by instance.
    pub fn summary<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Vec<Self> {
        let mut records: BTreeMap<InstanceKey, Self> = BTreeMap::new();
        for report in reports {
            let record = Self::of(report);
            match records.get_mut(&record.key) {
                Some(kept) => kept.merge(record),
                None => {
                    records.insert(record.key.clone(), record);
                }
            }
        }
        records.into_values().collect()
    }

    /// Takes from `other`, a record of the same instance, what is later.
    pub fn merge(&mut self, other: Self) {
        let order = |record: &Self| (record.last_report.revision, record.last_report.job);
        if order(&other) > order(self) {
            self.business_id = other.business_id;
            self.interval_seconds = other.interval_seconds;
            self.last_report = other.last_report;
        }
        let good = |good: &Option<GoodPoint>| good.as_ref().map(|good| (good.point, good.job));
        if good(&other.last_good) > good(&self.last_good) {
            self.last_good = other.last_good;
        }
    }

    /// The cursor after this record.
    pub(crate) fn cursor_after(&self) -> Cursor {
        Cursor::of(INSTANCES_LIST, &(&self.key.server_id, &self.key.backup_type, &self.key.instance))
    }

    /// When the next good point is due: the last one plus the interval, within the calendar, since a host may say any interval.
    /// `None` when there never was one.
    pub fn due_at(&self) -> Option<Millis> {
        let good = self.last_good.as_ref()?;
        Some(good.point.plus(Duration::from_secs(self.interval_seconds)).min(LAST_MOMENT))
    }

    /// Whether it is late at `now`: past due by more than `grace`, or never backed up well.
    pub fn is_late(&self, now: Millis, grace: Duration) -> bool {
        self.due_at().is_none_or(|due| due.plus(grace) < now)
    }
}

/// Which instances' freshness.
#[derive(Debug, Clone, PartialEq)]
pub struct FreshnessQuery {
    /// Of this host only.
    pub server_id: Option<ServerId>,
    /// Of this type only.
    pub backup_type: Option<BackupType>,
    /// Of this business only.
    pub business_id: Option<BusinessId>,
    /// Only those whose next good point was due before this, and those that never had one. For the late ones: now less grace.
    pub due_before: Option<Millis>,
    /// How many at most, 1 to 1000.
    pub limit: u32,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

impl Default for FreshnessQuery {
    fn default() -> Self {
        Self { server_id: None, backup_type: None, business_id: None, due_before: None, limit: 200, cursor: None }
    }
}

/// A host's latest beat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostSeen {
    /// When it reached Redis, by Redis' clock.
    pub seen_at: Millis,
    /// What the agent said.
    pub beat: HostBeat,
}

impl HostSeen {
    /// The cursor after this host.
    pub(crate) fn cursor_after(&self) -> Cursor {
        Cursor::of(HOSTS_LIST, &self.beat.server_id)
    }
}
