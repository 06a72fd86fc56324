//! An entry of the catalog: the report of a job, and what is derived from it.

use longshore_core::{InstanceKey, JobId, Millis, Outcome, Report, chain::ChainState};
use serde::{Deserialize, Serialize};

/// A catalog entry. In JSON it is the report itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Backup {
    /// The job's final report, as it was written.
    pub report: Report,
}

impl Backup {
    /// The job's id, which is the entry's.
    pub fn id(&self) -> JobId {
        self.report.job.id
    }

    /// The instance.
    pub fn key(&self) -> InstanceKey {
        self.report.job.key()
    }

    /// Whether it can be restored from: stored whole and verified.
    pub fn is_good(&self) -> bool {
        self.report.outcome == Outcome::Stored
    }

    /// Bytes announced; 0 where a run made nothing.
    pub fn size_bytes(&self) -> u64 {
        self.report.job.size_bytes()
    }

    /// The moment it protects up to : when its run began, never later than it was stored.
    pub fn point(&self) -> Millis {
        point_of(&self.report)
    }
}

/// A backup's point: when its run started by the host's clock, but never later than it was stored by the node's clock, so
/// that a host whose clock runs ahead can't look fresh for longer than it is.
pub(crate) fn point_of(report: &Report) -> Millis {
    report.job.made_at.min(report.stored_at)
}

/// What to restore, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// The full first, the wanted backup last. Never empty.
    pub backups: Vec<Backup>,
    /// Whether anything is missing.
    pub state: ChainState,
}

impl Chain {
    /// Bytes of all its backups.
    pub fn size_bytes(&self) -> u64 {
        self.backups.iter().map(Backup::size_bytes).sum()
    }
}

/// How reports of one job stand to each other: the greater is the job's entry, in whatever order they come. What is stored
/// stands against any other end, also a later one: a host that offers a job again, after a queue had forgotten it, has no file
/// any more, but the node has. Among the rest the later revision counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// Whether its outcome is stored.
    pub is_stored: bool,
    /// The report's revision.
    pub revision: u64,
}

impl Standing {
    /// Of `report`.
    pub fn of(report: &Report) -> Self {
        Self { is_stored: report.outcome == Outcome::Stored, revision: report.revision }
    }
}

/// What became of one report that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The entry is this report now, durably (also when it was already).
    Written,
    /// The entry that is there stands above it ([`Standing`]) and stays.
    Older,
    /// The catalog will never take it; why.
    Refused(String),
    /// The catalog has no room for it now: to be put again later; why.
    Overloaded(String),
}
