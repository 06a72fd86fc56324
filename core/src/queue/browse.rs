//! Looking through what is in the queue, for people: which jobs, by what operators know of them.
//!
//! No index is kept for it, so that claims pay nothing: the records are scanned, a thousand keys at a time, about 20 µs a job, and
//! nobody else waits for longer than one such piece. Inbox entries are not admitted yet and not found.

use std::{
    collections::{BTreeMap, BinaryHeap, HashSet},
    fmt,
    str::FromStr,
};

use super::{Queue, claim::millis, key, script};
use crate::{
    BackupType, InstanceName, Job, JobId, Millis, NodeId, QueueName, ServerId, job::ModuleName, redis_link::LinkError,
};

/// Keys of one look; Redis is busy with them for about a millisecond.
const LOOK_KEYS: usize = 1000;

macro_rules! states {
    ($($(#[$doc:meta])* $state:ident = $text:literal,)*) => {
        /// Where an admitted job is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum JobState {
            $($(#[$doc])* $state,)*
        }

        impl JobState {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$state,)*];

            /// As in Redis and JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$state => $text,)*
                }
            }
        }
    };
}

states! {
    /// Waits for a node.
    Ready = "ready",
    /// Waits for a retry's time.
    Delayed = "delayed",
    /// Kept back by an operator.
    Held = "held",
    /// A node works on it.
    Leased = "leased",
    /// Given up, kept for a person.
    Dead = "dead",
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Not the name of a [`JobState`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of a job; there are ready, delayed, held, leased and dead")]
pub struct StateError(String);

impl FromStr for JobState {
    type Err = StateError;
    fn from_str(text: &str) -> Result<Self, StateError> {
        let found = Self::ALL.iter().find(|state| state.as_str() == text);
        found.copied().ok_or_else(|| StateError(text.to_owned()))
    }
}

/// Which jobs; all parts together, an empty part is any.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobFilter {
    /// Of these alone.
    pub jobs: Vec<JobId>,
    /// In this level.
    pub queue: Option<QueueName>,
    /// That could be moved to this level: in another one, and no second copy.
    pub movable_to: Option<QueueName>,
    /// Of this host.
    pub server_id: Option<ServerId>,
    /// Of this type.
    pub backup_type: Option<BackupType>,
    /// Of the instances of this name.
    pub instance: Option<InstanceName>,
    /// Fetched from this module.
    pub module: Option<ModuleName>,
    /// Of more than so many bytes.
    pub larger_than_bytes: Option<u64>,
    /// Admitted no later, by Redis' clock.
    pub admitted_until: Option<Millis>,
    /// In one of these states.
    pub states: Vec<JobState>,
}

/// What passed a filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundJobs {
    /// How many.
    pub total: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// How many pass all of the filter but the state, by state.
    pub others: BTreeMap<JobState, u64>,
    /// The oldest of them, the oldest first.
    pub jobs: Vec<QueuedJob>,
}

/// A job in the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedJob {
    /// Its id.
    pub id: JobId,
    /// Where it is.
    pub state: JobState,
    /// Its level.
    pub queue: QueueName,
    /// Where it is fetched from: a host.
    pub host: String,
    /// Bytes announced.
    pub size_bytes: u64,
    /// When it came out of its inbox, by Redis' clock.
    pub admitted_at: Millis,
    /// Transfers begun.
    pub attempts: u32,
    /// Of its last claim; 0 before the first.
    pub revision: u64,
    /// The node that has it, or had it last.
    pub node_id: Option<NodeId>,
    /// The job itself; `None` when this version can't read it.
    pub job: Option<Job>,
}

impl Queue {
    /// Counts the jobs that pass the filter, and gives the oldest `most` of them.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn find(&self, filter: &JobFilter, most: usize) -> Result<FoundJobs, LinkError> {
        let mut finding =
            Finding { most, found: FoundJobs::default(), seen: HashSet::new(), oldest: BinaryHeap::new() };
        let mut cursor = if filter.jobs.is_empty() { "0".to_owned() } else { String::new() };
        loop {
            let rows: Vec<redis::Value> = self.run(&filter.look(&cursor)).await?;
            let mut rows = rows.into_iter();
            cursor = rows.next().and_then(|next| redis::from_redis_value(next).ok()).unwrap_or_default();
            for row in rows {
                let row = redis::from_redis_value(row).map_err(|error| self.damaged("the reply to a look", error))?;
                finding.take(filter, row);
            }
            if cursor == "0" || cursor.is_empty() {
                break;
            }
        }
        let Finding { mut found, oldest, .. } = finding;
        found.jobs = oldest.into_sorted_vec().into_iter().map(|oldest| oldest.0).collect();
        self.read_jobs(&mut found.jobs).await?;
        Ok(found)
    }

    async fn read_jobs(&self, jobs: &mut [QueuedJob]) -> Result<(), LinkError> {
        for part in jobs.chunks_mut(LOOK_KEYS) {
            let mut command = redis::cmd("MGET");
            for queued in part.iter() {
                command.arg(key(&format!("body:{}", queued.id)));
            }
            let bodies: Vec<Option<Vec<u8>>> = self.query(&command).await?;
            for (queued, body) in part.iter_mut().zip(bodies) {
                queued.job = body.and_then(|body| serde_json::from_slice(&body).ok());
            }
        }
        Ok(())
    }
}

impl JobFilter {
    fn look(&self, cursor: &str) -> redis::ScriptInvocation<'static> {
        let mut call = script::BROWSE.prepare_invoke();
        call.arg(cursor).arg(LOOK_KEYS);
        call.arg(self.queue.as_ref().map_or("", |name| name.as_str()));
        call.arg(self.server_id.as_ref().map_or("", |id| id.as_str()));
        call.arg(self.module.as_ref().map_or("", |name| name.as_str()));
        call.arg(self.larger_than_bytes.unwrap_or(0));
        // The whole millisecond belongs to it.
        call.arg(self.admitted_until.map_or(0, |at| at.0.saturating_mul(1000).saturating_add(999)));
        let states: String = self.states.iter().map(|state| format!("{state},")).collect();
        call.arg(if states.is_empty() { states } else { format!(",{states}") });
        let texts = self.texts();
        call.arg(self.movable_to.as_ref().map_or("", |name| name.as_str()));
        call.arg(texts.len());
        for text in texts {
            call.arg(text);
        }
        for job in &self.jobs {
            call.arg(job.to_string());
        }
        call
    }

    /// What the JSON of a job that passes has in it, for a first, cheap look; the names have nothing that JSON escapes.
    fn texts(&self) -> Vec<String> {
        let of = |name: &str, value: Option<&str>| value.map(|value| format!("\"{name}\":\"{value}\""));
        let backup_type = of("type", self.backup_type.as_ref().map(BackupType::as_str));
        backup_type.into_iter().chain(of("instance", self.instance.as_ref().map(InstanceName::as_str))).collect()
    }

    /// Whether a job is what the texts promised.
    fn fits(&self, body: &str) -> bool {
        if self.backup_type.is_none() && self.instance.is_none() {
            return true;
        }
        let Ok(job) = serde_json::from_str::<Job>(body) else { return false };
        self.backup_type.as_ref().is_none_or(|name| *name == job.backup_type)
            && self.instance.as_ref().is_none_or(|name| *name == job.instance)
    }
}

/// The oldest jobs found so far.
struct Finding {
    most: usize,
    found: FoundJobs,
    seen: HashSet<JobId>,
    oldest: BinaryHeap<Oldest>,
}

impl Finding {
    fn take(&mut self, filter: &JobFilter, row: Vec<String>) {
        if let [state] = row.as_slice() {
            if let Ok(state) = state.parse() {
                *self.found.others.entry(state).or_default() += 1;
            }
            return;
        }
        let Some(job) = queued(&row) else { return };
        if !filter.fits(row.last().map_or("", String::as_str)) || !self.seen.insert(job.id) {
            return;
        }
        self.found.total += 1;
        self.found.bytes = self.found.bytes.saturating_add(job.size_bytes);
        self.oldest.push(Oldest(job));
        if self.oldest.len() > self.most {
            self.oldest.pop();
        }
    }
}

/// `None` for a record that someone changed by hand.
fn queued(row: &[String]) -> Option<QueuedJob> {
    let [id, state, queue, host, size, admitted, attempts, revision, node, _] = row else { return None };
    Some(QueuedJob {
        id: id.parse().ok()?,
        state: state.parse().ok()?,
        queue: queue.parse().ok()?,
        host: host.clone(),
        size_bytes: size.parse().ok()?,
        admitted_at: millis(admitted.parse().ok()?),
        attempts: attempts.parse().ok()?,
        revision: revision.parse().ok()?,
        node_id: node.parse().ok(),
        job: None,
    })
}

/// Ordered by age: the youngest is the greatest.
struct Oldest(QueuedJob);

impl Ord for Oldest {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.admitted_at, self.0.id).cmp(&(other.0.admitted_at, other.0.id))
    }
}

impl PartialOrd for Oldest {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Oldest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Oldest {}
