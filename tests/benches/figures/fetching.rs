//! One round of a puller's own side: a fresh Redis, a fresh store, and the program that users run, which waits for jobs when it
//! is given them.

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

/// Jobs, and where they are to go.
pub(crate) struct Site {
    redis: Redis,
    folder: TempDir,
    /// In the order of their names.
    queues: Vec<String>,
    jobs: Vec<Job>,
}

impl Site {
    /// A Redis for these jobs.
    pub(crate) fn with(jobs: &[Job]) -> anyhow::Result<Self> {
        let queues: BTreeSet<String> = jobs.iter().map(|job| job.queue.to_string()).collect();
        let queues = queues.into_iter().collect();
        Ok(Self { redis: Redis::start(), folder: tempfile::tempdir()?, queues, jobs: jobs.to_vec() })
    }

    /// Starts a puller, and gives it the jobs when it asks for some; `top` is further TOML for its file.
    pub(crate) fn begin(&self, slots: usize, top: &str) -> anyhow::Result<Fetching<'_>> {
        self.begin_with(slots, top, "")
    }

    /// The same, with `rsync` for the section of that name.
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
        let mut command = Command::new(binary("longshore-puller"));
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let puller = Process::spawn(&mut command).context("longshore-puller")?;
        let mut connection = self.redis.connection();
        wait_until_blocking("the puller asks for jobs", Duration::from_secs(10), || {
            let asked: redis::RedisResult<bool> =
                redis::cmd("HEXISTS").arg("longshore:node:1").arg("asked").query(&mut connection);
            asked.is_ok_and(|asked| asked)
        });
        let mut pipe = redis::pipe();
        for job in &self.jobs {
            pipe.cmd("LPUSH").arg(job.queue.as_str()).arg(serde_json::to_string(job)?).ignore();
        }
        for queue in &self.queues {
            pipe.cmd("PUBLISH").arg("longshore:wake").arg(queue).ignore();
        }
        let (started, cpu_before) = (Instant::now(), cpu_seconds(puller.id())?);
        pipe.exec(&mut connection)?;
        Ok(Fetching { site: self, puller, started, cpu_before })
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
    cpu_before: f64,
}

/// What it took.
pub(crate) struct Fetched {
    /// From the jobs' push to the last report.
    pub(crate) seconds: f64,
    /// Processor time of the puller since then, and of every rsync that it started.
    pub(crate) cpu_seconds: f64,
    /// The most memory that the puller itself had.
    pub(crate) peak_bytes: u64,
}

impl Fetching<'_> {
    /// The puller's process.
    pub(crate) fn id(&self) -> u32 {
        self.puller.id()
    }

    /// From `earlier` to the jobs' push, in seconds.
    pub(crate) fn pushed_after(&self, earlier: Instant) -> f64 {
        self.started.duration_since(earlier).as_secs_f64()
    }

    /// Waits until every job is reported as stored.
    pub(crate) fn end(self) -> anyhow::Result<Fetched> {
        let mut connection = self.site.redis.connection();
        let (mut entries, mut last) = (Vec::new(), "0".to_owned());
        while entries.len() < self.site.jobs.len() {
            let mut command = redis::cmd("XREAD");
            command.arg("BLOCK").arg(DONE_WITHIN.as_millis()).arg("STREAMS").arg("longshore:reports").arg(&last);
            let more: Option<redis::streams::StreamReadReply> = command.query(&mut connection)?;
            let more = more.and_then(|mut more| more.keys.pop()).context("jobs are not reported")?;
            last = more.ids.last().context("an answer without entries")?.id.clone();
            entries.extend(more.ids);
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let (cpu_seconds, peak_bytes) = (cpu_seconds(self.id())? - self.cpu_before, peak_bytes(self.id())?);
        self.puller.end(Signal::TERM)?;
        for entry in entries {
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
