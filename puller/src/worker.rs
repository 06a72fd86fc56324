//! One job under one lease, from claim to settled: the handler of [`crate::puller`]'s slots. Safe to run again after a kill at
//! any step, because each step leaves the disk and the queue such that the next owner of the job can go on or begin anew:
//!
//! fetch → verify → manifest and commit (fence) → rename → settle (fence, report) → remove the transfer's folder
//!
//! The transfer's folder outlives the rename: while it is there, a start of this node asks the queue about the job
//! ([`crate::recovery`]).

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use longshore_core::{
    Millis, Outcome, ReasonCode, Report,
    queue::{End, Held, Lease, Settled},
    redis_link::LinkError,
    report::{REPORT_VERSION, Reason, Verified},
    step,
};
use tokio_util::sync::CancellationToken;

use crate::{
    carrier::{Brought, Turn},
    failure::{Class, Failure},
    fetch::Progress,
    node::Node,
};

/// First and longest wait before Redis is asked again.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A retry's wait is doubled at most so often.
const MOST_DOUBLINGS: u32 = 6;
/// How long a drain waits for Redis to take a job back.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// Works on `lease` until it is over. `ending` ends the transfer and gives the job back.
pub async fn work(node: &Arc<Node>, lease: Lease, progress: &Progress, ending: CancellationToken) {
    step::reached("puller.claimed");
    let started = Instant::now();
    // Ended by a drain, or because the lease was lost.
    let lost = CancellationToken::new();
    let stop = ending.child_token();
    let turn = Turn { revision: lease.revision, attempts: lease.attempts, verify: Verified::Received, copy_of: None };
    let worker = Worker { node, lease: &lease, lost: &lost, ending: &ending };
    let carried = async {
        if lease.attempts > node.settings.retry {
            let text = "its earlier transfers never came to an end: the puller was killed each time";
            return Err(Failure { reason: Reason::new(ReasonCode::TransferFailed, text), class: Class::GiveUp });
        }
        node.carrier.bring(&lease.job, turn, progress, &stop).await
    };
    let was_corrupt = node.carrier.was_corrupt(&lease.job);
    let whole = async {
        match carried.await {
            Ok(brought) => worker.land(brought).await,
            Err(failure) => worker.fail(failure, was_corrupt).await,
        }
    };
    tokio::select! {
        biased;
        () = whole => {}
        () = worker.renew(&stop) => {}
    }
    node.metrics.seconds.observe(started.elapsed().as_secs_f64());
}

struct Worker<'a> {
    node: &'a Arc<Node>,
    lease: &'a Lease,
    lost: &'a CancellationToken,
    ending: &'a CancellationToken,
}

impl Worker<'_> {
    /// Publishes and settles.
    async fn land(&self, brought: Brought) {
        let (node, lease) = (self.node, self.lease);
        let ask = || node.queue.commit(lease, node.settings.lease.duration());
        // Independent of each other; only the rename needs both.
        let (written, held) = tokio::join!(node.carrier.write_manifest(&brought), self.insist("commit", ask));
        let Some(held) = held else { return };
        if held == Held::Lost {
            return self.superseded(brought, "before its backup was published").await;
        }
        step::reached("puller.committed");
        let published = match written {
            Ok(()) => node.carrier.publish(&brought).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = published {
            drop(brought);
            return self.fail(failure, false).await;
        }
        step::reached("puller.published");
        let ask = || node.queue.settle(lease, &brought.report, End::Final);
        match self.insist("settle", ask).await {
            Some(Settled::Done | Settled::AlreadyYours) => {
                step::reached("puller.settled");
                let report = &brought.report;
                let transfer = report.transfer.unwrap_or(longshore_core::report::Transfer {
                    bytes: 0,
                    seconds: 0.0,
                    resumed_bytes: 0,
                });
                tracing::info!(
                    path = report.path.as_ref().map(longshore_core::RelativePath::as_str),
                    bytes = lease.job.size_bytes(),
                    received = transfer.bytes,
                    resumed = transfer.resumed_bytes,
                    seconds = transfer.seconds,
                    "stored"
                );
                node.count_stored(&lease.job.queue, lease.job.size_bytes());
                node.carrier.finish(brought).await;
            }
            Some(Settled::Lost) => self.superseded(brought, "before its report was written").await,
            // Published, and the process is told to end while Redis is away: the next start settles it.
            None => {}
        }
    }

    async fn superseded(&self, brought: Brought, when: &str) {
        tracing::warn!(when, "the lease was lost; another node has the job");
        self.node.carrier.superseded(brought).await;
    }

    /// Decides what becomes of a job whose transfer failed: the one place where a failure is logged.
    async fn fail(&self, failure: Failure, was_corrupt: bool) {
        let (node, lease) = (self.node, self.lease);
        if self.lost.is_cancelled() {
            tracing::warn!("the lease was lost during the transfer; another node has the job");
            return node.carrier.discard(&lease.job).await;
        }
        if failure.class == Class::Ended {
            let given_back = tokio::time::timeout(GIVE_BACK_WITHIN, node.queue.release(lease)).await;
            let given_back = matches!(given_back, Ok(Ok(Held::Yours)));
            return tracing::info!(given_back, "transfer ended, its partial is kept");
        }
        node.failed_with(format!("{} of {}: {}", lease.job.id, lease.job.key(), failure.reason));
        if matches!(failure.class, Class::NodeRests | Class::NodeUnfit) {
            node.rest();
            if node.is_full().await {
                // A partial on a full disk would keep the node paused for nothing.
                node.carrier.discard(&lease.job).await;
            }
            // A disk that takes nothing even without this job's bytes must not bring the job nearer to its end.
            if failure.class == Class::NodeUnfit || !node.can_store().await {
                return self.give_back(&failure.reason).await;
            }
        }
        let is_last = lease.attempts >= node.settings.retry;
        let again = match failure.class {
            Class::Again | Class::NodeRests | Class::NodeUnfit => !is_last,
            Class::Corrupt => !is_last && !was_corrupt,
            Class::GiveUp | Class::Ended => false,
        };
        if again {
            self.put_off(&failure.reason).await;
        } else {
            self.give_up(failure.reason).await;
        }
    }

    /// For any node to take at once; this one rests.
    async fn give_back(&self, reason: &Reason) {
        let (node, lease) = (self.node, self.lease);
        tracing::warn!(%reason, "this node can store nothing now; given back, no attempt counted");
        let held = self.insist("release", || node.queue.release(lease)).await;
        self.after_return(held, reason).await;
    }

    async fn put_off(&self, reason: &Reason) {
        let (node, lease) = (self.node, self.lease);
        let doublings = lease.attempts.saturating_sub(1).min(MOST_DOUBLINGS);
        let delay = jittered(node.settings.retry_delay.duration() * 2u32.pow(doublings));
        tracing::warn!(%reason, attempt = lease.attempts, retry_in = ?delay, "transfer failed; put back");
        let held = self.insist("retry", || node.queue.retry_later(lease, delay, reason)).await;
        self.after_return(held, reason).await;
    }

    async fn after_return(&self, held: Option<Held>, reason: &Reason) {
        match held {
            Some(Held::Yours) => self.node.count_retried(reason.code.as_str()),
            // Another node has the job: nobody comes back for what arrived here.
            Some(Held::Lost) => self.node.carrier.discard(&self.lease.job).await,
            None => {}
        }
    }

    async fn give_up(&self, reason: Reason) {
        let (node, lease) = (self.node, self.lease);
        let refused = matches!(reason.code, ReasonCode::UnsafePath | ReasonCode::Malformed);
        tracing::error!(%reason, attempts = lease.attempts, "given up; kept among the dead letters");
        let code = reason.code.as_str().to_owned();
        let report = Report {
            v: REPORT_VERSION,
            job: lease.job.clone(),
            revision: lease.revision,
            outcome: if refused { Outcome::Refused } else { Outcome::Failed },
            reason: Some(reason),
            node_id: Some(lease.node_id.clone()),
            path: None,
            stored_at: Millis::now(),
            attempts: lease.attempts,
            transfer: None,
            verified: None,
            copies: Vec::new(),
            extra: serde_json::Map::new(),
        };
        let settled = self.insist("settle", || node.queue.settle(lease, &report, End::Bury)).await;
        if matches!(settled, Some(Settled::Done | Settled::AlreadyYours)) {
            node.count_failed(&code);
        }
        if settled.is_some() {
            node.carrier.discard(&lease.job).await;
        }
    }

    /// Renews the lease at a third of its length for as long as it is polled. A lease that was lost ends the transfer.
    async fn renew(&self, stop: &CancellationToken) {
        let length = self.node.settings.lease.duration();
        loop {
            tokio::time::sleep(length / 3).await;
            match self.node.queue.renew(self.lease, length).await {
                Ok(Held::Yours) => {}
                Ok(Held::Lost) => {
                    self.lost.cancel();
                    stop.cancel();
                    std::future::pending::<()>().await;
                }
                // Whether it is still ours is decided by the commit; until then the transfer goes on.
                Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
            }
        }
    }

    /// Asks the queue until it answers. `None` when the process is told to end first, or when no repetition helps: then the
    /// lease runs out, and what is on the disk is used by the next owner.
    async fn insist<T, F>(&self, what: &'static str, ask: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, LinkError>>,
    {
        let (mut wait, longest) = ASK_AGAIN;
        loop {
            match ask().await {
                Ok(answer) => return Some(answer),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, what, "the queue does not answer; asking again");
                    self.node.failed_with(error.to_string());
                }
                Err(error) => {
                    tracing::error!(%error, what, "the queue refuses; the job is left to its lease's end");
                    self.node.failed_with(error.to_string());
                    return None;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(wait)) => wait = (wait * 2).min(longest),
                () = self.ending.cancelled() => return None,
            }
        }
    }
}

/// Between 75 % and 125 % of `duration`, so that many nodes and jobs don't come back in one instant.
pub fn jittered(duration: Duration) -> Duration {
    let random = longshore_core::JobId::fresh().to_string();
    let part = u8::from_str_radix(&random[random.len() - 2..], 16).unwrap_or(128);
    duration.mul_f64(0.75 + f64::from(part) / 510.0)
}
