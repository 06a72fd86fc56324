//! Second copies. A backup that is to be on two nodes goes on as a ready job when it is settled: in a level of its own for each
//! node that has backups to be copied, which every *other* node drains after all its levels. So a copy is claimed, renewed,
//! retried, given up and settled by the same scripts as the first, and waits, visibly, while there is no other node.
//!
//! Its record keeps who stored it first, and its body is the job with the first node's report in it. Nobody but `settle` puts a
//! job into such a level: an inbox may not have a name of ours.

use super::{Level, Queue, script};
use crate::{Job, NodeId, QueueName, Report, redis_link::LinkError};

/// Below the prefix; the node's id follows.
const LEVELS: &str = "copies@";
/// Where the body of a copy's job keeps the first node's report.
const FIRST: &str = "copy_of";
/// Copies from one node are one lane; a host's module in its place.
pub(super) const MODULE: &str = "copies";

/// The level of what `node_id` has and others are to copy; `None` for an id so long that no queue's name can hold it.
fn level(node_id: &NodeId) -> Option<QueueName> {
    QueueName::new(format!("{}{LEVELS}{node_id}", script::PREFIX)).ok()
}

/// The node whose backups wait in `queue` to be copied by others; `None` for any other level.
pub fn copied_node(queue: &QueueName) -> Option<NodeId> {
    queue.as_str().strip_prefix(script::PREFIX)?.strip_prefix(LEVELS)?.parse().ok()
}

/// What `settle` writes for a copy that is wanted.
pub(super) struct Wanted {
    pub(super) level: QueueName,
    /// The node as its copies' host: its limits and its rests are kept by this name.
    pub(super) host: String,
    pub(super) job: Job,
}

impl Wanted {
    /// Of what `report` says was stored.
    pub(super) fn of(report: &Report) -> Option<Self> {
        let node_id = report.node_id.as_ref()?;
        let mut job = report.job.clone();
        job.extra.insert(FIRST.to_owned(), serde_json::to_value(report).ok()?);
        Some(Self { level: level(node_id)?, host: format!("@{node_id}"), job })
    }
}

/// Takes the first node's report out of the job that a claim in `queue` brought.
pub(super) fn first_report(job: &mut Job, queue: &QueueName) -> Option<Box<Report>> {
    copied_node(queue)?;
    serde_json::from_value(job.extra.remove(FIRST)?).ok()
}

impl Queue {
    /// The levels of copies that `node_id` may claim: those of all other nodes that ever had one to be copied.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn copy_levels(&self, node_id: &NodeId) -> Result<Vec<Level>, LinkError> {
        let names = self.queue_names().await?;
        let others = names.into_iter().filter(|name| copied_node(name).is_some_and(|node| node != *node_id));
        Ok(others.map(Level::new).collect())
    }
}
