//! The service: everything put together behind one listener, and its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
};
use longshore_catalog::Catalog;
use longshore_core::{metrics::Metrics, shutdown::Shutdown};
use tokio::net::TcpListener;
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, set_header::SetResponseHeaderLayer,
    timeout::TimeoutLayer, trace::TraceLayer,
};

use crate::{
    api::{self, access, problem::Problem},
    app::{App, CatalogLink, Parts},
    clusters::Cluster,
    keys::Keys,
    measures::Measures,
    pages, policy,
    registry::Registry,
    settings::Settings,
};

/// No request takes longer; an import of a large file is the longest.
const REQUEST_WITHIN: Duration = Duration::from_secs(120);
/// Requests under way at a stop may take so long to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Nothing from elsewhere, nothing inline, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the service is given.
#[derive(Debug)]
pub struct Deps {
    /// Bound already, so that the caller knows the port.
    pub listener: TcpListener,
    /// Opened to read.
    pub catalog: Arc<dyn Catalog>,
    /// The data folder's secrets.
    pub keys: Keys,
    /// The data folder's registry.
    pub registry: Registry,
}

/// Serves until `shutdown` is requested; requests under way then have 10 s.
///
/// # Errors
/// When the listener fails.
pub async fn run(settings: Settings, deps: Deps, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut metrics = Metrics::new("longshore-dashboard", env!("CARGO_PKG_VERSION"));
    let measures = Measures::new(&mut metrics);
    let clusters = settings.clusters().iter().map(Cluster::new).collect();
    let app = App::new(Parts {
        clusters,
        catalog: CatalogLink::new(deps.catalog),
        keys: deps.keys,
        registry: deps.registry,
        metrics,
        measures,
        settings,
    });
    let address = deps.listener.local_addr().context("the listener has no address")?;
    tracing::info!(%address, token_file = %app.settings().token_file().display(), "listening");
    for number in 0..app.clusters().len() {
        let (app, stop) = (app.clone(), shutdown.clone());
        tokio::spawn(async move { policy::keep_published(&app, &app.clusters()[number], &stop).await });
    }
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    let stop = shutdown.clone();
    let serving = axum::serve(deps.listener, service).with_graceful_shutdown(async move { stop.requested().await });
    let serving = serving.into_future();
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.context("the listener failed"),
        () = shutdown.requested() => {}
    }
    if tokio::time::timeout(DRAIN, serving).await.is_err() {
        tracing::warn!(seconds = DRAIN.as_secs(), "requests were still under way, and are cut");
    }
    Ok(())
}

/// Everything that is served.
pub fn router(app: App) -> Router {
    let fixed = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    api::routes()
        .merge(pages::routes())
        .layer(middleware::from_fn_with_state(app.clone(), access::guard))
        .layer(DefaultBodyLimit::max(api::MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_WITHIN))
        .layer(CatchPanicLayer::custom(|_| {
            axum::response::IntoResponse::into_response(Problem::internal("the server's log has more of it"))
        }))
        .layer(CompressionLayer::new())
        .layer(fixed(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
        .layer(middleware::from_fn_with_state(app.clone(), count))
        .layer(TraceLayer::new_for_http())
        .with_state(app)
}

async fn count(State(app): State<App>, request: axum::extract::Request, next: Next) -> Response {
    let response = next.run(request).await;
    app.measures().answered(response.status());
    response
}
