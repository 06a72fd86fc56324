//! Nodes' heartbeats: that they live, since when nothing was heard, and what they work on.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Queue,
    claim::{micros, millis},
    key, script,
};
use crate::{
    Millis, NodeBeat, NodeId,
    redis_link::{LinkError, Subscription},
};

/// Whether a node is forgotten, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forgetting {
    /// It is, until it is heard again.
    Forgotten,
    /// There is nothing to forget: it was never heard of, or is forgotten already.
    Unknown,
    /// It was heard of lately, and not that it stopped: it is to be stopped first.
    Heard,
    /// It holds so many leases; other nodes put them back when they have ended.
    Leases(u64),
    /// So many backups that it alone has are to be copied from it.
    Copies(u64),
}

impl NodeBeat {
    /// What a puller that ends says of itself with its last beat, as why it is paused.
    pub const STOPPED: &str = "stopped";

    /// Whether it is its puller's last: the node is there again with the next one.
    pub fn has_stopped(&self) -> bool {
        self.paused.as_deref() == Some(Self::STOPPED)
    }
}

impl Queue {
    /// Hears the names of queues that have something new. A hint: one that is lost costs its hearer the wait until it asks by
    /// itself.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn hints(&self) -> Result<Subscription, LinkError> {
        self.link.subscribe(&key("wake")).await
    }

    /// Says that a node lives and what it works on. A lease that is past its time and not among `running` may be reaped.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn beat(&self, beat: &NodeBeat) -> Result<(), LinkError> {
        let mut call = script::BEAT.prepare_invoke();
        call.arg(beat.node_id.as_str()).arg(self.json(beat, beat.node_id.as_str())?);
        for transfer in &beat.running {
            call.arg(transfer.job.to_string());
        }
        self.run(&call).await
    }

    /// Every node's last beat, and when it came by Redis' clock, by node id. A beat of a version that this build can't read is
    /// left out.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn nodes(&self) -> Result<Vec<(NodeBeat, Millis)>, LinkError> {
        let bodies: BTreeMap<String, Vec<u8>> = self.query(redis::cmd("HGETALL").arg(key("nodes"))).await?;
        let mut command = redis::cmd("ZRANGE");
        command.arg(key("nodes_seen")).arg(0).arg(-1).arg("WITHSCORES");
        let seen: BTreeMap<String, u64> = self.query(&command).await?;
        let both = |(node, body): (String, Vec<u8>)| {
            let beat =
                serde_json::from_slice(&body).inspect_err(|error| tracing::warn!(%node, %error, "unreadable beat"));
            Some((beat.ok()?, millis(seen.get(&node).copied()?)))
        };
        Ok(bodies.into_iter().filter_map(both).collect())
    }

    /// Whether a node of this name was ever heard of, and not forgotten since.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn knows_node(&self, node_id: &NodeId) -> Result<bool, LinkError> {
        self.query(redis::cmd("HEXISTS").arg(key("nodes")).arg(node_id.as_str())).await
    }

    /// Forgets a node that was taken out: its beat, what it asked, its share of the bandwidth. Its backups stay in the catalog. One
    /// that was heard of within `silence`, and not that it stopped, or that others need, is kept.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn forget_node(&self, node_id: &NodeId, silence: Duration) -> Result<Forgetting, LinkError> {
        let mut call = script::FORGET.prepare_invoke();
        call.arg(node_id.as_str()).arg(micros(silence)).arg(NodeBeat::STOPPED);
        let (answer, count): (String, u64) = self.run(&call).await?;
        match answer.as_str() {
            "forgotten" => Ok(Forgetting::Forgotten),
            "unknown" => Ok(Forgetting::Unknown),
            "heard" => Ok(Forgetting::Heard),
            "leases" => Ok(Forgetting::Leases(count)),
            "copies" => Ok(Forgetting::Copies(count)),
            other => Err(self.damaged("the reply to who forgets a node", format!("{other:?} is no answer"))),
        }
    }
}
