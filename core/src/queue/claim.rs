//! Claiming: a node asks for the oldest job that fits it.

use std::time::Duration;

use super::{Lease, Queue, script};
use crate::{
    Job, Millis, NodeId, QueueName, ReasonCode,
    redis_link::LinkError,
    report::{MAX_REASON_BYTES, Reason},
};

/// How often one claim goes on after putting busy hosts aside; each time it gets further.
const MOST_ROUNDS: usize = 64;
/// A job whose record can't be read is looked at again after this, by a node of another version perhaps.
const DAMAGED_RETRY: Duration = Duration::from_secs(600);

/// What a node asks for.
#[derive(Debug, Clone, Copy)]
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
    /// Transfers at once from one host, over all nodes; at least 1. The same on all nodes, or the smallest counts.
    pub host_limit: u32,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claimed {
    /// Yours now.
    Job(Box<Lease>),
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
    /// Jobs wait, but their hosts are at their limit or backing off.
    HostsBusy,
}

impl Queue {
    /// Claims the oldest job of the first queue that has one that fits and whose host may be asked now.
    ///
    /// # Errors
    /// [`LinkError`]; when it is transient, ask again with the same request id. A job whose record is damaged is put back for a
    /// while, and the error names it.
    pub async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claimed, LinkError> {
        let mut call = script::CLAIM.prepare_invoke();
        call.arg(request.node_id.as_str()).arg(request.request_id.to_string());
        call.arg(request.room_bytes).arg(size_class(request.room_bytes));
        call.arg(micros(request.lease)).arg(request.host_limit.max(1));
        for queue in request.queues {
            call.arg(queue.as_str());
        }
        for _ in 0..MOST_ROUNDS {
            let answer: Vec<String> = self.run(&call).await?;
            let [kind, rest @ ..] = answer.as_slice() else {
                return Err(self.damaged("the reply to a claim", "empty"));
            };
            return match kind.as_str() {
                "again" => continue,
                "job" => self.lease(request.node_id, rest).await.map(|lease| Claimed::Job(Box::new(lease))),
                "hosts" => Ok(Claimed::Nothing(Idle::HostsBusy)),
                "room" => Ok(Claimed::Nothing(Idle::NoRoom)),
                _ => Ok(Claimed::Nothing(Idle::Empty)),
            };
        }
        Ok(Claimed::Nothing(Idle::HostsBusy))
    }

    async fn lease(&self, node_id: &NodeId, answer: &[String]) -> Result<Lease, LinkError> {
        let [id, body, revision, attempts, expires, admitted] = answer else {
            return Err(self.damaged("the reply to a claim", format!("{} fields", answer.len())));
        };
        let job: Result<Job, _> = serde_json::from_str(body);
        let numbers = (|| {
            let expires_at = millis(expires.parse().ok()?);
            Some((revision.parse().ok()?, attempts.parse().ok()?, expires_at, millis(admitted.parse().ok()?)))
        })();
        match (job, numbers) {
            (Ok(job), Some((revision, attempts, expires_at, admitted_at))) => {
                Ok(Lease { job, node_id: node_id.clone(), revision, attempts, expires_at, admitted_at })
            }
            (job, _) => {
                let text = job.err().map_or_else(|| "its numbers can't be read".to_owned(), |error| error.to_string());
                let text = text.chars().take(MAX_REASON_BYTES / 4).collect::<String>();
                let reason = Reason::new(ReasonCode::Malformed, text.clone());
                self.put_off(id, node_id, revision, DAMAGED_RETRY, &reason).await?;
                Err(self.damaged(format!("job {id}"), text))
            }
        }
    }
}

/// The power of two at or below a size; 0 for nothing.
pub(super) fn size_class(bytes: u64) -> u32 {
    bytes.max(1).ilog2()
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
        let classes = [0, 1, 2, 3, 4, 1023, 1024, u64::MAX].map(size_class);
        assert_eq!(classes, [0, 0, 1, 1, 2, 9, 10, 63]);
    }
}
