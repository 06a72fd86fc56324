//! What a puller counts, under `longshore_puller_`.

use std::sync::atomic::AtomicU64;

use longshore_core::metrics::Metrics;
use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

use crate::policy::Effective;

type Coded = Family<Vec<(&'static str, String)>, Counter>;

/// Handles on the node's metrics.
#[derive(Debug)]
pub struct NodeMetrics {
    /// Backups stored.
    pub stored: Counter,
    /// Bytes of them.
    pub stored_bytes: Counter<u64, AtomicU64>,
    /// Jobs given up, by reason code.
    pub failed: Coded,
    /// Jobs put back to be tried later, by reason code.
    pub retried: Coded,
    /// Claims, by their answer: `job`, or why there was none.
    pub claims: Coded,
    /// Transfers now.
    pub running: Gauge,
    /// How many there may be.
    slots: Gauge,
    /// By level, 1 while nothing of it is claimed.
    closed: Family<Vec<(&'static str, String)>, Gauge>,
    /// Whether nothing is claimed now.
    pub paused: Gauge,
    /// Free on the store's file system.
    pub free_bytes: Gauge,
    /// From claim to settled.
    pub seconds: Histogram,
    /// Requests for stored files, by status.
    pub served: Coded,
    /// Backups set aside for a person, by the last look.
    pub set_aside: Gauge,
    /// Bytes of them.
    pub set_aside_bytes: Gauge,
    /// All of them, to be encoded.
    pub all: Metrics,
}

impl NodeMetrics {
    /// Registers them.
    pub fn new() -> Self {
        let mut all = Metrics::new("longshore-puller", env!("CARGO_PKG_VERSION"));
        let seconds = Histogram::new(exponential_buckets(0.05, 4.0, 10));
        let (stored, stored_bytes) = (Counter::default(), Counter::default());
        let (failed, retried, served) = (Coded::default(), Coded::default(), Coded::default());
        let claims = Coded::default();
        let (running, slots, closed) = (Gauge::default(), Gauge::default(), Family::default());
        let (paused, free_bytes) = (Gauge::default(), Gauge::default());
        let (set_aside, set_aside_bytes) = (Gauge::default(), Gauge::default());
        let ours = all.registry().sub_registry_with_prefix("puller");
        ours.register("stored", "Backups stored", stored.clone());
        ours.register("stored_bytes", "Bytes of stored backups", stored_bytes.clone());
        ours.register("failed", "Jobs given up, by reason", failed.clone());
        ours.register("retried", "Jobs put back to be tried later, by reason", retried.clone());
        let claims_help = "Claims, by their answer: job, or why a job that may wait was not given to this node";
        ours.register("claims", claims_help, claims.clone());
        ours.register("running", "Transfers under way", running.clone());
        ours.register("slots", "Transfers that may be under way at once", slots.clone());
        let closed_help = "1 while no job of a level is claimed, since its window or the node's is closed";
        ours.register("closed", closed_help, closed.clone());
        ours.register("paused", "1 while no job is claimed", paused.clone());
        ours.register("free_bytes", "Free on the store's file system", free_bytes.clone());
        ours.register("job_seconds", "From claim to settled", seconds.clone());
        ours.register("served", "Requests for stored files, by status", served.clone());
        ours.register("set_aside", "Backups set aside for a person: corrupt or superseded", set_aside.clone());
        ours.register("set_aside_bytes", "Bytes of backups set aside for a person", set_aside_bytes.clone());
        Self {
            stored,
            stored_bytes,
            failed,
            retried,
            claims,
            running,
            slots,
            closed,
            paused,
            free_bytes,
            seconds,
            served,
            set_aside,
            set_aside_bytes,
            all,
        }
    }

    /// Notes what holds now, by what operators set and by the clock.
    pub fn obeys(&self, slots: u32, policy: &Effective) {
        self.slots.set(slots.into());
        for level in &policy.levels {
            let is_closed = policy.closed.iter().any(|closed| closed.queue == level.name);
            self.closed.get_or_create(&vec![("queue", level.name.to_string())]).set(i64::from(is_closed));
        }
    }
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use longshore_core::{Millis, Policy, policy::Rules};

    use super::*;

    #[test]
    fn slots_and_each_closed_level_are_told() {
        let rules = r#"{"queues":{"level1":{"urgent":true}},"nodes":{"n":{"weight":7,"window":"never"}}}"#;
        let policy = Policy::read(&format!(r#"{{"v":1,"version":1,"rules":{rules}}}"#)).unwrap();
        let queues = ["level1", "level2"].map(|name| name.parse().unwrap());
        let at = |rules: Rules| Effective::at(Millis(0), None, &Arc::new(rules), &"n".parse().unwrap(), &queues);
        let metrics = NodeMetrics::new();
        for (rules, wanted) in [(policy.rules, ["0", "1"]), (Rules::default(), ["0", "0"])] {
            metrics.obeys(16, &at(rules));
            let text = metrics.all.encode();
            let has = |line: &str| text.lines().any(|found| found == line);
            assert!(has("longshore_puller_slots 16"), "{text}");
            for (queue, closed) in ["level1", "level2"].into_iter().zip(wanted) {
                assert!(has(&format!("longshore_puller_closed{{queue=\"{queue}\"}} {closed}")), "{text}");
            }
        }
    }
}
