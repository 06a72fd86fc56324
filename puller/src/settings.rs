//! The node's configuration: native TOML, and the seed's server file, which needs nothing added.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use longshore_core::{
    BackupType, NodeId, QueueName, ServerId,
    calendar::{RatePlan, Window},
    config::{
        ByteSize, ConfigArgs, ConfigError, Loaded, Problem, Program, RedisConfig, Secret, SeedMap, SeedTo, Setting,
        Span, load, seed_key,
    },
    job::{HostAddress, ModuleName},
    policy::{ClusterRule, HostRule, NodeRule, PerSecond, QueueRule, Rules, TypeRule},
    queue::BatchLimit,
    telemetry::LogConfig,
};
use serde::{Deserialize, Serialize};

use crate::space::Reserve;

/// What the loader must know of this program.
pub const PROGRAM: Program = Program {
    name: "longshore-puller",
    default_files: &["/etc/longshore/puller.toml", "/etc/uuzuback.conf"],
    seed: Some(&SEED),
};

const SEED: SeedMap = SeedMap {
    global: &[
        seed_key("node_id", SeedTo::Key("node_id")),
        seed_key("work_thread", SeedTo::Key("slots")),
        seed_key("retry", SeedTo::Key("retry")),
        seed_key("interval", SeedTo::Key("rest")),
        seed_key("redis_queue", SeedTo::Words("queues")),
        seed_key("redis_host", SeedTo::Host("redis.address")),
        seed_key("redis_port", SeedTo::Port("redis.address")),
        seed_key("server_root_path", SeedTo::Key("store.path")),
        seed_key("reserve", SeedTo::Gib("store.reserve")),
        seed_key("rsync_bwlimit", SeedTo::Kib("rsync.bwlimit")),
        seed_key("myip", SeedTo::Key("serve.address")),
        seed_key("log", SeedTo::Key("log.file")),
        seed_key("error_log", SeedTo::Key("log.error_file")),
        seed_key("message_redis_host", SeedTo::Ignored("reports go to a stream on the queue's own Redis")),
        seed_key("message_redis_port", SeedTo::Ignored("reports go to a stream on the queue's own Redis")),
        seed_key("message_queue", SeedTo::Ignored("reports go to a stream on the queue's own Redis")),
        seed_key("mysqlkeeptime", SeedTo::Ignored("reserved in UBackup, never used")),
        seed_key("rediskeeptime", SeedTo::Ignored("reserved in UBackup, never used")),
    ],
    sections: None,
};

/// Everything a node is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Which node this is; no two may share one.
    pub node_id: NodeId,
    /// Levels to drain, most important first.
    pub queues: Vec<QueueName>,
    /// Share of the stream; 0 drains.
    #[serde(default = "defaults::weight")]
    pub weight: u32,
    /// For all its transfers from hosts together.
    #[serde(default)]
    pub bandwidth: Option<RatePlan>,
    /// For all restores from it together.
    #[serde(default)]
    pub restore_bandwidth: Option<RatePlan>,
    /// When it claims jobs of levels that are not urgent.
    #[serde(default)]
    pub window: Option<Window>,
    /// Transfers at once.
    #[serde(default = "defaults::slots")]
    pub slots: u32,
    /// Transfers begun for a job before it is given up and kept for a person.
    #[serde(default = "defaults::retry")]
    pub retry: u32,
    /// Wait before the second transfer of a job; doubled for each one after.
    #[serde(default = "defaults::retry_delay")]
    pub retry_delay: Span,
    /// How long transfers may go on after TERM.
    #[serde(default = "defaults::drain")]
    pub drain: Span,
    /// Rest of a slot after each job.
    #[serde(default)]
    pub rest: Span,
    /// How long a claim is good without a renewal; renewed at a third of it.
    #[serde(default = "defaults::lease")]
    pub lease: Span,
    /// Where backups are kept.
    pub store: StoreSettings,
    /// Rules of levels, by their names.
    #[serde(default)]
    pub levels: BTreeMap<QueueName, QueueRule>,
    /// Rules of types of backup.
    #[serde(default)]
    pub types: BTreeMap<BackupType, TypeRule>,
    /// Rules of hosts, by `server_id`. The same on all nodes.
    #[serde(default)]
    pub hosts: BTreeMap<ServerId, HostRule>,
    /// What all nodes have together. The same on all nodes.
    #[serde(default)]
    pub cluster: ClusterRule,
    /// The queue.
    #[serde(default)]
    pub redis: RedisConfig,
    /// How files are fetched.
    #[serde(default)]
    pub rsync: RsyncSettings,
    /// The ssh transport.
    #[serde(default)]
    pub ssh: SshSettings,
    /// Roots of the local transport, by the module name that jobs say.
    #[serde(default)]
    pub local_modules: LocalModules,
    /// Serving stored files for restore.
    #[serde(default)]
    pub serve: ServeSettings,
    /// Metrics and health.
    #[serde(default)]
    pub status: StatusSettings,
    /// Logs.
    #[serde(default)]
    pub log: LogConfig,
}

/// Roots of the local transport.
pub type LocalModules = BTreeMap<String, PathBuf>;

mod defaults {
    use longshore_core::config::Span;

    pub(super) fn weight() -> u32 {
        100
    }
    pub(super) fn slots() -> u32 {
        4
    }
    pub(super) fn retry() -> u32 {
        3
    }
    pub(super) fn retry_delay() -> Span {
        Span::seconds(10)
    }
    pub(super) fn drain() -> Span {
        Span::seconds(60)
    }
    pub(super) fn lease() -> Span {
        Span::seconds(60)
    }
    pub(super) fn reserve() -> crate::space::Reserve {
        crate::space::Reserve::Percent(5)
    }
    pub(super) fn yes() -> bool {
        true
    }
    pub(super) fn hang() -> Span {
        Span::seconds(60)
    }
    pub(super) fn stale_after() -> Span {
        Span::seconds(72 * 3600)
    }
    pub(super) fn keep_aside() -> Span {
        Span::seconds(30 * 24 * 3600)
    }
}

/// `[store]`: where backups are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreSettings {
    /// The folder; absolute.
    pub path: PathBuf,
    /// Space kept free on its file system: `"1000GiB"`, `"5%"`, or bytes.
    #[serde(default = "defaults::reserve")]
    pub reserve: Reserve,
    /// Whether an empty folder is made a store at the node's first start. Never when `/etc/fstab` has a file system for it that is
    /// not mounted, nor for a node that the cluster has heard of before: its disk is away.
    #[serde(default = "defaults::yes")]
    pub create: bool,
    /// A disk that takes nothing for this long hangs: nothing is claimed, and what is under way is given to other nodes.
    #[serde(default = "defaults::hang")]
    pub hang: Span,
    /// Partials that nobody came back for are removed after this.
    #[serde(default = "defaults::stale_after")]
    pub stale_after: Span,
    /// What was set aside for a person (not what was announced, or settled by another node) is removed after this.
    #[serde(default = "defaults::keep_aside")]
    pub keep_aside: Span,
    /// Space that what was set aside may take; beyond it the oldest is removed, though nothing within its first day.
    #[serde(default = "defaults::reserve")]
    pub keep_aside_space: Reserve,
}

/// Each is listed in the heartbeat, and holds its folder open.
const MOST_BATCH_JOBS: u32 = 512;

/// `[rsync]`: how files are fetched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct RsyncSettings {
    /// The rsync to run.
    pub program: PathBuf,
    /// rsync's own limit of silence.
    pub timeout: Span,
    /// Our limit of silence: a transfer for which no byte arrived for this long is ended.
    pub stall: Span,
    /// Limit a second for each rsync process; 0 is none.
    pub bwlimit: ByteSize,
    /// Accept an rsync below the safe version.
    pub allow_unpatched: bool,
    /// Transfers at once from a host that has no rule of its own, over all nodes.
    pub host_limit: u32,
    /// Small files of one host's module that one session may fetch; 1: each by its own.
    pub batch_jobs: u32,
    /// Bytes of all of them.
    pub batch_bytes: ByteSize,
    /// Rest of a host that is down or refuses; doubled for each failure in a row, up to `host_rest_longest`.
    pub host_rest: Span,
    /// The longest rest of a host.
    pub host_rest_longest: Span,
    /// A job that its host has refused each time it was tried, for this long, is given up and kept for a person.
    pub give_up_host: Span,
    /// Transfers begun a second from such a host, over all nodes; without it, as many as come.
    pub host_starts_per_second: Option<PerSecond>,
    /// Logins of daemon modules.
    pub secrets: Secrets,
}

impl Default for RsyncSettings {
    fn default() -> Self {
        Self {
            program: PathBuf::from("rsync"),
            timeout: Span::seconds(120),
            stall: Span::seconds(180),
            bwlimit: ByteSize(0),
            allow_unpatched: false,
            host_limit: 2,
            batch_jobs: 64,
            batch_bytes: ByteSize::kib(32 * 1024),
            host_rest: Span::seconds(5),
            host_rest_longest: Span::seconds(300),
            give_up_host: Span::seconds(24 * 3600),
            host_starts_per_second: None,
            secrets: Secrets::default(),
        }
    }
}

impl RsyncSettings {
    /// The login for a module of a host: the first entry that fits.
    pub fn secret_of(&self, host: &HostAddress, module: &ModuleName) -> Option<&ModuleSecret> {
        let fits = |pattern: &str, text: &str| pattern == "*" || pattern == text;
        self.secrets.0.iter().find(|secret| fits(&secret.host, host.as_str()) && fits(&secret.module, module.as_str()))
    }
}

/// `[[rsync.secrets]]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(pub Vec<ModuleSecret>);

/// One login.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModuleSecret {
    /// The host's address as jobs say it, or `*`.
    pub host: String,
    /// The module, or `*`.
    #[serde(default = "any")]
    pub module: String,
    /// Name of the login.
    pub user: String,
    /// Its password, or `password_file`.
    pub password: Secret,
}

fn any() -> String {
    "*".to_owned()
}

/// `[ssh]`: the ssh transport.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct SshSettings {
    /// The ssh to run.
    pub program: PathBuf,
    /// Login on the hosts; without it, jobs over ssh are given back.
    pub user: Option<String>,
    /// Private key.
    pub key: Option<PathBuf>,
    /// Known hosts; a host that is not in it is refused.
    pub known_hosts: Option<PathBuf>,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self { program: PathBuf::from("ssh"), user: None, key: None, known_hosts: None }
    }
}

/// `[serve]`: stored files for restore.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct ServeSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How others reach it: `host`, `host:port` or a URL. Without it, this machine's name.
    pub address: Option<String>,
    /// Key that restore tokens are signed with (`restore.pub` of the dashboard); without it nothing is served.
    pub public_key: Option<String>,
    /// The file that holds it.
    pub public_key_file: Option<PathBuf>,
    /// Downloads for restores at once; as many for copies that other nodes fetch.
    pub slots: usize,
}

impl Default for ServeSettings {
    fn default() -> Self {
        let listen = SocketAddr::from(([0, 0, 0, 0], 7480));
        Self { listen, address: None, public_key: None, public_key_file: None, slots: 8 }
    }
}

/// `[status]`: metrics and health.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusSettings {
    /// Where to listen.
    pub listen: SocketAddr,
}

impl Default for StatusSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7481)) }
    }
}

impl Settings {
    /// How much one claim may bring. With a rest after each job, only one.
    pub fn batch(&self) -> BatchLimit {
        let jobs = if self.rest.duration().is_zero() { self.rsync.batch_jobs } else { 1 };
        BatchLimit { jobs, bytes: self.rsync.batch_bytes.bytes() }
    }

    /// What the file says of what the registry may say too.
    pub fn rules(&self) -> Rules {
        let node = NodeRule {
            weight: Some(self.weight),
            bandwidth: self.bandwidth.clone(),
            restore_bandwidth: self.restore_bandwidth.clone(),
            window: self.window.clone(),
        };
        Rules {
            cluster: self.cluster.clone(),
            queues: self.levels.clone(),
            types: self.types.clone(),
            nodes: BTreeMap::from([(self.node_id.clone(), node)]),
            hosts: self.hosts.clone(),
        }
    }
}

/// Loads and checks the configuration.
///
/// # Errors
/// [`ConfigError`] with every problem.
pub fn read(args: &ConfigArgs, flags: &[Setting]) -> Result<Loaded<Settings>, ConfigError> {
    let loaded = load::<Settings>(&PROGRAM, args, flags)?;
    let problems = problems(&loaded);
    if problems.is_empty() { Ok(loaded) } else { Err(problems.into()) }
}

fn problems(loaded: &Loaded<Settings>) -> Vec<Problem> {
    let settings = &loaded.value;
    let mut problems = Vec::new();
    let mut wrong = |key: &str, what: &str| problems.push(loaded.problem(key, what));
    if settings.queues.is_empty() {
        wrong("queues", "name at least one queue, such as [\"level1\", \"level2\"]");
    }
    for level in settings.levels.keys().filter(|level| !settings.queues.contains(level)) {
        wrong(&format!("levels.{level}"), "is not one of queues");
    }
    if settings.slots == 0 {
        wrong("slots", "0 transfers at once would do nothing; to drain a node set weight = 0");
    }
    if settings.retry == 0 {
        wrong("retry", "a job needs at least one attempt");
    }
    if !settings.store.path.is_absolute() {
        wrong("store.path", "must be absolute");
    }
    if settings.store.hang.duration().as_secs() < 5 {
        wrong("store.hang", "must be at least 5s: a disk that is only busy would count as one that hangs");
    }
    if settings.lease.duration().as_secs() < 3 {
        wrong("lease", "must be at least 3s: it is renewed at a third of it");
    }
    if settings.rsync.host_limit == 0 {
        wrong("rsync.host_limit", "0 transfers from a host would fetch nothing");
    }
    if settings.rsync.batch_jobs == 0 || settings.rsync.batch_jobs > MOST_BATCH_JOBS {
        wrong("rsync.batch_jobs", &format!("1 to {MOST_BATCH_JOBS}; 1 fetches each file by its own session"));
    }
    if settings.rsync.host_rest.duration().is_zero() {
        wrong("rsync.host_rest", "must be more than 0: a host that is down would be asked without a pause");
    }
    if settings.rsync.stall.duration().is_zero() {
        wrong("rsync.stall", "must be more than 0");
    }
    for (index, secret) in settings.rsync.secrets.0.iter().enumerate() {
        let safe = |c: char| c.is_alphanumeric() || "._-".contains(c);
        if secret.user.is_empty() || secret.user.starts_with('-') || !secret.user.chars().all(safe) {
            wrong(&format!("rsync.secrets.{index}.user"), "letters, digits and ._- only");
        }
    }
    if let Some(user) = &settings.ssh.user
        && (user.is_empty() || user.starts_with('-') || !user.chars().all(|c| c.is_alphanumeric() || "._-".contains(c)))
    {
        wrong("ssh.user", "letters, digits and ._- only");
    }
    let ssh_paths = [("ssh.program", Some(&settings.ssh.program)), ("ssh.key", settings.ssh.key.as_ref())];
    for (key, path) in ssh_paths.into_iter().chain([("ssh.known_hosts", settings.ssh.known_hosts.as_ref())]) {
        let blank = |c: char| c.is_whitespace() || c == '"' || c == '\'';
        if path.is_some_and(|path| path.to_string_lossy().chars().any(blank)) {
            wrong(key, "a path with blanks or quotes can't be handed to rsync's remote shell option");
        }
    }
    for (name, root) in &settings.local_modules {
        if ModuleName::new(name).is_err() || !root.is_absolute() {
            wrong(&format!("local_modules.{name}"), "must be NAME = \"/absolute/path\"");
        }
    }
    if settings.serve.public_key.is_some() && settings.serve.public_key_file.is_some() {
        wrong("serve.public_key_file", "give public_key or public_key_file, not both");
    }
    problems
}

#[cfg(test)]
impl Secrets {
    /// One entry.
    pub(crate) fn one(host: &str, module: &str, user: &str, password: &str) -> Self {
        Self(vec![ModuleSecret {
            host: host.to_owned(),
            module: module.to_owned(),
            user: user.to_owned(),
            password: Secret::new(password),
        }])
    }
}

#[cfg(test)]
mod tests;
