//! What `/metrics` tells: requests by kind of answer, and which services are away.

use longshore_core::metrics::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::app::App;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Service {
    service: String,
}

/// The program's metrics.
#[derive(Debug, Default)]
pub struct Measures {
    answers: Family<Answer, Counter>,
    away_seconds: Family<Service, Gauge>,
    uptime_seconds: Gauge,
}

impl Measures {
    /// Registered in `metrics`.
    pub fn new(metrics: &mut Metrics) -> Self {
        let measures = Self::default();
        let registry = metrics.registry();
        registry.register("dashboard_answers", "HTTP answers by class of status", measures.answers.clone());
        registry.register(
            "dashboard_service_away_seconds",
            "Since when a service has not answered; 0 while it does",
            measures.away_seconds.clone(),
        );
        registry.register("dashboard_uptime_seconds", "Since this server started", measures.uptime_seconds.clone());
        measures
    }

    /// Counts an answer.
    pub fn answered(&self, status: axum::http::StatusCode) {
        let class = match status.as_u16() {
            100..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.answers.get_or_create(&Answer { class }).inc();
    }

    /// Brings the gauges up to date.
    pub fn note(&self, app: &App) {
        let now = longshore_core::Millis::now();
        for watch in app.watches() {
            let seconds = watch.away().map_or(0, |away| now.since(away.since).as_secs().max(1));
            self.away_seconds
                .get_or_create(&Service { service: watch.what().to_owned() })
                .set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
        self.uptime_seconds.set(i64::try_from(app.uptime_seconds()).unwrap_or(i64::MAX));
    }
}
