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

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn what_is_registered_is_in_the_text() {
        let mut metrics = Metrics::new("longshore-puller", "0.1.0");
        let stored: Counter = Counter::default();
        metrics.registry().register("backups_stored", "Backups stored by this node", stored.clone());
        stored.inc();
        insta::assert_snapshot!(metrics.encode(), @r#"
        # HELP longshore_build The program and its version.
        # TYPE longshore_build info
        longshore_build_info{program="longshore-puller",version="0.1.0"} 1
        # HELP longshore_backups_stored Backups stored by this node.
        # TYPE longshore_backups_stored counter
        longshore_backups_stored_total 1
        # EOF
        "#);
    }
}
