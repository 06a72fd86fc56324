//! Heartbeats: what a host's agent says after each run, and a node's puller every few seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{InstanceKey, JobId, Millis, NodeId, QueueName, ServerId};

/// The version of both beats.
pub const BEAT_VERSION: u32 = 1;

/// What an agent's run saw; goes to the report stream at the end of every run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostBeat {
    /// Always [`BEAT_VERSION`].
    pub v: u32,
    /// The host.
    pub server_id: ServerId,
    /// By the host's clock.
    pub at: Millis,
    /// The agent's version.
    pub agent_version: String,
    /// Every section of the configuration that this run was to run.
    pub sections: Vec<SectionBeat>,
    /// What waits on the host's disk.
    pub spool: SpoolBeat,
    /// Version of the host's rsync, when there is one.
    pub rsync_version: Option<String>,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// One section's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SectionBeat {
    /// The section's name in the configuration.
    pub name: String,
    /// The instance.
    #[serde(flatten)]
    pub key: InstanceKey,
    /// `ok`, `failed`, or `skipped` (the run before is not over).
    pub outcome: SectionOutcome,
    /// The job that came of it.
    pub job: Option<JobId>,
}

/// How a section's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SectionOutcome {
    /// A job was made.
    Ok,
    /// A failure was reported.
    Failed,
    /// An earlier run of this instance is not over.
    Skipped,
}

/// What waits on a host's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpoolBeat {
    /// Jobs and reports not yet pushed.
    pub waiting: u64,
    /// Jobs pushed whose report is not yet known to exist.
    pub sent: u64,
}

/// What a puller says of its node, every 5 s, into Redis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeBeat {
    /// Always [`BEAT_VERSION`].
    pub v: u32,
    /// The node.
    pub node_id: NodeId,
    /// By the node's clock.
    pub at: Millis,
    /// When this puller process started.
    pub started_at: Millis,
    /// The puller's version.
    pub version: String,
    /// Share of the stream; 0 drains.
    pub weight: u32,
    /// Transfers at once.
    pub slots: u32,
    /// Transfers now.
    pub running: Vec<RunningTransfer>,
    /// The store's file system.
    pub disk: DiskBeat,
    /// Why no job is claimed now; `None` when claiming.
    pub paused: Option<String>,
    /// The last error, for people; none of long ago.
    pub last_error: Option<String>,
    /// Where stored files are served for restore, as `http://host:port`; `None` when they are not.
    pub serve: Option<String>,
    /// Public half of the key that the node signs its requests to other nodes with, as base64; `None` from older pullers.
    #[serde(default)]
    pub public_key: Option<String>,
    /// Version of the node's rsync.
    pub rsync_version: String,
    /// Totals since the process started.
    pub totals: NodeTotals,
    /// Bytes that a new job may have now: free less reserve less promised. 0 in beats of versions that did not say it.
    #[serde(default)]
    pub room_bytes: u64,
    /// Bytes of the backups that it stored in the last hour.
    #[serde(default)]
    pub stored_last_hour_bytes: u64,
    /// Of the last hour, or of the time since the process started when that is shorter: bytes stored a second, by level.
    #[serde(default)]
    pub by_queue: BTreeMap<QueueName, u64>,
    /// Levels that it claims nothing of now, and which window is closed until when.
    #[serde(default)]
    pub closed: BTreeMap<QueueName, String>,
    /// Version of the registry's policy that the node obeys; `None` while it heard of none.
    #[serde(default)]
    pub policy: Option<u64>,
    /// The node's own cap now, in bytes a second; `None` where there is none.
    #[serde(default)]
    pub bandwidth: Option<u64>,
    /// Fields of later versions, kept.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// One transfer under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningTransfer {
    /// The job.
    pub job: JobId,
    /// Its instance.
    pub key: InstanceKey,
    /// Bytes announced.
    pub size_bytes: u64,
    /// Bytes received so far.
    pub bytes: u64,
    /// Over the last beats.
    pub bytes_per_second: u64,
    /// When it began.
    pub since: Millis,
}

/// The file system under a node's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskBeat {
    /// Its size.
    pub size_bytes: u64,
    /// Free for us (not the blocks kept for root).
    pub free_bytes: u64,
    /// To be kept free.
    pub reserve_bytes: u64,
    /// Promised to transfers under way and not yet written.
    pub promised_bytes: u64,
}

/// What a puller has done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeTotals {
    /// Backups stored.
    pub stored: u64,
    /// Bytes of them.
    pub stored_bytes: u64,
    /// Jobs given up.
    pub failed: u64,
    /// Transfers put back to be tried later.
    pub retried: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn round_trips<T: Serialize + serde::de::DeserializeOwned>(text: &str) {
        let beat: T = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&beat).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
    }

    #[test]
    fn the_examples_round_trip() {
        round_trips::<HostBeat>(include_str!("../fixtures/host-beat-v1.json"));
        round_trips::<NodeBeat>(include_str!("../fixtures/node-beat-v1.json"));
    }
}
