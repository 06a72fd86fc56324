//! The indexer's configuration.
//!
//! ```toml
//! [redis]                          # the cluster's queue Redis
//! address = "10.0.0.5:6379"
//!
//! [catalog]
//! kind = "sqlite"
//! path = "/var/lib/longshore/catalog.db"
//!
//! [status]
//! listen = "127.0.0.1:7482"
//! ```

use std::{fs, net::SocketAddr};

use longshore_catalog::{CatalogConfig, CatalogKind};
use longshore_core::{
    config::{ConfigError, Loaded, Program, RedisConfig, Span},
    telemetry::LogConfig,
};
use serde::{Deserialize, Serialize};

/// How the loader finds it.
pub const PROGRAM: Program =
    Program { name: "longshore-indexer", default_files: &["/etc/longshore/indexer.toml"], seed: None };

/// All of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where reports come from.
    pub redis: RedisConfig,
    /// Where they go.
    pub catalog: CatalogConfig,
    /// How they are read.
    pub stream: StreamSettings,
    /// Where `/healthz` and `/metrics` are.
    pub status: StatusSettings,
    /// The log.
    pub log: LogConfig,
}

/// `[stream]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// Entries read and written together, at most.
    pub batch: usize,
    /// Batches in hand at once: one is read while another is written.
    pub workers: u16,
    /// This indexer's name among those of its stream: the same after a restart, and another in every running one. Without
    /// it, the host's name.
    pub consumer: Option<String>,
    /// Entries that another indexer has held this long are taken over: it is dead.
    pub adopt_after: Span,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self { batch: 10_000, workers: 2, consumer: None, adopt_after: Span::seconds(300) }
    }
}

impl StreamSettings {
    /// The consumer's name.
    pub fn consumer(&self) -> String {
        // The first is hidden from a service that systemd shows only its own processes.
        let host =
            || ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|file| fs::read_to_string(file).ok());
        self.consumer.clone().or_else(host).map_or_else(|| "indexer".to_owned(), |name| name.trim().to_owned())
    }
}

/// `[status]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusSettings {
    /// Address and port; loopback, since it asks for no password.
    pub listen: SocketAddr,
}

impl Default for StatusSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7482)) }
    }
}

impl Settings {
    /// What the types alone don't tell.
    ///
    /// # Errors
    /// With every problem found.
    pub fn verify(loaded: &Loaded<Self>) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let Self { catalog, stream, .. } = &loaded.value;
        if !(1..=50_000).contains(&stream.batch) {
            problems.push(loaded.problem("stream.batch", "must be 1 to 50000"));
        }
        if !(1..=16).contains(&stream.workers) {
            problems.push(loaded.problem("stream.workers", "must be 1 to 16"));
        }
        if stream.adopt_after.0 < Span::seconds(10).0 {
            let what = "must be 10s or more: an indexer waiting for its catalog is not dead";
            problems.push(loaded.problem("stream.adopt_after", what));
        }
        if catalog.kind == CatalogKind::Sqlite && catalog.path.file_name().is_none() {
            problems.push(loaded.problem("catalog.path", "must name a file"));
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::from(problems)) }
    }
}
