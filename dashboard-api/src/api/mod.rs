//! The HTTP API. Routes and their OpenAPI document come from the same lines of code.

pub mod access;
pub mod backups;
pub mod change;
pub mod extract;
pub mod instances;
pub mod jobs;
pub mod legacy;
pub mod letters;
pub mod nodes;
pub mod policy;
pub mod problem;
pub mod queues;
pub mod registry;
pub mod restore;
pub mod summary;
pub mod why;

use axum::{Json, Router, response::IntoResponse, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use self::problem::Problem;
use crate::app::App;

/// The largest body taken: an import of some 200,000 instances.
pub const MAX_BODY_BYTES: usize = 32 << 20;

#[derive(OpenApi)]
#[openapi(
    info(title = "Longshore", description = "Backups, restores, instances, nodes and queues of a Longshore cluster. \
        Times are UTC milliseconds, sizes bytes, ids text. Errors are RFC 9457 problem details."),
    modifiers(&Bearer),
    security(("token" = [])),
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("`token` of the data folder"));
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// Every route of the API, with `/api/openapi.json` describing them.
pub fn routes() -> Router<App> {
    let (router, document) = documented();
    router
        .route("/api/openapi.json", get(async move || Json(document.clone()).into_response()))
        .merge(legacy::routes())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .fallback(async || {
            Problem::not_found("there is nothing at this address; /api/openapi.json lists what there is")
        })
}

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    documented().1
}

fn documented() -> (Router<App>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(summary::routes())
        .merge(backups::routes())
        .merge(instances::routes())
        .merge(restore::routes())
        .merge(nodes::routes())
        .merge(queues::routes())
        .merge(jobs::routes())
        .merge(change::routes())
        .merge(letters::routes())
        .merge(why::routes())
        .merge(registry::routes())
        .merge(policy::routes())
        .split_for_parts()
}
