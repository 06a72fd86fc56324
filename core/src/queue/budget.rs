//! The cluster's bandwidth: leases of rate, so that what all nodes take together stays below one cap. A lease that is not
//! renewed ends, and its share is the others'.

use std::time::Duration;

use super::{Queue, claim::micros, script};
use crate::{NodeId, redis_link::LinkError};

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// What nodes fetch from hosts.
    Fetch,
    /// What nodes send to those who restore.
    Restore,
}

impl Budget {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Restore => "restore",
        }
    }
}

/// A node's question for its share; rates are in bytes a second.
#[derive(Debug, Clone, Copy)]
pub struct RateRequest<'a> {
    /// Of what.
    pub budget: Budget,
    /// Who asks.
    pub node_id: &'a NodeId,
    /// Its weight; 0 counts as 1, since a node that drains has transfers to finish.
    pub weight: u32,
    /// What it could use.
    pub demand: u64,
    /// What it allows itself until this is answered: the rate of its lease, or less.
    pub used: u64,
    /// What all nodes may take together.
    pub cap: u64,
    /// How long the share is good without being asked for again.
    pub lease: Duration,
}

/// A node's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLease {
    /// Bytes a second.
    pub rate: u64,
    /// Weights of all nodes that hold a lease, this one's included.
    pub weights: u64,
}

impl Queue {
    /// Leases a share of the cluster's rate, by weight and demand. The shares of leases that have not ended never add up to more
    /// than the cap, so one that grows may get less at first than it is due: ask again every second. One that shrank is free for
    /// others when its holder has asked once more, using no more than it was given.
    ///
    /// # Errors
    /// [`LinkError`]; then what is held is good for as long as its lease.
    pub async fn lease_rate(&self, request: &RateRequest<'_>) -> Result<RateLease, LinkError> {
        let mut call = script::BUDGET.prepare_invoke();
        call.arg(request.budget.as_str()).arg(request.node_id.as_str()).arg(request.weight);
        call.arg(request.demand).arg(request.used).arg(request.cap).arg(micros(request.lease));
        let (rate, weights): (u64, u64) = self.run(&call).await?;
        Ok(RateLease { rate, weights })
    }
}
