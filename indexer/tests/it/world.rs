//! A queue, a catalog, and indexers over them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use longshore_catalog::{Access, Catalog, CatalogConfig, CatalogKind, ElasticsearchConfig, Filter};
use longshore_core::{
    JobId, Millis, Outcome, ReasonCode, Report, config::RedisConfig, queue::Queue, redis_link::RedisLink,
    report::Reason,
};
use longshore_tests::{Elasticsearch, Process, Redis, free_port, wait_until, wait_until_blocking};
use rustix::process::Signal;
use tempfile::TempDir;

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A Redis of its own, a catalog of its own, a folder for files.
pub(crate) struct World {
    pub(crate) redis: Redis,
    pub(crate) queue: Queue,
    pub(crate) catalog: Arc<dyn Catalog>,
    folder: TempDir,
    catalog_table: String,
}

impl World {
    pub(crate) fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let table = format!("[catalog]\nkind = \"sqlite\"\npath = \"{}\"\n", path.display());
        Self::new(folder, CatalogConfig { path, ..CatalogConfig::default() }, table)
    }

    pub(crate) fn on_elasticsearch(server: &Elasticsearch) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("indexing{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let table = format!(
            "[catalog]\nkind = \"elasticsearch\"\n[catalog.elasticsearch]\nurls = [\"{}\"]\nprefix = \"{prefix}\"\n\
             replicas = 0\ntimeout = \"5s\"\n",
            server.url()
        );
        let elasticsearch = ElasticsearchConfig { urls: vec![server.url()], prefix, ..ElasticsearchConfig::default() };
        let config = CatalogConfig { kind: CatalogKind::Elasticsearch, elasticsearch, ..CatalogConfig::default() };
        Self::new(tempfile::tempdir().unwrap(), config, table)
    }

    fn new(folder: TempDir, config: CatalogConfig, catalog_table: String) -> Self {
        let redis = Redis::start();
        let address = redis.address();
        let queue = Queue::new(RedisLink::new(&RedisConfig { address, ..RedisConfig::default() }));
        let catalog = longshore_catalog::open(&config, Access::Read).unwrap();
        Self { redis, queue, catalog, folder, catalog_table }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A configuration file of an indexer named `name` that listens on `port`.
    pub(crate) fn configuration(&self, name: &str, port: u16) -> PathBuf {
        let file = self.folder.path().join(format!("{name}.toml"));
        let text = format!(
            "[redis]\naddress = \"{}\"\n[status]\nlisten = \"127.0.0.1:{port}\"\n[stream]\nconsumer = \"{name}\"\n\
             batch = 50\nadopt_after = \"10s\"\n{}",
            self.redis.address(),
            self.catalog_table
        );
        fs::write(&file, text).unwrap();
        file
    }

    pub(crate) fn start(&self, name: &str) -> Indexer {
        self.start_with(name, None)
    }

    /// One that kills itself at `stop_at`.
    pub(crate) fn start_with(&self, name: &str, stop_at: Option<&str>) -> Indexer {
        let port = free_port();
        let log = self.folder.path().join(format!("{name}.log"));
        let mut command = program();
        command.arg("run").arg("-c").arg(self.configuration(name, port)).args(["--log-format", "plain"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        if let Some(step) = stop_at {
            command.env("LONGSHORE_STOP_AT", step);
        }
        Indexer { process: Process::spawn(&mut command).unwrap(), port, log }
    }

    /// Runs the program with other arguments to its end.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        program().args(arguments).arg("-c").arg(self.configuration("asked", free_port())).output().unwrap()
    }

    pub(crate) async fn report(&self, reports: &[Report]) {
        for report in reports {
            self.queue.report(report).await.unwrap();
        }
    }

    /// Entries of the stream, read or not.
    pub(crate) async fn on_stream(&self) -> u64 {
        self.queue.reports("indexers", "test").lag().await.unwrap().entries
    }

    pub(crate) async fn drained(&self) {
        wait_until("the stream is empty", SOON, async || self.on_stream().await == 0).await;
    }

    /// That the catalog has exactly these, as they are.
    pub(crate) async fn has_exactly(&self, reports: &[Report]) {
        let writer_made_it = self.catalog.refresh().await;
        assert!(writer_made_it.is_ok(), "{writer_made_it:?}");
        assert_eq!(self.catalog.totals(&Filter::default()).await.unwrap().count, reports.len() as u64);
        for report in reports {
            assert_eq!(&self.catalog.by_id(report.job.id).await.unwrap().unwrap().report, report);
        }
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_longshore-indexer"))
}

/// A running indexer.
pub(crate) struct Indexer {
    process: Process,
    port: u16,
    log: PathBuf,
}

impl Indexer {
    /// `/healthz`: its status and what it says.
    pub(crate) async fn health(&self) -> Option<(u16, serde_json::Value)> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/healthz", self.port)).await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.unwrap()))
    }

    pub(crate) async fn metrics(&self) -> String {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.port)).await.unwrap();
        answer.text().await.unwrap()
    }

    pub(crate) async fn healthy(&self) {
        wait_until("the indexer is healthy", SOON, async || {
            self.health().await.is_some_and(|(status, _)| status == 200)
        })
        .await;
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn stop(self) -> ExitStatus {
        self.process.end(Signal::TERM).unwrap()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(mut self) -> ExitStatus {
        let mut status = None;
        wait_until_blocking("the indexer ends", SOON, || {
            status = self.process.ended().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

/// `number` stored backups of ten instances, an hour apart.
pub(crate) fn reports(number: i64) -> Vec<Report> {
    (0..number).map(|n| report(&format!("33{:02}", n % 10), n)).collect()
}

/// A stored backup of `111111/mysql/{instance}`.
pub(crate) fn report(instance: &str, hours: i64) -> Report {
    static REVISION: AtomicU64 = AtomicU64::new(1_795_132_800_000_000);
    let mut report: Report = serde_json::from_str(include_str!("../../../core/fixtures/report-v1.json")).unwrap();
    let made_at = Millis(1_795_132_800_000 + hours * 3_600_000);
    report.job.id = JobId::fresh();
    report.job.instance = instance.parse().unwrap();
    report.job.made_at = made_at;
    report.job.chain = None;
    report.stored_at = Millis(made_at.0 + 60_000);
    report.revision = REVISION.fetch_add(1, Ordering::Relaxed);
    report
}

pub(crate) fn failed(instance: &str, hours: i64) -> Report {
    let mut report = report(instance, hours);
    report.outcome = Outcome::Failed;
    report.reason = Some(Reason::new(ReasonCode::ScriptExit, "备份失败"));
    report
}
