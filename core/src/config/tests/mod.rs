//! The loader as a program uses it: files in a folder, an environment, flags.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use serde::Deserialize;

use super::*;
use crate::{InstanceName, QueueName, ServerId};

mod anything;
mod layers;
mod problems;
mod secrets;
mod seed_files;

#[derive(Debug, Serialize, Deserialize)]
struct Host {
    server_id: ServerId,
    #[serde(default = "hour")]
    interval: Span,
    #[serde(default)]
    queue: Option<QueueName>,
    #[serde(default)]
    redis: RedisConfig,
    #[serde(default)]
    log: crate::telemetry::LogConfig,
    #[serde(default)]
    instance: BTreeMap<String, Instance>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Instance {
    #[serde(rename = "type")]
    backup_type: String,
    instance: InstanceName,
    back_log: PathBuf,
    #[serde(default)]
    last_all_log: Option<PathBuf>,
    script: String,
}

fn hour() -> Span {
    Span::seconds(3600)
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
struct Node {
    node_id: String,
    queues: Vec<QueueName>,
    slots: u16,
    ratio: f64,
    verify: Verify,
    reserve: ByteSize,
    rate: Option<ByteSize>,
    rest: Span,
    redis: RedisConfig,
    import: Import,
    serve: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Import {
    redis: Option<String>,
    queue: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verify {
    Received,
    Reread,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            node_id: "1".to_owned(),
            queues: Vec::new(),
            slots: 4,
            ratio: 1.0,
            verify: Verify::Received,
            reserve: ByteSize::gib(10),
            rate: None,
            rest: Span::seconds(0),
            redis: RedisConfig::default(),
            import: Import::default(),
            serve: false,
        }
    }
}

const HOST: Program = Program {
    name: "longshore-agent",
    default_files: &["/nowhere/agent.toml", "/nowhere/uuzuback.conf"],
    seed: Some(&SeedMap {
        global: &[
            seed_key("server_id", SeedTo::Key("server_id")),
            seed_key("game_id", SeedTo::Ignored("not needed by this test")),
            seed_key("op_id", SeedTo::Ignored("reserved")),
            seed_key("interval", SeedTo::Key("interval")),
            seed_key("redis_host", SeedTo::Host("redis.address")),
            seed_key("redis_port", SeedTo::Port("redis.address")),
            seed_key("redis_queue", SeedTo::Key("queue")),
            seed_key("my_ip", SeedTo::Ignored("not needed by this test")),
            seed_key("log", SeedTo::Key("log.file")),
            seed_key("error_log", SeedTo::Key("log.error_file")),
        ],
        sections: Some(SeedSections {
            table: "instance",
            keys: &[
                seed_key("back_type", SeedTo::Key("type")),
                seed_key("instance", SeedTo::Key("instance")),
                seed_key("rsync_model", SeedTo::Ignored("not needed by this test")),
                seed_key("back_dir", SeedTo::Ignored("not needed by this test")),
                seed_key("back_log", SeedTo::Key("back_log")),
                seed_key("last_all_log", SeedTo::Key("last_all_log")),
                seed_key("script", SeedTo::Key("script")),
            ],
        }),
    }),
};

const NODE: Program = Program {
    name: "longshore-puller",
    default_files: &[],
    seed: Some(&SeedMap {
        global: &[
            seed_key("work_thread", SeedTo::Key("slots")),
            seed_key("rsync_bwlimit", SeedTo::Kib("rate")),
            seed_key("server_root_path", SeedTo::Ignored("not needed by this test")),
            seed_key("reserve", SeedTo::Gib("reserve")),
            seed_key("interval", SeedTo::Key("rest")),
            seed_key("redis_host", SeedTo::Host("redis.address")),
            seed_key("redis_port", SeedTo::Port("redis.address")),
            seed_key("redis_queue", SeedTo::Words("queues")),
            seed_key("log", SeedTo::Ignored("not needed by this test")),
            seed_key("error_log", SeedTo::Ignored("not needed by this test")),
            seed_key("myip", SeedTo::Ignored("not needed by this test")),
            seed_key("retry", SeedTo::Ignored("not needed by this test")),
            seed_key("message_redis_host", SeedTo::Host("import.redis")),
            seed_key("message_redis_port", SeedTo::Port("import.redis")),
            seed_key("message_queue", SeedTo::Key("import.queue")),
            seed_key("mysqlkeeptime", SeedTo::Ignored("reserved")),
            seed_key("rediskeeptime", SeedTo::Ignored("reserved")),
            seed_key("node_id", SeedTo::Key("node_id")),
        ],
        sections: None,
    }),
};

/// A folder with files in it, an environment and flags.
struct Case {
    folder: tempfile::TempDir,
    environment: Vec<(OsString, OsString)>,
    set: Vec<Setting>,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let case = Self { folder, environment: Vec::new(), set: Vec::new() };
        for (name, text) in files {
            let path = case.path(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn set(mut self, text: &str) -> Self {
        self.set.push(text.parse().expect("KEY=VALUE"));
        self
    }

    fn load<T: DeserializeOwned>(&self, program: &Program, main: &str) -> Result<Loaded<T>, ConfigError> {
        let args = ConfigArgs { file: Some(self.path(main)), set: self.set.clone() };
        load_with(program, &args, &[], self.environment.clone())
    }

    /// What is wrong, with the folder's name taken out.
    fn wrong<T: DeserializeOwned + std::fmt::Debug>(&self, program: &Program, main: &str) -> String {
        let error = self.load::<T>(program, main).expect_err("something is wrong");
        error.to_string().replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn shown<T: DeserializeOwned + Serialize>(&self, program: &Program, main: &str) -> String {
        let loaded = self.load::<T>(program, main).unwrap_or_else(|error| panic!("{error}"));
        let shown = loaded.show(true).expect("shown");
        shown.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

const CLIENT: &str = include_str!("../../../fixtures/seed-client.conf");
const CLIENT_PLAIN: &str = include_str!("../../../fixtures/seed-client-plain.conf");
const SERVER: &str = include_str!("../../../fixtures/seed-server.conf");
const SERVER_PLAIN: &str = include_str!("../../../fixtures/seed-server-plain.conf");
