//! Jobs in the queues over HTTP: which there are, by what operators know of them.

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{
    BackupType, InstanceName, JobId, Millis, NodeId, QueueName, ServerId,
    job::ModuleName,
    queue::{FoundJobs, JobFilter, JobState, QueuedJob},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Query, parsed_or_none},
    problem::Problem,
};
use crate::{app::App, clusters::Cluster};

/// At most so many jobs are listed at once.
const MOST_LISTED: usize = 10_000;

/// Which jobs; all parts together.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// These alone, by their ids, separated by commas.
    pub jobs: Option<String>,
    /// In this cluster.
    pub cluster: Option<String>,
    /// In this level.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub queue: Option<QueueName>,
    /// Of this host.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub server_id: Option<ServerId>,
    /// Of this type.
    #[serde(rename = "type")]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub backup_type: Option<BackupType>,
    /// Of the instances of this name.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub instance: Option<InstanceName>,
    /// Fetched from this rsync module.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub module: Option<ModuleName>,
    /// Admitted longer ago than this.
    #[serde(deserialize_with = "parsed_or_none")]
    pub older_than_seconds: Option<u64>,
    /// Of more than this.
    #[serde(deserialize_with = "parsed_or_none")]
    pub larger_than_bytes: Option<u64>,
    /// `ready`, `delayed`, `held`, `leased`, `dead`; several separated by commas.
    pub state: Option<String>,
    /// For lists: at most this many, up to 10,000; 50 when left out.
    #[serde(deserialize_with = "parsed_or_none")]
    pub limit: Option<usize>,
}

impl JobQuery {
    /// Whether it asks for everything.
    pub(super) fn is_empty(&self) -> bool {
        let Self { jobs, cluster: _, queue, server_id, backup_type, instance, module, state, .. } = self;
        let texts = [jobs.is_some(), queue.is_some(), server_id.is_some(), backup_type.is_some(), instance.is_some()];
        let others = [module.is_some(), state.is_some()];
        let numbers = [self.older_than_seconds.is_some(), self.larger_than_bytes.is_some()];
        texts.into_iter().chain(others).chain(numbers).all(|given| !given)
    }

    /// The ids given, as they are written.
    pub(super) fn named(&self) -> Vec<&str> {
        words(self.jobs.as_deref()).collect()
    }

    pub(super) fn states(&self) -> Result<Vec<JobState>, Problem> {
        words(self.state.as_deref()).map(|word| word.parse().map_err(Problem::bad_request)).collect()
    }

    /// The moment that `older_than_seconds` means at this one.
    pub(super) fn admitted_until(&self, now: Millis) -> Option<Millis> {
        self.older_than_seconds.map(|age| Millis(now.0.saturating_sub_unsigned(age.saturating_mul(1000))))
    }

    /// As the queue wants it; `now` is the time by its clock.
    fn filter(&self, now: Millis, states: Vec<JobState>) -> Result<JobFilter, Problem> {
        let id = |text: &str| {
            text.parse::<JobId>().map_err(|error| Problem::bad_request(format!("{text:?} is not a job's id: {error}")))
        };
        Ok(JobFilter {
            jobs: self.named().into_iter().map(id).collect::<Result<_, _>>()?,
            queue: self.queue.clone(),
            movable_to: None,
            server_id: self.server_id.clone(),
            backup_type: self.backup_type.clone(),
            instance: self.instance.clone(),
            module: self.module.clone(),
            larger_than_bytes: self.larger_than_bytes,
            admitted_until: self.admitted_until(now),
            states,
        })
    }
}

/// Whether a list separated by commas has nothing in it.
pub(super) fn is_blank(text: &str) -> bool {
    words(Some(text)).next().is_none()
}

fn words(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// A job in a queue.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    /// The cluster.
    pub cluster: String,
    /// Its id.
    #[schema(value_type = String)]
    pub id: JobId,
    /// `ready`, `delayed`, `held`, `leased` or `dead`.
    #[schema(value_type = String)]
    pub state: &'static str,
    /// Its level.
    #[schema(value_type = String)]
    pub queue: QueueName,
    /// Its instance as `SERVER/TYPE/INSTANCE`; null when this version can't read the job.
    pub instance: Option<String>,
    /// Bytes announced.
    pub size_bytes: u64,
    /// When it came out of its inbox, UTC milliseconds.
    #[schema(value_type = i64)]
    pub admitted_at: Millis,
    /// Seconds since then.
    pub age_seconds: u64,
    /// Transfers begun.
    pub attempts: u32,
    /// The node that has it, or had it last.
    #[schema(value_type = Option<String>)]
    pub node_id: Option<NodeId>,
}

impl JobView {
    pub(super) fn of(cluster: &Cluster, job: &QueuedJob, now: Millis) -> Self {
        Self {
            cluster: cluster.name().to_string(),
            id: job.id,
            state: job.state.as_str(),
            queue: job.queue.clone(),
            instance: job.job.as_ref().map(|job| job.key().to_string()),
            size_bytes: job.size_bytes,
            admitted_at: job.admitted_at,
            age_seconds: now.since(job.admitted_at).as_secs(),
            attempts: job.attempts,
            node_id: job.node_id.clone(),
        }
    }
}

/// Jobs.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct JobList {
    /// How many pass the filter, in all clusters.
    pub total: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Those asked for: cluster by cluster, the oldest first.
    pub items: Vec<JobView>,
}

/// What passes in one cluster and, where a level is given, could be moved to it; and the time by its clock.
pub(super) async fn found(
    cluster: &Cluster,
    query: &JobQuery,
    states: &[JobState],
    until: Option<Millis>,
    movable_to: Option<&QueueName>,
    most: usize,
) -> Result<(FoundJobs, Millis), Problem> {
    let now = cluster.now().await?;
    let mut filter = query.filter(now, states.to_vec())?;
    filter.admitted_until = filter.admitted_until.into_iter().chain(until).min();
    filter.movable_to = movable_to.cloned();
    Ok((cluster.find(&filter, most).await?, now))
}

#[utoipa::path(get, path = "/api/v1/jobs", tag = "queues", params(JobQuery), responses(
    (status = 200, body = JobList), (status = 400, body = Problem), (status = 404, body = Problem),
    (status = 503, body = Problem)))]
async fn list(State(app): State<App>, Query(query): Query<JobQuery>) -> Result<impl IntoResponse, Problem> {
    let states = query.states()?;
    let most = query.limit.unwrap_or(50).min(MOST_LISTED);
    let mut list = JobList::default();
    for cluster in app.clusters_named(query.cluster.as_deref())? {
        let (found, now) = found(cluster, &query, &states, None, None, most).await?;
        list.total += found.total;
        list.bytes = list.bytes.saturating_add(found.bytes);
        list.items.extend(found.jobs.iter().map(|job| JobView::of(cluster, job, now)));
    }
    Ok(Json(list))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}
