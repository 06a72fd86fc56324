//! `/metrics` and `/healthz`, for this machine's monitoring. Healthy means that the puller works as it should; a pause for
//! want of space is that too, and is told.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use longshore_core::metrics;

use crate::node::Node;

/// The routes.
pub fn router(node: Arc<Node>) -> Router {
    Router::new().route("/metrics", get(all_metrics)).route("/healthz", get(health)).with_state(node)
}

async fn all_metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    node.metrics.obeys(node.settings.slots, &node.policy.now());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], node.metrics.all.encode())
}

async fn health(State(node): State<Arc<Node>>) -> Json<serde_json::Value> {
    let beat = node.beat();
    let status = if beat.paused.is_some() { "paused" } else { "ok" };
    Json(serde_json::json!({
        "status": status, "paused": beat.paused, "last_error": beat.last_error, "running": beat.running.len(),
        "node_id": beat.node_id, "version": beat.version
    }))
}
