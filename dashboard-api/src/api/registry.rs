//! The registry over HTTP: create, read, replace, change, remove and import, the same for each kind of entry.

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Body, Path, Text},
    problem::Problem,
};
use crate::{
    app::App,
    registry::{Business, Cluster, Entity as _, HostEntry, Imported, InstanceEntry, NodeEntry, QueueEntry, TypeEntry},
};

/// A list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listed<T> {
    /// The entries, by key.
    pub items: Vec<T>,
}

type Patch = serde_json::Map<String, serde_json::Value>;

macro_rules! text_for {
    ($name:ident) => {
        String
    };
}

/// Writing: add, replace, change.
macro_rules! written {
    ($module:ident, $entry:ident, $all:tt, $one:tt, $(($part:tt, $name:ident)),+) => {
        mod $module {
            use super::*;

            #[utoipa::path(post, path = $all, tag = "registry", request_body = $entry, responses(
                (status = 201, body = $entry), (status = 409, body = Problem), (status = 422, body = Problem)))]
            pub(super) async fn add(
                State(app): State<App>,
                Body(entry): Body<$entry>,
            ) -> Result<impl IntoResponse, Problem> {
                Ok((StatusCode::CREATED, Json(app.registry().add(entry).await?)))
            }

            #[utoipa::path(put, path = $one, tag = "registry", params($(($part = String, Path)),+),
                request_body = $entry, responses((status = 200, body = $entry), (status = 422, body = Problem)))]
            pub(super) async fn replace(
                State(app): State<App>,
                Path(($($name,)+)): Path<($(text_for!($name),)+)>,
                Body(entry): Body<$entry>,
            ) -> Result<impl IntoResponse, Problem> {
                let key = [$($name),+].join("/");
                if entry.key() != key {
                    return Err(Problem::unacceptable(format!("the body is of {}, the address of {key}", entry.key())));
                }
                Ok(Json(app.registry().put(entry).await?))
            }

            #[utoipa::path(patch, path = $one, tag = "registry", params($(($part = String, Path)),+),
                request_body(content = Object, description = "Fields to change (RFC 7396)"), responses(
                (status = 200, body = $entry), (status = 404, body = Problem), (status = 422, body = Problem)))]
            pub(super) async fn change(
                State(app): State<App>,
                Path(($($name,)+)): Path<($(text_for!($name),)+)>,
                Body(patch): Body<Patch>,
            ) -> Result<impl IntoResponse, Problem> {
                Ok(Json(app.registry().patch::<$entry>([$($name),+].join("/"), patch).await?))
            }
        }
    };
}

/// Removing; a node has more than its entry, see nodes.rs.
macro_rules! removed {
    ($module:ident, $entry:ident, $one:tt, $(($part:tt, $name:ident)),+) => {
        mod $module {
            use super::*;

            #[utoipa::path(delete, path = $one, tag = "registry", params($(($part = String, Path)),+), responses(
                (status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
            pub(super) async fn remove(
                State(app): State<App>,
                Path(($($name,)+)): Path<($(text_for!($name),)+)>,
            ) -> Result<impl IntoResponse, Problem> {
                app.registry().remove::<$entry>([$($name),+].join("/")).await?;
                Ok(StatusCode::NO_CONTENT)
            }
        }
    };
}

/// Reading, where an entry is all there is to say; nodes and instances have more, see their own files.
macro_rules! read {
    ($module:ident, $entry:ident, $all:tt, $one:tt, $part:tt) => {
        mod $module {
            use super::*;

            #[utoipa::path(get, path = $all, tag = "registry", responses((status = 200, body = Listed<$entry>)))]
            pub(super) async fn list(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
                Ok(Json(Listed { items: app.registry().list::<$entry>().await? }))
            }

            #[utoipa::path(get, path = $one, tag = "registry", params(($part = String, Path)), responses(
                                                        (status = 200, body = $entry), (status = 404, body = Problem)))]
            pub(super) async fn one(
                State(app): State<App>,
                Path(key): Path<String>,
            ) -> Result<impl IntoResponse, Problem> {
                Ok(Json(app.registry().get::<$entry>(key).await?))
            }
        }
    };
}

written!(business, Business, "/api/v1/businesses", "/api/v1/businesses/{business_id}", ("business_id", a));
written!(backup_type, TypeEntry, "/api/v1/types", "/api/v1/types/{name}", ("name", a));
written!(cluster, Cluster, "/api/v1/clusters", "/api/v1/clusters/{cluster_id}", ("cluster_id", a));
written!(node, NodeEntry, "/api/v1/nodes", "/api/v1/nodes/{node_id}", ("node_id", a));
written!(
    instance,
    InstanceEntry,
    "/api/v1/instances",
    "/api/v1/instances/{server_id}/{type}/{instance}",
    ("server_id", a),
    ("type", b),
    ("instance", c)
);
written!(queue, QueueEntry, "/api/v1/policy/queues", "/api/v1/policy/queues/{queue}", ("queue", a));
written!(host, HostEntry, "/api/v1/policy/hosts", "/api/v1/policy/hosts/{server_id}", ("server_id", a));
removed!(no_business, Business, "/api/v1/businesses/{business_id}", ("business_id", a));
removed!(no_type, TypeEntry, "/api/v1/types/{name}", ("name", a));
removed!(no_cluster, Cluster, "/api/v1/clusters/{cluster_id}", ("cluster_id", a));
removed!(
    no_instance,
    InstanceEntry,
    "/api/v1/instances/{server_id}/{type}/{instance}",
    ("server_id", a),
    ("type", b),
    ("instance", c)
);
removed!(no_queue, QueueEntry, "/api/v1/policy/queues/{queue}", ("queue", a));
removed!(no_host, HostEntry, "/api/v1/policy/hosts/{server_id}", ("server_id", a));
read!(businesses, Business, "/api/v1/businesses", "/api/v1/businesses/{business_id}", "business_id");
read!(backup_types, TypeEntry, "/api/v1/types", "/api/v1/types/{name}", "name");
read!(queues, QueueEntry, "/api/v1/policy/queues", "/api/v1/policy/queues/{queue}", "queue");
read!(hosts, HostEntry, "/api/v1/policy/hosts", "/api/v1/policy/hosts/{server_id}", "server_id");
read!(clusters, Cluster, "/api/v1/clusters", "/api/v1/clusters/{cluster_id}", "cluster_id");

#[utoipa::path(post, path = "/api/v1/import/{entity}", tag = "registry",
    params(("entity" = String, Path, description = "businesses, types, instances, clusters, nodes, queues or hosts")),
    request_body(content = String, description = "CSV with a header line, a JSON array, or {\"objects\": [...]}"),
    responses((status = 200, body = Imported), (status = 422, body = Problem, description = "Names each wrong row")))]
async fn import(
    State(app): State<App>,
    Path(entity): Path<String>,
    Text(text): Text,
) -> Result<impl IntoResponse, Problem> {
    let registry = app.registry();
    let imported = match entity.as_str() {
        "businesses" => registry.import::<Business>(text).await?,
        "types" => registry.import::<TypeEntry>(text).await?,
        "instances" => registry.import::<InstanceEntry>(text).await?,
        "clusters" => registry.import::<Cluster>(text).await?,
        "nodes" => registry.import::<NodeEntry>(text).await?,
        "queues" => registry.import::<QueueEntry>(text).await?,
        "hosts" => registry.import::<HostEntry>(text).await?,
        other => {
            return Err(Problem::not_found(format!(
                "{other:?} is no table; there are businesses, types, instances, clusters, nodes, queues and hosts"
            )));
        }
    };
    Ok(Json(imported))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(business::add, businesses::list))
        .routes(routes!(business::replace, business::change, no_business::remove, businesses::one))
        .routes(routes!(backup_type::add, backup_types::list))
        .routes(routes!(backup_type::replace, backup_type::change, no_type::remove, backup_types::one))
        .routes(routes!(cluster::add, clusters::list))
        .routes(routes!(cluster::replace, cluster::change, no_cluster::remove, clusters::one))
        .routes(routes!(node::add))
        .routes(routes!(node::replace, node::change))
        .routes(routes!(queue::add, queues::list))
        .routes(routes!(queue::replace, queue::change, no_queue::remove, queues::one))
        .routes(routes!(host::add, hosts::list))
        .routes(routes!(host::replace, host::change, no_host::remove, hosts::one))
        .routes(routes!(instance::add))
        .routes(routes!(instance::replace, instance::change, no_instance::remove))
        .routes(routes!(import))
}
