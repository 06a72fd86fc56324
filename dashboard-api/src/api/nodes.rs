//! Nodes over HTTP: the heartbeat of each, beside what the registry says of it; and taking one out of both.

use std::collections::BTreeMap;

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{Millis, NodeBeat, NodeId, queue::Forgetting, text::count};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{access::Operator, extract::Path, problem::Problem};
use crate::{
    app::App,
    clusters::{Cluster, HeardNode},
    registry::{NodeEntry, RegistryError},
    watch::Away,
};

/// A node.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeView {
    /// Its id.
    #[schema(value_type = String)]
    pub node_id: NodeId,
    /// Its cluster: where it was heard, else what the registry says.
    pub cluster: Option<String>,
    /// When its last heartbeat reached Redis, UTC milliseconds; null when it was never heard of.
    #[schema(value_type = Option<i64>)]
    pub heard_at: Option<Millis>,
    /// Seconds since then.
    pub age_seconds: Option<u64>,
    /// Whether that is too long, or for ever.
    pub silent: bool,
    /// Whether it is there: neither silent, nor stopped by its own last word.
    #[serde(skip)]
    pub is_there: bool,
    /// Its weight now: what it last said, or what the registry says of a node that was never heard of.
    pub weight: Option<u32>,
    /// Who says so: `registry` or `file`.
    pub weight_from: Option<&'static str>,
    /// Bytes that it stored in the last hour.
    pub stored_last_hour_bytes: u64,
    /// That as a part of what all living nodes of its cluster stored, in percent.
    pub share_percent: Option<f64>,
    /// Its weight as a part of theirs, in percent: what its share is to be while jobs wait.
    pub weight_percent: Option<f64>,
    /// Bytes that a new job may have there now.
    pub room_bytes: u64,
    /// What its transfers receive now, in bytes a second.
    pub bytes_per_second: u64,
    /// The last heartbeat.
    #[schema(value_type = Option<Object>)]
    pub beat: Option<NodeBeat>,
    /// What the registry says.
    #[schema(value_type = Option<Object>)]
    pub registered: Option<NodeEntry>,
}

/// The nodes, and which clusters could not be asked.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeList {
    /// By id.
    pub items: Vec<NodeView>,
    /// Clusters whose Redis is away; their nodes are as last heard of.
    pub away: BTreeMap<String, Away>,
}

impl NodeView {
    fn heard(
        cluster: &Cluster,
        HeardNode { beat, heard_at, age, silent, is_there }: HeardNode,
        registered: Option<NodeEntry>,
    ) -> Self {
        let is_set = registered.as_ref().is_some_and(|entry| entry.weight.is_some());
        Self {
            node_id: beat.node_id.clone(),
            cluster: Some(cluster.name().to_string()),
            heard_at: Some(heard_at),
            age_seconds: Some(age.as_secs()),
            silent,
            is_there,
            weight: Some(beat.weight),
            weight_from: Some(if is_set { "registry" } else { "file" }),
            stored_last_hour_bytes: beat.stored_last_hour_bytes,
            share_percent: None,
            weight_percent: None,
            room_bytes: beat.room_bytes,
            bytes_per_second: beat.running.iter().map(|transfer| transfer.bytes_per_second).sum(),
            registered,
            beat: Some(beat),
        }
    }

    fn registered(entry: NodeEntry) -> Self {
        Self {
            node_id: entry.node_id.clone(),
            cluster: entry.cluster_id.as_ref().map(ToString::to_string),
            heard_at: None,
            age_seconds: None,
            silent: true,
            is_there: false,
            weight: entry.weight,
            weight_from: entry.weight.map(|_| "registry"),
            stored_last_hour_bytes: 0,
            share_percent: None,
            weight_percent: None,
            room_bytes: 0,
            bytes_per_second: 0,
            beat: None,
            registered: Some(entry),
        }
    }
}

/// Gives each living node of a cluster its share and its part of the weights.
fn share(nodes: &mut [NodeView]) {
    let living = || nodes.iter().filter(|node| node.is_there);
    let bytes: u64 = living().map(|node| node.stored_last_hour_bytes).sum();
    let weights: u64 = living().filter_map(|node| node.weight).map(u64::from).sum();
    let percent = |part: u64, whole: u64| (whole > 0).then(|| (part as f64 * 1000.0 / whole as f64).round() / 10.0);
    for node in nodes.iter_mut().filter(|node| node.is_there) {
        node.share_percent = percent(node.stored_last_hour_bytes, bytes);
        node.weight_percent = node.weight.and_then(|weight| percent(weight.into(), weights));
    }
}

/// All nodes, heard of or registered.
pub(crate) async fn all(app: &App) -> Result<NodeList, Problem> {
    let mut expected: BTreeMap<NodeId, NodeEntry> =
        app.registry().list::<NodeEntry>().await?.into_iter().map(|entry| (entry.node_id.clone(), entry)).collect();
    let mut items = Vec::new();
    let mut away = BTreeMap::new();
    for cluster in app.clusters() {
        let heard = cluster.nodes(app.settings()).await.into_iter();
        let mut nodes: Vec<NodeView> = heard
            .map(|node| {
                let entry = expected.remove(&node.beat.node_id);
                NodeView::heard(cluster, node, entry)
            })
            .collect();
        share(&mut nodes);
        items.append(&mut nodes);
        away.extend(cluster.watch().away().map(|gone| (cluster.name().to_string(), gone)));
    }
    items.extend(expected.into_values().map(NodeView::registered));
    items.sort_by(|a, b| a.node_id.cmp(&b.node_id));
    Ok(NodeList { items, away })
}

#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", responses((status = 200, body = NodeList)))]
async fn list(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    Ok(Json(all(&app).await?))
}

#[utoipa::path(get, path = "/api/v1/nodes/{node_id}", tag = "nodes", params(("node_id" = String, Path)),
    responses((status = 200, body = NodeView), (status = 404, body = Problem)))]
async fn one(State(app): State<App>, Path(node_id): Path<String>) -> Result<impl IntoResponse, Problem> {
    let found = all(&app).await?.items.into_iter().find(|node| node.node_id.as_str() == node_id);
    found.map(Json).ok_or_else(|| Problem::not_found(format!("node {node_id} is neither registered nor heard of")))
}

/// A node that was taken out.
#[derive(Debug, Serialize, ToSchema)]
pub struct ForgottenNode {
    /// Its id.
    #[schema(value_type = String)]
    node_id: NodeId,
    /// The cluster that it was heard in; null when only the registry knew it.
    cluster: Option<String>,
}

/// Why a node is kept, and what to do.
fn kept(node_id: &NodeId, forgetting: Forgetting) -> Option<String> {
    let why = match forgetting {
        Forgetting::Forgotten | Forgetting::Unknown => return None,
        Forgetting::Heard => format!(
            "node {node_id} was heard of a moment ago: stop its longshore-puller first, or, after a crash, ask again \
             once it is silent. What the registry sets for it is unset field by field"
        ),
        Forgetting::Leases(leases) => format!(
            "node {node_id} still holds {}: another node puts them back when their leases have ended; ask again then",
            count(leases, "job")
        ),
        Forgetting::Copies(jobs) => format!(
            "node {node_id} alone has the backups of {}, which wait to be copied from it: start it until they are, or, if it is \
             gone for good, `longshore queue cancel --queue longshore:copies@{node_id}`",
            count(jobs, "job")
        ),
    };
    Some(why)
}

/// Takes a node out that was stopped: what is known of it in the queue, and its entry in the registry. Its backups stay in the
/// catalog. It comes back by itself when it is started again, with what its own file says.
#[utoipa::path(delete, path = "/api/v1/nodes/{node_id}", tag = "nodes", params(("node_id" = String, Path)), responses(
    (status = 200, body = ForgottenNode), (status = 400, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "It was heard of lately, or others need it"),
    (status = 503, body = Problem)))]
async fn forget(
    State(app): State<App>,
    Operator(by): Operator,
    Path(node_id): Path<NodeId>,
) -> Result<impl IntoResponse, Problem> {
    let (mut cluster, mut kept_by) = (None, None);
    for known in app.clusters() {
        match known.forget(&node_id, app.settings()).await {
            Ok(Forgetting::Forgotten) => cluster = Some(known.name().to_string()),
            Ok(answer) => kept_by = kept(&node_id, answer).map(Problem::conflict).or(kept_by),
            Err(away) => kept_by = Some(away),
        }
    }
    // While it lives in one cluster, or one can't be asked, the registry is for that one, whatever another one had of it.
    let registered = match kept_by {
        Some(problem) if cluster.is_none() => return Err(problem),
        Some(_) => false,
        None => match app.registry().remove::<NodeEntry>(node_id.to_string()).await {
            Ok(()) => true,
            Err(RegistryError::NotFound { .. }) => false,
            Err(error) => return Err(error.into()),
        },
    };
    if cluster.is_none() && !registered {
        return Err(Problem::not_found(format!("node {node_id} is neither registered nor heard of")));
    }
    tracing::info!(by, node = %node_id, ?cluster, registered, "an operator took a node out");
    Ok(Json(ForgottenNode { node_id, cluster }))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one, forget))
}
