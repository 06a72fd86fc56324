//! `GET /api/v1/why/…`: why a job is where it is, and how an instance stands with what of it is on the way.

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{
    InstanceKey, JobId, Millis,
    queue::{JobFilter, JobState},
    text::count,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    backups::BackupView,
    extract::Path,
    instances::{key_of, unknown},
    problem::Problem,
};
use crate::{
    app::App,
    clusters::Cluster,
    freshness::{InstanceView, Standing},
    registry::InstanceEntry,
    why::{self, Fact, JobWhy, Known},
};

/// So many jobs of an instance are explained.
const MOST_JOBS: usize = 5;

/// What is known of a job: the first cluster that knows it, else the catalog.
async fn of_job(app: &App, job: JobId) -> Result<Option<JobWhy>, Problem> {
    let found = app.catalog().ask(app.catalog().reader().by_id(job)).await;
    let backup = found.as_ref().ok().and_then(Option::as_ref).map(BackupView::from);
    let mut away = None;
    for cluster in app.clusters() {
        match Box::pin(in_cluster(app, cluster, job, backup.as_ref())).await {
            Ok(Some(why)) => return Ok(Some(why)),
            Ok(None) => {}
            Err(problem) => away = Some(problem),
        }
    }
    // Nothing may be called unknown while one who could know it is away.
    match away.or_else(|| found.err()) {
        Some(problem) => Err(problem),
        None => Ok(None),
    }
}

async fn in_cluster(
    app: &App,
    cluster: &Cluster,
    job: JobId,
    backup: Option<&BackupView>,
) -> Result<Option<JobWhy>, Problem> {
    let standing = cluster.ask(cluster.queue().why(&job)).await?;
    let filter = JobFilter { jobs: vec![job], ..JobFilter::default() };
    let queued = cluster.ask(cluster.queue().find(&filter, 1)).await?.jobs.pop();
    let of_backup = backup.map(|backup| format!("{}/{}/{}", backup.server_id, backup.backup_type, backup.instance));
    let instance = queued.and_then(|queued| queued.job).map(|job| job.key().to_string()).or(of_backup);
    let silent_after = app.settings().silent_after.duration();
    let urgent = match &standing.record {
        Some(record) => app.registry().rules(cluster.name().clone()).await?.1.level(&record.queue).urgent,
        None => false,
    };
    Ok(why::explain(job, &standing, Known { instance: instance.as_deref(), backup, silent_after, urgent }))
}

#[utoipa::path(get, path = "/api/v1/why/{job}", tag = "queues", params(("job" = String, Path)), responses(
    (status = 200, body = JobWhy), (status = 400, body = Problem), (status = 404, body = Problem),
    (status = 503, body = Problem)))]
async fn job(State(app): State<App>, Path(job): Path<String>) -> Result<impl IntoResponse, Problem> {
    let wrong =
        |error| Problem::bad_request(format!("{job:?} is neither a job's id ({error}) nor SERVER/TYPE/INSTANCE"));
    let id: JobId = job.parse().map_err(wrong)?;
    let found = of_job(&app, id).await?;
    let unknown = || Problem::not_found(format!("no job {id} is known: it is in no queue and not in the catalog"));
    found.map(Json).ok_or_else(unknown)
}

/// How an instance stands, and what of it is on the way.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceWhy {
    /// `SERVER/TYPE/INSTANCE`.
    instance: String,
    /// `fresh`, `late` or `never`.
    state: &'static str,
    /// One sentence.
    answer: String,
    /// What it rests on.
    facts: Vec<Fact>,
    /// How many jobs of it are in the queues, not counting those that were given up.
    queued: u64,
    /// Those jobs, the oldest first; 5 at most.
    jobs: Vec<JobWhy>,
}

/// How it stands, in a sentence.
fn stands(view: &InstanceView, queued: u64, now: Millis) -> String {
    let good = view.last_good.as_ref().map(|good| longshore_core::text::from(good.point, now));
    let overdue = view.due_at.map(|due| longshore_core::text::from(due, now)).unwrap_or_default();
    let stored = match (view.standing, good) {
        (Standing::Fresh, Some(good)) => format!("It is protected: its last good backup is of {good}"),
        (Standing::Late, Some(good)) => {
            format!("It is late: its last good backup is of {good}, the next was due {overdue}")
        }
        (_, Some(good)) => format!("Its last good backup is of {good}"),
        (_, None) => "It has no good backup".to_owned(),
    };
    let failed = view.last_report.as_ref().and_then(|report| report.reason.as_ref());
    match (queued, failed) {
        (0, Some(reason)) => format!("{stored}; nothing of it is queued, and its last run ended with {reason}."),
        (0, None) => format!("{stored}; nothing of it is queued."),
        (1, _) => format!("{stored}; one job of it is queued."),
        (jobs, _) => format!("{stored}; {jobs} jobs of it are queued."),
    }
}

#[utoipa::path(get, path = "/api/v1/why/{server_id}/{type}/{instance}", tag = "queues",
    params(("server_id" = String, Path), ("type" = String, Path), ("instance" = String, Path)), responses(
    (status = 200, body = InstanceWhy), (status = 400, body = Problem), (status = 404, body = Problem),
    (status = 503, body = Problem)))]
async fn instance(
    State(app): State<App>,
    Path(path): Path<(String, String, String)>,
) -> Result<impl IntoResponse, Problem> {
    let key: InstanceKey = key_of(path)?;
    let filter = JobFilter {
        states: vec![JobState::Ready, JobState::Delayed, JobState::Held, JobState::Leased],
        server_id: Some(key.server_id.clone()),
        backup_type: Some(key.backup_type.clone()),
        instance: Some(key.instance.clone()),
        ..JobFilter::default()
    };
    let (mut queued, mut given_up, mut oldest) = (0, 0, Vec::new());
    for cluster in app.clusters() {
        let found = cluster.find(&filter, MOST_JOBS).await?;
        queued += found.total;
        given_up += found.others.values().sum::<u64>();
        oldest.extend(found.jobs);
    }
    let expected = app.registry().find::<InstanceEntry>(key.to_string()).await?;
    let known = app.catalog().ask(app.catalog().reader().freshness_of(&key)).await?;
    if known.is_none() && expected.is_none() && queued + given_up == 0 {
        return Err(unknown(&app, &key).await);
    }
    let mut jobs = Vec::new();
    for job in oldest.iter().take(MOST_JOBS) {
        jobs.extend(of_job(&app, job.id).await?);
    }
    let now = Millis::now();
    let view = InstanceView::new(key, known, expected, now, app.settings().late_grace());
    let fact = |name, text: Option<String>, at| text.map(|text| Fact { name, text, at });
    let interval =
        view.interval_seconds.map(|seconds| longshore_core::text::span(std::time::Duration::from_secs(seconds)));
    let good = view.last_good.as_ref();
    let ago = |at: Millis| longshore_core::text::from(at, now);
    let facts = [
        fact("backed up every", interval, None),
        fact(
            "last good",
            good.map(|good| format!("job {}, {}", good.job, ago(good.point))),
            good.map(|good| good.point),
        ),
        fact("next due", view.due_at.map(ago), view.due_at),
        fact("given up", (given_up > 0).then(|| format!("{}, kept for a person", count(given_up, "job"))), None),
        fact("host heard", view.host_seen.map(ago), view.host_seen),
    ];
    let answer = stands(&view, queued, now);
    let facts = facts.into_iter().flatten().collect();
    let (instance, state) = (view.key().to_string(), view.standing.as_str());
    Ok(Json(InstanceWhy { instance, state, answer, facts, queued, jobs }))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(job)).routes(routes!(instance))
}
