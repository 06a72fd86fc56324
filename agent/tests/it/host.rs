//! One host of a test: a folder with configuration, logs, backups and state, a queue Redis, and a node that drains it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use longshore_core::{
    HostBeat, Job, NodeId, Outcome, QueueName, Report,
    config::RedisConfig,
    queue::{BatchLimit, ClaimRequest, Claimed, End, HostLimits, Level, Queue, Room},
    redis_link::RedisLink,
};
use longshore_tests::{Redis, wait_until_blocking};

pub const SOON: Duration = Duration::from_secs(20);
pub const SERVER: &str = "111111";

/// Writes a backup of its own name, and a log that says so.
pub const GOOD_SCRIPT: &str = r#"echo "$$-$(date +%N)" > "$LONGSHORE_BACK_DIR/$LONGSHORE_INSTANCE.tar"
printf 'ok\n%s.tar\n' "$LONGSHORE_INSTANCE" > "$LONGSHORE_BACK_LOG""#;

pub struct Host {
    pub redis: Redis,
    folder: tempfile::TempDir,
}

impl Host {
    pub fn start() -> Self {
        Self::with(Redis::start(), "")
    }

    /// With further lines for the head of the configuration.
    pub fn with(redis: Redis, head: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let host = Self { redis, folder };
        let config = format!(
            "server_id = \"{SERVER}\"\nbusiness_id = 31\naddress = \"127.0.0.1\"\nqueue = \"level1\"\nstagger = 0\n\
             state_dir = \"{}\"\n{head}\n[redis]\naddress = \"{}\"\n",
            host.state().display(),
            host.redis.address()
        );
        fs::write(host.path("agent.toml"), config).unwrap();
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn log(&self, instance: &str) -> PathBuf {
        self.path(&format!("{instance}.log"))
    }

    /// Adds `[instance.NAME]` of type folder; `more` are further lines of it.
    pub fn section(&self, name: &str, script: &str, more: &str) -> &Self {
        let mut config = fs::read_to_string(self.path("agent.toml")).unwrap();
        config.push_str(&format!(
            "[instance.{name}]\ntype = \"folder\"\ninstance = \"{name}\"\nback_dir = \"{}\"\nback_log = \"{}\"\n\
             rsync_module = \"backup/data\"\nscript = '''\n{script}'''\n{more}\n",
            self.data().display(),
            self.log(name).display(),
        ));
        fs::write(self.path("agent.toml"), config).unwrap();
        self
    }

    /// The agent in cron's environment: no HOME, a short PATH.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-agent"));
        command.env_clear().env("PATH", "/usr/bin:/bin").args(arguments);
        command.arg("-c").arg(self.path("agent.toml")).current_dir("/");
        command
    }

    pub fn agent(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the agent, which must end with `code`; returns what it printed and logged.
    pub fn expect(&self, arguments: &[&str], code: i32) -> String {
        let output = self.agent(arguments);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn status(&self) -> serde_json::Value {
        let output = self.agent(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
    }

    /// Ids of the files in `spool` or `sent`.
    pub fn spooled(&self, half: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.state().join(half)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().replace(".json", "")).collect();
        names.sort();
        names
    }

    /// Waits until no run of any instance is under way.
    pub fn wait_until_quiet(&self) {
        wait_until_blocking("no script runs", SOON, || {
            let status = self.status();
            status["instances"].as_array().unwrap().iter().all(|instance| instance["running"] == false)
        });
    }

    pub fn queue(&self) -> Queue {
        Queue::new(RedisLink::new(&RedisConfig { address: self.redis.address(), ..RedisConfig::default() }))
    }

    /// Entries of an inbox, oldest first.
    pub fn inbox(&self, queue: &str) -> Vec<Job> {
        let entries: Vec<String> =
            redis::cmd("LRANGE").arg(queue).arg(0).arg(-1).query(&mut self.redis.connection()).unwrap();
        entries.iter().rev().map(|entry| serde_json::from_str(entry).unwrap()).collect()
    }

    fn stream(&self, kind: &str) -> Vec<String> {
        type Entry = (String, Vec<String>);
        let entries: Vec<Entry> = redis::cmd("XRANGE")
            .arg("longshore:reports")
            .arg("-")
            .arg("+")
            .query(&mut self.redis.connection())
            .unwrap();
        let field = |fields: &[String], name: &str| {
            fields.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone()).unwrap_or_default()
        };
        let bodies = entries.iter().filter(|(_, fields)| field(fields, "kind") == kind);
        bodies.map(|(_, fields)| field(fields, "body")).collect()
    }

    pub fn reports(&self) -> Vec<Report> {
        self.stream("report").iter().map(|body| serde_json::from_str(body).unwrap()).collect()
    }

    /// The only report that there is.
    pub fn only_report(&self) -> Report {
        let mut reports = self.reports();
        assert_eq!(reports.len(), 1, "{reports:?}");
        reports.remove(0)
    }

    pub fn beats(&self) -> Vec<HostBeat> {
        self.stream("host_beat").iter().map(|body| serde_json::from_str(body).unwrap()).collect()
    }

    /// A node that stores everything that waits. Returns the jobs, in the order it got them.
    pub fn drain(&self) -> Vec<Job> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (queue, node_id) = (self.queue(), NodeId::new("1").unwrap());
            let levels = ["level1", "urgent"].map(|name| Level::new(QueueName::new(name).unwrap()));
            let mut jobs = Vec::new();
            loop {
                queue.admit(&levels, 1000).await.unwrap();
                let request = ClaimRequest {
                    node_id: &node_id,
                    request_id: uuid::Uuid::now_v7(),
                    levels: &levels,
                    room: Room { bytes: u64::MAX, inodes: u64::MAX, ceiling_bytes: u64::MAX },
                    weight: 1,
                    free_slots: 1,
                    lease: Duration::from_secs(60),
                    host: HostLimits { transfers: 1000, starts_per_second: 0.0 },
                    batch: BatchLimit { jobs: 1, bytes: 0 },
                };
                let Claimed::Jobs(leases) = queue.claim(&request).await.unwrap() else { return jobs };
                let lease = leases.into_iter().next().unwrap();
                let mut report: Report =
                    serde_json::from_str(include_str!("../../../core/fixtures/report-v1.json")).unwrap();
                (report.job, report.revision) = (lease.job.clone(), lease.revision);
                (report.outcome, report.node_id) = (Outcome::Stored, Some(node_id.clone()));
                queue.settle(&lease, &report, End::Final).await.unwrap();
                jobs.push(lease.job);
            }
        })
    }

    /// Makes every end that the host's mailbox tells 11 s older: an agent leaves a younger one for its next run.
    pub fn age_ends(&self) {
        const AGE: &str = r"
            for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
              local report, written = string.match(redis.call('HGET', KEYS[1], name), '^(.*) (%d+)$')
              local entry = string.format('%s %.0f', report, tonumber(written) - 11000000)
              redis.call('HSET', KEYS[1], name, entry)
              redis.call('SET', 'longshore:ended:' .. name, entry, 'XX', 'KEEPTTL')
            end";
        let mailbox = format!("longshore:mailbox:{SERVER}");
        redis::cmd("EVAL").arg(AGE).arg(1).arg(mailbox).exec(&mut self.redis.connection()).unwrap();
    }

    /// Jobs whose report the host's mailbox still tells.
    pub fn mailbox(&self) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { self.queue().mailbox(&SERVER.parse().unwrap()).await.unwrap().len() })
    }
}

/// Everything that a program wrote.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether a process runs (a zombie does not).
pub fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}
