//! The whole at one look: what is protected, what waits, who is silent, which service is away; and health for supervisors.

use axum::{Json, extract::State, http::header, response::IntoResponse};
use longshore_catalog::{CountBy, Filter, TimeSpan};
use longshore_core::{Millis, metrics};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    backups::BucketView,
    instances::{self, InstanceFilter},
    nodes,
    problem::Problem,
    queues,
};
use crate::{app::App, freshness::Standing, registry::InstanceEntry, watch::Away};

const DAY_MILLIS: i64 = 24 * 3600 * 1000;
/// Late instances are counted up to here.
const MOST_LATE: u64 = 10_000;

/// Everything in numbers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Summary {
    /// This server's clock, UTC milliseconds.
    #[schema(value_type = i64)]
    pub now: Millis,
    /// This server's version.
    pub version: &'static str,
    /// The catalog.
    pub catalog: CatalogView,
    /// Each cluster.
    pub clusters: Vec<ClusterSummary>,
    /// Instances; null while the catalog is away.
    pub instances: Option<InstanceCounts>,
    /// Ends of the last 24 hours by outcome; null while the catalog is away.
    pub last_day: Option<Vec<BucketView>>,
    /// All stored backups; null while the catalog is away.
    pub stored: Option<Stored>,
}

/// The catalog's state.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CatalogView {
    /// `sqlite` or `elasticsearch`.
    pub kind: &'static str,
    /// Set while it does not answer.
    pub away: Option<Away>,
}

/// A cluster in numbers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClusterSummary {
    /// Its id.
    pub cluster: String,
    /// Set while its Redis does not answer.
    pub away: Option<Away>,
    /// Nodes heard of.
    pub nodes: u64,
    /// Of those, not heard of lately.
    pub nodes_silent: u64,
    /// Of those, claiming nothing now.
    pub nodes_paused: u64,
    /// Transfers now.
    pub running: u64,
    /// Bytes a second now, all transfers together.
    pub bytes_per_second: u64,
    /// Jobs waiting.
    pub waiting: u64,
    /// Age of the oldest waiting one, in seconds.
    pub oldest_age_seconds: Option<u64>,
}

/// Instances in numbers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct InstanceCounts {
    /// In the registry.
    pub registered: u64,
    /// Overdue, those that were never backed up included; counted up to 10,000.
    pub late: u64,
}

/// Stored backups in numbers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Stored {
    /// How many.
    pub count: u64,
    /// Bytes announced.
    pub bytes: u64,
}

/// The summary now. What can't be asked is null, and says so beside it.
pub(crate) async fn now(app: &App) -> Result<Summary, Problem> {
    let now = Millis::now();
    let (nodes, queues) = tokio::try_join!(nodes::all(app), Box::pin(queues::all(app)))?;
    let clusters = app.clusters().iter().map(|cluster| {
        let name = cluster.name().to_string();
        let heard = || nodes.items.iter().filter(|node| node.beat.is_some() && node.cluster.as_ref() == Some(&name));
        let running =
            || heard().filter(|node| node.is_there).filter_map(|node| node.beat.as_ref()).flat_map(|b| &b.running);
        let levels = || queues.clusters.iter().filter(|view| view.cluster == name).flat_map(|view| &view.levels);
        ClusterSummary {
            away: cluster.watch().away(),
            nodes: heard().count() as u64,
            nodes_silent: heard().filter(|node| node.silent).count() as u64,
            nodes_paused: heard()
                .filter(|node| !node.silent && node.beat.as_ref().is_some_and(|beat| beat.paused.is_some()))
                .count() as u64,
            running: running().count() as u64,
            bytes_per_second: running().map(|transfer| transfer.bytes_per_second).sum(),
            waiting: levels().map(|level| level.waiting).sum(),
            oldest_age_seconds: levels().filter_map(|level| level.oldest_age_seconds).max(),
            cluster: name.clone(),
        }
    });
    let clusters = clusters.collect();
    let (stored, last_day, instances) = match backups(app, now).await {
        Ok((stored, last_day)) => (Some(stored), Some(last_day), app.counted(instance_counts(app)).await.ok()),
        Err(_) => (None, None, None),
    };
    let kind = app.settings().catalog.kind.as_str();
    let catalog = CatalogView { kind, away: app.catalog().watch().away() };
    Ok(Summary { now, version: env!("CARGO_PKG_VERSION"), catalog, clusters, instances, last_day, stored })
}

async fn backups(app: &App, now: Millis) -> Result<(Stored, Vec<BucketView>), Problem> {
    let stored = Filter { outcomes: vec![longshore_core::Outcome::Stored], ..Filter::default() };
    let totals = app.catalog().ask(app.catalog().reader().totals(&stored)).await?;
    let span = TimeSpan { from: Some(Millis(now.0 - DAY_MILLIS)), until: None };
    let last_day = Filter { stored: span, ..Filter::default() };
    let buckets = app.catalog().ask(app.catalog().reader().counts(CountBy::Outcome, &last_day)).await?;
    let buckets = buckets.into_iter().map(|b| BucketView { key: b.key, count: b.count, bytes: b.bytes }).collect();
    Ok((Stored { count: totals.count, bytes: totals.bytes }, buckets))
}

async fn instance_counts(app: &App) -> Result<InstanceCounts, Problem> {
    let registered = app.registry().list::<InstanceEntry>().await?.len() as u64;
    let mut filter = InstanceFilter { standing: Some(Standing::Late), limit: Some(1000), ..InstanceFilter::default() };
    let mut late = 0;
    loop {
        let page = instances::page(app, &filter).await?;
        late += page.items.len() as u64;
        match page.next {
            Some(next) if late < MOST_LATE => filter.cursor = Some(next.as_str().to_owned()),
            _ => return Ok(InstanceCounts { registered, late: late.min(MOST_LATE) }),
        }
    }
}

#[utoipa::path(get, path = "/api/v1/summary", tag = "summary", responses((status = 200, body = Summary)))]
async fn summary(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    Ok(Json(now(&app).await?))
}

/// Whether this server serves, and what it lacks. It answers 200 also when the catalog or Redis is away: restarting this
/// server would not bring them back.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `degraded` when a service was away at the last question.
    status: &'static str,
    /// This server's version.
    version: &'static str,
    /// Seconds since it started.
    uptime_seconds: u64,
    /// Each service that is away.
    away: Vec<HealthAway>,
}

/// A service that is away.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthAway {
    what: String,
    #[schema(value_type = i64)]
    since: Millis,
}

#[utoipa::path(get, path = "/healthz", tag = "summary", security(()), responses((status = 200, body = Health)))]
async fn health(State(app): State<App>) -> impl IntoResponse {
    let away: Vec<HealthAway> = app
        .watches()
        .filter_map(|watch| Some(HealthAway { what: watch.what().to_owned(), since: watch.away()?.since }))
        .collect();
    let status = if away.is_empty() { "ok" } else { "degraded" };
    let body = Health { status, version: env!("CARGO_PKG_VERSION"), uptime_seconds: app.uptime_seconds(), away };
    ([(header::CACHE_CONTROL, "no-store")], Json(body))
}

#[utoipa::path(get, path = "/metrics", tag = "summary",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], app.measures().text(&app).await)
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(summary)).routes(routes!(health)).routes(routes!(metrics))
}
