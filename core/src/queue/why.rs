//! Why a job is where it is: everything that decides about it, read at one moment. What to say of it is the reader's.

use std::collections::BTreeMap;

use redis::{FromRedisValue, Value};

use super::{JobState, MailboxEntry, Queue, claim::millis, script};
use crate::{JobId, Millis, NodeBeat, NodeId, QueueName, ReasonCode, redis_link::LinkError, report::Reason};

/// What decides about a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStanding {
    /// Redis' clock, which all times here are of.
    pub now: Millis,
    /// What the queue has of it; `None` when it is not in the queue.
    pub record: Option<JobRecord>,
    /// How it ended, while that is remembered.
    pub ended: Option<MailboxEntry>,
    /// The level in whose inbox an agent put it, while no node has admitted it.
    pub inbox: Option<QueueName>,
    /// Its host.
    pub host: HostStanding,
    /// What is being fetched from its host: the jobs and their nodes.
    pub fetched: Vec<(JobId, String)>,
    /// Every node that was ever heard of.
    pub nodes: Vec<NodeStanding>,
}

/// What the queue has of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Where it is.
    pub state: JobState,
    /// Its level.
    pub queue: QueueName,
    /// Where it is fetched from: its host, or for a second copy the node that has the first.
    pub host: String,
    /// Whether it is stored, and this is its second copy.
    pub is_copy: bool,
    /// The module there.
    pub module: String,
    /// Bytes announced.
    pub size_bytes: u64,
    /// Bytes that it needs of a disk.
    pub need_bytes: u64,
    /// Inodes that it needs.
    pub need_inodes: u64,
    /// When it came out of its inbox.
    pub admitted_at: Millis,
    /// From then on it comes before what is not overdue.
    pub due_at: Option<Millis>,
    /// How many ready ones of its level come to that before it does.
    pub before: Option<u64>,
    /// Transfers begun.
    pub attempts: u32,
    /// Why the last one did not end well.
    pub reason: Option<Reason>,
    /// When it is tried again, if it waits for that.
    pub retry_at: Option<Millis>,
    /// The node that has it, or had it last.
    pub node_id: Option<NodeId>,
    /// When that node was given it.
    pub claimed_at: Option<Millis>,
    /// Until when it has it without renewing.
    pub expires_at: Option<Millis>,
    /// Who keeps it back since when, and why.
    pub held: Option<(Millis, String, String)>,
}

/// Whether a host may be asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostStanding {
    /// Transfers under way from it.
    pub active: u32,
    /// Of those, from the job's module.
    pub module_active: u32,
    /// Its own limit, when an operator set one.
    pub transfers: Option<u32>,
    /// The module's own limit.
    pub module_transfers: Option<u32>,
    /// Failures in a row, since when, and the last one.
    pub failures: u32,
    /// Since the first of them.
    pub failing_since: Option<Millis>,
    /// The last of them.
    pub reason: Option<Reason>,
    /// Left alone until then.
    pub rests_until: Option<Millis>,
    /// The gap between two starts from it has not passed before then.
    pub next_start: Option<Millis>,
    /// Closed until then.
    pub closed_until: Option<Millis>,
    /// Why it is closed.
    pub closed_why: String,
}

/// What a node last asked for and was told.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStanding {
    /// The node.
    pub node_id: String,
    /// Its last beat.
    pub heard_at: Millis,
    /// What it said then; `None` when this version can't read it.
    pub beat: Option<NodeBeat>,
    /// When it last asked for a job.
    pub asked_at: Option<Millis>,
    /// The answer: `jobs`, `empty`, `room`, `hosts`, `yields` or `reserved`.
    pub said: String,
    /// The levels that it asked for.
    pub levels: Vec<String>,
    /// Bytes that would have fitted.
    pub room_bytes: u64,
    /// Inodes that would have fitted.
    pub room_inodes: u64,
    /// Bytes that could ever fit.
    pub ceiling_bytes: u64,
    /// Its share.
    pub weight: u32,
    /// Whom it let go first.
    pub yields_to: String,
    /// The job that its room is kept for.
    pub reserved: Option<JobId>,
    /// Until when.
    pub reserved_until: Option<Millis>,
}

type Fields = BTreeMap<String, String>;

/// As the script answers.
type Answer = (u64, Fields, String, String, Fields, String, String, String, Vec<String>, Vec<Value>);

impl Queue {
    /// What decides about a job now.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn why(&self, job: &JobId) -> Result<JobStanding, LinkError> {
        let mut call = script::WHY.prepare_invoke();
        call.arg(job.to_string());
        let answer: Answer = self.run(&call).await?;
        let (now, job, ended, inbox, host, timer, expires, before, fetched, nodes) = answer;
        let module = job.get("module").cloned().unwrap_or_default();
        let nodes = nodes.iter().map(node).collect::<Result<_, _>>();
        Ok(JobStanding {
            now: millis(now),
            record: record(&job, &timer, &expires, &before),
            ended: MailboxEntry::parse(&ended),
            inbox: inbox.parse().ok(),
            host: host_standing(&host, &module),
            fetched: fetched
                .chunks_exact(2)
                .filter_map(|pair| Some((pair[0].parse().ok()?, pair[1].clone())))
                .collect(),
            nodes: nodes.map_err(|error| self.damaged("what a node was told", error))?,
        })
    }
}

fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Option<T> {
    fields.get(name)?.parse().ok()
}

fn moment(fields: &Fields, name: &str) -> Option<Millis> {
    number::<u64>(fields, name).filter(|micros| *micros > 0).map(millis)
}

fn text(fields: &Fields, name: &str) -> String {
    fields.get(name).cloned().unwrap_or_default()
}

fn reason(fields: &Fields) -> Option<Reason> {
    Some(Reason::new(ReasonCode::from(fields.get("code")?.clone()), text(fields, "text")))
}

/// `None` where there is none, or someone changed it by hand.
fn record(job: &Fields, timer: &str, expires: &str, before: &str) -> Option<JobRecord> {
    let (need_bytes, need_inodes) = job.get("need")?.split_once(':')?;
    Some(JobRecord {
        state: number(job, "state")?,
        queue: number(job, "queue")?,
        host: text(job, "host"),
        is_copy: job.contains_key("first"),
        module: text(job, "module"),
        size_bytes: number(job, "size")?,
        need_bytes: need_bytes.parse().ok()?,
        need_inodes: need_inodes.parse().ok()?,
        admitted_at: moment(job, "admitted")?,
        due_at: moment(job, "due"),
        before: before.parse().ok(),
        attempts: number(job, "attempts")?,
        reason: reason(job),
        retry_at: timer.parse().ok().map(millis),
        node_id: number(job, "node"),
        claimed_at: moment(job, "revision"),
        expires_at: expires.parse().ok().map(millis),
        held: moment(job, "held_at").map(|at| (at, text(job, "held_by"), text(job, "held_why"))),
    })
}

fn host_standing(host: &Fields, module: &str) -> HostStanding {
    HostStanding {
        active: number(host, "active").unwrap_or(0),
        module_active: number(host, &format!("active/{module}")).unwrap_or(0),
        transfers: number(host, "transfers"),
        module_transfers: number(host, &format!("transfers/{module}")),
        failures: number(host, "failures").unwrap_or(0),
        failing_since: moment(host, "failing_since"),
        reason: reason(host),
        rests_until: moment(host, "rests_until"),
        next_start: moment(host, "next_start"),
        closed_until: moment(host, "closed_until"),
        closed_why: text(host, "closed_why"),
    }
}

fn node(value: &Value) -> redis::RedisResult<NodeStanding> {
    let (node_id, heard, beat, fields): (String, u64, Vec<u8>, Fields) = FromRedisValue::from_redis_value_ref(value)?;
    Ok(NodeStanding {
        node_id,
        heard_at: millis(heard),
        beat: serde_json::from_slice(&beat).ok(),
        asked_at: moment(&fields, "asked"),
        said: text(&fields, "said"),
        levels: text(&fields, "levels").split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        room_bytes: number(&fields, "room").unwrap_or(0),
        room_inodes: number(&fields, "inodes").unwrap_or(0),
        ceiling_bytes: number(&fields, "ceiling").unwrap_or(0),
        weight: number(&fields, "weight").unwrap_or(0),
        yields_to: text(&fields, "yields_to"),
        reserved: number(&fields, "reserved"),
        reserved_until: moment(&fields, "reserved_until"),
    })
}
