//! What a puller asks of the queue: admits what hosts pushed, claims what fits, and waits for the next time to ask. One task
//! claims, one question after the other, so that no two of them count the same free space.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    jitter::jittered,
    policy::PerSecond,
    queue::{ClaimRequest, Claimed, HostLimits, Idle, Lease, Room},
    redis_link::LinkError,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{node::Node, policy::Effective};

/// Waits between two questions when there was nothing, doubled from the first to the second.
pub const POLL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// Hints that come within this are one: a burst of new jobs is not to make every idle node ask once for each.
const HINTS_WITHIN: Duration = Duration::from_millis(20);
/// A connection that says nothing for so long may be dead: another is made.
const LISTEN_ANEW: Duration = Duration::from_secs(60);
/// While jobs can be claimed, inboxes are looked at so often.
const ADMIT_EVERY: Duration = Duration::from_millis(100);
/// While every slot is busy, and nothing is claimed, inboxes are looked at so often.
const ADMIT_BESIDE_EVERY: Duration = Duration::from_secs(2);
/// Entries admitted at once.
const ADMIT_MOST: usize = 512;

/// What a claim brought.
#[derive(Debug)]
pub enum Next {
    /// One or more, all of one host and module.
    Jobs(Vec<Lease>),
    /// Nothing, and what the queue said, if it was asked.
    Nothing(Option<Idle>),
}

impl Next {
    /// The queue's answer in a word, for who counts them.
    fn answer(&self) -> &'static str {
        match self {
            Self::Jobs(_) => "job",
            Self::Nothing(Some(Idle::NoRoom)) => "no_room",
            Self::Nothing(Some(Idle::HostsBusy)) => "hosts_busy",
            Self::Nothing(Some(Idle::Yields)) => "yields",
            Self::Nothing(Some(Idle::Reserved)) => "reserved",
            Self::Nothing(Some(Idle::Empty) | None) => "empty",
        }
    }
}

/// The same, while the node may not ask the queue.
fn unasked(weight: u32, some_open: bool) -> &'static str {
    match (weight, some_open) {
        (0, _) => "drains",
        (_, false) => "window",
        (_, true) => "paused",
    }
}

/// Asks for one node.
#[derive(Debug)]
pub struct Claimer<'a> {
    node: &'a Arc<Node>,
    wait: Duration,
    admitted: Option<Instant>,
    changes: watch::Receiver<Arc<Effective>>,
    /// Kept until it is answered, so that a lost answer is given again.
    request_id: Option<uuid::Uuid>,
}

impl<'a> Claimer<'a> {
    /// For `node`.
    pub fn new(node: &'a Arc<Node>) -> Self {
        Self { node, wait: POLL.0, admitted: None, changes: node.policy.changes(), request_id: None }
    }

    /// Claims for the first of `free_slots` slots, and says in the heartbeat why there is nothing when the node can't have any.
    pub async fn next(&mut self, free_slots: u32) -> Next {
        let (next, answer) = self.ask(free_slots).await;
        self.node.metrics.claims.get_or_create(&vec![("answer", answer.to_owned())]).inc();
        // The one it yields to may have no slot left in a moment: nobody is to wait longer than that while work fits it.
        if matches!(next, Next::Jobs(_) | Next::Nothing(Some(Idle::Yields))) {
            self.wait = POLL.0;
        }
        next
    }

    /// Waits until it is time to ask again: after a hint, a change of what operators set, or a while, longer each time.
    pub async fn pause(&mut self) {
        let longest = jittered(self.wait);
        self.wait = (self.wait * 2).min(POLL.1);
        tokio::time::sleep(HINTS_WITHIN).await;
        tokio::select! {
            () = tokio::time::sleep(longest) => {}
            () = self.node.woken() => {}
            Ok(()) = self.changes.changed() => {}
        }
    }

    async fn ask(&mut self, free_slots: u32) -> (Next, &'static str) {
        // Also by a node that may not claim: a job's wait counts from its admission.
        let admitted = match self.admitted {
            Some(at) if at.elapsed() < ADMIT_EVERY => Ok(0),
            _ => self.admit().await,
        };
        let room = match self.node.room().await {
            Ok(room) => room,
            Err(why) => {
                self.node.paused(Some(why));
                let policy = self.node.policy.now();
                return (Next::Nothing(None), unasked(policy.weight, !policy.open.is_empty()));
            }
        };
        let claimed = match admitted {
            Ok(_) => self.claim(room, free_slots).await,
            Err(error) => Err(error),
        };
        match claimed {
            Ok(next) => {
                self.node.paused(None);
                let answer = next.answer();
                (next, answer)
            }
            Err(error) => {
                self.node.failed_with(error.to_string());
                self.node.paused(Some(error.to_string()));
                (Next::Nothing(None), "error")
            }
        }
    }

    async fn claim(&mut self, room: Room, free_slots: u32) -> Result<Next, LinkError> {
        let settings = &self.node.settings;
        loop {
            let (policy, levels) = (self.node.policy.now(), self.node.levels().await);
            let request_id = *self.request_id.get_or_insert_with(uuid::Uuid::now_v7);
            let request = ClaimRequest {
                node_id: &settings.node_id,
                request_id,
                levels: &levels,
                room,
                weight: policy.weight,
                free_slots,
                lease: settings.lease.duration(),
                host: HostLimits {
                    transfers: settings.rsync.host_limit,
                    starts_per_second: settings.rsync.host_starts_per_second.map_or(0.0, PerSecond::get),
                },
                batch: settings.batch(),
            };
            let claimed = Box::pin(self.node.queue.claim(&request)).await;
            if !claimed.as_ref().is_err_and(LinkError::is_transient) {
                self.request_id = None;
            }
            match claimed? {
                Claimed::Jobs(leases) => return Ok(Next::Jobs(leases)),
                Claimed::Nothing(Idle::Empty) if self.admit().await? > 0 => {}
                Claimed::Nothing(idle) => return Ok(Next::Nothing(Some(idle))),
            }
        }
    }

    async fn admit(&mut self) -> Result<u64, LinkError> {
        let admitted = admit(self.node).await?;
        self.admitted = Some(Instant::now());
        Ok(admitted)
    }
}

/// Admits what hosts pushed to the node's levels; tells how many jobs that were.
async fn admit(node: &Node) -> Result<u64, LinkError> {
    let admitted = Box::pin(node.queue.admit(&node.policy.now().levels, ADMIT_MOST)).await?;
    if admitted.reports > 0 || admitted.dead > 0 {
        tracing::warn!(refused = admitted.reports, dead = admitted.dead, "entries that are no job to fetch");
    }
    // It keeps no other waiting, and is told once for as long as nothing else fails.
    if let Some(why) = admitted.unread
        && node.failed_with(why.clone())
    {
        tracing::error!(%why, "an inbox can't be read");
    }
    Ok(admitted.jobs)
}

/// Admits also while every slot is busy, until `end`: from their admission on jobs wait within their limit, are seen, and can be
/// moved or cancelled.
pub async fn admit_beside(node: Arc<Node>, end: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(jittered(ADMIT_BESIDE_EVERY)) => {}
            () = end.cancelled() => return,
        }
        if let Err(error) = admit(&node).await {
            // Told by the next claim.
            tracing::debug!(%error, "nothing could be admitted");
        }
    }
}

/// Wakes the node's claimer when something new waits in one of its levels, until `end`. Without it, or when a hint is lost, jobs
/// wait for the next poll.
pub async fn hear(node: Arc<Node>, end: CancellationToken) {
    let listen = async {
        loop {
            match node.queue.hints().await {
                Ok(mut hints) => {
                    // What came while nobody listened.
                    node.wake();
                    while let Ok(Some(queue)) = timeout(LISTEN_ANEW, hints.next()).await {
                        if node.settings.queues.iter().any(|ours| ours.as_str() == queue) {
                            node.wake();
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "no hints are heard; jobs wait for the next poll"),
            }
            tokio::time::sleep(jittered(POLL.1)).await;
        }
    };
    tokio::select! {
        () = listen => {}
        () = end.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_for_which_nothing_is_claimed_has_its_own_word() {
        for (idle, wanted) in [
            (Some(Idle::NoRoom), "no_room"),
            (Some(Idle::HostsBusy), "hosts_busy"),
            (Some(Idle::Yields), "yields"),
            (Some(Idle::Reserved), "reserved"),
            (Some(Idle::Empty), "empty"),
            (None, "empty"),
        ] {
            assert_eq!(Next::Nothing(idle).answer(), wanted);
        }
        for (weight, some_open, wanted) in
            [(0, true, "drains"), (0, false, "drains"), (7, false, "window"), (7, true, "paused")]
        {
            assert_eq!(unasked(weight, some_open), wanted);
        }
    }
}
