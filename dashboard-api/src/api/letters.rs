//! Dead letters over HTTP: what is kept for a person, retried or dropped by hand.

use axum::{Json, extract::State, response::IntoResponse};
use longshore_core::{
    Millis, QueueName, ReasonCode,
    queue::{Changed, DeadLetter, Remains},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    access::Operator,
    change::{ChangeBody, LeftView},
    extract::{Body, Path, Query, parsed_or_none},
    jobs::JobQuery,
    problem::Problem,
};
use crate::{app::App, clusters::Cluster};

/// At most so many dead letters are given at once.
const MOST_LETTERS: usize = 500;
/// At most so many are changed by one request: some seconds.
const MOST_CHANGED: usize = 2_000;
/// So many are shown with a preview.
const PREVIEWED: usize = 5;

/// What is kept for a person.
#[derive(Debug, Clone, Serialize, ToSchema)]
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
async fn list(State(app): State<App>, Query(filter): Query<LetterFilter>) -> Result<impl IntoResponse, Problem> {
    let mut list = DeadLetterList { total: 0, items: Vec::new() };
    for cluster in app.clusters_named(filter.cluster.as_deref())? {
        let most = filter.limit.unwrap_or(50).min(MOST_LETTERS);
        let letters = cluster.ask(cluster.queue().dead_letters(filter.skip.unwrap_or(0), most)).await?;
        list.total += letters.total;
        list.items.extend(letters.letters.into_iter().map(|letter| DeadLetterView::of(cluster.name(), letter)));
    }
    Ok(Json(list))
}

/// What to do with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterAction {
    /// Another chance: a job is ready again, an entry that was refused or not readable goes back into its inbox.
    Retry,
    /// Throw away. The report that a job ended with stands.
    Drop,
}

/// What a change of dead letters did, or would do.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = LetterChange)]
pub struct LetterChangeView {
    /// How many it is for.
    matched: u64,
    /// How many were changed now; 0 for a preview.
    changed: u64,
    /// Whether some are left for another request: one changes 2,000 at most.
    more: bool,
    /// The moment up to which letters were looked at, UTC milliseconds.
    #[schema(value_type = i64)]
    admitted_until: Millis,
    /// What was to be changed and was not, and why.
    left: Vec<LeftView>,
    /// For a preview: the newest few.
    items: Vec<DeadLetterView>,
}

/// Whether a letter is meant. Of an entry that can't be read little is known: only its name, level, size and age can be asked for.
fn is_meant(query: &JobQuery, letter: &DeadLetter, until: Millis) -> bool {
    fn fits<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
        wanted.is_none() || wanted == found
    }
    let (job, bytes) = match &letter.remains {
        Remains::Job { job, .. } => (Some(job), job.size_bytes()),
        Remains::Bytes { bytes, .. } => (None, *bytes),
    };
    let named = query.named();
    let short = letter.id.strip_prefix("job:").unwrap_or(&letter.id);
    let module = job.and_then(|job| job.source.as_ref()).map(|source| &source.module);
    (named.is_empty() || named.iter().any(|name| *name == letter.id || *name == short))
        && fits(query.queue.as_ref(), letter.queue.as_ref())
        && fits(query.server_id.as_ref(), job.map(|job| &job.server_id))
        && fits(query.backup_type.as_ref(), job.map(|job| &job.backup_type))
        && fits(query.instance.as_ref(), job.map(|job| &job.instance))
        && fits(query.module.as_ref(), module)
        && query.larger_than_bytes.is_none_or(|least| bytes > least)
        && letter.at <= until
}

/// The letters of a cluster that are meant, the newest first.
async fn meant(cluster: &Cluster, query: &JobQuery, until: Millis) -> Result<Vec<DeadLetter>, Problem> {
    let mut meant = Vec::new();
    for skip in (0..).step_by(MOST_LETTERS) {
        let page = cluster.ask(cluster.queue().dead_letters(skip, MOST_LETTERS)).await?;
        let is_last = page.letters.len() < MOST_LETTERS && page.total <= (skip + MOST_LETTERS) as u64;
        meant.extend(page.letters.into_iter().filter(|letter| is_meant(query, letter, until)));
        if is_last {
            break;
        }
    }
    Ok(meant)
}

#[utoipa::path(post, path = "/api/v1/dead-letters/{action}", tag = "queues",
    params(("action" = String, Path, description = "`retry` or `drop`")), request_body = ChangeBody,
    responses((status = 200, body = LetterChangeView), (status = 404, body = Problem), (status = 422, body = Problem),
        (status = 503, body = Problem)))]
async fn change(
    State(app): State<App>,
    Operator(by): Operator,
    Path(action): Path<LetterAction>,
    Body(body): Body<ChangeBody>,
) -> Result<impl IntoResponse, Problem> {
    body.check_meant()?;
    if body.filter.state.is_some() {
        return Err(Problem::unacceptable("state: dead letters have none; leave it out"));
    }
    let mut done = LetterChangeView { admitted_until: Millis(i64::MAX), ..LetterChangeView::default() };
    for cluster in app.clusters_named(body.filter.cluster.as_deref())? {
        let now = cluster.now().await?;
        let until = body.limit(now);
        done.admitted_until = done.admitted_until.min(until);
        let letters = meant(cluster, &body.filter, until).await?;
        done.matched += letters.len() as u64;
        if body.preview {
            let shown = letters.into_iter().take(PREVIEWED);
            done.items.extend(shown.map(|letter| DeadLetterView::of(cluster.name(), letter)));
            continue;
        }
        // Before the first one: what a failure on the way leaves half done is in the log, too.
        let why = body.why.as_deref().unwrap_or_default();
        tracing::info!(by, ?action, why, filter = ?body.filter, cluster = %cluster.name(), "an operator changes dead letters");
        done.more |= letters.len() > MOST_CHANGED;
        for letter in letters.into_iter().take(MOST_CHANGED) {
            let changed = match action {
                LetterAction::Retry => cluster.ask(cluster.queue().retry_letter(&letter.id)).await?,
                LetterAction::Drop => cluster.ask(cluster.queue().drop_letter(&letter.id)).await?,
            };
            done.changed += u64::from(changed == Changed::Done);
            done.left.extend(LeftView::of(letter.id, changed));
        }
    }
    if !body.preview {
        let (changed, filter, why) = (done.changed, &body.filter, body.why.as_deref().unwrap_or_default());
        tracing::info!(by, ?action, changed, why, ?filter, "an operator changed dead letters");
    }
    Ok(Json(done))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(change))
}
