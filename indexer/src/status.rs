//! `/healthz` and `/metrics`, for whoever watches the indexer.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use longshore_core::{metrics, shutdown::Shutdown};
use tokio::net::TcpListener;

use crate::condition::Condition;

/// Serves until `shutdown`.
///
/// # Errors
/// When the port can't be listened on any more.
pub async fn serve(listener: TcpListener, condition: Arc<Condition>, shutdown: Shutdown) -> io::Result<()> {
    let routes =
        Router::new().route("/healthz", get(health)).route("/metrics", get(encoded_metrics)).with_state(condition);
    axum::serve(listener, routes).with_graceful_shutdown(async move { shutdown.requested().await }).await
}

/// 200 when everything goes on; 503 while something is waited for, with what and why.
async fn health(State(condition): State<Arc<Condition>>) -> impl IntoResponse {
    let report = condition.health();
    let status = if report.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

async fn encoded_metrics(State(condition): State<Arc<Condition>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], condition.metrics())
}
