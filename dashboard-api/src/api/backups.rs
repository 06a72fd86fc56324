//! Backups: search, one, and counts over many.

use axum::{Json, extract::State, response::IntoResponse};
use longshore_catalog::{Backup, CountBy, Cursor, Filter, MAX_LIMIT, Order, SearchQuery, SortBy, TimeSpan};
use longshore_core::{
    BackupType, BusinessId, InstanceName, JobId, Millis, NodeId, Outcome, ReasonCode, Report, ServerId, report::Copy,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Moment, Path, Query, parsed_or_none},
    problem::Problem,
};
use crate::app::App;

/// A backup, or a job that did not become one.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Backup)]
pub struct BackupView {
    /// The job's id, which is the backup's.
    #[schema(value_type = String)]
    pub id: JobId,
    /// The host.
    #[schema(value_type = String)]
    pub server_id: ServerId,
    /// The type.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub backup_type: BackupType,
    /// Which one.
    #[schema(value_type = String)]
    pub instance: InstanceName,
    /// The business.
    #[schema(value_type = String)]
    pub business_id: BusinessId,
    /// `stored`, `failed`, `refused` or `cancelled`.
    #[schema(value_type = String)]
    pub outcome: Outcome,
    /// Why it is not stored, for programs.
    #[schema(value_type = Option<String>)]
    pub reason_code: Option<ReasonCode>,
    /// Why it is not stored, for people.
    pub reason: Option<String>,
    /// The file's or directory's name.
    pub name: Option<String>,
    /// `file` or `directory`.
    #[schema(value_type = Option<String>)]
    pub kind: Option<longshore_core::ContentKind>,
    /// Bytes announced.
    pub size_bytes: u64,
    /// Files announced.
    pub files: u64,
    /// Place in its chain: `full`, `increment` or `differential`.
    pub position: Option<&'static str>,
    /// Number in its chain, 0 for the full; of UBackup's hosts not known.
    pub sequence: Option<u32>,
    /// When its run started, UTC milliseconds.
    #[schema(value_type = i64)]
    pub made_at: Millis,
    /// When it was stored, or ended, UTC milliseconds.
    #[schema(value_type = i64)]
    pub stored_at: Millis,
    /// The node that stored it or gave up.
    #[schema(value_type = Option<String>)]
    pub node_id: Option<NodeId>,
    /// Its directory below that node's store.
    pub path: Option<String>,
    /// Further copies.
    #[schema(value_type = Vec<Object>)]
    pub copies: Vec<Copy>,
    /// Transfers begun.
    pub attempts: u32,
}

impl BackupView {
    /// Of a report.
    pub fn of(report: &Report) -> Self {
        let job = &report.job;
        Self {
            id: job.id,
            server_id: job.server_id.clone(),
            backup_type: job.backup_type.clone(),
            instance: job.instance.clone(),
            business_id: job.business_id.clone(),
            outcome: report.outcome,
            reason_code: report.reason.as_ref().map(|reason| reason.code.clone()),
            reason: report.reason.as_ref().map(|reason| reason.text.clone()),
            name: job.name().map(str::to_owned),
            kind: job.content.as_ref().map(|content| content.kind),
            size_bytes: job.size_bytes(),
            files: job.content.as_ref().map_or(0, |content| content.files),
            position: job.chain.as_ref().map(|link| link.position.as_str()),
            sequence: job.chain.as_ref().and_then(|link| link.sequence),
            made_at: job.made_at,
            stored_at: report.stored_at,
            node_id: report.node_id.clone(),
            path: report.path.as_ref().map(ToString::to_string),
            copies: report.copies.clone(),
            attempts: report.attempts,
        }
    }
}

impl From<&Backup> for BackupView {
    fn from(backup: &Backup) -> Self {
        Self::of(&backup.report)
    }
}

/// A backup with everything that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackupDetail {
    /// What lists show.
    #[serde(flatten)]
    pub backup: BackupView,
    /// The report as it was written.
    #[schema(value_type = Object)]
    pub report: Report,
}

/// A page of backups.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackupPage {
    /// The backups.
    pub items: Vec<BackupView>,
    /// Send it back as `cursor` for the next page; null on the last.
    #[schema(value_type = Option<String>)]
    pub next: Option<Cursor>,
}

/// Which backups; all parts together.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BackupFilter {
    /// The host.
    #[param(value_type = Option<String>)]
    server_id: Option<ServerId>,
    /// The type.
    #[serde(rename = "type")]
    #[param(value_type = Option<String>)]
    backup_type: Option<BackupType>,
    /// Which one.
    #[param(value_type = Option<String>)]
    instance: Option<InstanceName>,
    /// The business.
    #[param(value_type = Option<String>)]
    business_id: Option<BusinessId>,
    /// The node.
    #[param(value_type = Option<String>)]
    node_id: Option<NodeId>,
    /// `stored`, `failed`, `refused`, `cancelled`; several separated by commas.
    outcome: Option<String>,
    /// The reason's code.
    reason: Option<String>,
    /// A phrase in the reason's text.
    text: Option<String>,
    /// Made at or after: UTC milliseconds or RFC 3339.
    #[param(value_type = Option<String>)]
    made_from: Option<Moment>,
    /// Made before.
    #[param(value_type = Option<String>)]
    made_until: Option<Moment>,
    /// Stored at or after.
    #[param(value_type = Option<String>)]
    stored_from: Option<Moment>,
    /// Stored before.
    #[param(value_type = Option<String>)]
    stored_until: Option<Moment>,
    /// `made_at` (default), `stored_at` or `size_bytes`.
    #[param(value_type = Option<String>)]
    sort: Option<SortBy>,
    /// `descending` (default) or `ascending`.
    #[param(value_type = Option<String>)]
    order: Option<Order>,
    /// At most this many, 1 to 1000; 50 when left out.
    #[serde(deserialize_with = "parsed_or_none")]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// For statistics: `day` (default), `business`, `type`, `node` or `outcome`.
    by: Option<String>,
    /// For statistics by day: minutes ahead of UTC, 480 for China.
    #[serde(deserialize_with = "parsed_or_none")]
    utc_offset_minutes: Option<i16>,
}

impl BackupFilter {
    fn filter(&self) -> Result<Filter, Problem> {
        let words = self.outcome.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|word| !word.is_empty());
        let outcomes = words.map(|word| {
            Outcome::parse(word).ok_or_else(|| {
                Problem::bad_request(format!("outcome {word:?}; there are stored, failed, refused and cancelled"))
            })
        });
        let span = |from: Option<Moment>, until: Option<Moment>| TimeSpan {
            from: from.map(|moment| moment.0),
            until: until.map(|moment| moment.0),
        };
        Ok(Filter {
            server_id: self.server_id.clone(),
            backup_type: self.backup_type.clone(),
            instance: self.instance.clone(),
            business_id: self.business_id.clone(),
            node_id: self.node_id.clone(),
            outcomes: outcomes.collect::<Result<_, _>>()?,
            reason: self.reason.clone().map(ReasonCode::from),
            made: span(self.made_from, self.made_until),
            stored: span(self.stored_from, self.stored_until),
            text: self.text.clone().filter(|text| !text.trim().is_empty()),
        })
    }

    fn query(&self) -> Result<SearchQuery, Problem> {
        let limit = self.limit.unwrap_or(50);
        if limit == 0 || limit > MAX_LIMIT {
            return Err(Problem::bad_request(format!("limit is {limit}; 1 to {MAX_LIMIT} are given at once")));
        }
        Ok(SearchQuery {
            filter: self.filter()?,
            sort: self.sort.unwrap_or_default(),
            order: self.order.unwrap_or_default(),
            limit,
            cursor: self.cursor.clone().filter(|text| !text.is_empty()).map(Cursor::from_text),
        })
    }
}

#[utoipa::path(get, path = "/api/v1/backups", tag = "backups", params(BackupFilter),
    responses((status = 200, body = BackupPage), (status = 400, body = Problem), (status = 503, body = Problem)))]
async fn search(State(app): State<App>, Query(filter): Query<BackupFilter>) -> Result<impl IntoResponse, Problem> {
    let query = filter.query()?;
    let page = app.catalog().ask(app.catalog().reader().search(&query)).await?;
    Ok(Json(BackupPage { items: page.items.iter().map(BackupView::from).collect(), next: page.next }))
}

#[utoipa::path(get, path = "/api/v1/backups/{id}", tag = "backups", params(("id" = String, Path)),
    responses((status = 200, body = BackupDetail), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<impl IntoResponse, Problem> {
    let id: JobId =
        id.parse().map_err(|error| Problem::bad_request(format!("{id:?} is not a backup's id: {error}")))?;
    let found = app.catalog().ask(app.catalog().reader().by_id(id)).await?;
    let backup = found.ok_or_else(|| Problem::not_found(format!("the catalog has no backup {id}")))?;
    Ok(Json(BackupDetail { backup: (&backup).into(), report: backup.report }))
}

/// Numbers and bytes.
#[derive(Debug, Serialize, ToSchema)]
pub struct Statistics {
    /// What `key` of each bucket is.
    pub by: String,
    /// One for each value that occurs.
    pub buckets: Vec<BucketView>,
    /// Of all together.
    pub count: u64,
    /// Of all together.
    pub bytes: u64,
}

/// One value.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BucketView {
    /// The day, business, type, node or outcome.
    pub key: String,
    /// How many.
    pub count: u64,
    /// Bytes announced.
    pub bytes: u64,
}

#[utoipa::path(get, path = "/api/v1/statistics", tag = "backups", params(BackupFilter),
    responses((status = 200, body = Statistics), (status = 400, body = Problem), (status = 503, body = Problem)))]
async fn statistics(State(app): State<App>, Query(filter): Query<BackupFilter>) -> Result<impl IntoResponse, Problem> {
    let name = filter.by.clone().unwrap_or_else(|| "day".to_owned());
    let by = match name.as_str() {
        "day" => CountBy::Day { utc_offset_minutes: filter.utc_offset_minutes.unwrap_or(0) },
        "business" => CountBy::Business,
        "type" => CountBy::Type,
        "node" => CountBy::Node,
        "outcome" => CountBy::Outcome,
        other => {
            let known = "day, business, type, node and outcome";
            return Err(Problem::bad_request(format!("by is {other:?}; there are {known}")));
        }
    };
    let filter = filter.filter()?;
    let buckets = app.catalog().ask(app.catalog().reader().counts(by, &filter)).await?;
    let totals = app.catalog().ask(app.catalog().reader().totals(&filter)).await?;
    let buckets = buckets.into_iter().map(|b| BucketView { key: b.key, count: b.count, bytes: b.bytes }).collect();
    Ok(Json(Statistics { by: name, buckets, count: totals.count, bytes: totals.bytes }))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(search)).routes(routes!(one)).routes(routes!(statistics))
}
