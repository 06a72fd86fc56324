//! The seed's endpoints that its reporters and restore scripts call, with the seed's names and units (GB, and for times
//! milliseconds as its index had them). New programs use `/api/v1`.

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use longshore_catalog::{Backup, Filter, SearchQuery};
use longshore_core::{BackupType, InstanceName, Millis, Outcome, ServerId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    extract::{Body, Path, Query},
    problem::Problem,
};
use crate::{
    app::App,
    registry::{Business, Cluster, Entity, InstanceEntry, NodeEntry, TypeEntry, cluster::SEED_GB_BYTES},
};

/// The seed gave so many backups of an instance.
const LAST: u32 = 480;

/// The seed's ids are numbers where they can be.
fn number_or_text(text: &str) -> Value {
    // What a number would change by being written again (007) stays a text.
    text.parse::<i64>().ok().filter(|number| number.to_string() == text).map_or_else(|| text.into(), Into::into)
}

fn gigabytes(bytes: Option<u64>) -> Value {
    bytes.map_or(Value::Null, |bytes| (bytes / SEED_GB_BYTES).into())
}

/// `get_backup_list`'s query.
#[derive(Debug, Deserialize)]
struct Instance {
    server_id: ServerId,
    #[serde(rename = "type")]
    backup_type: BackupType,
    instance: InstanceName,
}

async fn backup_list(State(app): State<App>, Query(wanted): Query<Instance>) -> Result<impl IntoResponse, Problem> {
    let query = SearchQuery {
        filter: Filter {
            server_id: Some(wanted.server_id),
            backup_type: Some(wanted.backup_type),
            instance: Some(wanted.instance),
            ..Filter::default()
        },
        limit: LAST,
        ..SearchQuery::default()
    };
    let page = app.catalog().ask(app.catalog().reader().search(&query)).await?;
    let nodes = app.registry().list::<NodeEntry>().await?;
    let businesses = app.registry().list::<Business>().await?;
    Ok(Json(page.items.iter().map(|backup| document(backup, &nodes, &businesses)).collect::<Vec<_>>()))
}

/// A document of the seed's index. Paths are below the node's store, since where a store is mounted is the node's matter.
fn document(backup: &Backup, nodes: &[NodeEntry], businesses: &[Business]) -> Value {
    let report = &backup.report;
    let job = &report.job;
    let node = report.node_id.as_ref();
    let node_address = node
        .and_then(|id| nodes.iter().find(|entry| entry.node_id == *id))
        .and_then(|entry| entry.address.as_ref())
        .map(ToString::to_string)
        .or_else(|| node.map(ToString::to_string));
    let business = businesses.iter().find(|business| business.business_id == job.business_id);
    let full = job.chain.as_ref().map(|link| &link.full);
    json!({
        "server_id": job.server_id.as_str(),
        "type": job.backup_type.as_str(),
        "instance": number_or_text(job.instance.as_str()),
        "game_id": number_or_text(job.business_id.as_str()),
        "game_name": business.map_or("unknow", |business| business.name.as_str()),
        "op_id": job.extra.get("op_id").cloned().unwrap_or_else(|| 0.into()),
        "game_server_ip": job.source.as_ref().map(|source| source.address.as_str()),
        "back_server_ip": node_address,
        "file_path": report.path.as_ref().map(ToString::to_string),
        "filename": job.name(),
        "size": job.size_bytes(),
        "create_time": job.made_at,
        "rsync_time": report.stored_at,
        "interval": job.interval_seconds,
        "last_all_filename": full.map(|full| full.name.as_str()),
        "last_all_time": full.map_or(Millis(0), |full| full.made_at),
        "succeed": i32::from(report.outcome == Outcome::Stored),
        "log": report.reason.as_ref().map_or("", |reason| reason.text.as_str()),
    })
}

/// `{"queue_size": N}` of the seed's queue reporter, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueReport {
    queue_size: u64,
}

async fn patch_cluster(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(report): Body<QueueReport>,
) -> Result<impl IntoResponse, Problem> {
    let patch = Map::from_iter([
        ("queue_size".to_owned(), report.queue_size.into()),
        ("reported_at".to_owned(), Millis::now().0.into()),
    ]);
    Ok(Json(cluster_object(&app.registry().patch::<Cluster>(id, patch).await?)))
}

/// `{"size": GB, "used": GB}` of the seed's disk reporter, and nothing else. That script takes the two values from a
/// dictionary in no fixed order, so they may come exchanged; what is used is never more than the size.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskReport {
    size: u64,
    used: u64,
}

async fn patch_node(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(report): Body<DiskReport>,
) -> Result<impl IntoResponse, Problem> {
    let (size, used) = (report.size.max(report.used), report.size.min(report.used));
    let patch = Map::from_iter([
        ("size_bytes".to_owned(), size.saturating_mul(SEED_GB_BYTES).min(i64::MAX as u64).into()),
        ("used_bytes".to_owned(), used.saturating_mul(SEED_GB_BYTES).min(i64::MAX as u64).into()),
        ("reported_at".to_owned(), Millis::now().0.into()),
    ]);
    Ok(Json(node_object(&app.registry().patch::<NodeEntry>(id, patch).await?)))
}

fn cluster_object(cluster: &Cluster) -> Value {
    json!({
        "id": number_or_text(cluster.cluster_id.as_str()),
        "name": cluster.name,
        "queue_address": cluster.queue_address,
        "queue_size": cluster.queue_size,
    })
}

fn node_object(node: &NodeEntry) -> Value {
    json!({
        "id": number_or_text(node.node_id.as_str()),
        "cluster_id": node.cluster_id.as_ref().map(|id| number_or_text(id.as_str())),
        "ip": node.address,
        "size": gigabytes(node.size_bytes),
        "used": gigabytes(node.used_bytes),
    })
}

fn type_object(entry: &TypeEntry) -> Value {
    json!({"id": entry.id, "name": entry.name})
}

fn business_object(entry: &Business) -> Value {
    json!({"id": entry.id, "business_id": number_or_text(entry.business_id.as_str()), "name": entry.name})
}

/// One page with all of them, as the seed's lists were asked for.
async fn objects<E: Entity>(app: &App, object: impl Fn(&E) -> Value) -> Result<Json<Value>, Problem> {
    let objects: Vec<Value> = app.registry().list::<E>().await?.iter().map(object).collect();
    Ok(Json(json!({"num_results": objects.len(), "objects": objects, "page": 1, "total_pages": 1})))
}

async fn instances(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let types = app.registry().list::<TypeEntry>().await?;
    let businesses = app.registry().list::<Business>().await?;
    objects::<InstanceEntry>(&app, |entry| {
        let backup_type = types.iter().find(|found| found.name == entry.backup_type);
        let business = businesses.iter().find(|found| found.business_id == entry.business_id);
        json!({
            "id": entry.key(),
            "name": entry.name,
            "server_id": entry.server_id,
            "instance": number_or_text(entry.instance.as_str()),
            "backup_type_id": backup_type.and_then(|found| found.id),
            "backup_type": backup_type.map(type_object),
            "business_id": business.and_then(|found| found.id),
            "business": business.map(business_object),
        })
    })
    .await
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/get_backup_list", get(backup_list))
        .route("/api/cluster", get(async |State(app): State<App>| objects::<Cluster>(&app, cluster_object).await))
        .route("/api/node", get(async |State(app): State<App>| objects::<NodeEntry>(&app, node_object).await))
        .route("/api/backup_type", get(async |State(app): State<App>| objects::<TypeEntry>(&app, type_object).await))
        .route("/api/business", get(async |State(app): State<App>| objects::<Business>(&app, business_object).await))
        .route("/api/backup_instance", get(instances))
        .route("/api/cluster/{id}", axum::routing::patch(patch_cluster))
        .route("/api/node/{id}", axum::routing::patch(patch_node))
}
