//! A whole site for one test: Redis, dashboard, catalog, and pullers that fetch from a folder and serve.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use longshore_catalog::{Access, Catalog, CatalogConfig, Freshness};
use longshore_core::{
    Content, ContentKind, InstanceKey, Job, JobId, Millis, NodeBeat, Report, Source, Transport,
    chain::{ChainLink, ChainPosition, FullBackup},
    config::{ConfigArgs, RedisConfig},
    digest::{DigestChoice, FileEntry, digest_reader, directory_digest},
    queue::{Level, Queue, StreamBody},
    redis_link::RedisLink,
    shutdown::Shutdown,
};
use longshore_dashboard_api::{Deps, keys::Keys, registry::Registry, settings::Settings};
use longshore_puller::{commands as puller, puller::Until, settings as puller_settings};
use longshore_tests::{Redis, free_port};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Site {
    pub(crate) url: String,
    pub(crate) keys: Keys,
    pub(crate) queue: Queue,
    pub(crate) redis: Redis,
    pub(crate) folder: TempDir,
    catalog: Arc<dyn Catalog>,
    shutdown: Shutdown,
}

/// What a run of the command gave.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Ended as it should.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With other settings of the dashboard.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("host")).unwrap();
        let redis = Redis::start();
        let redis_config = RedisConfig { address: redis.address(), ..RedisConfig::default() };
        let catalog_config = CatalogConfig { path: folder.path().join("catalog.db"), ..CatalogConfig::default() };
        let catalog = longshore_catalog::open(&catalog_config, Access::Write).unwrap();
        catalog.ensure_schema().await.unwrap();
        let data_dir = folder.path().join("data");
        let keys = Keys::open(&data_dir, None).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let deps = Deps {
            listener,
            catalog: longshore_catalog::open(&catalog_config, Access::Read).unwrap(),
            keys: keys.clone(),
            registry: Registry::open(&data_dir.join("registry.sqlite")).unwrap(),
        };
        let mut settings =
            Settings { data_dir, redis: redis_config.clone(), catalog: catalog_config, ..Settings::default() };
        change(&mut settings);
        let shutdown = Shutdown::new();
        tokio::spawn(longshore_dashboard_api::run(settings, deps, shutdown.clone()));
        Self { url, keys, queue: Queue::new(RedisLink::new(&redis_config)), redis, folder, catalog, shutdown }
    }

    /// A puller of that name, as its daemon runs, until it or the site is told to stop.
    pub(crate) async fn puller(&self, node: &str) -> Shutdown {
        self.puller_with(node, "").await
    }

    /// A puller with more settings, written as `key = value` or `table.key = value`.
    pub(crate) async fn puller_with(&self, node: &str, more: &str) -> Shutdown {
        let store = self.folder.path().join(format!("store-{node}"));
        let text = format!(
            "{more}\nnode_id = \"{node}\"\nqueues = [\"level1\"]\n[store]\npath = {store:?}\nreserve = \"0%\"\n[redis]\naddress = \
             \"{redis}\"\n[serve]\nlisten = \"127.0.0.1:{serve}\"\npublic_key = \"{key}\"\n[status]\nlisten = \
             \"127.0.0.1:{status}\"\n[local_modules]\nhost = {host:?}\n",
            redis = self.redis.address(),
            serve = free_port(),
            status = free_port(),
            key = self.keys.public_text(),
            host = self.folder.path().join("host"),
        );
        let file = self.folder.path().join(format!("{node}.toml"));
        fs::write(&file, text).unwrap();
        let args = ConfigArgs { file: Some(file), ..ConfigArgs::default() };
        let settings = puller_settings::read(&args, &[]).unwrap().value;
        let (stop, of_site) = (Shutdown::new(), self.shutdown.clone());
        tokio::spawn(Box::pin(puller::run(settings, Until::Stopped, stop.clone())));
        let with_site = stop.clone();
        tokio::spawn(async move {
            of_site.requested().await;
            with_site.request();
        });
        let known = async || self.queue.nodes().await.unwrap().iter().any(|(beat, _)| beat.node_id.as_str() == node);
        longshore_tests::wait_until(&format!("node {node} beats"), SOON, known).await;
        stop
    }

    /// Where the host's backups are.
    pub(crate) fn host(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    /// A job of that many bytes that is admitted and waits; its file is there.
    pub(crate) async fn waiting(&self, key: &str, size: usize) -> Job {
        let name = format!("{}.xb", key.replace('/', "-"));
        self.write(&name, size, 1);
        let mut job = self.job(key, &name);
        job.queue = "level1".parse().unwrap();
        self.queue.offer(&job).await.unwrap();
        let level = Level::new(job.queue.clone());
        assert_eq!(self.queue.admit(&[level], 1).await.unwrap().jobs, 1);
        job
    }

    /// Writes a file on the host; its bytes differ with `seed`.
    pub(crate) fn write(&self, name: &str, size: usize, seed: u8) {
        let file = self.host().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes(size, seed)).unwrap();
    }

    /// A job for what is called `name` on the host, as an agent would make it.
    pub(crate) fn job(&self, key: &str, name: &str) -> Job {
        let key: InstanceKey = key.parse().unwrap();
        let mut job: Job = serde_json::from_str(include_str!("../../../core/fixtures/job-v1.json")).unwrap();
        job.id = JobId::fresh();
        (job.server_id, job.backup_type, job.instance) = (key.server_id, key.backup_type, key.instance);
        (job.made_at, job.chain) = (Millis::now(), None);
        job.source = Some(Source {
            transport: Transport::Local,
            address: "127.0.0.1".parse().unwrap(),
            port: None,
            module: "host".parse().unwrap(),
            path: name.parse().unwrap(),
            extra: serde_json::Map::new(),
        });
        job.content = Some(content(&self.host().join(name)));
        job
    }

    /// Stores the jobs on the nodes there are and writes their reports into the catalog, as an indexer does.
    pub(crate) async fn store(&self, jobs: &[Job]) -> Vec<Report> {
        for job in jobs {
            self.queue.offer(job).await.unwrap();
        }
        let reports = self.reports(jobs.len()).await;
        self.index(&reports).await;
        reports
    }

    /// So many reports of the stream, as soon as they are there.
    pub(crate) async fn reports(&self, count: usize) -> Vec<Report> {
        let mut reader = self.queue.reports("indexers", "test");
        let mut reports: Vec<Report> = Vec::new();
        let shutdown = Shutdown::new();
        let until = std::time::Instant::now() + SOON;
        while reports.len() < count {
            assert!(std::time::Instant::now() < until, "{} of {count} were reported", reports.len());
            for entry in reader.read(100, Duration::from_millis(200), &shutdown).await.unwrap() {
                if let StreamBody::Report(report) = entry.body {
                    reports.push(*report);
                }
                reader.acknowledge(&[entry.id]).await.unwrap();
            }
        }
        reports
    }

    pub(crate) async fn index(&self, reports: &[Report]) {
        self.catalog.put(reports).await.unwrap();
        self.catalog.put_freshness(&Freshness::summary(reports)).await.unwrap();
    }

    /// A full and two increments of `key`, on the host: their names, in order.
    pub(crate) fn chain(&self, key: &str) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        for (number, name) in ["full.xb", "inc 1.xb", "inc-2 库.xb"].into_iter().enumerate() {
            self.write(name, 300_000 + number * 1000, number as u8);
            let mut job = self.job(key, name);
            job.made_at = Millis(Millis::now().0 - 3_600_000 * (3 - number as i64));
            let full = jobs.first().map_or_else(
                || FullBackup { name: name.parse().unwrap(), made_at: job.made_at },
                |full| full.chain.as_ref().unwrap().full.clone(),
            );
            job.chain = Some(ChainLink {
                position: if number == 0 { ChainPosition::Full } else { ChainPosition::Increment },
                full,
                previous: jobs.last().map(|before| before.id),
                sequence: Some(number as u32),
                from: None,
                to: None,
                extra: serde_json::Map::new(),
            });
            jobs.push(job);
        }
        jobs
    }

    /// The command with this site's dashboard and token, nothing else of the environment, 80 columns.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.env_clear().current_dir(self.folder.path());
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command.env("LONGSHORE_SERVER", &self.url).env("LONGSHORE_TOKEN", self.keys.token());
        command.env("COLUMNS", "80").env("TZ", "Asia/Shanghai");
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command();
        command.args(args);
        finish(command).await
    }
}

/// A shell's line on a terminal of so many columns, with the environment and in the folder of `command`.
pub(crate) fn on_terminal(command: &Command, columns: u16, line: &str) -> Command {
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty rows 20 cols {columns}; {line}"), "/dev/null"]);
    script.env_clear().env("TERM", "xterm").envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        script.current_dir(folder);
    }
    script
}

pub(crate) async fn finish(mut command: Command) -> Ran {
    Ran::of(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// What a node says of itself now.
pub(crate) fn beat(node: &str, serve: Option<String>) -> NodeBeat {
    let mut beat: NodeBeat = serde_json::from_str(include_str!("../../../core/fixtures/node-beat-v1.json")).unwrap();
    (beat.node_id, beat.at, beat.serve) = (node.parse().unwrap(), Millis::now(), serve);
    beat
}

/// Bytes that no compressor helps with, and that differ at every place.
pub(crate) fn bytes(size: usize, seed: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(seed);
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size).map(next).collect()
}

fn content(path: &Path) -> Content {
    let digest = |file: &Path| digest_reader(fs::File::open(file).unwrap(), DigestChoice::Xxh3).unwrap();
    if path.is_file() {
        let found = digest(path);
        let size_bytes = found.size_bytes;
        let xxh3_128 = found.xxh3_128;
        return Content {
            kind: ContentKind::File,
            size_bytes,
            files: 1,
            folders: None,
            xxh3_128,
            blake3: None,
            extra: Default::default(),
        };
    }
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let found = digest(&entry.path());
            let below = entry.path().strip_prefix(path).unwrap().to_str().unwrap().to_owned();
            files.push(FileEntry { path: below, size_bytes: found.size_bytes, xxh3_128: found.xxh3_128.unwrap() });
        }
    }
    Content {
        kind: ContentKind::Directory,
        size_bytes: files.iter().map(|file| file.size_bytes).sum(),
        files: files.len() as u64,
        folders: None,
        xxh3_128: Some(directory_digest(&mut files)),
        blake3: None,
        extra: Default::default(),
    }
}
