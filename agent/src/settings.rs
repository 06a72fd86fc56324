//! The agent's configuration: `/etc/longshore/agent.toml`, or a file of the seed, which loads unchanged.
//!
//! ```toml
//! server_id = "111111"
//! business_id = "31"
//! address = "10.0.0.1"            # this host, as storage nodes reach it
//! queue = "level1"
//!
//! [redis]
//! address = "10.0.0.5:6379"
//!
//! [instance.mysql3306]
//! type = "mysql"
//! instance = "3306"
//! script = "sh /usr/local/longshore/mysql-backup /etc/my.cnf"
//! back_dir = "/data/backup/database_3306"
//! back_log = "/var/log/mysql_3306.log"
//! last_all_log = "/var/log/last_3306.log"
//! rsync_module = "backup/database_3306"
//! ```

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use longshore_core::{
    BackupType, BusinessId, InstanceName, QueueName, RelativePath, ServerId, Transport,
    config::{ConfigError, Loaded, Program, RedisConfig, Secret, SeedMap, SeedSections, SeedTo, Span, seed_key},
    digest::DigestChoice,
    job::{HostAddress, ModuleName},
    telemetry::LogConfig,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    chain_state::ChainKind,
    plan::{Place, Plan},
};

/// How the loader finds and reads it.
pub const PROGRAM: Program = Program {
    name: "longshore-agent",
    default_files: &["/etc/longshore/agent.toml", "/etc/uuzuback.conf"],
    seed: Some(&SEED),
};

const SEED: SeedMap = SeedMap {
    global: &[
        seed_key("server_id", SeedTo::Key("server_id")),
        seed_key("game_id", SeedTo::Key("business_id")),
        seed_key("op_id", SeedTo::Key("op_id")),
        seed_key("interval", SeedTo::Key("interval")),
        seed_key("redis_host", SeedTo::Host("redis.address")),
        seed_key("redis_port", SeedTo::Port("redis.address")),
        seed_key("redis_queue", SeedTo::Key("queue")),
        seed_key("my_ip", SeedTo::Key("address")),
        seed_key("log", SeedTo::Key("log.file")),
        seed_key("error_log", SeedTo::Key("log.error_file")),
    ],
    sections: Some(SeedSections {
        table: "instance",
        keys: &[
            seed_key("back_type", SeedTo::Key("type")),
            seed_key("instance", SeedTo::Key("instance")),
            seed_key("rsync_model", SeedTo::Key("rsync_module")),
            seed_key("back_dir", SeedTo::Key("back_dir")),
            seed_key("back_log", SeedTo::Key("back_log")),
            seed_key("last_all_log", SeedTo::Key("last_all_log")),
            seed_key("script", SeedTo::Key("script")),
            seed_key("interval", SeedTo::Key("interval")),
        ],
    }),
};

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// This host.
    pub server_id: ServerId,
    /// The product line of its instances.
    pub business_id: BusinessId,
    /// This host, as storage nodes reach it.
    pub address: HostAddress,
    /// The level that jobs wait in.
    #[serde(default = "default_queue")]
    pub queue: QueueName,
    /// How often instances are backed up; cron decides when, this says when one is late.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// Spool, locks, and what is remembered of each instance. One folder for one queue Redis.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Scripts at once.
    #[serde(default = "default_parallel")]
    pub parallel: u16,
    /// Between the starts of two scripts.
    #[serde(default = "default_stagger")]
    pub stagger: Span,
    /// A script that takes longer is ended, with everything it started.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Digests made of each backup: none, xxh3, blake3, both.
    #[serde(default)]
    pub digest: DigestChoice,
    /// How nodes fetch: rsync_daemon, ssh, local.
    #[serde(default = "default_transport")]
    pub transport: Transport,
    /// A key of the seed that nothing uses.
    #[serde(default)]
    pub op_id: Option<String>,
    /// The queue.
    #[serde(default)]
    pub redis: RedisConfig,
    /// This host's rsync daemon.
    #[serde(default)]
    pub rsyncd: RsyncdSettings,
    /// Logs.
    #[serde(default)]
    pub log: LogConfig,
    /// What `submit` may hand over beside the instances' own folders.
    #[serde(default)]
    pub submit: Option<SubmitSettings>,
    /// What is backed up, by the section's name.
    #[serde(default)]
    pub instance: BTreeMap<String, InstanceSettings>,
}

/// `[rsyncd]`: this host's rsync daemon.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RsyncdSettings {
    /// Its port; without one, 873.
    pub port: Option<u16>,
    /// Where `check` asks it; without one, 127.0.0.1.
    pub check_address: Option<HostAddress>,
    /// The user that `check` logs in as, for modules with a secret.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<Secret>,
}

/// `[submit]`: a folder whose files any caller may hand over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubmitSettings {
    /// The folder.
    pub back_dir: PathBuf,
    /// Where nodes find it.
    pub rsync_module: RsyncModule,
}

/// `[instance.NAME]`: one thing backed up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceSettings {
    /// What kind.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// Which one; for databases, the port.
    pub instance: InstanceName,
    /// A shell command line.
    pub script: String,
    /// Where the script puts its files.
    pub back_dir: PathBuf,
    /// What the script says of its result.
    pub back_log: PathBuf,
    /// What the script says of its last full; without it every backup stands alone.
    #[serde(default)]
    pub last_all_log: Option<PathBuf>,
    /// `module` or `module/sub/dir`: where nodes find `back_dir`.
    pub rsync_module: RsyncModule,
    /// incremental (each needs all since the full) or differential (each needs the full alone).
    #[serde(default)]
    pub chain: ChainKind,
    /// Instead of the global one.
    #[serde(default)]
    pub interval: Option<Span>,
    /// Instead of the global one.
    #[serde(default)]
    pub queue: Option<QueueName>,
    /// Instead of the global one.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Instead of the global one.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// Instead of the global one.
    #[serde(default)]
    pub digest: Option<DigestChoice>,
}

fn default_queue() -> QueueName {
    QueueName::new("longshore").unwrap_or_else(|_| unreachable!("letters are a queue's name"))
}

fn default_interval() -> Span {
    Span::seconds(3600)
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/longshore/agent")
}

fn default_parallel() -> u16 {
    4
}

fn default_stagger() -> Span {
    Span::seconds(2)
}

fn default_timeout() -> Span {
    Span::seconds(6 * 3600)
}

fn default_transport() -> Transport {
    Transport::RsyncDaemon
}

/// `module` or `module/sub/dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsyncModule {
    /// The module.
    pub module: ModuleName,
    /// The folder inside it.
    pub folder: Option<RelativePath>,
}

impl FromStr for RsyncModule {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        let (module, folder) = match text.split_once('/') {
            Some((module, folder)) => (module, Some(folder)),
            None => (text, None),
        };
        let folder = folder.map(RelativePath::new).transpose().map_err(|error| error.to_string())?;
        Ok(Self { module: ModuleName::new(module).map_err(|error| error.to_string())?, folder })
    }
}

impl fmt::Display for RsyncModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.folder {
            Some(folder) => write!(f, "{}/{folder}", self.module),
            None => write!(f, "{}", self.module),
        }
    }
}

impl Serialize for RsyncModule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RsyncModule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Settings {
    /// What only the agent can see to be wrong.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn verify(loaded: &Loaded<Self>) -> Result<(), ConfigError> {
        let settings = &loaded.value;
        let mut problems = Vec::new();
        if settings.parallel == 0 {
            problems.push(loaded.problem("parallel", "0 would run nothing; write 1 or more"));
        }
        let mut paths = vec![("state_dir".to_owned(), &settings.state_dir)];
        paths.extend(settings.submit.iter().map(|submit| ("submit.back_dir".to_owned(), &submit.back_dir)));
        let mut seen = BTreeMap::new();
        for (name, instance) in &settings.instance {
            let key = |key: &str| format!("instance.{name}.{key}");
            paths.push((key("back_dir"), &instance.back_dir));
            paths.push((key("back_log"), &instance.back_log));
            paths.extend(instance.last_all_log.iter().map(|path| (key("last_all_log"), path)));
            if instance.script.trim().is_empty() {
                problems.push(loaded.problem(&key("script"), "empty; write a shell command line"));
            }
            if instance.timeout.unwrap_or(settings.timeout).duration().is_zero() {
                problems.push(loaded.problem(&key("timeout"), "0 would end every script at once; write 6h, or 30d"));
            }
            if instance.last_all_log.as_ref() == Some(&instance.back_log) {
                problems.push(loaded.problem(&key("last_all_log"), "the same file as back_log"));
            }
            if let Some(first) = seen.insert((&instance.backup_type, &instance.instance), name) {
                let what = format!("[{first}] has the same type and instance; each pair may be used once");
                problems.push(loaded.problem(&key("instance"), what));
            }
        }
        for (key, path) in paths {
            if !path.is_absolute() {
                let what = format!("{} is relative, and cron runs in another folder; begin it with /", path.display());
                problems.push(loaded.problem(&key, what));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.into()) }
    }

    /// The plans of `wanted` sections, of all when none is named, in the order of their names.
    ///
    /// # Errors
    /// The first name that no section has.
    pub fn plans(&self, wanted: &[String]) -> Result<Vec<Plan>, String> {
        if let Some(unknown) = wanted.iter().find(|name| !self.instance.contains_key(*name)) {
            return Err(unknown.clone());
        }
        let is_wanted = |name: &&String| wanted.is_empty() || wanted.contains(name);
        let sections = self.instance.iter().filter(|(name, _)| is_wanted(name));
        Ok(sections.map(|(name, instance)| self.plan(name, instance)).collect())
    }

    fn plan(&self, name: &str, instance: &InstanceSettings) -> Plan {
        let place = self.place(&instance.rsync_module, instance.transport.unwrap_or(self.transport));
        Plan {
            section: name.to_owned(),
            server_id: self.server_id.clone(),
            backup_type: instance.backup_type.clone(),
            instance: instance.instance.clone(),
            business_id: self.business_id.clone(),
            queue: instance.queue.clone().unwrap_or_else(|| self.queue.clone()),
            interval_seconds: instance.interval.unwrap_or(self.interval).duration().as_secs(),
            place,
            back_dir: instance.back_dir.clone(),
            back_log: instance.back_log.clone(),
            last_all_log: instance.last_all_log.clone(),
            chain: instance.chain,
            script: instance.script.clone(),
            timeout: instance.timeout.unwrap_or(self.timeout).duration(),
            digest: instance.digest.unwrap_or(self.digest),
        }
    }

    /// Where nodes find the folder behind `module`.
    pub fn place(&self, module: &RsyncModule, transport: Transport) -> Place {
        Place {
            transport,
            address: self.address.clone(),
            port: self.rsyncd.port.filter(|_| transport == Transport::RsyncDaemon),
            module: module.module.clone(),
            folder: module.folder.clone(),
        }
    }
}
