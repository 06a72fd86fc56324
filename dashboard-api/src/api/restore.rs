//! Restores: the plan, and the token with which its files are fetched from the nodes.

use std::collections::{HashMap, HashSet};

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use longshore_catalog::{Chain, Filter, SearchQuery, SortBy};
use longshore_core::{
    JobId, Millis, NodeId, Outcome,
    token::{RestoreClaims, TOKEN_LIFE, sign},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Body, Path, Query},
    instances::{AtQuery, chain_at, key_of},
    problem::Problem,
};
use crate::{
    app::App,
    plan::{NodeFacts, RestorePlan, median_speed},
};

/// A node's last so many transfers tell its speed.
const SPEED_OF_LAST: u32 = 50;
/// A token's text has a limit; a chain is far below.
const MOST_BACKUPS: usize = 1000;

#[utoipa::path(get, path = "/api/v1/instances/{server_id}/{type}/{instance}/restore-plan", tag = "restore",
    params(("server_id" = String, Path), ("type" = String, Path), ("instance" = String, Path), AtQuery),
    responses((status = 200, body = RestorePlan), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn plan(
    State(app): State<App>,
    Path(path): Path<(String, String, String)>,
    Query(query): Query<AtQuery>,
) -> Result<impl IntoResponse, Problem> {
    let key = key_of(path)?;
    let at = query.at.map_or_else(Millis::now, |moment| moment.0);
    let chain = chain_at(&app, &key, at).await?;
    let facts = facts(&app, &chain).await?;
    Ok(Json(RestorePlan::new(key, at, &chain, &facts)))
}

/// What is known of every node that holds a part of the chain.
async fn facts(app: &App, chain: &Chain) -> Result<HashMap<NodeId, NodeFacts>, Problem> {
    let mut holders = HashSet::new();
    for backup in &chain.backups {
        holders.extend(backup.report.node_id.clone());
        holders.extend(backup.report.copies.iter().map(|copy| copy.node_id.clone()));
    }
    let mut facts: HashMap<NodeId, NodeFacts> = HashMap::new();
    for node_id in holders {
        let query = SearchQuery {
            filter: Filter { node_id: Some(node_id.clone()), outcomes: vec![Outcome::Stored], ..Filter::default() },
            sort: SortBy::StoredAt,
            limit: SPEED_OF_LAST,
            ..SearchQuery::default()
        };
        let recent = app.catalog().ask(app.catalog().reader().search(&query)).await?;
        let bytes_per_second = median_speed(recent.items.iter().map(|backup| &backup.report));
        facts.insert(node_id, NodeFacts { bytes_per_second, ..NodeFacts::default() });
    }
    for cluster in app.clusters() {
        let heard = cluster.nodes(app.settings()).await;
        for node in heard {
            if let Some(known) = facts.get_mut(&node.beat.node_id) {
                known.serve = node.beat.serve.clone();
                known.silent = cluster.watch().away().is_none().then_some(!node.is_there);
            }
        }
    }
    Ok(facts)
}

/// What a restore will fetch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// The jobs of a plan's steps.
    #[schema(value_type = Vec<String>)]
    backups: Vec<JobId>,
    /// Who fetches, for the nodes' logs.
    #[serde(default)]
    #[schema(example = "ops@db-31-7")]
    subject: Option<String>,
}

/// The permission to fetch.
#[derive(Debug, Serialize, ToSchema)]
pub struct RestorePermission {
    /// For `Authorization: Bearer` at the nodes.
    token: String,
    /// UTC milliseconds; ask again before that, with the same backups.
    #[schema(value_type = i64)]
    expires_at: Millis,
    /// What it opens.
    #[schema(value_type = Vec<String>)]
    backups: Vec<JobId>,
}

#[utoipa::path(post, path = "/api/v1/restores", tag = "restore", request_body = RestoreRequest, responses(
    (status = 201, body = RestorePermission), (status = 422, body = Problem), (status = 503, body = Problem)))]
async fn permit(State(app): State<App>, Body(request): Body<RestoreRequest>) -> Result<impl IntoResponse, Problem> {
    if request.backups.is_empty() || request.backups.len() > MOST_BACKUPS {
        let count = request.backups.len();
        return Err(Problem::unacceptable(format!("{count} backups; a token is for 1 to {MOST_BACKUPS}")));
    }
    for id in &request.backups {
        let found = app.catalog().ask(app.catalog().reader().by_id(*id)).await?;
        if !found.is_some_and(|backup| backup.is_good()) {
            return Err(Problem::unacceptable(format!("the catalog has no stored backup {id}")));
        }
    }
    let expires_at = Millis::now().plus(TOKEN_LIFE);
    let subject: String = request.subject.unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect();
    tracing::info!(subject, backups = request.backups.len(), %expires_at, "a restore token was made");
    let claims = RestoreClaims { backups: request.backups.clone(), expires_at, subject };
    let token = sign(app.keys().restore(), &claims);
    Ok((StatusCode::CREATED, Json(RestorePermission { token, expires_at, backups: request.backups })))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(plan)).routes(routes!(permit))
}
