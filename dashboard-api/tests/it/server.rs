//! A dashboard on a free port, with the catalog and the queue that a test fills.

use std::{path::Path, sync::Arc, time::Duration};

use longshore_catalog::{Access, Catalog, CatalogConfig, Freshness, Put};
use longshore_core::{
    InstanceKey, Job, JobId, Millis, NodeBeat, NodeId, RelativePath, Report,
    chain::{ChainLink, ChainPosition, FullBackup},
    config::RedisConfig,
    queue::{BatchLimit, ClaimRequest, Claimed, HostLimits, Lease, Level, Queue, Room},
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

    /// Offers and admits a job of so many bytes.
    pub(crate) async fn job(&self, host: &str, size_bytes: u64) -> Job {
        let mut job: Job = serde_json::from_str(&fixture("job-v1.json")).unwrap();
        job.id = JobId::fresh();
        job.server_id = host.parse().unwrap();
        job.queue = "level1".parse().unwrap();
        job.content.as_mut().unwrap().size_bytes = size_bytes;
        self.queue.offer(&job).await.unwrap();
        self.queue.admit(&[level1()], 9).await.unwrap();
        job
    }

    /// What a node gets that has so much room.
    pub(crate) async fn claim(&self, node: &str, room_bytes: u64) -> Option<Lease> {
        self.claim_with(node, Room { bytes: room_bytes, inodes: u64::MAX, ceiling_bytes: 1 << 40 }).await
    }

    pub(crate) async fn claim_with(&self, node: &str, room: Room) -> Option<Lease> {
        let (node_id, levels): (NodeId, _) = (node.parse().unwrap(), [level1()]);
        let request = ClaimRequest {
            node_id: &node_id,
            request_id: uuid::Uuid::now_v7(),
            levels: &levels,
            room,
            weight: 100,
            free_slots: 1,
            lease: std::time::Duration::from_secs(60),
            host: HostLimits { transfers: 2, starts_per_second: 0.0 },
            batch: BatchLimit { jobs: 1, bytes: u64::MAX },
        };
        match self.queue.claim(&request).await.unwrap() {
            Claimed::Jobs(mut leases) => leases.pop(),
            Claimed::Nothing(_) => None,
        }
    }

    pub(crate) async fn change(&self, action: &str, body: Value) -> Value {
        let request = self.request(Method::POST, &format!("/api/v1/{action}")).json(&body);
        self.json(request.header("x-longshore-operator", "alice@control"), 200).await
    }

    /// The value of one metric, by its whole name with labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.map(|value| value.parse().unwrap())
    }

    pub(crate) async fn why(&self, what: impl std::fmt::Display) -> Value {
        self.get(&format!("/api/v1/why/{what}")).await
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

pub(crate) fn level1() -> Level {
    Level::new("level1".parse().unwrap())
}

/// A `why` whose answer has these words.
#[track_caller]
pub(crate) fn says(why: &Value, wanted: &str) {
    assert!(why["answer"].as_str().unwrap().contains(wanted), "{wanted:?} in {why:#}");
}
