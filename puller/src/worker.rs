//! What one claim brought, one job or a batch, from claim to settled: the handler of [`crate::puller`]'s slots. Safe to run again
//! after a kill at any step, because each step leaves the disk and the queue such that the next owner of the job can go on or
//! begin anew:
//!
//! fetch → verify → manifest → commit (fence) → rename → settle (fence, report) → leave the transfer's folder to others
//!
//! The transfer's folder outlives the rename: while it is there, a start of this node asks the queue about the job
//! ([`crate::recovery`]).

use std::{
    fs::File,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::join_all};
use longshore_core::{
    Millis, Outcome, ReasonCode, Report,
    jitter::jittered,
    queue::{End, Held, Lease, Patience, Returned, Settled},
    redis_link::LinkError,
    report::{REPORT_VERSION, Reason, Transfer},
    step,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::{
    batch::Task,
    carrier::{Brought, Turn},
    failure::{Class, Failure},
    node::Node,
    progress::Progress,
};

/// First and longest wait before Redis is asked again.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Transfers of a job beyond the configured ones that may end with the puller's own end. A kill says little of a job, and less of
/// all those that were in one batch; but a job that kills its puller each time must come to an end.
const MOST_KILLED: u32 = 10;
/// A retry's wait is doubled at most so often.
const MOST_DOUBLINGS: u32 = 6;
/// What one claim brought and could not be fetched together goes one after the other for so long; then other slots may have the
/// rest, here or elsewhere.
const ALONE_WITHIN: Duration = Duration::from_secs(10);
/// How long a drain waits for Redis to take a job back.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// A claimed job, and how far it is.
#[derive(Debug)]
pub struct Taken {
    /// The lease.
    pub lease: Lease,
    /// Shown in the heartbeat.
    pub progress: Arc<Progress>,
}

/// The node's disk, when a transfer failed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Fine,
    /// At its reserve.
    Full,
    /// Not even a few bytes.
    TakesNothing,
}

/// Works on what one claim brought until it is over. `ending` ends the transfers and gives the jobs back.
pub async fn work(node: &Arc<Node>, taken: &[Taken], ending: CancellationToken) {
    step::reached("puller.claimed");
    let started = Instant::now();
    // Ended by a drain, or because no lease is left.
    let stop = ending.child_token();
    let workers: Vec<Worker<'_>> = taken.iter().map(|taken| Worker::new(node, taken, &ending)).collect();
    let mut work = work_on(node, &workers, &stop).boxed();
    tokio::select! {
        biased;
        () = &mut work => {}
        () = renew(node, &workers, &stop) => {}
        () = node.disk_watch.hung() => {
            // What waits for the disk keeps the locks of its folders until the disk answers; by then the fence stops it.
            stop.cancel();
            let left = workers.iter().filter(|worker| !worker.is_over.load(Relaxed));
            tokio::join!(join_all(left.map(Worker::let_go)), work);
        }
    }
    for _ in taken {
        node.metrics.seconds.observe(started.elapsed().as_secs_f64());
    }
}

/// First what can be fetched in one session, landed together; then each of the others alone.
async fn work_on(node: &Arc<Node>, workers: &[Worker<'_>], stop: &CancellationToken) {
    let tasks: Vec<Task<'_>> = workers.iter().map(|worker| worker.task).collect();
    let mut alone = Vec::new();
    if let [_] = tasks.as_slice() {
        alone.extend(workers);
    } else {
        let file_system = match node.carrier.file_system().await {
            Ok(file_system) => file_system,
            Err(failure) => {
                return fail_all(node, workers.iter().map(|worker| (worker, failure.clone())).collect()).await;
            }
        };
        let span = tracing::info_span!("batch", jobs = tasks.len());
        let results = node.carrier.bring_together(&tasks, stop).instrument(span).await;
        let mut together = Vec::new();
        for (worker, result) in workers.iter().zip(results) {
            match result {
                Some(result) => together.push((worker, result)),
                None => alone.push(worker),
            }
        }
        conclude(node, together, Some(&file_system)).await;
    }
    let (mut host_failed, began) = (None, Instant::now());
    for (number, worker) in alone.into_iter().enumerate() {
        let result = match &host_failed {
            Some(failure) => Err(Failure::clone(failure)),
            None if number > 0 && began.elapsed() > ALONE_WITHIN => Err(Failure::ended()),
            None => worker.bring(stop).await,
        };
        if let Err(failure) = &result
            && failure.class == Class::Host
        {
            // The others of this claim would find the same.
            host_failed = Some(failure.clone());
        }
        conclude(node, vec![(worker, result)], None).await;
    }
}

/// Publishes and settles what was brought, then decides what becomes of the rest.
async fn conclude(node: &Node, results: Vec<(&Worker<'_>, Result<Brought, Failure>)>, file_system: Option<&Arc<File>>) {
    let (mut landing, mut failed) = (Vec::new(), Vec::new());
    for (worker, result) in results {
        match result {
            Ok(brought) => landing.push((worker, brought)),
            Err(failure) => failed.push((worker, failure)),
        }
    }
    if !landing.is_empty() {
        failed.extend(Box::pin(land(node, landing, file_system)).await);
    }
    fail_all(node, failed).await;
}

async fn fail_all<'a>(node: &Node, failed: Vec<(&'a Worker<'a>, Failure)>) {
    // Looked at once for all of them, and before any gives up what it has here.
    let blames_disk = |(_, failure): &(_, Failure)| failure.class.may_be_disk();
    let disk = if !failed.iter().any(blames_disk) {
        Disk::Fine
    } else if node.is_full().await {
        Disk::Full
    } else if node.can_store().await {
        Disk::Fine
    } else {
        Disk::TakesNothing
    };
    let all = failed.into_iter();
    let each = all.map(|(worker, failure)| async move {
        worker.fail(failure, disk).instrument(worker.span.clone()).await;
        worker.is_over.store(true, Relaxed);
    });
    join_all(each.map(FutureExt::boxed)).await;
}

/// Publishes and settles, and gives back what failed on the way.
async fn land<'a>(
    node: &Node,
    landing: Vec<(&'a Worker<'a>, Brought)>,
    file_system: Option<&Arc<File>>,
) -> Vec<(&'a Worker<'a>, Failure)> {
    let written = node.carrier.write_manifests(landing.iter().map(|(_, brought)| brought), file_system).await;
    if let Err(failure) = written {
        return landing.into_iter().map(|(worker, _)| (worker, failure.clone())).collect();
    }
    // Asked after the disk, which may have taken longer than a lease: now only the rename is left.
    let length = node.settings.lease.duration();
    let asked = landing.iter().map(|(worker, _)| worker.insist("commit", || node.queue.commit(worker.lease(), length)));
    let held = join_all(asked).await;
    let (mut ours, mut lost, mut failed) = (Vec::with_capacity(landing.len()), Vec::new(), Vec::new());
    for ((worker, brought), held) in landing.into_iter().zip(held) {
        match held {
            Some(Held::Yours) => ours.push((worker, brought)),
            Some(Held::Lost) => lost.push((worker, brought)),
            None => {}
        }
    }
    step::reached("puller.committed");
    let published = node.carrier.publish(ours.iter().map(|(_, brought)| brought)).await;
    let mut named = Vec::with_capacity(ours.len());
    for ((worker, brought), published) in ours.into_iter().zip(published) {
        match published {
            Ok(()) => named.push((worker, brought)),
            Err(failure) => failed.push((worker, failure)),
        }
    }
    step::reached("puller.published");
    let asked = named.iter().map(|(worker, brought)| {
        worker.insist("settle", || node.queue.settle(worker.lease(), &brought.report, node.end_of(&brought.report)))
    });
    let settled = join_all(asked).await;
    step::reached("puller.settled");
    for (worker, brought) in lost {
        match node.queue.has_ended(&brought.report.job.id).await {
            Ok(true) => worker.superseded(brought).await,
            _ => worker.lost("before its backup was published"),
        }
    }
    let mut done = Vec::with_capacity(named.len());
    for ((worker, brought), settled) in named.into_iter().zip(settled) {
        match settled {
            Some(Settled::Done | Settled::AlreadyYours) => {
                worker.stored(&brought.report);
                done.push(brought);
            }
            Some(Settled::Over) => worker.superseded(brought).await,
            Some(Settled::Lost) => worker.lost("before its report was written"),
            // Published, and the process is told to end while Redis is away: the next start settles it.
            None => {}
        }
    }
    node.carrier.finish(done).await;
    failed
}

/// Renews the leases at a third of their length for as long as it is polled. When none is left the transfer is ended.
async fn renew(node: &Node, workers: &[Worker<'_>], stop: &CancellationToken) {
    let length = node.settings.lease.duration();
    loop {
        tokio::time::sleep(length / 3).await;
        let is_held = |worker: &&Worker<'_>| !worker.lost.is_cancelled() && !worker.is_over.load(Relaxed);
        let held: Vec<&Worker<'_>> = workers.iter().filter(is_held).collect();
        if held.is_empty() {
            stop.cancel();
            std::future::pending::<()>().await;
        }
        let answers = join_all(held.iter().map(|worker| node.queue.renew(worker.lease(), length))).await;
        for (worker, answer) in held.into_iter().zip(answers) {
            match answer {
                Ok(Held::Yours) => {}
                Ok(Held::Lost) => worker.lost.cancel(),
                // Whether it is still ours is decided by the commit; until then the transfer goes on.
                Err(error) => {
                    worker.span.in_scope(|| tracing::warn!(%error, "the lease could not be renewed"));
                }
            }
        }
        if workers.iter().all(|worker| worker.lost.is_cancelled()) {
            stop.cancel();
        }
    }
}

/// One job's part.
struct Worker<'a> {
    node: &'a Arc<Node>,
    taken: &'a Taken,
    task: Task<'a>,
    lost: CancellationToken,
    /// Its lease has ended by this node's own doing.
    is_over: AtomicBool,
    ending: &'a CancellationToken,
    span: Span,
}

impl<'a> Worker<'a> {
    fn new(node: &'a Arc<Node>, taken: &'a Taken, ending: &'a CancellationToken) -> Self {
        let Taken { lease, progress } = taken;
        let turn = Turn {
            revision: lease.revision,
            attempts: lease.attempts,
            queue: &lease.queue,
            verify: node.verify_of(&lease.job),
            copy_of: lease.copy_of.as_deref(),
        };
        let span =
            tracing::info_span!("job", job = %lease.job.id, instance = %lease.job.key(), attempt = lease.attempts);
        let task = Task { job: &lease.job, turn, progress };
        Self { node, taken, task, lost: CancellationToken::new(), is_over: AtomicBool::new(false), ending, span }
    }

    fn lease(&self) -> &'a Lease {
        &self.taken.lease
    }

    /// Fetches it alone.
    async fn bring(&self, stop: &CancellationToken) -> Result<Brought, Failure> {
        let Task { job, turn, progress } = self.task;
        if stop.is_cancelled() || self.lost.is_cancelled() {
            return Err(Failure::ended());
        }
        if turn.attempts > self.node.settings.retry.saturating_add(MOST_KILLED) {
            let text = "its earlier transfers never came to an end: the puller was killed each time";
            return Err(Failure { reason: Reason::new(ReasonCode::TransferFailed, text), class: Class::GiveUp });
        }
        Box::pin(self.node.carrier.bring(job, turn, progress, stop)).instrument(self.span.clone()).await
    }

    fn stored(&self, report: &Report) {
        self.is_over.store(true, Relaxed);
        let job = &self.lease().job;
        let transfer = report.transfer.unwrap_or(Transfer { bytes: 0, seconds: 0.0, resumed_bytes: 0 });
        let _entered = self.span.enter();
        tracing::info!(
            path = report.path.as_ref().map(longshore_core::RelativePath::as_str),
            bytes = job.size_bytes(),
            received = transfer.bytes,
            resumed = transfer.resumed_bytes,
            seconds = transfer.seconds,
            "stored"
        );
        self.node.count_stored(&self.lease().queue, job.size_bytes());
    }

    /// Another node has ended the job: what was brought is out of the way.
    async fn superseded(&self, brought: Brought) {
        self.is_over.store(true, Relaxed);
        self.span.in_scope(|| tracing::warn!("the lease was lost; another node has ended the job"));
        self.node.carrier.superseded(brought).await;
    }

    /// The job goes on without us. What was brought stays, whole as it is, and may be all there is of the backup: the next claim of
    /// the job here finds it, or the sweep when the job has ended ([`crate::recovery`]).
    fn lost(&self, when: &str) {
        self.is_over.store(true, Relaxed);
        self.span
            .in_scope(|| tracing::warn!(when, "the lease was lost; what was brought stays until the job has ended"));
    }

    /// Decides what becomes of a job whose transfer failed: the one place where a failure is logged. `disk` is how the node's was then.
    async fn fail(&self, failure: Failure, disk: Disk) {
        let (node, lease) = (self.node, self.lease());
        if self.lost.is_cancelled() {
            tracing::warn!("the lease was lost during the transfer; another node has the job");
            return node.carrier.discard(&lease.job).await;
        }
        if failure.class == Class::Ended {
            let given_back = tokio::time::timeout(GIVE_BACK_WITHIN, node.queue.release(lease)).await;
            let given_back = matches!(given_back, Ok(Ok(Held::Yours)));
            return tracing::info!(given_back, "transfer ended, its partial is kept");
        }
        let failure = if disk == Disk::Fine { failure } else { failure.of_failing_disk() };
        node.failed_with(format!("{} of {}: {}", lease.job.id, lease.job.key(), failure.reason));
        if matches!(failure.class, Class::NodeRests | Class::NodeUnfit) {
            node.rest();
            if disk == Disk::Full {
                // A partial on a full disk would keep the node paused for nothing.
                node.carrier.discard(&lease.job).await;
            }
            // A disk that is full, or takes nothing even without this job's bytes, must not bring the job nearer to its end.
            if failure.class == Class::NodeUnfit || disk != Disk::Fine {
                return self.give_back(&failure.reason).await;
            }
        }
        if failure.class == Class::Host {
            return self.host_failed(failure.reason).await;
        }
        let is_last = lease.attempts >= node.settings.retry;
        let again = match failure.class {
            Class::Again | Class::NodeRests | Class::NodeUnfit | Class::AgainOrUnfit | Class::Corrupt => !is_last,
            Class::GiveUp | Class::Ended | Class::Host => false,
        };
        if again {
            self.put_off(failure.reason).await;
        } else {
            self.give_up(failure.reason).await;
        }
    }

    /// For any node to take when the host has rested, unless it has refused this job for too long.
    async fn host_failed(&self, reason: Reason) {
        let (node, lease, settings) = (self.node, self.lease(), &self.node.settings.rsync);
        let patience = Patience {
            first_rest: settings.host_rest.duration(),
            longest_rest: settings.host_rest_longest.duration(),
            // Its backup is safe on the node that is away: a copy waits until that is back, or the copy is cancelled.
            give_up: if lease.copy_of.is_some() { Duration::MAX } else { settings.give_up_host.duration() },
        };
        match self.insist("host_failed", || node.queue.host_failed(lease, patience, &reason)).await {
            Some(Returned::GiveUp) => {
                let text = format!("its host could not be asked for {}: {}", settings.give_up_host, reason.text);
                self.give_up(Reason::new(reason.code, text)).await;
            }
            Some(returned) => {
                tracing::warn!(%reason, "the host could not be asked; given back, no attempt counted");
                self.after_return(returned == Returned::GivenBack, &reason).await;
            }
            None => {}
        }
    }

    /// For any node to take at once; this one rests.
    async fn give_back(&self, reason: &Reason) {
        let (node, lease) = (self.node, self.lease());
        tracing::warn!(%reason, "this node can store nothing now; given back, no attempt counted");
        if let Some(held) = self.insist("release", || node.queue.release(lease)).await {
            self.after_return(held == Held::Yours, reason).await;
        }
    }

    /// Lets another node have it at once, though file work of it may still wait for this one's disk: nothing here is touched.
    async fn let_go(&self) {
        let (node, lease, code) = (self.node, self.lease(), ReasonCode::StoreFailed);
        self.span.in_scope(|| tracing::warn!("the store's disk hangs; given back, no attempt counted"));
        if self.insist("release", || node.queue.release(lease)).await == Some(Held::Yours) {
            node.count_retried(code.as_str());
        }
    }

    async fn put_off(&self, reason: Reason) {
        let (node, lease) = (self.node, self.lease());
        let doublings = lease.attempts.saturating_sub(1).min(MOST_DOUBLINGS);
        let delay = jittered(node.settings.retry_delay.duration() * 2u32.pow(doublings));
        match self.insist("retry", || node.queue.retry_later(lease, delay, &reason)).await {
            // Twice it was not what was announced.
            Some(Returned::GiveUp) => self.give_up(reason).await,
            Some(returned) => {
                tracing::warn!(%reason, attempt = lease.attempts, retry_in = ?delay, "transfer failed; put back");
                self.after_return(returned == Returned::GivenBack, &reason).await;
            }
            None => {}
        }
    }

    async fn after_return(&self, was_ours: bool, reason: &Reason) {
        if was_ours {
            self.node.count_retried(reason.code.as_str());
        } else {
            // Another node has the job: nobody comes back for what arrived here.
            self.node.carrier.discard(&self.lease().job).await;
        }
    }

    async fn give_up(&self, reason: Reason) {
        let (node, lease) = (self.node, self.lease());
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
