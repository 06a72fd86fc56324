//! The loop: admit what hosts pushed, claim what fits, give it to a slot; beat, reap and sweep beside it. Claims are made by
//! one task, one after the other, so that no two of them count the same free space.
//!
//! The end is ordered: no more claims, transfers finish within `drain`, others are ended and given back with their partials;
//! the HTTP servers go last.

use std::{sync::Arc, time::Duration};

use longshore_core::{
    NodeBeat,
    jitter::jittered,
    queue::{Idle, Lease},
    shutdown::Shutdown,
};
use sd_notify::NotifyState;
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    aside,
    bandwidth::share,
    claimer::{self, Claimer, Next, POLL},
    node::{Node, Shown},
    progress::Progress,
    recovery,
    rsync::process::GRACE,
    worker::{self, Taken},
};

const BEAT_EVERY: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_secs(20);
const SWEEP_ASIDE_EVERY: Duration = Duration::from_secs(3600);
/// A puller that is to end when nothing is left asks so often before it takes resting hosts for what it can't take.
const BUSY_AT_THE_END: u32 = 4;
/// Leases reaped at once.
const REAP_MOST: usize = 16;

/// Whether the puller stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until it is told to stop.
    Stopped,
    /// Until nothing waits that this node could take now, and all that it took is over.
    Empty,
}

/// Runs until `shutdown`, or until there is nothing more.
pub async fn run(node: Arc<Node>, until: Until, shutdown: &Shutdown) {
    let ending = CancellationToken::new();
    let beside = ending.child_token();
    // Started, whether or not the queue can be reached yet: that is what its heartbeat and its health are for.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    node.policy.look(&node.queue, |error| node.policy_is_unreadable(error)).await;
    node.bandwidth.set_caps(node.policy.now().caps.clone());
    let follows = tokio::spawn(follow_policy(Arc::clone(&node), beside.clone()));
    let hears = tokio::spawn(claimer::hear(Arc::clone(&node), beside.clone()));
    let admits = tokio::spawn(claimer::admit_beside(Arc::clone(&node), beside.clone()));
    let limits = tokio::spawn(keep_limits(Arc::clone(&node), beside.clone()));
    let beats = tokio::spawn(beat(Arc::clone(&node), beside.clone()));
    let disk = tokio::spawn(watch_disk(Arc::clone(&node), beside.clone()));
    if alive(shutdown, Box::pin(recover(&node))).await.is_some() {
        let sweeps = tokio::spawn(sweep(Arc::clone(&node), beside.clone()));
        Box::pin(claim_until(&node, until, &ending, shutdown)).await;
        sweeps.abort();
    } else {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    }
    beside.cancel();
    let _ = tokio::join!(beats, follows, limits, hears, admits, disk);
}

async fn watch_disk(node: Arc<Node>, end: CancellationToken) {
    node.disk_watch.watch(&node.store, end).await;
}

/// Keeps what operators set in force.
async fn follow_policy(node: Arc<Node>, end: CancellationToken) {
    let follow = node.policy.follow(&node.queue, |error| node.policy_is_unreadable(error), end.clone());
    tokio::join!(follow, node.policy.enforce(&node.queue, end));
}

/// Keeps the policy's limits in force, and this node's share of the cluster's.
async fn keep_limits(node: Arc<Node>, end: CancellationToken) {
    let mut changes = node.policy.changes();
    let follow = async {
        while changes.changed().await.is_ok() {
            node.bandwidth.set_caps(changes.borrow_and_update().caps.clone());
        }
    };
    let weight = || node.policy.now().weight;
    let shares = share::keep(&node.bandwidth, &node.queue, &node.settings.node_id, weight);
    tokio::select! {
        () = follow => {}
        () = shares => {}
        () = end.cancelled() => {}
    }
}

async fn recover(node: &Arc<Node>) {
    let (mut wait, longest) = POLL;
    while let Err(error) = recovery::recover(node).await {
        node.paused(Some(error.to_string()));
        tokio::time::sleep(jittered(wait)).await;
        wait = (wait * 2).min(longest);
    }
    node.paused(None);
}

async fn claim_until(node: &Arc<Node>, until: Until, ending: &CancellationToken, shutdown: &Shutdown) {
    let slots = Arc::new(Semaphore::new(usize::try_from(node.settings.slots).unwrap_or(1)));
    let workers = TaskTracker::new();
    let mut claimer = Claimer::new(node);
    let mut busy_in_a_row = 0;
    while !shutdown.is_requested() {
        let Some(permit) = alive(shutdown, Arc::clone(&slots).acquire_owned()).await else { break };
        let Ok(permit) = permit else { break };
        let free_slots = u32::try_from(slots.available_permits()).unwrap_or(u32::MAX).saturating_add(1);
        let was_empty = workers.is_empty();
        match claimer.next(free_slots).await {
            Next::Jobs(leases) => {
                // Shown before the next claim, so that their bytes count as promised.
                let (taken, shown): (Vec<_>, Vec<_>) = leases.into_iter().map(|lease| take(node, lease)).unzip();
                let (node, ending, shutdown) = (Arc::clone(node), ending.clone(), shutdown.clone());
                workers.spawn(async move {
                    Box::pin(worker::work(&node, &taken, ending)).await;
                    drop(shown);
                    // Its host may be asked again, and its room is known.
                    node.wake();
                    let rest = node.settings.rest.duration();
                    if !rest.is_zero() {
                        shutdown.unless_requested(tokio::time::sleep(rest)).await;
                    }
                    drop(permit);
                });
            }
            Next::Nothing(idle) => {
                drop(permit);
                // Hosts that are busy though nothing of ours runs: with others' transfers, or they rest.
                busy_in_a_row = if idle == Some(Idle::HostsBusy) && was_empty { busy_in_a_row + 1 } else { 0 };
                let over = idle == Some(Idle::Empty) || busy_in_a_row >= BUSY_AT_THE_END;
                // What a transfer gave back after the answer waits again.
                if until == Until::Empty && over && was_empty {
                    break;
                }
                alive(shutdown, claimer.pause()).await;
            }
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    drain(node, workers, ending).await;
}

fn take(node: &Arc<Node>, lease: Lease) -> (Taken, Shown) {
    let progress = Arc::new(Progress::of(&lease.job));
    let shown = node.show(lease.job.id, lease.job.key(), Arc::clone(&progress));
    (Taken { lease, progress }, shown)
}

/// Waits for `work` or the shutdown, and tells the service manager meanwhile that this loop lives.
async fn alive<F: Future>(shutdown: &Shutdown, work: F) -> Option<F::Output> {
    tokio::pin!(work);
    loop {
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        tokio::select! {
            biased;
            () = shutdown.requested() => return None,
            done = &mut work => return Some(done),
            () = tokio::time::sleep(BEAT_EVERY) => {}
        }
    }
}

async fn drain(node: &Arc<Node>, workers: TaskTracker, ending: &CancellationToken) {
    workers.close();
    if !workers.is_empty() {
        let drain = node.settings.drain.duration();
        tracing::info!(transfers = workers.len(), within = ?drain, "waiting for transfers to finish");
        node.ends("stopping");
        if tokio::time::timeout(drain, workers.wait()).await.is_err() {
            tracing::info!(transfers = workers.len(), "giving transfers back");
        }
    }
    ending.cancel();
    if tokio::time::timeout(2 * GRACE, workers.wait()).await.is_err() {
        tracing::error!(transfers = workers.len(), "transfers did not end; left to their leases' end");
    }
}

/// The heartbeat, at once when the node pauses or goes on, and a last one at the end; beside it the reaping of others' leases.
async fn beat(node: Arc<Node>, end: CancellationToken) {
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut policy = node.policy.changes();
    loop {
        let mut reaps = false;
        tokio::select! {
            _ = ticks.tick() => reaps = true,
            () = node.changed() => {}
            Ok(()) = policy.changed() => {}
            () = end.cancelled() => break,
        }
        if let Err(error) = node.measure().await {
            tracing::warn!(%error, "free space is not known");
        }
        if let Err(error) = node.queue.beat(&node.beat()).await {
            tracing::warn!(%error, "no heartbeat could be sent");
            continue;
        }
        if reaps {
            match node.queue.reap(REAP_MOST).await {
                Ok(jobs) if !jobs.is_empty() => tracing::warn!(?jobs, "ended leases that nobody worked on any more"),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "leases could not be reaped"),
            }
        }
    }
    node.ends(NodeBeat::STOPPED);
    let _ = tokio::time::timeout(Duration::from_secs(2), node.queue.beat(&node.beat())).await;
}

async fn sweep(node: Arc<Node>, end: CancellationToken) {
    let (mut ticks, mut rarely) = (interval(SWEEP_EVERY), interval(SWEEP_ASIDE_EVERY));
    loop {
        tokio::select! {
            _ = ticks.tick() => recovery::sweep(&node).await,
            _ = rarely.tick() => aside::sweep(&node).await,
            () = end.cancelled() => return,
        };
    }
}
