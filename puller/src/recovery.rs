//! What a start does about what the process before it left, and what is swept later.
//!
//! A transfer's folder is left to others after its job was settled. So a folder whose backup has its final name belongs to a job
//! of which it is not known whether its report was written: the queue is asked with that very report, which answers "already"
//! to a repetition, and "over" when the job has another end: then the copy here moves to `.superseded/`. While the job goes on
//! without us ("lost"), the copy may be all there is of the backup, and stays: a claim of the job by this node finds it.

use std::{
    fs, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use longshore_core::{
    JobId, Millis, ReasonCode, RelativePath,
    queue::{Lease, Settled},
    redis_link::LinkError,
    report::Reason,
};

use crate::{
    incoming::{BACKUP, Incoming, on_disk},
    node::Node,
    store::{self, BATCH_PREFIX, INCOMING, Store},
};

/// Settles what was published and not known to be settled, and puts back the leases of the process before.
///
/// # Errors
/// [`LinkError`] of the queue; to be called again then.
pub async fn recover(node: &Arc<Node>) -> Result<(), LinkError> {
    node.queue.know(&node.settings.queues).await?;
    let left = left(&node.store).await;
    let mut partial = Vec::new();
    for job in left.jobs {
        match published(&node.store, job).await {
            Ok(Some(place)) => settle_published(node, job, &place).await?,
            Ok(None) => partial.push(job),
            Err(error) => tracing::error!(%job, %error, "a left transfer could not be looked at"),
        }
    }
    // What goes on without its puller is ended: nobody may come back for it, and no room is promised to it.
    let ended = partial.into_iter().map(|job| end_left(&node.store, job));
    let removed = left.batches.into_iter().map(|batch| remove_batch(&node.store, batch));
    futures_util::join!(join_all(ended), join_all(removed));
    let reason = Reason::new(ReasonCode::TransferFailed, "the puller was ended in the middle of the transfer");
    for held in node.queue.leases().await? {
        if held.node_id == node.settings.node_id && !node.is_running(held.job) {
            tracing::info!(job = %held.job, attempt = held.attempts, "putting back a job of the process before");
            node.queue.put_back(&held, &reason).await?;
        }
    }
    Ok(())
}

async fn end_left(store: &Arc<Store>, job: JobId) {
    if let Err(error) = Incoming::open(store, job).await {
        tracing::error!(%job, %error, "a left transfer could not be ended");
    }
}

async fn remove_batch(store: &Arc<Store>, batch: JobId) {
    remove(Incoming::open_batch(store, batch).await.map(Some), "batch", batch).await;
}

/// Removes transfers' folders that nobody has come back to for `stale_after`, those of jobs that another node has ended, and those
/// of batches that are over.
pub async fn sweep(node: &Arc<Node>) {
    let stale_after = node.settings.store.stale_after.duration();
    let left = left(&node.store).await;
    let mut swept = 0;
    for job in left.jobs {
        if node.is_running(job) {
            continue;
        }
        if !is_older(&node.store, job, stale_after).await && !node.queue.has_ended(&job).await.unwrap_or(false) {
            continue;
        }
        match published(&node.store, job).await {
            Ok(None) => swept += u32::from(remove(Incoming::try_open(&node.store, job).await, "job", job).await),
            Ok(Some(place)) => {
                if let Err(error) = settle_published(node, job, &place).await {
                    tracing::warn!(%job, %error, "whose a published backup is can't be asked; asked again later");
                }
            }
            Err(error) => tracing::warn!(%job, %error, "a left transfer could not be looked at"),
        }
    }
    for batch in left.batches {
        swept += u32::from(remove(Incoming::try_open_batch(&node.store, batch).await, "batch", batch).await);
    }
    if swept > 0 {
        tracing::info!(swept, "removed partials that nobody came back for");
    }
}

/// Asks the queue whose the backup at `place` is. When it is another's it moves out of the way; the transfer's folder goes unless the
/// job goes on.
async fn settle_published(node: &Arc<Node>, job: JobId, place: &RelativePath) -> Result<(), LinkError> {
    let incoming = match Incoming::try_open(&node.store, job).await {
        Ok(Some(incoming)) => incoming,
        Ok(None) => return Ok(()),
        Err(error) => {
            tracing::warn!(%job, %error, "a left transfer's folder could not be opened");
            return Ok(());
        }
    };
    let folder = place.below(node.store.root());
    // The kill may have come before the name was durable, and after the report nobody else has the backup.
    let look = folder.clone();
    let found = on_disk(move || {
        let report = Store::manifest(&look)?;
        store::sync(&look)?;
        look.parent().map_or(Ok(()), store::sync)?;
        Ok(report)
    });
    let report = match found.await {
        Ok(report) => report,
        Err(error) => {
            tracing::error!(%job, %error, folder = %folder.display(), "a published backup can't be read or made durable; left for later");
            return Ok(());
        }
    };
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
    match node.queue.settle(&lease, &report, node.end_of(&report)).await? {
        Settled::Done => {
            tracing::info!(%job, "a backup published before is settled");
            node.count_stored(&lease.queue, report.job.size_bytes());
        }
        Settled::AlreadyYours => {}
        Settled::Lost => {
            tracing::info!(%job, "a backup published before whose job waits, or is fetched again; left until that has ended");
            return Ok(());
        }
        Settled::Over => {
            if !node.carrier.set_aside_as_superseded(folder, &report).await {
                return Ok(());
            }
        }
    }
    remove(Ok(Some(incoming)), "job", job).await;
    Ok(())
}

/// Removes a folder that could be locked; tells whether it is gone by this.
async fn remove(opened: io::Result<Option<Incoming>>, what: &'static str, id: JobId) -> bool {
    let removed = match opened {
        Ok(Some(incoming)) => on_disk(move || incoming.remove()).await.map(|()| true),
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    };
    removed.unwrap_or_else(|error| {
        tracing::warn!(what, %id, %error, "a left folder could not be removed; tried again later");
        false
    })
}

/// Folders of transfers.
#[derive(Default)]
struct Left {
    jobs: Vec<JobId>,
    batches: Vec<JobId>,
}

async fn left(store: &Store) -> Left {
    let folder = store.root().join(INCOMING);
    let listed = on_disk(move || {
        let mut left = Left::default();
        for entry in fs::read_dir(&folder)?.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Ok(job) = name.parse() {
                left.jobs.push(job);
            } else if let Some(batch) = name.strip_prefix(BATCH_PREFIX).and_then(|id| id.parse().ok()) {
                left.batches.push(batch);
            }
        }
        Ok(left)
    });
    listed.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "transfers' folders can't be listed");
        Left::default()
    })
}

/// Where the backup of `job` is, when it left its transfer's folder by the rename.
async fn published(store: &Arc<Store>, job: JobId) -> io::Result<Option<RelativePath>> {
    let store = Arc::clone(store);
    on_disk(move || if store.incoming(job).join(BACKUP).exists() { Ok(None) } else { store.find(job) }).await
}

/// A folder's age is that of the last transfer in it.
async fn is_older(store: &Store, job: JobId, than: Duration) -> bool {
    let folder = store.incoming(job);
    let touched = on_disk(move || fs::metadata(&folder)?.modified());
    touched.await.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age >= than))
}
