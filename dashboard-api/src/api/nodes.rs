//! Nodes over HTTP: the heartbeat of each, beside what the registry says of it.

use std::collections::BTreeMap;

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{Millis, NodeBeat, NodeId};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{extract::Path, problem::Problem};
use crate::{app::App, clusters::HeardNode, registry::NodeEntry, watch::Away};

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

/// All nodes, heard of or registered.
pub(crate) async fn all(app: &App) -> Result<NodeList, Problem> {
    let mut expected: BTreeMap<NodeId, NodeEntry> =
        app.registry().list::<NodeEntry>().await?.into_iter().map(|entry| (entry.node_id.clone(), entry)).collect();
    let mut items = Vec::new();
    let mut away = BTreeMap::new();
    for cluster in app.clusters() {
        for HeardNode { beat, heard_at, age, silent } in cluster.nodes(app.settings()).await {
            items.push(NodeView {
                node_id: beat.node_id.clone(),
                cluster: Some(cluster.name().to_string()),
                heard_at: Some(heard_at),
                age_seconds: Some(age.as_secs()),
                silent,
                registered: expected.remove(&beat.node_id),
                beat: Some(beat),
            });
        }
        away.extend(cluster.watch().away().map(|gone| (cluster.name().to_string(), gone)));
    }
    items.extend(expected.into_values().map(|entry| NodeView {
        node_id: entry.node_id.clone(),
        cluster: entry.cluster_id.as_ref().map(ToString::to_string),
        heard_at: None,
        age_seconds: None,
        silent: true,
        beat: None,
        registered: Some(entry),
    }));
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
