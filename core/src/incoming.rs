//! What was found in an inbox list: bytes from anyone. Decides, without trusting any of it, what they are.

use serde_json::Value;

use crate::{
    BackupType, BusinessId, InstanceName, Job, JobId, Millis, QueueName, ReasonCode, ServerId,
    job::{AgentStamp, JOB_VERSION, MAX_JOB_BYTES},
    legacy::{self, Seed, SeedError},
    report::Reason,
};

/// What an inbox entry is.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A job to be fetched.
    Job(Box<Job>),
    /// A host's failure (seed clients send these through the queue): to be reported, nothing to fetch.
    Failure {
        /// The run, without source and content.
        job: Box<Job>,
        /// Why.
        reason: Reason,
    },
    /// It names an instance, but must not be fetched: to be reported as refused, and kept for a person.
    Refused {
        /// What could be read safely, without source and content.
        job: Box<Job>,
        /// Why.
        reason: Reason,
    },
    /// Not even an instance can be read: kept for a person as it is.
    Undecodable(Reason),
}

/// Reads one inbox entry of `queue`. A job keeps its own `queue`, which its signature covers, although the list where it was
/// found is what counts; what is read without one (a seed message, a refusal) gets this.
pub fn read(bytes: &[u8], queue: &QueueName) -> Incoming {
    if bytes.len() > MAX_JOB_BYTES {
        let text = format!("{} bytes; a job has at most {MAX_JOB_BYTES}", bytes.len());
        return Incoming::Undecodable(Reason::new(ReasonCode::TooLarge, text));
    }
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return Incoming::Undecodable(Reason::new(ReasonCode::Malformed, format!("not JSON: {error}"))),
    };
    if legacy::is_seed_message(&value) {
        return read_seed(value, queue);
    }
    let refuse = |code, text: String| refused(&value, queue, Reason::new(code, text));
    match value.get("v").and_then(Value::as_u64) {
        Some(version) if version == u64::from(JOB_VERSION) => {}
        Some(version) => {
            return refuse(ReasonCode::UnknownVersion, format!("version {version}; this build reads {JOB_VERSION}"));
        }
        None => return refuse(ReasonCode::Malformed, "neither a version nor a message of UBackup".to_owned()),
    }
    let job: Job = match serde_path_to_error::deserialize(&value) {
        Ok(job) => job,
        Err(error) => {
            let field = error.path().to_string();
            let is_place = field.starts_with("source") || field.starts_with("chain.full.name");
            let wrong_type = error.inner().to_string().starts_with("invalid type");
            let code = if is_place && !wrong_type { ReasonCode::UnsafePath } else { ReasonCode::Malformed };
            return refuse(code, format!("{field}: {}", error.inner()));
        }
    };
    if names_a_node(&job) {
        return refuse(ReasonCode::Malformed, NODES_NAME.to_owned());
    }
    if job.source.is_none() || job.content.is_none() {
        return refuse(ReasonCode::Malformed, "source or content is missing: nothing to fetch".to_owned());
    }
    Incoming::Job(Box::new(job))
}

const NODES_NAME: &str = "server_id begins with @: so the queue names nodes";

/// Its limits and rests would be those of a node's second copies.
fn names_a_node(job: &Job) -> bool {
    job.server_id.as_str().starts_with('@')
}

fn read_seed(value: Value, queue: &QueueName) -> Incoming {
    let kept = value.clone();
    match legacy::read(value, queue) {
        Ok(Seed::Job(job)) if names_a_node(&job) => {
            refused(&kept, queue, Reason::new(ReasonCode::Malformed, NODES_NAME))
        }
        Ok(Seed::Job(job)) => Incoming::Job(job),
        Ok(Seed::Failure { job, reason }) => Incoming::Failure { job, reason },
        Err(SeedError::Unsafe { job, reason }) => {
            Incoming::Refused { job, reason: Reason::new(ReasonCode::UnsafePath, reason) }
        }
        Err(SeedError::Malformed(text)) => refused(&kept, queue, Reason::new(ReasonCode::Malformed, text)),
    }
}

/// A refusal that still names the instance, when the ids at least can be read.
fn refused(value: &Value, queue: &QueueName, reason: Reason) -> Incoming {
    fn id<T: serde::de::DeserializeOwned>(value: &Value, names: [&str; 2]) -> Option<T> {
        names.iter().find_map(|name| serde_json::from_value(value.get(name)?.clone()).ok())
    }
    let (Some(server_id), Some(backup_type), Some(instance)) = (
        id::<ServerId>(value, ["server_id", "server_id"]),
        id::<BackupType>(value, ["type", "back_type"]),
        id::<InstanceName>(value, ["instance", "instance"]),
    ) else {
        return Incoming::Undecodable(reason);
    };
    let Some(business_id) = id::<BusinessId>(value, ["business_id", "game_id"]) else {
        return Incoming::Undecodable(reason);
    };
    let job_id = id::<JobId>(value, ["id", "id"]).unwrap_or_else(JobId::fresh);
    Incoming::Refused {
        job: Box::new(Job {
            v: JOB_VERSION,
            id: job_id,
            server_id,
            backup_type,
            instance,
            business_id,
            made_at: id::<Millis>(value, ["made_at", "made_at"]).unwrap_or_else(|| job_id.time()),
            interval_seconds: id::<u64>(value, ["interval_seconds", "interval"]).unwrap_or(3600),
            queue: queue.clone(),
            source: None,
            content: None,
            chain: None,
            script: None,
            // With it the agent that made the job is told of its end, and offers it no more.
            agent: id::<AgentStamp>(value, ["agent", "agent"]),
            signature: None,
            extra: serde_json::Map::new(),
        }),
        reason,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::canonical::signed_bytes;

    fn queue() -> QueueName {
        QueueName::new("level1").unwrap()
    }

    fn example() -> Value {
        serde_json::from_str(include_str!("../fixtures/job-v1.json")).unwrap()
    }

    fn code(incoming: Incoming) -> String {
        match incoming {
            Incoming::Job(_) => "job".into(),
            Incoming::Failure { .. } => "failure".into(),
            Incoming::Refused { reason, job } => {
                assert_eq!(job.source, None);
                format!("refused {}", reason.code.as_str())
            }
            Incoming::Undecodable(reason) => format!("undecodable {}", reason.code.as_str()),
        }
    }

    fn with(pointer: &str, bad: impl Into<Value>) -> String {
        let mut value = example();
        *value.pointer_mut(pointer).unwrap() = bad.into();
        code(read(value.to_string().as_bytes(), &queue()))
    }

    #[test]
    fn hostile_fields_are_refused_by_name() {
        assert_eq!(code(read(example().to_string().as_bytes(), &queue())), "job");
        assert_eq!(with("/source/path", "../../etc/shadow"), "refused unsafe_path");
        assert_eq!(with("/source/path", "/etc/shadow"), "refused unsafe_path");
        assert_eq!(with("/source/path", "a\0b"), "refused unsafe_path");
        assert_eq!(with("/source/path", "a\nb"), "refused unsafe_path");
        assert_eq!(with("/source/address", "-e sh"), "refused unsafe_path");
        assert_eq!(with("/source/module", "--config=/x"), "refused unsafe_path");
        assert_eq!(with("/source/path", 7), "refused malformed");
        assert_eq!(with("/content/size_bytes", -1), "refused malformed");
        assert_eq!(with("/content", Value::Null), "refused malformed");
        assert_eq!(with("/made_at", "yesterday"), "refused malformed");
        assert_eq!(with("/v", 2), "refused unknown_version");
        assert_eq!(with("/server_id", "../.."), "undecodable malformed");
        assert_eq!(with("/instance", "a/b"), "undecodable malformed");
        assert_eq!(code(read(b"\xff\xfe", &queue())), "undecodable malformed");
        assert_eq!(code(read(b"[]", &queue())), "undecodable malformed");
        assert_eq!(code(read(&vec![b' '; 10 << 20], &queue())), "undecodable too_large");
    }

    #[test]
    fn a_job_has_the_bytes_that_were_signed_wherever_it_is_found() {
        let mut sent = example();
        sent["signature"] = "x".into();
        for place in ["", "/source", "/content", "/chain", "/script", "/agent"] {
            sent.pointer_mut(place).unwrap()["later"] = place.into();
        }
        let Incoming::Job(job) = read(sent.to_string().as_bytes(), &QueueName::new("elsewhere").unwrap()) else {
            panic!("not a job")
        };
        assert_eq!(signed_bytes(&job).unwrap(), signed_bytes(&sent).unwrap());
    }

    #[test]
    fn seed_messages_come_through_the_same_door() {
        assert_eq!(code(read(include_bytes!("../fixtures/seed-success.json"), &queue())), "job");
        assert_eq!(code(read(include_bytes!("../fixtures/seed-failure.json"), &queue())), "failure");
        let mut bad: Value = serde_json::from_str(include_str!("../fixtures/seed-success.json")).unwrap();
        bad["size"] = "many".into();
        assert_eq!(code(read(bad.to_string().as_bytes(), &queue())), "refused malformed");
        let mut bad: Value = serde_json::from_str(include_str!("../fixtures/seed-success.json")).unwrap();
        bad["server_id"] = "@5".into();
        assert_eq!(code(read(bad.to_string().as_bytes(), &queue())), "refused malformed");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, &queue());
        }

        #[test]
        fn no_field_value_panics_or_passes_unchecked(field in 0usize..6, text in "\\PC{0,30}") {
            let pointer = ["/source/path", "/source/address", "/source/module", "/id", "/instance", "/chain/full/name"][field];
            let mut value = example();
            *value.pointer_mut(pointer).unwrap() = text.into();
            if let Incoming::Job(job) = read(value.to_string().as_bytes(), &queue()) {
                let source = job.source.unwrap();
                prop_assert!(!source.path.as_str().split('/').any(|part| part == ".."));
                prop_assert!(!source.address.as_str().starts_with('-'));
            }
        }
    }
}
