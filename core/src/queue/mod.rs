//! The queue: enqueue, admit, claim, renew, commit, settle. It knows nothing of what jobs do.

use std::{collections::BTreeMap, time::Duration};

use crate::{HostBeat, Job, JobId, Millis, NodeBeat, NodeId, Outcome, QueueName, Report, ServerId, report::Reason};

/// What became of an offer.
pub enum Offered {
    /// Put into its inbox now.
    Pushed,
    /// Known to Redis already: waiting, delayed or under lease.
    Known,
    /// Its report exists.
    Ended(MailboxEntry),
}

/// A host's mailbox says this of a job whose final report exists.
pub struct MailboxEntry {
    /// Of the report.
    pub revision: u64,
    /// Of the report.
    pub outcome: Outcome,
}

/// What a node asks for.
pub struct ClaimRequest<'a> {
    /// Who asks.
    pub node_id: &'a NodeId,
    /// Fresh for every question; the same again when the reply was lost, which then gives the same job.
    pub request_id: uuid::Uuid,
    /// Levels, most important first.
    pub queues: &'a [QueueName],
    /// Bytes that fit: free less reserve less what is already being fetched.
    pub room_bytes: u64,
    /// How long the lease is good without a renewal.
    pub lease: Duration,
    /// Transfers at once from one host, over all nodes.
    pub host_limit: u32,
}

/// The answer to a claim.
pub enum Claimed {
    /// Yours now.
    Job(Box<Lease>),
    /// Nothing to do for this node now.
    Nothing(Idle),
}

/// Why there is nothing for a node.
pub enum Idle {
    /// No job waits in its levels.
    Empty,
    /// Jobs wait, but none fits its room.
    NoRoom,
    /// Jobs wait, but their hosts are at their limit or backing off.
    HostsBusy,
}

/// A job held by a node until `expires_at`.
pub struct Lease {
    /// The job.
    pub job: Job,
    /// The holder.
    pub node_id: NodeId,
    /// The fence.
    pub revision: u64,
    /// Transfers begun, this one included.
    pub attempts: u32,
    /// By Redis' clock.
    pub expires_at: Millis,
}

/// Whether a lease is still its holder's.
pub enum Held {
    /// Yes.
    Yours,
    /// Another node has it, or it has ended elsewhere: stop, publish nothing.
    Lost,
}

/// The answer to a settle.
pub enum Settled {
    /// The report is on the stream now.
    Done,
    /// It was already: this is a repetition.
    AlreadyYours,
    /// The lease is another's: nothing was written.
    Lost,
}

/// Whether a settled job is also kept for a person.
pub enum End {
    /// It is over.
    Final,
    /// It is over, and kept among the dead letters, to be retried by hand.
    Bury,
}

/// What waits in a level.
pub struct QueueDepth {
    /// The level.
    pub queue: QueueName,
    /// Entries of the inbox list, not yet admitted.
    pub inbox: u64,
    /// Admitted and ready.
    pub ready: u64,
    /// Admitted, waiting for a retry's time.
    pub delayed: u64,
    /// Under lease.
    pub leased: u64,
    /// Bytes of ready and delayed jobs.
    pub bytes: u64,
    /// When the oldest ready one was admitted, by Redis' clock.
    pub oldest_admitted_at: Option<Millis>,
}
