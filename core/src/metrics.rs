//! A program's metrics: registered once at start, then encoded for whoever asks.

use std::fmt;

pub use prometheus_client;
use prometheus_client::{encoding::text, metrics::info::Info, registry::Registry};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of one program. All names begin with `longshore_`.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// With `longshore_build_info{program, version}` in it.
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let mut registry = Registry::with_prefix("longshore");
        let build = Info::new(vec![("program", program), ("version", version)]);
        registry.register("build", "The program and its version", build);
        Self { registry }
    }

    /// Where metrics are registered, before the registry is shared.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The OpenMetrics text of all of them.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail; a metric of ours that refuses to encode leaves its part out.
        if let Err(error) = text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
