//! Nodes over HTTP: the heartbeat of each, beside what the registry says of it.

use std::collections::BTreeMap;

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{Millis, NodeBeat, NodeId};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{extract::Path, problem::Problem};
use crate::{
    app::App,
    clusters::{Cluster, HeardNode},
    registry::NodeEntry,
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
        HeardNode { beat, heard_at, age, silent }: HeardNode,
        registered: Option<NodeEntry>,
    ) -> Self {
        let is_set = registered.as_ref().is_some_and(|entry| entry.weight.is_some());
        Self {
            node_id: beat.node_id.clone(),
            cluster: Some(cluster.name().to_string()),
            heard_at: Some(heard_at),
            age_seconds: Some(age.as_secs()),
            silent,
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
    let living = || nodes.iter().filter(|node| !node.silent);
    let bytes: u64 = living().map(|node| node.stored_last_hour_bytes).sum();
    let weights: u64 = living().filter_map(|node| node.weight).map(u64::from).sum();
    let percent = |part: u64, whole: u64| (whole > 0).then(|| (part as f64 * 1000.0 / whole as f64).round() / 10.0);
    for node in nodes.iter_mut().filter(|node| !node.silent) {
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

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one))
}
