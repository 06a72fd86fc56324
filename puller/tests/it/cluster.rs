//! One Redis, one host with a folder of backups behind an rsync daemon, and pullers as their users run them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use longshore_core::{
    Content, ContentKind, Job, JobId, Millis, Report, Source, Transport,
    config::RedisConfig,
    digest::{DigestChoice, FileEntry, digest_reader, directory_digest},
    queue::Queue,
    redis_link::RedisLink,
};
use longshore_tests::{Process, Redis, Rsyncd, free_port, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) redis: Redis,
    pub(crate) host: Rsyncd,
    pub(crate) source: TempDir,
    pub(crate) folder: TempDir,
    pub(crate) queue: Queue,
}

pub(crate) struct Puller {
    pub(crate) process: Process,
    pub(crate) log: PathBuf,
    pub(crate) serve: u16,
    pub(crate) status: u16,
    pub(crate) store: PathBuf,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::start_with("", "")
    }

    pub(crate) fn start_with(global: &str, module: &str) -> Self {
        let source = tempfile::tempdir().unwrap();
        let redis = Redis::start();
        let queue = Queue::new(RedisLink::new(&RedisConfig { address: redis.address(), ..RedisConfig::default() }));
        let host = Rsyncd::start_with(&[("backup", source.path())], global, module);
        Self { redis, host, source, folder: tempfile::tempdir().unwrap(), queue }
    }

    /// Writes a file on the host; the bytes differ with `seed`.
    pub(crate) fn write(&self, path: &str, size: usize, seed: u64) {
        let path = self.source.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes(size, seed)).unwrap();
    }

    /// A job for what lies at `path` on the host, as an agent would make it.
    pub(crate) fn job(&self, path: &str) -> Job {
        let mut job: Job = serde_json::from_str(include_str!("../../../core/fixtures/job-v1.json")).unwrap();
        job.id = JobId::fresh();
        job.made_at = Millis::now();
        job.chain = None;
        job.source = Some(Source {
            transport: Transport::RsyncDaemon,
            address: "127.0.0.1".parse().unwrap(),
            port: Some(self.host.port()),
            module: "backup".parse().unwrap(),
            path: path.parse().unwrap(),
            extra: serde_json::Map::new(),
        });
        job.content = Some(content(&self.source.path().join(path)));
        job
    }

    pub(crate) async fn offer(&self, job: &Job) {
        self.queue.offer(job).await.unwrap();
    }

    /// A fresh file with its job, offered.
    pub(crate) async fn offer_file(&self, path: &str, size: usize, seed: u64) -> Job {
        self.write(path, size, seed);
        let job = self.job(path);
        self.offer(&job).await;
        job
    }

    /// The configuration of node `node`; `more` is further TOML.
    pub(crate) fn configure(&self, node: &str, top: &str, more: &str) -> Configured {
        let store = self.folder.path().join(format!("store{node}"));
        self.configure_at(node, &store, top, more)
    }

    pub(crate) fn configure_at(&self, node: &str, store: &Path, top: &str, more: &str) -> Configured {
        let (serve, status) = (free_port(), free_port());
        let text = format!(
            "node_id = \"{node}\"\nqueues = [\"level1\", \"level2\"]\nlease = \"3s\"\nretry_delay = \"200ms\"\n{top}\n\
             [store]\npath = {store:?}\nreserve = \"0%\"\n[redis]\naddress = \"{redis}\"\n[serve]\nlisten = \
             \"127.0.0.1:{serve}\"\npublic_key = \"{key}\"\n[status]\nlisten = \"127.0.0.1:{status}\"\n{more}\n",
            redis = self.redis.address(),
            key = longshore_core::token::public_key_text(&signing_key().verifying_key()),
        );
        let config = self.folder.path().join(format!("puller{node}.toml"));
        fs::write(&config, text).unwrap();
        Configured {
            config,
            store: store.to_owned(),
            log: self.folder.path().join(format!("log{node}")),
            serve,
            status,
        }
    }

    /// Starts node `node` with the defaults of tests.
    pub(crate) fn puller(&self, node: &str) -> Puller {
        self.configure(node, "", "").start(&[])
    }

    /// All reports on the stream.
    pub(crate) fn reports(&self) -> Vec<Report> {
        let mut connection = self.redis.connection();
        let entries: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg("longshore:reports").arg("-").arg("+").query(&mut connection).unwrap();
        let body = |entry: &redis::streams::StreamId| entry.get::<Vec<u8>>("body");
        entries.ids.iter().filter_map(|entry| serde_json::from_slice(&body(entry)?).ok()).collect()
    }

    /// Waits for the report of `job`.
    pub(crate) async fn report_of(&self, job: &Job) -> Report {
        let found = || self.reports().into_iter().find(|report| report.job.id == job.id);
        wait_until(&format!("the report of {} is there", job.id), SOON, async || found().is_some()).await;
        found().unwrap()
    }
}

/// A configured puller that doesn't run yet.
#[derive(Clone)]
pub(crate) struct Configured {
    pub(crate) config: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) serve: u16,
    pub(crate) status: u16,
}

impl Configured {
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-puller"));
        command.arg("-c").arg(&self.config).args(words).stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self, environment: &[(&str, &str)]) -> Puller {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command(&[]);
        command.envs(environment.iter().copied()).stderr(log).stdout(Stdio::null());
        Puller {
            process: Process::spawn(&mut command).unwrap(),
            log: self.log.clone(),
            serve: self.serve,
            status: self.status,
            store: self.store.clone(),
        }
    }

    /// Runs `longshore-puller once` to its end.
    pub(crate) fn once(&self) -> ExitStatus {
        self.command(&["once"]).status().unwrap()
    }
}

impl Puller {
    /// Waits until it has ended by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the puller has ended", SOON, async || {
            status = self.process.ended().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// TERM, and its orderly end.
    pub(crate) async fn stop(self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.ended().await
    }

    /// KILL. Its rsyncs live on, as they do when the kernel kills it for memory.
    pub(crate) async fn kill(self) {
        self.process.signal(Signal::KILL);
        self.ended().await;
    }

    /// The sum of the metrics whose line begins with `name`; none before it serves them.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let Ok(answer) = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.status)).await else { return 0.0 };
        let text = answer.text().await.unwrap();
        let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// What it said belongs to what a failed test says.
impl Drop for Puller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
    }
}

/// Where a stored report's backup is.
pub(crate) fn place(store: &Path, report: &Report) -> PathBuf {
    store.join(report.path.as_ref().unwrap_or_else(|| panic!("not stored: {report:?}")).as_str())
}

/// Entries of the transfers' folder; none, while there is no such folder yet.
pub(crate) fn incoming(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store.join(".incoming")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// How many folders there are at and below `folder`.
fn folders(folder: &Path) -> u64 {
    let below = fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_dir());
    below.map(|entry| folders(&entry.path())).sum::<u64>() + 1
}

/// All files below `folder`, by their paths.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

pub(crate) fn bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub(crate) fn signing_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[7; 32])
}

fn content(path: &Path) -> Content {
    let digest = |path: &Path| digest_reader(fs::File::open(path).unwrap(), DigestChoice::Xxh3).unwrap();
    let (kind, size_bytes, count, xxh3_128) = if path.is_dir() {
        let mut entries: Vec<FileEntry> = files(path)
            .into_iter()
            .map(|file| {
                let found = digest(&file);
                let below = file.strip_prefix(path).unwrap().to_str().unwrap().to_owned();
                FileEntry { path: below, size_bytes: found.size_bytes, xxh3_128: found.xxh3_128.unwrap() }
            })
            .collect();
        let size = entries.iter().map(|entry| entry.size_bytes).sum();
        let count = entries.len() as u64;
        (ContentKind::Directory, size, count, Some(directory_digest(&mut entries)))
    } else if path.is_file() {
        let found = digest(path);
        (ContentKind::File, found.size_bytes, 1, found.xxh3_128)
    } else {
        (ContentKind::File, 3, 1, None)
    };
    let folders = path.is_dir().then(|| folders(path));
    Content { kind, size_bytes, files: count, folders, xxh3_128, blake3: None, extra: serde_json::Map::new() }
}
