//! One round of a puller's own side: a fresh Redis with the jobs in its inbox, a fresh store, and the program that users run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use longshore_core::{
    Job, JobId, Millis, Outcome, Report,
    digest::{DigestChoice, digest_reader},
};
use longshore_tests::{Process, Redis, binary, free_port, wait_until_blocking};
use rustix::process::Signal;
use tempfile::TempDir;

/// What the daemon of a site that cares for small files has in its configuration.
pub(crate) const NODELAY: &str = "socket options = TCP_NODELAY\nmax connections = 0";

const DONE_WITHIN: Duration = Duration::from_secs(600);

/// Jobs that wait, and where they are to go.
pub(crate) struct Site {
    redis: Redis,
    folder: TempDir,
    /// In the order of their names.
    queues: Vec<String>,
    jobs: usize,
}

impl Site {
    /// A Redis with these jobs in their queues.
    pub(crate) fn with(jobs: &[Job]) -> anyhow::Result<Self> {
        let redis = Redis::start();
        let mut connection = redis.connection();
        for job in jobs {
            redis::cmd("LPUSH").arg(job.queue.as_str()).arg(serde_json::to_string(job)?).exec(&mut connection)?;
        }
        let queues: BTreeSet<String> = jobs.iter().map(|job| job.queue.to_string()).collect();
        Ok(Self { redis, folder: tempfile::tempdir()?, queues: queues.into_iter().collect(), jobs: jobs.len() })
    }

    /// Starts a puller; `top` is further TOML for its file.
    pub(crate) fn begin(&self, slots: usize, top: &str) -> anyhow::Result<Fetching<'_>> {
        self.begin_with(slots, top, "")
    }

    /// Starts a puller; `top` is further TOML for its file, `rsync` for the section of that name.
    pub(crate) fn begin_with(&self, slots: usize, top: &str, rsync: &str) -> anyhow::Result<Fetching<'_>> {
        let config = self.folder.path().join("puller.toml");
        let text = format!(
            "node_id = \"1\"\nqueues = {:?}\nslots = {slots}\n{top}\n[store]\npath = {:?}\nreserve = \"1%\"\n[redis]\n\
             address = \"{}\"\n[rsync]\nhost_limit = {slots}\n{rsync}\n[status]\nlisten = \"127.0.0.1:{}\"\n",
            self.queues,
            self.store(),
            self.redis.address(),
            free_port()
        );
        fs::write(&config, text)?;
        let log = fs::File::create(self.folder.path().join("log"))?;
        let started = Instant::now();
        let mut command = Command::new(binary("longshore-puller"));
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let puller = Process::spawn(&mut command).context("longshore-puller")?;
        Ok(Fetching { site: self, puller, started })
    }

    /// The puller's store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The Redis.
    pub(crate) fn redis(&self) -> &Redis {
        &self.redis
    }
}

/// A puller at work on a site's jobs.
pub(crate) struct Fetching<'a> {
    site: &'a Site,
    puller: Process,
    started: Instant,
}

/// What it took.
pub(crate) struct Fetched {
    /// From the puller's start to its last report.
    pub(crate) seconds: f64,
    /// Processor time of the puller, and of every rsync that it started.
    pub(crate) cpu_seconds: f64,
    /// The most memory that the puller itself had.
    pub(crate) peak_bytes: u64,
}

impl Fetching<'_> {
    /// The puller's process.
    pub(crate) fn id(&self) -> u32 {
        self.puller.id()
    }

    /// Waits until every job is reported as stored.
    pub(crate) fn end(self) -> anyhow::Result<Fetched> {
        let mut connection = self.site.redis.connection();
        wait_until_blocking("all jobs are reported", DONE_WITHIN, || {
            let reported: redis::RedisResult<usize> =
                redis::cmd("XLEN").arg("longshore:reports").query(&mut connection);
            reported.is_ok_and(|reported| reported >= self.site.jobs)
        });
        let seconds = self.started.elapsed().as_secs_f64();
        let (cpu_seconds, peak_bytes) = (cpu_seconds(self.id())?, peak_bytes(self.id())?);
        self.puller.end(Signal::TERM)?;
        let entries: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg("longshore:reports").arg("-").arg("+").query(&mut connection)?;
        for entry in entries.ids {
            let body: Vec<u8> = entry.get("body").context("a report without a body")?;
            let report: Report = serde_json::from_slice(&body)?;
            anyhow::ensure!(report.outcome == Outcome::Stored, "{:?}", report.reason);
        }
        Ok(Fetched { seconds, cpu_seconds, peak_bytes })
    }
}

/// Processor time of a process and of its children that have ended.
pub(crate) fn cpu_seconds(id: u32) -> anyhow::Result<f64> {
    /// What Linux shows times in, on every machine.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let after_name = stat.rsplit_once(") ").context("/proc/PID/stat")?.1;
    let ticks: u64 = after_name.split(' ').skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

fn peak_bytes(id: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// A job for `source/name`, which the daemon on `port` serves in `module`; each module is another host's.
pub(crate) fn job(source: &Path, module: &str, name: &str, port: u16) -> anyhow::Result<Job> {
    let digests = digest_reader(fs::File::open(source.join(name))?, DigestChoice::Xxh3)?;
    let text = serde_json::json!({
        "v": 1, "id": JobId::fresh(), "server_id": module, "type": "file", "instance": "1", "business_id": "1",
        "made_at": Millis::now(), "interval_seconds": 3600, "queue": "level1",
        "source": {"transport": "rsync_daemon", "address": "127.0.0.1", "port": port, "module": module, "path": name},
        "content": {"kind": "file", "size_bytes": digests.size_bytes, "files": 1, "xxh3_128": digests.xxh3_128, "blake3": null},
        "chain": null, "script": null, "agent": null, "signature": null
    });
    Ok(serde_json::from_value(text)?)
}
