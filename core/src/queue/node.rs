//! Nodes' heartbeats: that they live, since when nothing was heard, and what they work on.

use std::collections::BTreeMap;

use super::{Queue, claim::millis, key, script};
use crate::{
    Millis, NodeBeat,
    redis_link::{LinkError, Subscription},
};

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
}
