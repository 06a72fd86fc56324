//! The page at `/`: drawn here, kept fresh by htmx asking for its parts again. The login form trades the API's token for a
//! cookie that opens pages only. Scripts and styles come from this server alone, and none is inline.

mod shown;

use askama::Template;
use askama_web::WebTemplate;
use axum::{
    Form, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use longshore_catalog::{SearchQuery, SortBy};
use serde::Deserialize;

use self::shown::{BackupRow, ClusterBox, Error, InstanceRow, NodeRow, SummaryBar};
use crate::{
    api::{
        access::COOKIE,
        instances::{self, InstanceFilter},
        nodes, queues, summary,
    },
    app::App,
    freshness::Standing,
};

const LAST_BACKUPS: u32 = 20;
const LATE_SHOWN: u32 = 50;

#[derive(rust_embed::Embed)]
#[folder = "assets"]
struct Assets;

#[derive(Template, WebTemplate)]
#[template(path = "login.html")]
struct Login {
    wrong: bool,
    token_file: String,
}

#[derive(Template, WebTemplate)]
#[template(path = "overview.html")]
struct Overview {
    summary: SummaryBar,
    nodes: Result<Vec<NodeRow>, Error>,
    queues: Result<Vec<ClusterBox>, Error>,
    backups: Result<Vec<BackupRow>, Error>,
    late: Result<LateList, Error>,
}

struct LateList {
    rows: Vec<InstanceRow>,
    more: bool,
}

macro_rules! fragments {
    ($($name:ident, $path:literal, $field:ident: $of:ty;)+) => {
        $(
            #[derive(Template, WebTemplate)]
            #[template(path = $path)]
            struct $name {
                $field: $of,
            }
        )+
    };
}

fragments! {
    Summary, "summary.html", summary: SummaryBar;
    Nodes, "nodes.html", nodes: Result<Vec<NodeRow>, Error>;
    Queues, "queues.html", queues: Result<Vec<ClusterBox>, Error>;
    Backups, "backups.html", backups: Result<Vec<BackupRow>, Error>;
    Late, "late.html", late: Result<LateList, Error>;
}

async fn summary_bar(app: &App) -> SummaryBar {
    match summary::now(app).await {
        Ok(summary) => SummaryBar::of(&summary),
        Err(problem) => SummaryBar::failed(problem.into()),
    }
}

async fn node_rows(app: &App) -> Result<Vec<NodeRow>, Error> {
    Ok(nodes::all(app).await?.items.iter().map(NodeRow::of).collect())
}

async fn cluster_boxes(app: &App) -> Result<Vec<ClusterBox>, Error> {
    Ok(queues::all(app).await?.clusters.iter().map(ClusterBox::of).collect())
}

async fn backup_rows(app: &App) -> Result<Vec<BackupRow>, Error> {
    let query = SearchQuery { sort: SortBy::StoredAt, limit: LAST_BACKUPS, ..SearchQuery::default() };
    let page = app.catalog().ask(app.catalog().reader().search(&query)).await?;
    Ok(page.items.iter().map(|backup| BackupRow::of(&backup.into())).collect())
}

async fn late_list(app: &App) -> Result<LateList, Error> {
    let filter =
        InstanceFilter { standing: Some(Standing::Late), limit: Some(LATE_SHOWN), ..InstanceFilter::default() };
    let page = instances::page(app, &filter).await?;
    let more = page.next.is_some() || page.items.len() > LATE_SHOWN as usize;
    Ok(LateList { rows: page.items.iter().take(LATE_SHOWN as usize).map(InstanceRow::of).collect(), more })
}

async fn overview(State(app): State<App>) -> Response {
    let page = Overview {
        summary: summary_bar(&app).await,
        nodes: node_rows(&app).await,
        queues: cluster_boxes(&app).await,
        backups: backup_rows(&app).await,
        late: late_list(&app).await,
    };
    fresh(page)
}

async fn fragment(State(app): State<App>, Path(name): Path<String>) -> Response {
    match name.as_str() {
        "summary" => fresh(Summary { summary: summary_bar(&app).await }),
        "nodes" => fresh(Nodes { nodes: node_rows(&app).await }),
        "queues" => fresh(Queues { queues: cluster_boxes(&app).await }),
        "backups" => fresh(Backups { backups: backup_rows(&app).await }),
        "late" => fresh(Late { late: late_list(&app).await }),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn fresh(page: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], page).into_response()
}

#[derive(Debug, Deserialize)]
struct LoginForm {
    token: String,
}

async fn login_form(State(app): State<App>) -> Response {
    fresh(Login { wrong: false, token_file: app.settings().token_file().display().to_string() })
}

async fn login(State(app): State<App>, Form(form): Form<LoginForm>) -> Response {
    if !app.keys().is_token(form.token.trim()) {
        let page = Login { wrong: true, token_file: app.settings().token_file().display().to_string() };
        return (StatusCode::UNAUTHORIZED, page).into_response();
    }
    let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000", app.keys().cookie());
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

async fn asset(Path(name): Path<String>) -> Response {
    let Some(file) = Assets::get(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let kind = match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=3600")], file.data).into_response()
}

/// The pages' routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/", get(overview))
        .route("/page/{name}", get(fragment))
        .route("/login", get(login_form).post(login))
        .route("/assets/{name}", get(asset))
}

#[cfg(test)]
mod tests {
    use longshore_core::digest::{DigestChoice, digest_reader};

    use super::*;

    #[test]
    fn htmx_is_the_published_file_with_its_licence_beside_it() {
        let file = Assets::get("htmx.min.js").unwrap();
        let digest = digest_reader(&file.data[..], DigestChoice::Blake3).unwrap().blake3.unwrap().to_string();
        assert_eq!(digest, include_str!("../../assets/htmx.BLAKE3").trim(), "htmx.org 2.0.11, dist/htmx.min.js");
        assert!(include_str!("../../assets/htmx.LICENSE.txt").contains("Zero-Clause BSD"));
    }

    #[test]
    fn no_template_has_an_inline_script_style_or_handler() {
        for text in [
            include_str!("../../templates/overview.html"),
            include_str!("../../templates/login.html"),
            include_str!("../../templates/frame.html"),
            include_str!("../../templates/nodes.html"),
            include_str!("../../templates/queues.html"),
            include_str!("../../templates/backups.html"),
            include_str!("../../templates/late.html"),
            include_str!("../../templates/summary.html"),
        ] {
            for inline in ["<style", "style=\"", "onclick", "onload", "hx-on", "javascript:", "|safe"] {
                assert!(!text.contains(inline), "{inline} in {text}");
            }
        }
    }
}
