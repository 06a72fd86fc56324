//! Queues over HTTP: what waits in each level of each cluster and since when, what is being transferred, how long it will take.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{
    Millis, NodeBeat, NodeId, QueueName,
    queue::{QueueDepth, RestingHost, copied_node},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::{
    app::App,
    clusters::{Depths, HeardNode},
    registry,
    watch::Away,
    why::{source_name, source_node},
};

/// At most so many resting hosts are shown.
const MOST_RESTING: usize = 100;

/// One level.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Level)]
pub struct LevelView {
    /// Its name.
    #[schema(value_type = String)]
    pub queue: QueueName,
    /// For a level of second copies: the node that has the first.
    #[schema(value_type = Option<String>)]
    pub copies_of: Option<NodeId>,
    /// All that waits: inbox, ready, delayed and held.
    pub waiting: u64,
    /// Pushed, not yet admitted.
    pub inbox: u64,
    /// Admitted and ready.
    pub ready: u64,
    /// Admitted, waiting for a retry's time.
    pub delayed: u64,
    /// Kept back by operators.
    pub held: u64,
    /// Being transferred.
    pub leased: u64,
    /// Bytes of ready, delayed and held jobs.
    pub bytes: u64,
    /// When the oldest ready one was admitted, UTC milliseconds.
    #[schema(value_type = Option<i64>)]
    pub oldest_at: Option<Millis>,
    /// Seconds since then.
    pub oldest_age_seconds: Option<u64>,
    /// Bytes a second that the nodes stored of this level, over the last hour.
    pub bytes_per_second: u64,
    /// Seconds until all of it is stored at that speed; null where nothing waits, nothing was stored to measure it by, or no node
    /// that stored of it claims from it now.
    pub eta_seconds: Option<u64>,
}

impl LevelView {
    fn of(depth: QueueDepth, now: Millis, speeds: &Speeds) -> Self {
        let bytes_per_second = speeds.of.get(&depth.queue).copied().unwrap_or(0);
        Self {
            copies_of: copied_node(&depth.queue),
            waiting: depth.waiting(),
            inbox: depth.inbox,
            ready: depth.ready,
            delayed: depth.delayed,
            held: depth.held,
            leased: depth.leased,
            bytes: depth.bytes,
            oldest_at: depth.oldest_admitted_at,
            oldest_age_seconds: depth.oldest_admitted_at.map(|at| now.since(at).as_secs()),
            bytes_per_second,
            eta_seconds: (depth.bytes > 0 && speeds.claimed.contains(&depth.queue))
                .then(|| depth.bytes.checked_div(bytes_per_second))
                .flatten(),
            queue: depth.queue,
        }
    }
}

/// A host that is left alone for now, since it did not give; or a node that did not give its backups for second copies.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = RestingHost)]
pub struct HostView {
    /// The host; `node NODE` for a node.
    pub server_id: String,
    /// The node, if it is one.
    pub node_id: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// Since the first of them, UTC milliseconds.
    #[schema(value_type = i64)]
    pub since: Millis,
    /// Asked again then, UTC milliseconds.
    #[schema(value_type = i64)]
    pub until: Millis,
    /// The last failure, for programs.
    pub reason_code: String,
    /// The last failure, for people.
    pub reason: String,
}

/// The queues of one cluster.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ClusterQueues)]
pub struct ClusterView {
    /// Its id.
    pub cluster: String,
    /// For people, from the registry.
    pub name: String,
    /// Where its Redis is; null for one that is only in the registry and says nothing of it.
    pub address: Option<String>,
    /// Set while its Redis does not answer.
    pub away: Option<Away>,
    /// Its levels, most important first where the configuration says so.
    pub levels: Vec<LevelView>,
    /// Hosts that are left alone for now, the one that has failed for longest first; 100 at most.
    pub resting: Vec<HostView>,
    /// How many such hosts there are.
    pub resting_total: u64,
    /// Jobs waiting, as a queue reporter last said. Reporters of UBackup see the inbox only.
    pub reported_size: Option<u64>,
    /// When it said so, UTC milliseconds.
    #[schema(value_type = Option<i64>)]
    pub reported_at: Option<Millis>,
}

/// All clusters.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueList {
    /// Those of the configuration, then those that are only registered.
    pub clusters: Vec<ClusterView>,
}

impl HostView {
    fn of(host: RestingHost) -> Self {
        let node_id = source_node(&host.host).map(str::to_owned);
        Self {
            server_id: if node_id.is_some() { source_name(&host.host) } else { host.host },
            node_id,
            failures: host.failures,
            since: host.since,
            until: host.until,
            reason_code: host.reason.code.as_str().to_owned(),
            reason: host.reason.text,
        }
    }
}

/// What living nodes store of each level.
struct Speeds {
    /// In bytes a second.
    of: BTreeMap<QueueName, u64>,
    /// Levels that one of them claims from now.
    claimed: BTreeSet<QueueName>,
}

impl Speeds {
    fn of(nodes: &[HeardNode]) -> Self {
        let mut of = BTreeMap::new();
        let living = || nodes.iter().filter(|node| node.is_there);
        for (queue, speed) in living().flat_map(|node| &node.beat.by_queue) {
            *of.entry(queue.clone()).or_default() += speed;
        }
        let claiming = living().map(|node| &node.beat).filter(|beat| beat.paused.is_none() && beat.weight > 0);
        let open = |beat: &NodeBeat| {
            let levels = beat.by_queue.keys().filter(|queue| !beat.closed.contains_key(*queue));
            levels.cloned().collect::<Vec<_>>()
        };
        Self { of, claimed: claiming.flat_map(open).collect() }
    }
}

fn level_views(depths: Depths, speeds: &Speeds) -> Vec<LevelView> {
    let Depths { levels, now } = depths;
    levels.into_iter().map(|depth| LevelView::of(depth, now, speeds)).collect()
}

/// All clusters' queues.
pub(crate) async fn all(app: &App) -> Result<QueueList, Problem> {
    let mut expected = app.registry().list::<registry::Cluster>().await?;
    let mut clusters = Vec::new();
    for cluster in app.clusters() {
        // One question more than need be to a Redis that does not answer is seconds more for who waits for this.
        let (levels, resting) = match cluster.depths().await {
            Ok(depths) => (
                level_views(depths, &Speeds::of(&cluster.nodes(app.settings()).await)),
                cluster.ask(cluster.queue().resting_hosts(MOST_RESTING)).await.unwrap_or_default(),
            ),
            Err(_) => Default::default(),
        };
        let at = expected.iter().position(|entry| entry.cluster_id == *cluster.name());
        let entry = at.map(|at| expected.remove(at));
        clusters.push(ClusterView {
            cluster: cluster.name().to_string(),
            name: entry.as_ref().map(|entry| entry.name.to_string()).unwrap_or_default(),
            address: Some(cluster.address().to_owned()),
            away: cluster.watch().away(),
            levels,
            resting: resting.hosts.into_iter().map(HostView::of).collect(),
            resting_total: resting.total,
            reported_size: entry.as_ref().and_then(|entry| entry.queue_size),
            reported_at: entry.as_ref().and_then(|entry| entry.reported_at),
        });
    }
    clusters.extend(expected.into_iter().map(|entry| ClusterView {
        cluster: entry.cluster_id.to_string(),
        name: entry.name.to_string(),
        address: entry.queue_address.map(|address| address.to_string()),
        away: None,
        levels: Vec::new(),
        resting: Vec::new(),
        resting_total: 0,
        reported_size: entry.queue_size,
        reported_at: entry.reported_at,
    }));
    Ok(QueueList { clusters })
}

#[utoipa::path(get, path = "/api/v1/queues", tag = "queues", responses((status = 200, body = QueueList)))]
async fn list(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    Ok(Json(all(&app).await?))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}
