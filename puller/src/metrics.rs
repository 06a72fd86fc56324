//! What a puller counts, under `longshore_puller_`.

use std::sync::atomic::AtomicU64;

use longshore_core::metrics::Metrics;
use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

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
        let (running, paused, free_bytes) = (Gauge::default(), Gauge::default(), Gauge::default());
        let (set_aside, set_aside_bytes) = (Gauge::default(), Gauge::default());
        let ours = all.registry().sub_registry_with_prefix("puller");
        ours.register("stored", "Backups stored", stored.clone());
        ours.register("stored_bytes", "Bytes of stored backups", stored_bytes.clone());
        ours.register("failed", "Jobs given up, by reason", failed.clone());
        ours.register("retried", "Jobs put back to be tried later, by reason", retried.clone());
        let claims_help = "Claims, by their answer: job, or why a job that may wait was not given to this node";
        ours.register("claims", claims_help, claims.clone());
        ours.register("running", "Transfers under way", running.clone());
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
            paused,
            free_bytes,
            seconds,
            served,
            set_aside,
            set_aside_bytes,
            all,
        }
    }
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self::new()
    }
}
