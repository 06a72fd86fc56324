//! Instances over HTTP: all of them with their freshness, one, and its chain.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State, response::IntoResponse};
use longshore_catalog::{Chain, Cursor, FreshnessQuery};
use longshore_core::{BackupType, BusinessId, InstanceKey, Millis, ServerId, chain::ChainState};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    backups::BackupView,
    extract::{Moment, Path, Query, parsed_or_none},
    problem::Problem,
};
use crate::{
    app::App,
    freshness::{InstanceView, Standing, nearest},
    registry::InstanceEntry,
};

/// The most known instances that a mistyped one is compared with.
const MOST_COMPARED: usize = 50_000;

/// Which instances; all parts together.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InstanceFilter {
    /// The host.
    #[param(value_type = Option<String>)]
    pub server_id: Option<ServerId>,
    /// The type.
    #[serde(rename = "type")]
    #[param(value_type = Option<String>)]
    pub backup_type: Option<BackupType>,
    /// The business.
    #[param(value_type = Option<String>)]
    pub business_id: Option<BusinessId>,
    /// `fresh`, `late` or `never`. Late includes never.
    #[param(value_type = Option<String>)]
    pub standing: Option<Standing>,
    /// At most about this many, 1 to 1000; 200 when left out.
    #[serde(deserialize_with = "parsed_or_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// A page of instances. Those that are registered and never reported come with the last page.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstancePage {
    /// The instances.
    pub items: Vec<InstanceView>,
    /// Send it back as `cursor` for the next page; null on the last.
    #[schema(value_type = Option<String>)]
    pub next: Option<Cursor>,
}

/// One page of them.
pub(crate) async fn page(app: &App, filter: &InstanceFilter) -> Result<InstancePage, Problem> {
    let now = Millis::now();
    let grace = app.settings().late_grace();
    let late = matches!(filter.standing, Some(Standing::Late | Standing::Never));
    let query = FreshnessQuery {
        server_id: filter.server_id.clone(),
        backup_type: filter.backup_type.clone(),
        business_id: filter.business_id.clone(),
        due_before: None,
        limit: filter.limit.unwrap_or(200),
        cursor: filter.cursor.clone().filter(|text| !text.is_empty()).map(Cursor::from_text),
    };
    let mut expected: BTreeMap<InstanceKey, InstanceEntry> =
        app.registry().list::<InstanceEntry>().await?.into_iter().map(|entry| (entry.instance_key(), entry)).collect();
    // A registered interval that is shorter than the jobs' own makes late what the catalog alone would call fresh, so the
    // catalog is asked for the late ones only where the registry has no say.
    let has_say = expected.values().any(|entry| entry.interval_seconds.is_some());
    let due_before = (late && !has_say).then(|| Millis(now.0.saturating_sub(grace.as_millis() as i64)));
    let query = FreshnessQuery { due_before, ..query };
    let known = app.catalog().ask(app.catalog().reader().freshness(&query)).await?;
    let is_last = known.next.is_none();
    let mut items: Vec<InstanceView> = Vec::new();
    for freshness in known.items {
        let key = freshness.key.clone();
        let entry = expected.remove(&key);
        items.push(InstanceView::new(key, Some(freshness), entry, now, grace));
    }
    if is_last {
        items.extend(never_reported(app, expected, filter, now).await?);
    }
    items.retain(|item| match filter.standing {
        None => true,
        Some(Standing::Late) => item.standing != Standing::Fresh,
        Some(standing) => item.standing == standing,
    });
    Ok(InstancePage { items, next: known.next })
}

/// Those registered of which the catalog knows nothing, as the filter wants them.
async fn never_reported(
    app: &App,
    candidates: BTreeMap<InstanceKey, InstanceEntry>,
    filter: &InstanceFilter,
    now: Millis,
) -> Result<Vec<InstanceView>, Problem> {
    let wanted = |entry: &InstanceEntry| {
        filter.server_id.as_ref().is_none_or(|id| *id == entry.server_id)
            && filter.backup_type.as_ref().is_none_or(|name| *name == entry.backup_type)
            && filter.business_id.as_ref().is_none_or(|id| *id == entry.business_id)
    };
    let candidates: Vec<_> = candidates.into_iter().filter(|(_, entry)| wanted(entry)).collect();
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let reported = reported_keys(app).await?;
    Ok(candidates
        .into_iter()
        .filter(|(key, _)| !reported.contains(key))
        .map(|(key, entry)| InstanceView::new(key, None, Some(entry), now, app.settings().late_grace()))
        .collect())
}

/// Every instance that ever reported, up to [`MOST_COMPARED`].
async fn reported_keys(app: &App) -> Result<BTreeSet<InstanceKey>, Problem> {
    let mut keys = BTreeSet::new();
    let mut query = FreshnessQuery { limit: 1000, ..FreshnessQuery::default() };
    loop {
        let page = app.catalog().ask(app.catalog().reader().freshness(&query)).await?;
        keys.extend(page.items.into_iter().map(|freshness| freshness.key));
        match page.next {
            Some(next) if keys.len() < MOST_COMPARED => query.cursor = Some(next),
            _ => return Ok(keys),
        }
    }
}

/// 404 for an instance of which nothing is known, with those that may have been meant.
pub(crate) async fn unknown(app: &App, key: &InstanceKey) -> Problem {
    let mut known = reported_keys(app).await.unwrap_or_default();
    let expected = app.registry().list::<InstanceEntry>().await.unwrap_or_default();
    known.extend(expected.iter().map(InstanceEntry::instance_key));
    let nearest = nearest(key, &known, 5);
    let hint = match nearest.first() {
        Some(first) => format!("; did you mean {first}?"),
        None if known.is_empty() => "; no instance is known yet".to_owned(),
        None => String::new(),
    };
    Problem { nearest, ..Problem::not_found(format!("no instance {key} is known{hint}")) }
}

/// The instance that three parts of a path name.
pub(super) fn key_of((server_id, backup_type, instance): (String, String, String)) -> Result<InstanceKey, Problem> {
    let key = format!("{server_id}/{backup_type}/{instance}");
    key.parse().map_err(|error| Problem::bad_request(format!("{error}")))
}

#[utoipa::path(get, path = "/api/v1/instances", tag = "instances", params(InstanceFilter),
    responses((status = 200, body = InstancePage), (status = 400, body = Problem), (status = 503, body = Problem)))]
async fn list(State(app): State<App>, Query(filter): Query<InstanceFilter>) -> Result<impl IntoResponse, Problem> {
    Ok(Json(page(&app, &filter).await?))
}

#[utoipa::path(get, path = "/api/v1/instances/{server_id}/{type}/{instance}", tag = "instances",
    params(("server_id" = String, Path), ("type" = String, Path), ("instance" = String, Path)),
    responses((status = 200, body = InstanceView), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn one(State(app): State<App>, Path(path): Path<(String, String, String)>) -> Result<impl IntoResponse, Problem> {
    let key = key_of(path)?;
    let expected = app.registry().find::<InstanceEntry>(key.to_string()).await?;
    let known = app.catalog().ask(app.catalog().reader().freshness_of(&key)).await?;
    if known.is_none() && expected.is_none() {
        return Err(unknown(&app, &key).await);
    }
    Ok(Json(InstanceView::new(key, known, expected, Millis::now(), app.settings().late_grace())))
}

/// A time, as UTC milliseconds or RFC 3339.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AtQuery {
    /// The instance as of this time; now when left out.
    #[param(value_type = Option<String>)]
    pub at: Option<Moment>,
}

/// What to apply, in order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Chain)]
pub struct ChainView {
    /// The full first, the wanted backup last.
    pub backups: Vec<BackupView>,
    /// `state`: whole, unproven or broken; broken with `why`.
    #[schema(value_type = Object)]
    pub chain: ChainState,
    /// Of all of them.
    pub size_bytes: u64,
}

/// The chain of an instance as of a time.
pub(super) async fn chain_at(app: &App, key: &InstanceKey, at: Millis) -> Result<Chain, Problem> {
    if let Some(chain) = app.catalog().ask(app.catalog().reader().chain(key, at)).await? {
        return Ok(chain);
    }
    let known = app.catalog().ask(app.catalog().reader().freshness_of(key)).await?;
    let expected = app.registry().find::<InstanceEntry>(key.to_string()).await?;
    if known.is_none() && expected.is_none() {
        return Err(unknown(app, key).await);
    }
    Err(Problem::not_found(format!("{key} has no stored backup made at or before {at}")))
}

#[utoipa::path(get, path = "/api/v1/instances/{server_id}/{type}/{instance}/chain", tag = "instances",
    params(("server_id" = String, Path), ("type" = String, Path), ("instance" = String, Path), AtQuery),
    responses((status = 200, body = ChainView), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn chain(
    State(app): State<App>,
    Path(path): Path<(String, String, String)>,
    Query(query): Query<AtQuery>,
) -> Result<impl IntoResponse, Problem> {
    let at = query.at.map_or_else(Millis::now, |moment| moment.0);
    let chain = chain_at(&app, &key_of(path)?, at).await?;
    Ok(Json(ChainView {
        size_bytes: chain.size_bytes(),
        backups: chain.backups.iter().map(BackupView::from).collect(),
        chain: chain.state,
    }))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one)).routes(routes!(chain))
}
