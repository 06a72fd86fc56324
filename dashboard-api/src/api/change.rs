//! What operators do with jobs over HTTP: hold, release, move, requeue, cancel.
//!
//! A change is asked for twice: first as a preview, which changes nothing and answers up to which moment it looked; then for real,
//! with that moment, so that nothing is changed that was not there to be seen.

use std::collections::BTreeMap;

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{
    JobId, Millis, QueueName,
    queue::{Changed, JobState, Level, Queue},
    redis_link::LinkError,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    access::Operator,
    extract::{Body, Path},
    jobs::{JobQuery, JobView, found, is_blank},
    problem::Problem,
};
use crate::{app::App, clusters::Cluster};

/// At most so many are changed by one request: some seconds.
const MOST_CHANGED: usize = 5_000;
/// A reason is kept with every job it is for.
const MOST_WHY_BYTES: usize = 1024;
/// So many are shown with a preview.
const PREVIEWED: usize = 5;

/// What to do with jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobAction {
    /// Keep back until released.
    Hold,
    /// Let held ones go on.
    Release,
    /// Put into another level.
    Move,
    /// Try again at once, tries counted anew.
    Requeue,
    /// Take out, with a report.
    Cancel,
}

impl JobAction {
    /// The states in which it can be done, and among them those that it is done in without being asked for them: a transfer
    /// under way is not begun anew by the way.
    fn states(self, named: bool) -> (&'static [JobState], &'static [JobState]) {
        use JobState::{Dead, Delayed, Held, Leased, Ready};
        let all: &[JobState] = match self {
            Self::Hold => &[Ready, Delayed],
            Self::Release => &[Held],
            Self::Move => &[Ready, Delayed, Held],
            Self::Requeue => &[Delayed, Dead, Leased],
            Self::Cancel => &[Ready, Delayed, Held, Leased],
        };
        let unasked = if self == Self::Requeue && !named { &[Delayed, Dead] } else { all };
        (all, unasked)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Move => "move",
            Self::Requeue => "requeue",
            Self::Cancel => "cancel",
        }
    }
}

/// A change of jobs.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeBody {
    /// Which.
    pub filter: JobQuery,
    /// That a filter without any part is meant: every job.
    pub all: bool,
    /// To move: the level.
    #[schema(value_type = Option<String>)]
    pub to: Option<QueueName>,
    /// To hold and cancel: why, for those who read of it later.
    pub why: Option<String>,
    /// Change nothing, say what would be changed.
    pub preview: bool,
    /// Only what was admitted until then, UTC milliseconds: what the preview answered.
    #[schema(value_type = Option<i64>)]
    pub admitted_until: Option<Millis>,
}

impl ChangeBody {
    /// # Errors
    /// When nothing says which, a part says nothing (an empty variable in a script must not become every job), or there is too much.
    pub(super) fn check_meant(&self) -> Result<(), Problem> {
        let filter = &self.filter;
        let ids = filter.named().len();
        let wrong = if filter.is_empty() && !self.all {
            "say which jobs: ids or a filter, or all for every one".to_owned()
        } else if filter.jobs.is_some() && ids == 0 {
            "jobs: no id is in it; leave it out, or name some".to_owned()
        } else if filter.state.as_deref().is_some_and(is_blank) {
            "state: no state is in it; leave it out, or name some".to_owned()
        } else if ids > MOST_CHANGED {
            format!("jobs: {ids} ids; at most {MOST_CHANGED} at once")
        } else if filter.limit.is_some() {
            "limit: it is for lists; a change is for all that pass the filter".to_owned()
        } else if self.why.as_deref().is_some_and(|why| why.len() > MOST_WHY_BYTES) {
            format!("why: longer than {MOST_WHY_BYTES} bytes")
        } else {
            return Ok(());
        };
        Err(Problem::unacceptable(wrong))
    }

    /// The moment up to which it looks: the preview's own, which an age in the filter is part of, so that no job grows old enough
    /// between preview and change.
    pub(super) fn limit(&self, now: Millis) -> Millis {
        self.filter.admitted_until(now).into_iter().chain(self.admitted_until).min().unwrap_or(now)
    }
}

/// What a change did, or would do.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Change)]
pub struct ChangeView {
    /// How many it is for.
    pub matched: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// How many were changed now; 0 for a preview.
    pub changed: u64,
    /// Whether some are left for another request: one changes 5,000 at most.
    pub more: bool,
    /// The moment up to which jobs were looked at, UTC milliseconds.
    #[schema(value_type = i64)]
    pub admitted_until: Millis,
    /// Jobs that pass the filter in states where this is not done, by state.
    pub others: BTreeMap<&'static str, u64>,
    /// Jobs that were to be changed and were not, and why.
    pub left: Vec<LeftView>,
    /// For a preview: the oldest few.
    pub items: Vec<JobView>,
}

/// A job that was not changed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LeftJob)]
pub struct LeftView {
    /// Its id, or a dead letter's name.
    pub job: String,
    /// Why.
    pub why: String,
}

impl LeftView {
    pub(super) fn of(job: impl ToString, changed: Changed) -> Option<Self> {
        let why = match changed {
            Changed::Done => return None,
            Changed::Left(JobState::Leased) => "a node is fetching it".to_owned(),
            Changed::Left(state) => format!("it is {state}"),
            Changed::Copy => "it is a second copy of what is stored".to_owned(),
            Changed::Unknown => "it is not in the queue any more".to_owned(),
            Changed::Unreadable => "its record can't be read by this version".to_owned(),
        };
        Some(Self { job: job.to_string(), why })
    }
}

#[utoipa::path(post, path = "/api/v1/jobs/{action}", tag = "queues",
    params(("action" = String, Path, description = "`hold`, `release`, `move`, `requeue` or `cancel`")), request_body = ChangeBody,
    responses((status = 200, body = ChangeView), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
async fn change(
    State(app): State<App>,
    Operator(by): Operator,
    Path(action): Path<JobAction>,
    Body(body): Body<ChangeBody>,
) -> Result<impl IntoResponse, Problem> {
    body.check_meant()?;
    let (possible, unasked) = action.states(!body.filter.named().is_empty());
    let asked = body.filter.states()?;
    let states: Vec<JobState> = match asked.as_slice() {
        [] => unasked.to_vec(),
        asked => possible.iter().filter(|state| asked.contains(state)).copied().collect(),
    };
    if states.is_empty() {
        let words: Vec<&str> = possible.iter().map(|state| state.as_str()).collect();
        let (action, words) = (action.word(), words.join(", "));
        return Err(Problem::unacceptable(format!("state: {action} is for jobs that are {words}")));
    }
    // What is there already, and second copies, would be found again and again. Of named ones each gets its answer.
    let movable_to = body.to.as_ref().filter(|_| body.filter.named().is_empty());
    let why = body.why.as_deref().unwrap_or_default();
    let mut done = ChangeView { admitted_until: Millis(i64::MAX), ..ChangeView::default() };
    for cluster in app.clusters_named(body.filter.cluster.as_deref())? {
        let wish = Wish::of(action, body.to.as_ref(), &app, cluster).await?;
        let most = if body.preview { PREVIEWED } else { MOST_CHANGED };
        let (found, now) = found(cluster, &body.filter, &states, body.admitted_until, movable_to, most).await?;
        done.admitted_until = done.admitted_until.min(body.limit(now));
        done.matched += found.total;
        done.bytes = done.bytes.saturating_add(found.bytes);
        for (state, count) in found.others {
            *done.others.entry(state.as_str()).or_default() += count;
        }
        if body.preview {
            done.items.extend(found.jobs.iter().map(|job| JobView::of(cluster, job, now)));
            continue;
        }
        // Before the first one: what a failure on the way leaves half done is in the log, too.
        let (verb, filter) = (action.word(), &body.filter);
        tracing::info!(by, action = verb, why, to = ?body.to, ?filter, cluster = %cluster.name(), "an operator changes jobs");
        done.more |= found.total > found.jobs.len() as u64;
        for job in &found.jobs {
            let changed = cluster.ask(Box::pin(wish.grant(cluster.queue(), &job.id, &states, &by, why))).await?;
            done.changed += u64::from(changed == Changed::Done);
            done.left.extend(LeftView::of(job.id, changed));
        }
    }
    if !body.preview {
        let (action, changed, filter) = (action.word(), done.changed, &body.filter);
        tracing::info!(by, action, changed, why, to = ?body.to, ?filter, "an operator changed jobs");
    }
    Ok(Json(done))
}

/// An action with what it needs.
#[derive(Debug, Clone)]
enum Wish {
    Hold,
    Release,
    Move(Level),
    Requeue,
    Cancel,
}

impl Wish {
    async fn of(action: JobAction, to: Option<&QueueName>, app: &App, cluster: &Cluster) -> Result<Self, Problem> {
        match (action, to) {
            (JobAction::Move, Some(to)) => Ok(Self::Move(level(to, app, cluster).await?)),
            (JobAction::Hold, None) => Ok(Self::Hold),
            (JobAction::Release, None) => Ok(Self::Release),
            (JobAction::Requeue, None) => Ok(Self::Requeue),
            (JobAction::Cancel, None) => Ok(Self::Cancel),
            _ => Err(Problem::unacceptable("to: the level, for move and for nothing else")),
        }
    }

    /// Only while the job is in one of these states: it may have gone on since it was found.
    async fn grant(
        &self,
        queue: &Queue,
        job: &JobId,
        states: &[JobState],
        by: &str,
        why: &str,
    ) -> Result<Changed, LinkError> {
        match self {
            Self::Hold => queue.hold(job, by, why).await,
            Self::Release => queue.let_go(job).await,
            Self::Move(to) => queue.move_to(job, to).await,
            Self::Requeue => queue.requeue(job, states, uuid::Uuid::now_v7()).await,
            Self::Cancel => queue.cancel(job, &Queue::cancel_reason(by, why), states).await,
        }
    }
}

/// A level of the cluster, with the registry's rule. A job in one that nobody drains would wait for ever.
async fn level(name: &QueueName, app: &App, cluster: &Cluster) -> Result<Level, Problem> {
    let known = cluster.levels().await?;
    if known.contains(name) {
        return Ok(app.registry().rules(cluster.name().clone()).await?.1.level(name));
    }
    let names: Vec<&str> = known.iter().map(QueueName::as_str).collect();
    let (cluster, names) = (cluster.name(), names.join(", "));
    Err(Problem::unacceptable(format!(
        "to: cluster {cluster} has no level {name}; it has {names}. One that nothing was in yet is known once a node that names it \
         in queues has started"
    )))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(change))
}
