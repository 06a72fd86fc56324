//! Claiming: a node asks for what it is to fetch next.

use std::time::Duration;

use super::{
    HostLimits, Lease, Level, Queue,
    copy::{copied_node, first_report},
    script,
};
use crate::{
    Job, Millis, NodeId, ReasonCode,
    redis_link::LinkError,
    report::{MAX_REASON_BYTES, Reason},
};

/// How often one claim goes on after putting busy hosts aside; each time it gets further.
const MOST_ROUNDS: usize = 64;
/// A job whose record can't be read is looked at again after this, by a node of another version perhaps.
const DAMAGED_RETRY: Duration = Duration::from_secs(600);
/// After so many of these, two hours at least, it is kept for a person.
const DAMAGED_TRIES: u32 = 12;
/// Sizes below 2 MiB are one class: telling them apart saves no room, and one lane can be fetched as a batch.
const SMALLEST_CLASS: u32 = 20;
/// A script that takes more jobs at once would hold up everyone else.
const MOST_BATCHED: u32 = 1000;
/// Of each job in the answer to a claim.
const ANSWER_FIELDS: usize = 7;

/// What a node can store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that fit now: free less reserve less what is already being fetched.
    pub bytes: u64,
    /// Files and directories that can be made now, less those that are already being fetched.
    pub inodes: u64,
    /// Bytes that could ever fit: the disk's size less the reserve. Room is kept only for what could fit.
    pub ceiling_bytes: u64,
}

/// How much one claim may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// Jobs; 1: no batches.
    pub jobs: u32,
    /// Bytes of all of them; the first is given whatever its size.
    pub bytes: u64,
}

/// What a node asks for.
#[derive(Debug, Clone, Copy)]
pub struct ClaimRequest<'a> {
    /// Who asks. One question at a time: what was given is given again only to the node's last one.
    pub node_id: &'a NodeId,
    /// Fresh for every question; the same again when the reply was lost, which then gives the same jobs.
    pub request_id: uuid::Uuid,
    /// Levels, most important first.
    pub levels: &'a [Level],
    /// What fits.
    pub room: Room,
    /// Under backlog nodes receive bytes in proportion to it; 0 receives nothing.
    pub weight: u32,
    /// How many transfers the node could begin now, the one it asks for included.
    pub free_slots: u32,
    /// How long the lease is good without a renewal.
    pub lease: Duration,
    /// What one host may be asked.
    pub host: HostLimits,
    /// How many jobs of one host and module may come at once.
    pub batch: BatchLimit,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claimed {
    /// Yours now: one or more, all of one host and module, in their order.
    Jobs(Vec<Lease>),
    /// Nothing to do for this node now.
    Nothing(Idle),
}

/// Why there is nothing for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idle {
    /// No job waits in its levels.
    Empty,
    /// Jobs wait, but none fits its room.
    NoRoom,
    /// Jobs wait, but their hosts are at their limit, resting or closed.
    HostsBusy,
    /// Jobs wait, but the node is ahead of its share, and another one that they fit has asked within the last second. Ask again
    /// soon. Always so with a weight of 0.
    Yields,
    /// Jobs wait, but the node's room is kept for a large one that is overdue.
    Reserved,
}

impl Queue {
    /// Claims the first job of the first level that has one that fits and whose host may be asked now, or another before it: one
    /// that is overdue, or one that no node behind its share waits for. With it, more of the same lane as far as the batch goes.
    ///
    /// # Errors
    /// [`LinkError`]; when it is transient, ask again with the same request id. A job whose record is damaged is put back for a
    /// while, at last among the dead letters, and the error names it, unless others came with it.
    pub async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claimed, LinkError> {
        let mut call = script::CLAIM.prepare_invoke();
        call.arg(request.node_id.as_str()).arg(request.request_id.to_string());
        call.arg(request.room.bytes).arg(request.room.inodes).arg(request.room.ceiling_bytes);
        call.arg(request.weight).arg(request.free_slots.max(1)).arg(micros(request.lease));
        call.arg(request.host.transfers.max(1)).arg(request.host.start_gap_micros());
        call.arg(request.batch.jobs.clamp(1, MOST_BATCHED)).arg(request.batch.bytes);
        let names: Vec<&str> = request.levels.iter().map(|level| level.name.as_str()).collect();
        let own = names.iter().take_while(|name| !name.starts_with(script::PREFIX)).count();
        call.arg(format!("/{}/", names.join("/"))).arg(own);
        for level in request.levels {
            call.arg(level.name.as_str()).arg(u8::from(level.urgent));
        }
        for _ in 0..MOST_ROUNDS {
            let answer: Vec<String> = self.run(&call).await?;
            let [kind, rest @ ..] = answer.as_slice() else {
                return Err(self.damaged("the reply to a claim", "empty"));
            };
            return match kind.as_str() {
                "again" => continue,
                "jobs" => self.leases_of(request.node_id, rest).await.map(Claimed::Jobs),
                "hosts" => Ok(Claimed::Nothing(Idle::HostsBusy)),
                "room" => Ok(Claimed::Nothing(Idle::NoRoom)),
                "reserved" => Ok(Claimed::Nothing(Idle::Reserved)),
                "yields" => Ok(Claimed::Nothing(Idle::Yields)),
                _ => Ok(Claimed::Nothing(Idle::Empty)),
            };
        }
        Ok(Claimed::Nothing(Idle::HostsBusy))
    }

    /// The leases of an answer. What can't be read is put off, at last buried; an error only if nothing else came.
    async fn leases_of(&self, node_id: &NodeId, answer: &[String]) -> Result<Vec<Lease>, LinkError> {
        let mut leases = Vec::with_capacity(answer.len() / ANSWER_FIELDS);
        let mut damaged = None;
        for job in answer.chunks(ANSWER_FIELDS) {
            match self.lease(node_id, job).await? {
                Ok(lease) => leases.push(lease),
                Err(error) => {
                    tracing::error!(%error, "a record that can't be read is put off, or kept for a person");
                    damaged = Some(error);
                }
            }
        }
        match damaged {
            Some(error) if leases.is_empty() => Err(error),
            _ => Ok(leases),
        }
    }

    async fn lease(&self, node_id: &NodeId, answer: &[String]) -> Result<Result<Lease, LinkError>, LinkError> {
        let [id, body, revision, attempts, expires, admitted, queue] = answer else {
            return Err(self.damaged("the reply to a claim", format!("{} fields", answer.len())));
        };
        let job: Result<Job, _> = serde_json::from_str(body);
        let rest = (|| {
            let expires_at = millis(expires.parse().ok()?);
            let admitted_at = millis(admitted.parse().ok()?);
            Some((revision.parse().ok()?, attempts.parse().ok()?, expires_at, admitted_at, queue.parse().ok()?))
        })();
        let text = match (job, rest) {
            (Ok(mut job), Some((revision, attempts, expires_at, admitted_at, queue))) => {
                let (node_id, copy_of) = (node_id.clone(), first_report(&mut job, &queue));
                if copy_of.is_some() || copied_node(&queue).is_none() {
                    return Ok(Ok(Lease { job, node_id, revision, attempts, expires_at, admitted_at, queue, copy_of }));
                }
                "the report of its first node can't be read".to_owned()
            }
            (job, _) => job.err().map_or_else(|| "its numbers can't be read".to_owned(), |error| error.to_string()),
        };
        let text = text.chars().take(MAX_REASON_BYTES / 4).collect::<String>();
        let reason = Reason::new(ReasonCode::Malformed, text.clone());
        if attempts.parse().is_ok_and(|tries: u32| tries >= DAMAGED_TRIES) {
            self.bury(id, node_id, revision, &reason).await?;
        } else {
            self.put_off(id, node_id, revision, DAMAGED_RETRY, &reason).await?;
        }
        Ok(Err(self.damaged(format!("job {id}"), text)))
    }
}

/// The power of two at or below a size; the smallest class for all that is smaller.
pub(super) fn size_class(bytes: u64) -> u32 {
    bytes.max(1).ilog2().max(SMALLEST_CLASS)
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// From microseconds of Redis' clock.
pub(super) fn millis(micros: u64) -> Millis {
    Millis(i64::try_from(micros / 1000).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn a_class_has_the_sizes_from_its_power_of_two_to_the_next() {
        let classes = [0, 1, 1 << 20, (2 << 20) - 1, 2 << 20, (4 << 20) - 1, 4 << 20, u64::MAX].map(size_class);
        assert_eq!(classes, [20, 20, 20, 20, 21, 21, 22, 63]);
    }
}
