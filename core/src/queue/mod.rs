//! The queue: enqueue, admit, claim, renew, commit, settle. It knows nothing of what jobs do.
//!
//! # A job's way
//! ```text
//! offer ──► inbox ──admit──► ready ──claim──► leased ──settle──► its report on the stream
//!           (list)            ▲ ▲               │ │ │
//!                             │ └──release──────┘ │ └──settle, bury──► dead ──requeue──► ready
//!                             └── delayed ◄─retry─┘    reap: leased ──► ready
//! settle, wanted on a second node: its report on the stream, and ready again in the level of copies (copy.rs)
//! an operator: hold: ready, delayed ──► held ──let go──► ready      requeue: delayed, leased, dead ──► ready
//!              cancel: ready, delayed, held, leased ──► its report  move: to another queue     drop: dead ──► nothing
//! ```
//! Each arrow is one script (`lua/`), atomic on the server. Each may be repeated by a caller who didn't get the answer: the
//! second time it does nothing and answers the same. A lease carries a **revision**, microseconds of Redis' clock that only
//! grow for a job: it is the fence that keeps a stale holder from committing or settling, and the catalog's version.
//!
//! # Keys
//! An inbox is a list with the queue's own name, so that any client can push. All else is below `longshore:`; ids have no `/`.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `job:ID` | hash | state, queue, class, source, size and need, place and times, attempts, revision, holder; who holds it back; of a second copy, who stored it first |
//! | `body:ID` | string | the job's JSON, apart, so that the hash stays small and compact |
//! | `offered:ID` | string | its queue, while a job that an agent offered is in the inbox; a day at most |
//! | `lane:QUEUE/CLASS/HOST/MODULE` | sorted set | ready jobs `ID:BYTES:INODES` by place; a class is the power of two below the bytes |
//! | `heads:QUEUE/CLASS` | sorted set | sources `HOST/MODULE` that may be asked, by their lane's first place |
//! | `classes:QUEUE` | sorted set | classes by their first head |
//! | `due:QUEUE` | sorted set | ready jobs by when they are lifted: 7/8 of their waiting limit after admission |
//! | `host:HOST` | hash | whether the host may be asked: active transfers, failures, rest, closed, its own limits |
//! | `aside:HOST` | set | `QUEUE/CLASS/HOST/MODULE` where the host was put aside, not to be asked just then |
//! | `failing` | sorted set | hosts that rest or are tried after failures, by the first of these |
//! | `timers` | sorted set | `job:ID` by the time of its retry, `host:HOST` by when it may be asked again |
//! | `leases` | sorted set | leased jobs by expiry |
//! | `node:NODE` | hash | what it asked last and was answered and why, its pace, a reservation |
//! | `pace` | sorted set | nodes that asked lately by bytes given / weight |
//! | `depth:QUEUE` | hash | counts of delayed, held, leased; bytes |
//! | `queues` | set | queues ever used or claimed from; `longshore:copies@NODE` has what other nodes are to copy from that one |
//! | `dead` | sorted set | dead letters by time: `job:ID` and `raw:N` (with `bytes:raw:N`) |
//! | `reports` | stream | reports and host beats, for the indexers |
//! | `dead_reports`, `dead_reports_why` | hashes | entries of the stream that no catalog takes, by their id there |
//! | `mailbox:HOST` | hash | job to `REVISION OUTCOME WRITTEN`, until the host's agent has read it |
//! | `ended:ID`, `ended:ID/copy` | string | the same for an hour, and of a second copy for two days, to recognize repetitions |
//! | `nodes`, `nodes_seen`, `running:NODE` | hash, sorted set, set | beats, when they came, what the node works on |
//! | `reaper` | hash | when reaping was last asked for, and from when it may act |
//! | `budget:NAME` | hash | the cluster's bandwidth: its cap, and each node's share until its lease ends |
//! | `ruled_hosts`, `ruled_levels` | hashes | which rules of operators were last put into force, by host and level |
//! | `enough_kept` | string | while room is kept for large jobs on as many nodes as may be |
//! | `kept_waiting` | hash | how often jobs were kept waiting since its first one, by reason |
//! | `policy` | hash | what operators set: version and body |
//! | `wake` | channel | names of queues that have something new |

mod admit;
mod browse;
mod budget;
mod claim;
mod copy;
mod dead_letter;
mod dead_report;
mod depth;
mod host;
mod host_limit;
mod kept_waiting;
mod lease;
mod level;
mod node;
mod operate;
mod policy;
mod reap;
mod report_reader;
mod resting;
mod ruled;
mod script;
mod why;

use redis::{FromRedisValue, ScriptInvocation};

use crate::{
    QueueName,
    redis_link::{LinkError, RedisLink},
};

pub use self::{
    admit::Admitted,
    browse::{FoundJobs, JobFilter, JobState, QueuedJob},
    budget::{Budget, RateLease, RateRequest},
    claim::{BatchLimit, ClaimRequest, Claimed, Idle, Room},
    copy::copied_node,
    dead_letter::{DeadLetter, DeadLetters, Remains},
    dead_report::DeadReport,
    depth::{HeldLease, QueueDepth},
    host::{MailboxEntry, Offered},
    host_limit::{HostLimits, HostOverrides, Patience},
    kept_waiting::KEPT_WAITING,
    lease::{End, Held, Lease, Returned, Settled},
    level::{Level, Order},
    node::Forgetting,
    operate::Changed,
    policy::Published,
    report_reader::{Backlog, ReportReader, StreamBody, StreamEntry},
    resting::{RestingHost, RestingHosts},
    ruled::Ruled,
    why::{HostStanding, JobRecord, JobStanding, NodeStanding},
};

/// The queue of one cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    link: RedisLink,
}

impl Queue {
    /// The queue behind `link`.
    pub fn new(link: RedisLink) -> Self {
        Self { link }
    }

    /// The connection, for what is not the queue's business.
    pub fn link(&self) -> &RedisLink {
        &self.link
    }

    /// Redis' clock, in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn now_micros(&self) -> Result<u64, LinkError> {
        let (seconds, micros): (u64, u64) = self.query(&redis::cmd("TIME")).await?;
        Ok(seconds * 1_000_000 + micros)
    }

    /// Runs a transition; once more when the connection turned out to be broken, since each is safe to repeat.
    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, LinkError> {
        match self.link.run(script).await {
            Err(error) if error.is_stale_connection() => self.link.run(script).await,
            answer => answer,
        }
    }

    /// Sends a command that is safe to repeat; once more when the connection turned out to be broken.
    async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, LinkError> {
        match self.link.query(command).await {
            Err(error) if error.is_stale_connection() => self.link.query(command).await,
            answer => answer,
        }
    }

    /// Sends commands that are safe to repeat together; once more when the connection turned out to be broken.
    async fn pipe(&self, pipe: &redis::Pipeline) -> Result<(), LinkError> {
        match self.link.pipe(pipe).await {
            Err(error) if error.is_stale_connection() => self.link.pipe(pipe).await,
            answer => answer,
        }
    }

    fn damaged(&self, key: impl Into<String>, text: impl ToString) -> LinkError {
        LinkError::Damaged { name: self.link.name().to_owned(), key: key.into(), text: text.to_string() }
    }

    /// An inbox must not be one of our own keys.
    fn inbox<'a>(&self, queue: &'a QueueName) -> Result<&'a str, LinkError> {
        if queue.as_str().starts_with(script::PREFIX) {
            let text = format!("no queue may be named {queue}: names with {} are Longshore's own", script::PREFIX);
            return Err(LinkError::Refused { name: self.link.name().to_owned(), text });
        }
        Ok(queue.as_str())
    }
}

fn key(name: &str) -> String {
    format!("{}{name}", script::PREFIX)
}
