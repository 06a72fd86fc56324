//! What operators set, as nodes are told it: per cluster, whether it has reached Redis and the nodes, and which windows are
//! closed now.

use std::collections::BTreeMap;

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{
    Millis, NodeId,
    calendar::{Shut, Window},
    policy::Rules,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::{app::App, clusters::Cluster, policy, watch::Away};

/// The policies.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyList {
    /// One for each cluster.
    pub items: Vec<PolicyView>,
}

/// The policy of one cluster.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Policy)]
pub struct PolicyView {
    /// The cluster.
    pub cluster: String,
    /// Its version in Redis; null while what the registry says has not arrived there.
    pub version: Option<u64>,
    /// The version that each node obeys that is there now; null for one that heard of none.
    #[schema(value_type = BTreeMap<String, Option<u64>>)]
    pub nodes: BTreeMap<NodeId, Option<u64>>,
    /// What the registry says, by `queues`, `types`, `nodes`, `hosts` and `cluster`. What it leaves out, the nodes' files decide.
    #[schema(value_type = Object)]
    pub rules: Rules,
    /// Windows that are closed now.
    pub closed: ClosedWindows,
    /// Since when its Redis does not answer.
    pub away: Option<Away>,
}

/// Windows that are closed now, each with when it opens; what the nodes' own files say is not among them.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ClosedWindows {
    /// By level.
    #[schema(value_type = Object)]
    pub queues: BTreeMap<String, Shut>,
    /// By node.
    #[schema(value_type = Object)]
    pub nodes: BTreeMap<String, Shut>,
    /// By host.
    #[schema(value_type = Object)]
    pub hosts: BTreeMap<String, Shut>,
}

impl ClosedWindows {
    /// Of `rules` at `now`.
    pub fn at(now: Millis, rules: &Rules) -> Self {
        Self {
            queues: shut(now, rules.queues.iter().map(|(name, rule)| (name, &rule.window))),
            nodes: shut(now, rules.nodes.iter().map(|(name, rule)| (name, &rule.window))),
            hosts: shut(now, rules.hosts.iter().map(|(name, rule)| (name, &rule.window))),
        }
    }
}

fn shut<'a, K: ToString + 'a>(
    now: Millis,
    windows: impl Iterator<Item = (&'a K, &'a Option<Window>)>,
) -> BTreeMap<String, Shut> {
    windows.filter_map(|(name, window)| Some((name.to_string(), window.as_ref()?.shut(now)?))).collect()
}

async fn view(app: &App, cluster: &Cluster) -> Result<PolicyView, Problem> {
    let (version, rules) = match policy::published(app, cluster).await {
        Ok(published) => published,
        Err(problem) if problem.status == 503 => (None, app.registry().rules(cluster.name().clone()).await?.1),
        Err(problem) => return Err(problem),
    };
    let nodes = cluster.nodes(app.settings()).await.into_iter().filter(|node| node.is_there);
    Ok(PolicyView {
        cluster: cluster.name().to_string(),
        version,
        nodes: nodes.map(|node| (node.beat.node_id, node.beat.policy)).collect(),
        closed: ClosedWindows::at(Millis::now(), &rules),
        rules,
        away: cluster.watch().away(),
    })
}

#[utoipa::path(get, path = "/api/v1/policy", tag = "policy", responses((status = 200, body = PolicyList)))]
async fn list(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let mut items = Vec::new();
    for cluster in app.clusters() {
        items.push(view(&app, cluster).await?);
    }
    Ok(Json(PolicyList { items }))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}
