//! How the indexer stands: what is in its way now, how far it is behind, and what it has done. Parts of the program say
//! it here; `/healthz` and `/metrics` tell it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use longshore_catalog::Put;
use longshore_core::{Millis, metrics::Metrics, queue::Backlog};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use serde::Serialize;

/// What can be in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The queue Redis.
    Redis,
    /// The catalog, when it is asked how it is.
    Catalog,
    /// The catalog, when something is written.
    Writing,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Catalog => "catalog",
            Self::Writing => "writing",
        }
    }
}

/// One thing in the way.
#[derive(Debug, Clone, Serialize)]
pub struct Trouble {
    /// What.
    pub part: Part,
    /// Why, and what to do.
    pub why: String,
    /// Since when.
    pub since: Millis,
}

/// Shared by all parts of the program.
#[derive(Debug)]
pub struct Condition {
    state: Mutex<State>,
    metrics: Metrics,
    /// Entries of the stream, by kind.
    entries: Family<Kind, Counter>,
    /// Reports put, by what became of them; one that is put again counts again.
    puts: Family<Outcome, Counter>,
    /// How many entries a batch had.
    batch_entries: Histogram,
    /// From a batch's reading to its acknowledgement.
    batch_seconds: Histogram,
    backlog: Gauge,
    pending: Gauge,
    behind_seconds: Gauge,
    up: Family<Of, Gauge>,
}

#[derive(Debug, Default)]
struct State {
    troubles: BTreeMap<Part, Trouble>,
    backlog: Backlog,
    /// The catalog has its tables or indexes.
    ready: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    part: &'static str,
}

/// What `/healthz` says.
#[derive(Debug, Serialize)]
pub struct HealthReport {
    /// `ok`, `starting` or `waiting`.
    pub status: &'static str,
    /// What is in the way.
    pub troubles: Vec<Trouble>,
    /// Entries in the stream.
    pub backlog_entries: u64,
    /// The age of the oldest of them; null when there is none.
    pub behind_seconds: Option<u64>,
}

impl Condition {
    /// Nothing in the way, nothing done.
    pub fn new() -> Self {
        let mut metrics = Metrics::new("longshore-indexer", env!("CARGO_PKG_VERSION"));
        let (entries, puts) = (Family::<Kind, Counter>::default(), Family::<Outcome, Counter>::default());
        let up = Family::<Of, Gauge>::default();
        let batch_entries = Histogram::new([1.0, 10.0, 100.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0]);
        let batch_seconds = Histogram::new([0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0]);
        let (backlog, pending, behind_seconds) = (Gauge::default(), Gauge::default(), Gauge::default());
        let registry = metrics.registry();
        registry.register("indexer_entries", "Stream entries acknowledged, by kind", entries.clone());
        registry.register("indexer_puts", "Reports put into the catalog, by result", puts.clone());
        registry.register("indexer_batch_entries", "Entries in a batch", batch_entries.clone());
        registry.register("indexer_batch_seconds", "From reading a batch to acknowledging it", batch_seconds.clone());
        registry.register("indexer_backlog", "Entries in the stream", backlog.clone());
        registry.register("indexer_pending", "Entries read and not acknowledged", pending.clone());
        registry.register("indexer_behind_seconds", "Age of the stream's oldest entry", behind_seconds.clone());
        registry.register("indexer_up", "1 when that part takes what it is given", up.clone());
        for part in [Part::Redis, Part::Catalog, Part::Writing] {
            up.get_or_create(&Of { part: part.as_str() }).set(1);
        }
        let state = Mutex::new(State::default());
        Self { state, metrics, entries, puts, batch_entries, batch_seconds, backlog, pending, behind_seconds, up }
    }

    /// `part` is in the way. Logged when it was not, or for another reason.
    pub fn trouble(&self, part: Part, why: impl ToString) {
        let why = why.to_string();
        let mut state = self.state();
        let kept = state.troubles.get(&part);
        if kept.is_none_or(|kept| kept.why != why) {
            tracing::warn!(part = part.as_str(), %why, "waiting; nothing is lost");
        }
        let since = kept.map_or_else(Millis::now, |kept| kept.since);
        state.troubles.insert(part, Trouble { part, why, since });
        self.up.get_or_create(&Of { part: part.as_str() }).set(0);
    }

    /// `part` is out of the way.
    pub fn clear(&self, part: Part) {
        if let Some(trouble) = self.state().troubles.remove(&part) {
            let seconds = Millis::now().since(trouble.since).as_secs();
            tracing::info!(part = part.as_str(), seconds, "going on");
        }
        self.up.get_or_create(&Of { part: part.as_str() }).set(1);
    }

    /// The catalog has its tables or indexes.
    pub fn ready(&self) {
        self.state().ready = true;
    }

    /// How far behind, by Redis' clock at `now`.
    pub fn backlog(&self, backlog: Backlog, now: Millis) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.backlog.set(count(backlog.entries));
        self.pending.set(count(backlog.pending));
        self.behind_seconds.set(count(backlog.oldest_at.map_or(0, |at| now.since(at).as_secs())));
        self.state().backlog = backlog;
    }

    /// What became of one report.
    pub fn put(&self, put: &Put) {
        let outcome = match put {
            Put::Written => "written",
            Put::Older => "older",
            Put::Refused(_) => "refused",
            Put::Overloaded(_) => "overloaded",
        };
        self.puts.get_or_create(&Outcome { outcome }).inc();
    }

    /// A batch was acknowledged.
    pub fn batch(&self, reports: usize, beats: usize, undecodable: usize, began: Instant) {
        #[allow(clippy::cast_precision_loss)] // a batch has thousands of entries, not quadrillions
        self.batch_entries.observe((reports + beats + undecodable) as f64);
        self.batch_seconds.observe(began.elapsed().as_secs_f64());
        for (kind, number) in [("report", reports), ("host_beat", beats), ("undecodable", undecodable)] {
            self.entries.get_or_create(&Kind { kind }).inc_by(number as u64);
        }
    }

    /// For `/healthz`.
    pub fn health(&self) -> HealthReport {
        let state = self.state();
        HealthReport {
            status: match (state.troubles.is_empty(), state.ready) {
                (true, true) => "ok",
                (true, false) => "starting",
                (false, _) => "waiting",
            },
            troubles: state.troubles.values().cloned().collect(),
            backlog_entries: state.backlog.entries,
            behind_seconds: state.backlog.oldest_at.map(|at| Millis::now().since(at).as_secs()),
        }
    }

    /// For `/metrics`.
    pub fn metrics(&self) -> String {
        self.metrics.encode()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Condition {
    fn default() -> Self {
        Self::new()
    }
}
