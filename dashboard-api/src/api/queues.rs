//! Queues over HTTP: what waits in each level of each cluster and since when, what is being transferred, and the dead
//! letters.

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{
    Millis, QueueName, ReasonCode,
    queue::{DeadLetter, QueueDepth, Remains},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Query, parsed_or_none},
    problem::Problem,
};
use crate::{app::App, registry, watch::Away};

/// At most so many dead letters are given at once.
const MOST_LETTERS: usize = 500;

/// One level.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Level)]
pub struct LevelView {
    /// Its name.
    #[schema(value_type = String)]
    pub queue: QueueName,
    /// All that waits: inbox, ready and delayed.
    pub waiting: u64,
    /// Pushed, not yet admitted.
    pub inbox: u64,
    /// Admitted and ready.
    pub ready: u64,
    /// Admitted, waiting for a retry's time.
    pub delayed: u64,
    /// Being transferred.
    pub leased: u64,
    /// Bytes of ready and delayed jobs.
    pub bytes: u64,
    /// When the oldest ready one was admitted, UTC milliseconds.
    #[schema(value_type = Option<i64>)]
    pub oldest_at: Option<Millis>,
    /// Seconds since then.
    pub oldest_age_seconds: Option<u64>,
}

impl LevelView {
    fn of(depth: QueueDepth, now: Millis) -> Self {
        Self {
            waiting: depth.inbox + depth.ready + depth.delayed,
            inbox: depth.inbox,
            ready: depth.ready,
            delayed: depth.delayed,
            leased: depth.leased,
            bytes: depth.bytes,
            oldest_at: depth.oldest_admitted_at,
            oldest_age_seconds: depth.oldest_admitted_at.map(|at| now.since(at).as_secs()),
            queue: depth.queue,
        }
    }
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
    /// Jobs waiting, as a queue reporter last said. Reporters of the seed see the inbox only.
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

/// All clusters' queues.
pub(crate) async fn all(app: &App) -> Result<QueueList, Problem> {
    let mut expected = app.registry().list::<registry::Cluster>().await?;
    let mut clusters = Vec::new();
    for cluster in app.clusters() {
        let depths = cluster.depths().await.ok();
        let at = expected.iter().position(|entry| entry.cluster_id == *cluster.name());
        let entry = at.map(|at| expected.remove(at));
        clusters.push(ClusterView {
            cluster: cluster.name().to_string(),
            name: entry.as_ref().map(|entry| entry.name.to_string()).unwrap_or_default(),
            address: Some(cluster.address().to_owned()),
            away: cluster.watch().away(),
            levels: depths
                .map(|depths| depths.levels.into_iter().map(|depth| LevelView::of(depth, depths.now)).collect())
                .unwrap_or_default(),
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
        reported_size: entry.queue_size,
        reported_at: entry.reported_at,
    }));
    Ok(QueueList { clusters })
}

#[utoipa::path(get, path = "/api/v1/queues", tag = "queues", responses((status = 200, body = QueueList)))]
async fn list(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    Ok(Json(all(&app).await?))
}

/// What is kept for a person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterView {
    /// The cluster.
    cluster: String,
    /// Its name in that cluster.
    id: String,
    /// The level that it was in.
    #[schema(value_type = Option<String>)]
    queue: Option<QueueName>,
    /// Since when it is here, UTC milliseconds.
    #[schema(value_type = i64)]
    at: Millis,
    /// Why, for programs.
    #[schema(value_type = String)]
    reason_code: ReasonCode,
    /// Why, for people.
    reason: String,
    /// The job, when it could be read.
    job: Option<String>,
    /// Its instance, when it could be read.
    instance: Option<String>,
    /// Transfers begun for it.
    attempts: Option<u32>,
    /// Bytes of an entry that is no job.
    bytes: Option<u64>,
    /// Its beginning; what is not UTF-8 is replaced.
    beginning: Option<String>,
}

impl DeadLetterView {
    fn of(cluster: &QueueName, letter: DeadLetter) -> Self {
        let mut view = Self {
            cluster: cluster.to_string(),
            id: letter.id,
            queue: letter.queue,
            at: letter.at,
            reason_code: letter.reason.code,
            reason: letter.reason.text,
            job: None,
            instance: None,
            attempts: None,
            bytes: None,
            beginning: None,
        };
        match letter.remains {
            Remains::Job { job, attempts } => {
                view.job = Some(job.id.to_string());
                view.instance = Some(job.key().to_string());
                view.attempts = Some(attempts);
            }
            Remains::Bytes { beginning, bytes, job } => {
                view.job = job.map(|job| job.to_string());
                view.bytes = Some(bytes);
                view.beginning = Some(String::from_utf8_lossy(&beginning).into_owned());
            }
        }
        view
    }
}

/// Dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterList {
    /// How many there are in all clusters that answer.
    total: u64,
    /// Those asked for: cluster by cluster, the newest first.
    items: Vec<DeadLetterView>,
}

/// Which dead letters.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LetterFilter {
    /// Of this cluster only.
    cluster: Option<String>,
    /// Leave out the newest so many of each cluster.
    #[serde(deserialize_with = "parsed_or_none")]
    skip: Option<usize>,
    /// At most so many of each cluster, up to 500; 50 when left out.
    #[serde(deserialize_with = "parsed_or_none")]
    limit: Option<usize>,
}

#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "queues", params(LetterFilter), responses(
    (status = 200, body = DeadLetterList), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn dead_letters(
    State(app): State<App>,
    Query(filter): Query<LetterFilter>,
) -> Result<impl IntoResponse, Problem> {
    let wanted = |name: &QueueName| filter.cluster.as_ref().is_none_or(|wanted| wanted == name.as_str());
    let mut list = DeadLetterList { total: 0, items: Vec::new() };
    let mut found = false;
    for cluster in app.clusters().iter().filter(|cluster| wanted(cluster.name())) {
        found = true;
        let most = filter.limit.unwrap_or(50).min(MOST_LETTERS);
        let letters = cluster.ask(cluster.queue().dead_letters(filter.skip.unwrap_or(0), most)).await?;
        list.total += letters.total;
        list.items.extend(letters.letters.into_iter().map(|letter| DeadLetterView::of(cluster.name(), letter)));
    }
    if !found {
        let name = filter.cluster.unwrap_or_default();
        return Err(Problem::not_found(format!("cluster {name} is not in this server's configuration")));
    }
    Ok(Json(list))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(dead_letters))
}
