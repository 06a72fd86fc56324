//! Whether a host may be asked: how many transfers at once, how often, not while it rests after failures or is closed. All of
//! it is the hosts' own protection, counted over all nodes.

use std::{collections::BTreeMap, time::Duration};

use super::{Lease, Queue, Returned, claim::micros, script};
use crate::{Millis, ServerId, job::ModuleName, redis_link::LinkError, report::Reason};

/// What one host may be asked at once. The same on all nodes, or the smallest counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostLimits {
    /// Transfers at once from one host, over all nodes; at least 1. A batch is one.
    pub transfers: u32,
    /// Transfers begun in a second, over all nodes, evenly spaced; 0 or infinite: as many as come.
    pub starts_per_second: f64,
}

impl HostLimits {
    /// Microseconds between two starts; 0 for none.
    pub(super) fn start_gap_micros(self) -> u64 {
        // A day between two starts is as good as any longer time.
        if self.starts_per_second > 0.0 { (1e6 / self.starts_per_second).min(86_400e6) as u64 } else { 0 }
    }
}

/// One host's own limits, which win over those of [`HostLimits`]. `None` leaves them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostOverrides {
    /// See [`HostLimits::transfers`].
    pub transfers: Option<u32>,
    /// See [`HostLimits::starts_per_second`].
    pub starts_per_second: Option<f64>,
    /// Transfers at once from one module of the host.
    pub modules: BTreeMap<ModuleName, u32>,
}

/// How a host that can't be asked is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Its rest after the first failure; after each further one in a row twice as long.
    pub first_rest: Duration,
    /// Its longest rest.
    pub longest_rest: Duration,
    /// A job that was refused each time it was tried, for so long, is given up.
    pub give_up: Duration,
}

impl Queue {
    /// A job's host can't be asked (it is down, or refuses): it rests, and may then have one transfer at a time, until a job of it
    /// is stored. The job is given back, the attempt not counted, unless it was refused for too long.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn host_failed(&self, held: &Lease, patience: Patience, reason: &Reason) -> Result<Returned, LinkError> {
        let mut call = script::HOST_FAILED.prepare_invoke();
        call.arg(held.job.id.to_string()).arg(held.node_id.as_str()).arg(held.revision);
        call.arg(micros(patience.first_rest)).arg(micros(patience.longest_rest));
        call.arg(reason.code.as_str()).arg(&reason.text).arg(micros(patience.give_up));
        self.run(&call).await.map(Returned::from_answer)
    }

    /// No job of `host` is given out before `until` (by Redis' clock), but those of urgent levels. What runs goes on.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn close_host(&self, host: &ServerId, until: Millis, why: &str) -> Result<(), LinkError> {
        self.window(host, &until.0.max(0).saturating_mul(1000).to_string(), why).await
    }

    /// Ends [`Queue::close_host`] before its time.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn open_host(&self, host: &ServerId) -> Result<(), LinkError> {
        self.window(host, "", "").await
    }

    async fn window(&self, host: &ServerId, until: &str, why: &str) -> Result<(), LinkError> {
        let mut call = script::WINDOW.prepare_invoke();
        call.arg(host.as_str()).arg(until).arg(why);
        self.run(&call).await
    }

    /// Sets one host's own limits, in place of those set before.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn limit_host(&self, host: &ServerId, overrides: &HostOverrides) -> Result<(), LinkError> {
        let mut call = script::LIMIT_HOST.prepare_invoke();
        call.arg(host.as_str());
        if let Some(transfers) = overrides.transfers {
            call.arg("transfers").arg(transfers.max(1));
        }
        if let Some(starts_per_second) = overrides.starts_per_second {
            call.arg("start_gap").arg(HostLimits { transfers: 1, starts_per_second }.start_gap_micros());
        }
        for (module, transfers) in &overrides.modules {
            call.arg(format!("transfers/{module}")).arg((*transfers).max(1));
        }
        self.run(&call).await
    }
}

#[cfg(test)]
mod tests {
    use super::HostLimits;

    #[test]
    fn starts_are_spaced_evenly_and_no_rate_is_no_limit() {
        let gap = |starts_per_second| HostLimits { transfers: 1, starts_per_second }.start_gap_micros();
        assert_eq!([5.0, 0.5, 0.0, -1.0, f64::NAN, f64::INFINITY].map(gap), [200_000, 2_000_000, 0, 0, 0, 0]);
        assert_eq!(gap(f64::MIN_POSITIVE), 86_400_000_000);
    }
}
