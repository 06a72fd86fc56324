//! The seed's messages (UBackup), accepted as they are and never written. A success becomes a job, a failure a report.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    ChainLink, ChainPosition, Content, ContentKind, FullBackup, Job, JobId, Millis, QueueName, ReasonCode,
    RelativePath, Source, Transport,
    digest::{DigestChoice, Hasher},
    job::{HostAddress, JOB_VERSION, ModuleName},
    report::Reason,
};

/// How often an instance is backed up when the message doesn't say, in seconds (the seed's default).
const DEFAULT_INTERVAL_SECONDS: u64 = 3600;

/// A seed message, field by field. Old clients write the text `None` for null.
#[derive(Debug, Clone, Deserialize)]
struct Message {
    success: bool,
    back_type: crate::BackupType,
    server_id: crate::ServerId,
    op_id: Option<Value>,
    game_id: crate::BusinessId,
    game_server_ip: String,
    instance: crate::InstanceName,
    create_time: f64,
    filename: Option<String>,
    size: Option<u64>,
    rsync_model: Option<String>,
    last_all_filename: Option<String>,
    last_all_time: Option<f64>,
    log: Option<String>,
    interval: Option<u64>,
}

/// What a seed message is.
#[derive(Debug, Clone, PartialEq)]
pub enum Seed {
    /// A backup to fetch.
    Job(Box<Job>),
    /// A failure on the host, to be reported.
    Failure {
        /// The run, without source and content.
        job: Box<Job>,
        /// The message's `log`.
        reason: Reason,
    },
}

/// Why a seed message is not a job.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A field is missing or of the wrong type.
    #[error("{0}")]
    Malformed(String),
    /// A field could leave its place. The job carries what is safe to say about the message.
    #[error("{reason}")]
    Unsafe {
        /// The job without source and content.
        job: Box<Job>,
        /// Which field, and why.
        reason: String,
    },
}

/// Whether this JSON object is a seed message: it has no version, and the seed's own fields.
pub fn is_seed_message(value: &Value) -> bool {
    value.get("v").is_none() && value.get("back_type").is_some() && value.get("success").is_some()
}

/// Maps a seed message that was found in `queue`.
///
/// The job's id is a hash of (server_id, type, instance, create_time, filename, success), so that the same message pushed
/// twice is one job.
///
/// # Errors
/// [`SeedError`] names the field.
pub fn read(value: Value, queue: &QueueName) -> Result<Seed, SeedError> {
    let message: Message =
        serde_path_to_error::deserialize(value).map_err(|error| SeedError::Malformed(error.to_string()))?;
    let filename = present(message.filename.as_deref());
    let made_at = seconds_field(message.create_time, "create_time")?;
    let mut job = Job {
        v: JOB_VERSION,
        id: content_id(&message, filename, made_at),
        server_id: message.server_id.clone(),
        backup_type: message.back_type.clone(),
        instance: message.instance.clone(),
        business_id: message.game_id.clone(),
        made_at,
        interval_seconds: message.interval.filter(|&seconds| seconds > 0).unwrap_or(DEFAULT_INTERVAL_SECONDS),
        queue: queue.clone(),
        source: None,
        content: None,
        chain: None,
        script: None,
        agent: None,
        signature: None,
        extra: message.op_id.iter().map(|op_id| ("op_id".to_owned(), op_id.clone())).collect(),
    };
    let log = present(message.log.as_deref()).unwrap_or_default();
    if !message.success {
        let text = if log.is_empty() { "the host reported a failure without a text" } else { log };
        return Ok(Seed::Failure { job: Box::new(job), reason: Reason::new(ReasonCode::SeedFailure, text) });
    }
    match fetchable(&message, filename, made_at) {
        Ok((source, chain)) => {
            job.source = Some(source);
            job.content = Some(Content {
                kind: ContentKind::File,
                size_bytes: message.size.unwrap_or(0),
                files: 1,
                folders: None,
                xxh3_128: None,
                blake3: None,
                extra: serde_json::Map::new(),
            });
            job.chain = Some(chain);
            Ok(Seed::Job(Box::new(job)))
        }
        Err(reason) => Err(SeedError::Unsafe { job: Box::new(job), reason }),
    }
}

/// Where the file is, and its place in a chain; or which field is not safe.
fn fetchable(message: &Message, filename: Option<&str>, made_at: Millis) -> Result<(Source, ChainLink), String> {
    let name = RelativePath::new(filename.unwrap_or_default()).map_err(|error| format!("filename: {error}"))?;
    let model = message.rsync_model.as_deref().unwrap_or_default().trim_matches('/');
    let (module, folder) = model.split_once('/').unwrap_or((model, ""));
    let path = if folder.is_empty() {
        name.clone()
    } else {
        RelativePath::new(folder)
            .and_then(|folder| folder.join(&name))
            .map_err(|error| format!("rsync_model: {error}"))?
    };
    let source = Source {
        transport: Transport::RsyncDaemon,
        address: HostAddress::new(&message.game_server_ip).map_err(|error| format!("game_server_ip: {error}"))?,
        port: None,
        module: ModuleName::new(module).map_err(|error| format!("rsync_model: {error}"))?,
        path,
        extra: serde_json::Map::new(),
    };
    // The seed's client names a full in the increments of it only. A message that names none is a full, which increments to come
    // may name, by its file and by the time of its run.
    let named = match present(message.last_all_filename.as_deref()) {
        Some(full_name) => RelativePath::new(full_name).map_err(|error| format!("last_all_filename: {error}"))?,
        None => name.clone(),
    };
    let position = if named == name { ChainPosition::Full } else { ChainPosition::Increment };
    let full_made_at = match message.last_all_time {
        Some(seconds) if seconds != 0.0 => {
            seconds_field(seconds, "last_all_time").map_err(|error| error.to_string())?
        }
        _ if position == ChainPosition::Full => made_at,
        _ => Millis(0),
    };
    let chain = ChainLink {
        position,
        full: FullBackup { name: named, made_at: full_made_at },
        previous: None,
        sequence: None,
        from: None,
        to: None,
        extra: serde_json::Map::new(),
    };
    Ok((source, chain))
}

/// Old clients write `None` for null.
fn present(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty() && *text != "None")
}

fn seconds_field(seconds: f64, field: &str) -> Result<Millis, SeedError> {
    // 253402300799 is the last second of the year 9999.
    if !(0.0..=253_402_300_799.0).contains(&seconds) {
        return Err(SeedError::Malformed(format!("{field}: {seconds} is not a time in Unix seconds")));
    }
    #[allow(clippy::cast_possible_truncation)] // in range by the check above
    Ok(Millis((seconds * 1000.0) as i64))
}

fn content_id(message: &Message, filename: Option<&str>, made_at: Millis) -> JobId {
    let mut hasher = Hasher::new(DigestChoice::Blake3);
    for part in [
        message.server_id.as_str(),
        message.back_type.as_str(),
        message.instance.as_str(),
        &made_at.0.to_string(),
        filename.unwrap_or_default(),
        if message.success { "1" } else { "0" },
    ] {
        hasher.update(part.as_bytes());
        hasher.update(b"\0");
    }
    let hex = hasher.finish().blake3.map(|digest| digest.to_string()).unwrap_or_default();
    JobId::from_content(made_at, u128::from_str_radix(&hex[..32], 16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn level1() -> QueueName {
        QueueName::new("level1").unwrap()
    }

    fn fixture(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_seed_increment_becomes_a_job() {
        let value = fixture(include_str!("../fixtures/seed-success.json"));
        assert!(is_seed_message(&value));
        let Seed::Job(job) = read(value.clone(), &level1()).unwrap() else { panic!("not a job") };
        let source = job.source.as_ref().unwrap();
        assert_eq!(source.module.as_str(), "backup");
        assert_eq!(source.path.as_str(), "database_3306/inc_20261120_03.xb");
        let chain = job.chain.as_ref().unwrap();
        assert_eq!(chain.position, ChainPosition::Increment);
        assert_eq!(chain.sequence, None);
        assert_eq!(job.key().to_string(), "111111/mysql/3306");
        // The same message again is the same job; another file of the same second is not.
        let Seed::Job(again) = read(value.clone(), &level1()).unwrap() else { panic!() };
        assert_eq!(again.id, job.id);
        assert_eq!(job.id.time(), job.made_at);
        let mut other = value;
        other["filename"] = "other.xb".into();
        let Seed::Job(other) = read(other, &level1()).unwrap() else { panic!() };
        assert_ne!(other.id, job.id);
    }

    #[test]
    fn a_seed_full_which_names_none_is_the_one_that_its_increments_name() {
        let increment = fixture(include_str!("../fixtures/seed-success.json"));
        let mut full = increment.clone();
        full["filename"] = increment["last_all_filename"].clone();
        full["create_time"] = increment["last_all_time"].clone();
        (full["last_all_filename"], full["last_all_time"]) = (Value::Null, 0.into());
        let chain = |value| match read(value, &level1()).unwrap() {
            Seed::Job(job) => (job.id, job.chain.unwrap()),
            Seed::Failure { .. } => panic!("not a job"),
        };
        let (full, increment) = (chain(full), chain(increment));
        assert_eq!(full.1.position, ChainPosition::Full);
        let links = [(full.0, &full.1), (increment.0, &increment.1)];
        assert_eq!(crate::chain::judge(links), crate::chain::ChainState::Unproven);
    }

    #[test]
    fn a_seed_failure_becomes_a_report_and_none_means_null() {
        let value = fixture(include_str!("../fixtures/seed-failure.json"));
        let Seed::Failure { job, reason } = read(value, &level1()).unwrap() else { panic!("not a failure") };
        assert_eq!(job.content, None);
        assert_eq!(reason.text, "xtrabackup: 连接失败");
        assert_eq!(job.interval_seconds, 3600);
    }

    #[test]
    fn an_unsafe_field_is_named_and_the_instance_is_still_known() {
        for (field, bad) in [
            ("filename", "../../etc/passwd"),
            ("filename", "/etc/passwd"),
            ("filename", "a\nb"),
            ("rsync_model", "-x"),
            ("rsync_model", "backup/../.."),
            ("game_server_ip", "-oProxyCommand=x"),
            ("last_all_filename", "../x"),
        ] {
            let mut value = fixture(include_str!("../fixtures/seed-success.json"));
            value[field] = bad.into();
            match read(value, &level1()) {
                Err(SeedError::Unsafe { job, reason }) => {
                    assert!(reason.starts_with(field), "{reason}");
                    assert_eq!(job.key().to_string(), "111111/mysql/3306");
                    assert_eq!(job.source, None);
                }
                other => panic!("{field}={bad:?}: {other:?}"),
            }
        }
    }
}
