//! What a start does about what the process before it left, and what is swept later.
//!
//! A transfer's folder is removed after its job was settled. So a folder whose backup has its final name belongs to a job
//! of which it is not known whether its report was written: the queue is asked with that very report, which answers "already"
//! to a repetition, and "lost" when another node has the job, and then the copy here moves to `.superseded/`.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use longshore_core::{
    JobId, Millis, ReasonCode, RelativePath,
    queue::{Lease, Settled},
    redis_link::LinkError,
    report::Reason,
};

use crate::{
    incoming::Incoming,
    node::Node,
    store::{self, BATCH_PREFIX, INCOMING, Store},
};

/// Settles what was published and not known to be settled, and puts back the leases of the process before.
///
/// # Errors
/// [`LinkError`] of the queue; to be called again then.
pub async fn recover(node: &Arc<Node>) -> Result<(), LinkError> {
    for job in left_jobs(&node.store).unwrap_or_default() {
        let published = match find(&node.store, job).await {
            Ok(Some(place)) => place,
            Ok(None) => continue,
            Err(error) => {
                tracing::error!(%job, %error, "a left transfer could not be looked at");
                continue;
            }
        };
        let folder = published.below(node.store.root());
        let Ok(report) = Store::manifest(&folder) else { continue };
        let lease = Lease {
            job: report.job.clone(),
            node_id: node.settings.node_id.clone(),
            revision: report.revision,
            attempts: report.attempts,
            expires_at: Millis::now(),
            admitted_at: report.job.made_at,
            queue: report.job.queue.clone(),
            copy_of: (!report.copies.is_empty()).then(|| Box::new(report.clone())),
        };
        // The kill may have come before the name was durable, and after the report nobody else has the backup.
        let named = [Some(folder.clone()), folder.parent().map(Path::to_owned)];
        let synced = tokio::task::spawn_blocking(move || named.iter().flatten().try_for_each(|path| store::sync(path)));
        if let Err(error) = synced.await.map_err(io::Error::other).flatten() {
            tracing::error!(%job, %error, "a published backup can't be made durable; left for the next start");
            continue;
        }
        match node.queue.settle(&lease, &report, node.end_of(&report)).await? {
            Settled::Done => {
                tracing::info!(%job, "a backup published by the process before is settled");
                node.count_stored(&lease.queue, report.job.size_bytes());
            }
            Settled::AlreadyYours => {}
            Settled::Lost => node.carrier.set_aside_as_superseded(&folder, &report),
        }
        node.carrier.discard(&report.job).await;
    }
    remove_batches(&node.store).await;
    let reason = Reason::new(ReasonCode::TransferFailed, "the puller was ended in the middle of the transfer");
    for held in node.queue.leases().await? {
        if held.node_id == node.settings.node_id && !node.is_running(held.job) {
            tracing::info!(job = %held.job, attempt = held.attempts, "putting back a job of the process before");
            node.queue.put_back(&held, &reason).await?;
        }
    }
    Ok(())
}

/// Removes transfers' folders that nobody has come back to for `stale_after`, and those of jobs that another node has ended.
pub async fn sweep(node: &Arc<Node>) {
    let stale_after = node.settings.store.stale_after.duration();
    let mut swept = 0;
    for job in left_jobs(&node.store).unwrap_or_default() {
        if node.is_running(job) {
            continue;
        }
        if !is_older(&node.store, job, stale_after) && !node.queue.has_ended(&job).await.unwrap_or(false) {
            continue;
        }
        // A backup with its final name is not settled yet: that is for the next start.
        if !matches!(find(&node.store, job).await, Ok(None)) {
            continue;
        }
        let removed = match Incoming::try_open(&node.store, job).await {
            Ok(Some(incoming)) => incoming.remove(),
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => swept += 1,
            Err(error) => tracing::warn!(%job, %error, "a partial could not be removed"),
        }
    }
    if swept > 0 {
        tracing::info!(swept, "removed partials that nobody came back for");
    }
}

/// Jobs that have a transfer's folder.
fn left_jobs(store: &Store) -> io::Result<Vec<JobId>> {
    let entries = fs::read_dir(store.root().join(INCOMING))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Removes what sessions of the process before left, after ending those that go on.
async fn remove_batches(store: &Store) {
    for entry in fs::read_dir(store.root().join(INCOMING)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let batch = name.to_str().and_then(|name| name.strip_prefix(BATCH_PREFIX)?.parse().ok());
        let Some(batch) = batch else { continue };
        let removed = match Incoming::open_batch(store, batch).await {
            Ok(incoming) => incoming.remove(),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(%batch, %error, "a batch's folder could not be removed; the next start does it");
        }
    }
}

async fn find(store: &Arc<Store>, job: JobId) -> io::Result<Option<RelativePath>> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || store.find(job)).await.map_err(io::Error::other)?
}

/// Each transfer writes its names anew, so their age is that of the last one.
fn is_older(store: &Store, job: JobId, than: Duration) -> bool {
    let folder = store.incoming(job);
    let touched = fs::metadata(folder.join("names")).or_else(|_| fs::metadata(&folder));
    let age = touched.and_then(|found| found.modified()).map(|at| SystemTime::now().duration_since(at));
    age.is_ok_and(|age| age.is_ok_and(|age| age >= than))
}
