//! What `/metrics` tells: requests by kind of answer, which services are away, and what waits, by what keeps it: jobs by their
//! state, hosts that are left alone, nodes that claim or don't. What a cluster's Redis does not answer is left out, not 0.

use std::{sync::atomic::Ordering, time::Duration};

use longshore_core::metrics::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    api::{nodes, queues},
    app::App,
};

/// Who asks for metrics gives up after 10 s as a rule; that a Redis is away must be told sooner.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Service {
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    cluster: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Level {
    cluster: String,
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobsIn {
    cluster: String,
    queue: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeptWaiting {
    cluster: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodesIn {
    cluster: String,
    state: &'static str,
}

/// The program's metrics.
#[derive(Debug, Default)]
pub struct Measures {
    answers: Family<Answer, Counter>,
    away_seconds: Family<Service, Gauge>,
    uptime_seconds: Gauge,
    jobs: Family<JobsIn, Gauge>,
    waiting_bytes: Family<Level, Gauge>,
    oldest_seconds: Family<Level, Gauge>,
    resting_hosts: Family<Cluster, Gauge>,
    dead_letters: Family<Cluster, Gauge>,
    kept_waiting: Family<KeptWaiting, Counter>,
    closed_nodes: Family<Level, Gauge>,
    nodes: Family<NodesIn, Gauge>,
    /// One look at a time: what was is cleared away before what is.
    looking: Mutex<()>,
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
        let jobs_help =
            "Jobs in a level: inbox, ready, delayed (until a retry), held (by an operator) or leased (in transfer)";
        registry.register("dashboard_jobs", jobs_help, measures.jobs.clone());
        let bytes_help = "Bytes of ready, delayed and held jobs";
        registry.register("dashboard_waiting_bytes", bytes_help, measures.waiting_bytes.clone());
        let oldest_help =
            "Since when the oldest ready job of a level waits; 0 where nothing waits, and none where none is ready";
        registry.register("dashboard_oldest_seconds", oldest_help, measures.oldest_seconds.clone());
        let resting_help = "Hosts that are left alone for now, since they failed";
        registry.register("dashboard_resting_hosts", resting_help, measures.resting_hosts.clone());
        registry.register("dashboard_dead_letters", "What is kept for a person", measures.dead_letters.clone());
        let kept_waiting_help =
            "Decisions of claims that kept a job, or jobs of a host, waiting, since the queue began";
        registry.register("dashboard_kept_waiting", kept_waiting_help, measures.kept_waiting.clone());
        let closed_help = "Living nodes that claim nothing of a level, since its window or theirs is closed";
        registry.register("dashboard_closed_nodes", closed_help, measures.closed_nodes.clone());
        let nodes_help = "Nodes that were heard of: claiming, paused, draining (weight 0) or silent";
        registry.register("dashboard_nodes", nodes_help, measures.nodes.clone());
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

    /// All of them as they are now.
    pub async fn text(&self, app: &App) -> String {
        // At once: a Redis that does not answer takes seconds each time, and who asks for metrics has few.
        let (queues, nodes, letters, kept_waiting) = tokio::join!(
            timeout(ANSWERS_WITHIN, Box::pin(queues::all(app))),
            timeout(ANSWERS_WITHIN, Box::pin(nodes::all(app))),
            timeout(ANSWERS_WITHIN, Box::pin(dead_letters(app))),
            timeout(ANSWERS_WITHIN, Box::pin(kept_waiting(app)))
        );
        let _one = self.looking.lock().await;
        self.clear();
        // What is not known in time is left out.
        match queues {
            Ok(Ok(queues)) => self.note_queues(&queues),
            Ok(Err(problem)) => tracing::warn!(?problem, "queues are not measured"),
            Err(_) => {}
        }
        match nodes {
            Ok(Ok(nodes)) => self.note_nodes(&nodes),
            Ok(Err(problem)) => tracing::warn!(?problem, "nodes are not measured"),
            Err(_) => {}
        }
        for (cluster, total) in letters.into_iter().flatten() {
            set(&self.dead_letters, Cluster { cluster }, total);
        }
        for (of, times) in kept_waiting.into_iter().flatten() {
            self.kept_waiting.get_or_create(&of).inner().store(times, Ordering::Relaxed);
        }
        let now = longshore_core::Millis::now();
        for watch in app.watches() {
            let seconds = watch.away().map_or(0, |away| now.since(away.since).as_secs().max(1));
            set(&self.away_seconds, Service { service: watch.what().to_owned() }, seconds);
        }
        self.uptime_seconds.set(i64::try_from(app.uptime_seconds()).unwrap_or(i64::MAX));
        app.metrics().encode()
    }

    /// Levels, clusters and nodes come and go.
    fn clear(&self) {
        self.jobs.clear();
        self.waiting_bytes.clear();
        self.oldest_seconds.clear();
        self.resting_hosts.clear();
        self.dead_letters.clear();
        self.kept_waiting.clear();
        self.closed_nodes.clear();
        self.nodes.clear();
    }

    fn note_queues(&self, queues: &queues::QueueList) {
        for view in queues.clusters.iter().filter(|view| view.away.is_none() && view.address.is_some()) {
            let cluster = view.cluster.clone();
            set(&self.resting_hosts, Cluster { cluster: cluster.clone() }, view.resting_total);
            for level in &view.levels {
                let of = Level { cluster: cluster.clone(), queue: level.queue.to_string() };
                set(&self.waiting_bytes, of.clone(), level.bytes);
                // How long those wait that are in the inbox, delayed or held is not known.
                if let Some(seconds) = level.oldest_age_seconds.or((level.waiting == 0).then_some(0)) {
                    set(&self.oldest_seconds, of.clone(), seconds);
                }
                set(&self.closed_nodes, of.clone(), 0);
                let states = [
                    ("inbox", level.inbox),
                    ("ready", level.ready),
                    ("delayed", level.delayed),
                    ("held", level.held),
                    ("leased", level.leased),
                ];
                for (state, jobs) in states {
                    set(&self.jobs, JobsIn { cluster: cluster.clone(), queue: of.queue.clone(), state }, jobs);
                }
            }
        }
    }

    fn note_nodes(&self, nodes: &nodes::NodeList) {
        for node in &nodes.items {
            let (Some(cluster), Some(beat)) = (&node.cluster, &node.beat) else { continue };
            if nodes.away.contains_key(cluster) {
                continue;
            }
            for queue in beat.closed.keys().filter(|_| node.is_there) {
                self.closed_nodes.get_or_create(&Level { cluster: cluster.clone(), queue: queue.to_string() }).inc();
            }
            let state = match (node.silent, beat.weight, &beat.paused) {
                (true, ..) => "silent",
                (false, 0, _) => "draining",
                (false, _, Some(_)) => "paused",
                (false, _, None) => "claiming",
            };
            for known in ["claiming", "paused", "draining", "silent"] {
                let gauge = self.nodes.get_or_create(&NodesIn { cluster: cluster.clone(), state: known }).clone();
                gauge.inc_by(i64::from(known == state));
            }
        }
    }
}

/// How many each cluster keeps, as far as it can be asked.
async fn dead_letters(app: &App) -> Vec<(String, u64)> {
    let mut letters = Vec::new();
    for cluster in app.clusters() {
        if let Ok(dead) = cluster.ask(cluster.queue().dead_letters(0, 0)).await {
            letters.push((cluster.name().to_string(), dead.total));
        }
    }
    letters
}

/// How often each cluster's claims kept jobs waiting, as far as it can be asked.
async fn kept_waiting(app: &App) -> Vec<(KeptWaiting, u64)> {
    let mut counts = Vec::new();
    for cluster in app.clusters() {
        if let Ok(of_cluster) = cluster.ask(cluster.queue().kept_waiting()).await {
            let of = |reason| KeptWaiting { cluster: cluster.name().to_string(), reason };
            counts.extend(of_cluster.into_iter().map(|(reason, times)| (of(reason), times)));
        }
    }
    counts
}

fn set<Of: Clone + Eq + std::hash::Hash>(family: &Family<Of, Gauge>, of: Of, value: u64) {
    family.get_or_create(&of).set(i64::try_from(value).unwrap_or(i64::MAX));
}
