//! Hosts that are left alone for now: they failed, and are asked again later, each time in a row later.

use super::{Queue, claim::millis, script};
use crate::{Millis, ReasonCode, redis_link::LinkError, report::Reason};

/// Some of the hosts that rest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RestingHosts {
    /// How many there are in all.
    pub total: u64,
    /// Those asked for, the one that has failed for longest first.
    pub hosts: Vec<RestingHost>,
}

/// A host that rests.
#[derive(Debug, Clone, PartialEq)]
pub struct RestingHost {
    /// The host.
    pub host: String,
    /// Failures in a row.
    pub failures: u32,
    /// Since the first of them, by Redis' clock.
    pub since: Millis,
    /// It is asked again then, by Redis' clock; it may be past already, when no node has asked since.
    pub until: Millis,
    /// The last failure.
    pub reason: Reason,
}

impl Queue {
    /// The hosts that rest, at most `most` of them.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn resting_hosts(&self, most: usize) -> Result<RestingHosts, LinkError> {
        let mut call = script::RESTING.prepare_invoke();
        call.arg(most.max(1));
        let mut rows = self.run::<Vec<redis::Value>>(&call).await?.into_iter();
        let damaged = |error| self.damaged("the reply to a look at hosts", error);
        let total = rows.next().map(redis::from_redis_value).transpose().map_err(damaged)?.unwrap_or(0);
        let mut hosts = Vec::new();
        for row in rows {
            let (host, since, failures, until, code, text): (String, u64, u32, u64, String, String) =
                redis::from_redis_value(row).map_err(damaged)?;
            let reason = Reason::new(ReasonCode::from(code), text);
            hosts.push(RestingHost { host, failures, since: millis(since), until: millis(until), reason });
        }
        Ok(RestingHosts { total, hosts })
    }
}
