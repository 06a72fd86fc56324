//! A dashboard on a free port, with the catalog and the queue that a test fills.

use std::{path::Path, sync::Arc, time::Duration};

use longshore_catalog::{Access, Catalog, CatalogConfig, Freshness, Put};
use longshore_core::{
    InstanceKey, JobId, Millis, NodeBeat, RelativePath, Report,
    chain::{ChainLink, ChainPosition, FullBackup},
    config::RedisConfig,
    queue::Queue,
    redis_link::RedisLink,
    shutdown::Shutdown,
};
use longshore_dashboard_api::{Deps, keys::Keys, registry::Registry, run, settings::Settings};
use longshore_tests::Redis;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) keys: Keys,
    pub(crate) redis: Redis,
    pub(crate) queue: Queue,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) folder: tempfile::TempDir,
    shutdown: Shutdown,
    client: reqwest::Client,
}

impl Server {
    /// With an empty catalog.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start();
        let redis_config = RedisConfig { address: redis.address(), ..RedisConfig::default() };
        let catalog_config = CatalogConfig { path: folder.path().join("catalog.db"), ..CatalogConfig::default() };
        let catalog = longshore_catalog::open(&catalog_config, Access::Write).unwrap();
        catalog.ensure_schema().await.unwrap();
        let mut settings = Settings {
            data_dir: folder.path().join("data"),
            redis: redis_config.clone(),
            catalog: catalog_config.clone(),
            ..Settings::default()
        };
        change(&mut settings);
        let keys = Keys::open(&settings.data_dir, None).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let deps = Deps {
            listener,
            catalog: longshore_catalog::open(&settings.catalog, Access::Read).unwrap(),
            keys: keys.clone(),
            registry: Registry::open(&settings.data_dir.join("registry.sqlite")).unwrap(),
        };
        let shutdown = Shutdown::new();
        tokio::spawn(run(settings, deps, shutdown.clone()));
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let queue = Queue::new(RedisLink::new(&redis_config));
        Self { url, keys, redis, queue, catalog, folder, shutdown, client }
    }

    /// A request without a token.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// A request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(self.keys.token())
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.json(self.request(Method::GET, path), 200).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.json(self.request(Method::POST, path).json(&body), 201).await
    }

    /// The JSON answer of a request that must end with `status`.
    pub(crate) async fn json(&self, request: RequestBuilder, status: u16) -> Value {
        let response = request.send().await.unwrap();
        let (found, url) = (response.status(), response.url().clone());
        let text = response.text().await.unwrap();
        assert_eq!(found, StatusCode::from_u16(status).unwrap(), "{url}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"))
    }

    /// A problem: its detail, after its form was checked.
    pub(crate) async fn problem(&self, request: RequestBuilder, status: u16) -> Value {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.status().as_u16(), status);
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().unwrap().starts_with("urn:longshore:problem:"), "{problem}");
        assert!(!problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty());
        problem
    }

    /// Writes reports as the indexer does.
    pub(crate) async fn index(&self, reports: &[Report]) {
        let put = self.catalog.put(reports).await.unwrap();
        assert!(put.iter().all(|put| *put == Put::Written), "{put:?}");
        self.catalog.put_freshness(&Freshness::summary(reports)).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

pub(crate) fn fixture(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/fixtures").join(name);
    std::fs::read_to_string(file).unwrap()
}

/// A stored report of `key`, made so long ago, of 10 MiB, with no chain.
pub(crate) fn stored(key: &str, ago: Duration) -> Report {
    let key: InstanceKey = key.parse().unwrap();
    let mut report: Report = serde_json::from_str(&fixture("report-v1.json")).unwrap();
    let made_at = Millis(Millis::now().0 - ago.as_millis() as i64);
    let job = &mut report.job;
    job.id = JobId::from_content(made_at, u128::from_be_bytes(*uuid_bytes(JobId::fresh())));
    (job.server_id, job.backup_type, job.instance) = (key.server_id, key.backup_type, key.instance);
    job.made_at = made_at;
    job.chain = None;
    if let Some(content) = &mut job.content {
        content.size_bytes = 10 << 20;
    }
    let name = format!("dump-{}.sql", made_at.0);
    if let Some(source) = &mut job.source {
        source.path = RelativePath::new(&name).unwrap();
    }
    report.stored_at = made_at.plus(Duration::from_secs(5));
    report.revision = report.stored_at.0 as u64 * 1000;
    report.transfer = Some(longshore_core::report::Transfer { bytes: 10 << 20, seconds: 1.0, resumed_bytes: 0 });
    report
}

fn uuid_bytes(id: JobId) -> Box<[u8; 16]> {
    let hex: String = id.to_string().chars().filter(|c| *c != '-').collect();
    Box::new(u128::from_str_radix(&hex, 16).unwrap().to_be_bytes())
}

/// A full and its increments, each an hour later than the one before, the last one just now.
pub(crate) fn chain(key: &str, increments: u32) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::new();
    for number in 0..=increments {
        let mut report = stored(key, Duration::from_secs(u64::from(increments - number) * 3600 + 60));
        let full = reports.first().map_or_else(
            || FullBackup { name: report.job.source.as_ref().unwrap().path.clone(), made_at: report.job.made_at },
            |full| full.job.chain.as_ref().unwrap().full.clone(),
        );
        report.job.chain = Some(ChainLink {
            position: if number == 0 { ChainPosition::Full } else { ChainPosition::Increment },
            full,
            previous: reports.last().map(|before| before.job.id),
            sequence: Some(number),
            from: None,
            to: None,
            extra: serde_json::Map::new(),
        });
        reports.push(report);
    }
    reports
}

pub(crate) fn beat(node_id: &str) -> NodeBeat {
    let mut beat: NodeBeat = serde_json::from_str(&fixture("node-beat-v1.json")).unwrap();
    beat.node_id = node_id.parse().unwrap();
    beat.at = Millis::now();
    beat
}
