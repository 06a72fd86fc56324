//! A job's way on the disk: fetched into its folder and verified here, then landed ([`crate::landing`]): given its manifest,
//! published under its final name. Knows nothing of the queue; every step may be repeated after a kill at any point.

use std::{collections::HashMap, fs, io, path::PathBuf, sync::Arc};

use longshore_core::{
    Content, Job, Millis, NodeId, Outcome, QueueName, ReasonCode, RelativePath, Report, Source,
    digest::{FileEntry, Xxh3},
    report::{self, REPORT_VERSION, Transfer, Verified},
    step,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bandwidth::Bandwidth,
    copies::Copier,
    failure::{Class, Failure},
    fetch::{Errand, Fetcher},
    incoming::{Incoming, Size, on_disk},
    peers::Peers,
    progress::Progress,
    settings::Settings,
    store::{CORRUPT, FILES, MANIFEST, NEW_MANIFEST, SUPERSEDED, Store},
    verify,
};

/// The field of a report that says what was received, for jobs that announced no digest.
pub const RECEIVED_DIGEST: &str = "received_xxh3_128";

/// What a job's transfer is told beside the job.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// Of the lease: the fence.
    pub revision: u64,
    /// Transfers begun, this one included.
    pub attempts: u32,
    /// The level it waited in, which need not be what the job says: an operator may have moved it.
    pub queue: &'a QueueName,
    /// How what arrives is checked.
    pub verify: Verified,
    /// The report of the node that has stored the job already: this is to be a second copy, fetched from there.
    pub copy_of: Option<&'a Report>,
}

/// Brings jobs onto this node's disk.
#[derive(Debug)]
pub struct Carrier {
    node_id: NodeId,
    pub(crate) store: Arc<Store>,
    pub(crate) bandwidth: Arc<Bandwidth>,
    pub(crate) fetcher: Fetcher,
    copier: Copier,
}

/// A verified backup, and its report.
#[derive(Debug)]
pub struct Brought {
    /// What will be settled; it is the manifest, too.
    pub report: Report,
    pub(crate) place: RelativePath,
    pub(crate) files: Option<Vec<FileEntry>>,
    /// Locked until all is over.
    pub(crate) incoming: Incoming,
    /// It has its final name already: the puller was killed between the rename and the settling.
    pub(crate) is_published: bool,
}

/// What is here of a backup before it is fetched.
enum Here {
    /// Under its final name.
    Published(verify::Found),
    /// In its transfer's folder.
    Whole(verify::Found),
}

impl Carrier {
    /// For `store`, within the limits of `bandwidth`; second copies come from `peers`.
    pub fn new(settings: &Settings, store: Arc<Store>, bandwidth: Arc<Bandwidth>, peers: Arc<Peers>) -> Self {
        let fetcher = Fetcher::new(settings, Arc::clone(&bandwidth));
        let copier = Copier::new(settings, Arc::clone(&store), peers);
        Self { node_id: settings.node_id.clone(), store, bandwidth, fetcher, copier }
    }

    /// Fetches and verifies `job`, or finds it published and verifies that.
    ///
    /// # Errors
    /// [`Failure`]. What arrived stays for a resume, but for what differs from the announcement: that is set aside.
    pub async fn bring(
        &self,
        job: &Job,
        turn: Turn<'_>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Brought, Failure> {
        let (source, content) = announced(job)?;
        let name = source.path.name().to_owned();
        let place = place_of(job)?;
        let incoming = Incoming::open(&self.store, job.id);
        let incoming = incoming.await.map_err(|error| Failure::store("the transfer's folder", &error))?;
        match self.here(&incoming, content, &place, &name, turn.verify).await? {
            Some(Here::Published(found)) => {
                let report = self.report(job, turn, &place, found.xxh3_128, None);
                return Ok(Brought { report, place, files: found.files, incoming, is_published: true });
            }
            Some(Here::Whole(found)) => {
                let transfer = Transfer { bytes: 0, seconds: 0.0, resumed_bytes: content.size_bytes };
                return self.verified(job, turn, found, transfer, incoming);
            }
            None => {}
        }
        let fetched = match turn.copy_of {
            None => {
                let lane = self.bandwidth.lane(&job.server_id, turn.queue);
                let errand = Errand { source, content, lane: &lane, progress, stop };
                Box::pin(self.fetcher.fetch(&incoming, errand)).await
            }
            Some(first) => {
                let lane = self.bandwidth.copies();
                self.copier.fetch(&incoming, first, &lane, progress, stop).await
            }
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(failure) => return Err(self.aside(incoming, failure).await),
        };
        step::reached("puller.fetched");
        let transfer = Transfer {
            bytes: fetched.received_bytes,
            seconds: fetched.seconds,
            resumed_bytes: content.size_bytes.saturating_sub(fetched.received_bytes).min(fetched.found_bytes),
        };
        let (folder, announced) = (incoming.backup(), content.clone());
        let verified =
            blocking(move || verify::verify(&folder, &name, &announced, &fetched.digests, turn.verify)).await;
        let found = match verified {
            Ok(found) => found,
            Err(failure) => return Err(self.aside(incoming, failure).await),
        };
        step::reached("puller.verified");
        self.verified(job, turn, found, transfer, incoming)
    }

    /// What was fetched into `incoming` and verified, with its report.
    ///
    /// # Errors
    /// [`Failure`], when the job has no place in a store.
    pub(crate) fn verified(
        &self,
        job: &Job,
        turn: Turn<'_>,
        found: verify::Found,
        transfer: Transfer,
        incoming: Incoming,
    ) -> Result<Brought, Failure> {
        let place = place_of(job)?;
        let report = self.report(job, turn, &place, found.xxh3_128, Some(transfer));
        Ok(Brought { report, place, files: found.files, incoming, is_published: false })
    }

    /// Another node has the job: what is here is moved out of the way.
    pub async fn superseded(&self, brought: Brought) {
        let place = brought.place.below(self.store.root());
        if self.set_aside_as_superseded(place, &brought.report).await {
            self.finish(vec![brought]).await;
        }
    }

    /// Moves the backup at `place` to the superseded ones, when it is the one of `report`; tells whether none of it is there now.
    pub async fn set_aside_as_superseded(&self, place: PathBuf, report: &Report) -> bool {
        let (store, job, revision) = (Arc::clone(&self.store), report.job.id, report.revision);
        let moved = on_disk(move || match Store::manifest(&place) {
            Ok(manifest) if manifest.revision == revision => {
                let to = store.set_aside(&place, SUPERSEDED, &format!("{job}-{revision}"))?;
                tracing::warn!(%job, to = %to.display(), "another node settled this job; our copy was moved");
                Ok(true)
            }
            // Of an earlier lease: whose it is, the sweep asks by that ([`crate::recovery`]).
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        });
        moved.await.unwrap_or_else(|error| {
            tracing::error!(%job, %error, "a superseded backup could not be moved; tried again later");
            false
        })
    }

    /// Nothing of the transfer of `job` is of use any more; unless another one works in its folder, which it is left to, or its
    /// backup has its final name: whose that is, the queue has to be asked ([`crate::recovery`]).
    pub async fn discard(&self, job: &Job) {
        if self.is_published(job).await.unwrap_or(true) {
            return;
        }
        let incoming = match Incoming::try_open(&self.store, job.id).await {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(job = %job.id, %error, "a transfer's folder could not be opened");
                return;
            }
        };
        if let Err(error) = on_disk(|| incoming.remove()).await {
            tracing::warn!(job = %job.id, %error, "a transfer's folder could not be removed");
        }
    }

    async fn is_published(&self, job: &Job) -> io::Result<bool> {
        let Ok(place) = place_of(job) else { return Ok(false) };
        let place = place.below(self.store.root());
        on_disk(move || fs::exists(place)).await
    }

    /// The verified backup, when it is here and whole: under its final name, or still in its transfer's folder, which was left with its
    /// manifest when the lease was lost.
    async fn here(
        &self,
        incoming: &Incoming,
        content: &Content,
        place: &RelativePath,
        name: &str,
        how: Verified,
    ) -> Result<Option<Here>, Failure> {
        let (store, folder, left, job) =
            (Arc::clone(&self.store), place.below(self.store.root()), incoming.backup(), incoming.job());
        let (content, name) = (content.clone(), name.to_owned());
        blocking(move || {
            if !fs::exists(&folder).map_err(|error| Failure::store("the backup's place", &error))? {
                // Without a digest to compare with, a file of the right length need not be what came: its bytes may never have
                // reached the disk. Then it is fetched, as what is not whole.
                if !content.is_provable() || !fs::exists(left.join(MANIFEST)).unwrap_or(false) {
                    return Ok(None);
                }
                let found = verify::verify(&left, &name, &content, &HashMap::new(), how).ok();
                if found.is_some() {
                    tracing::info!(%job, "found whole in its transfer's folder; published without a transfer");
                }
                return Ok(found.map(Here::Whole));
            }
            match verify::verify(&folder, &name, &content, &HashMap::new(), how) {
                Ok(found) => {
                    tracing::info!(%job, "found under its final name; settled without a transfer");
                    Ok(Some(Here::Published(found)))
                }
                // A disk that can't be read, or too many open files, says nothing of the backup.
                Err(failure) if failure.reason.code == ReasonCode::StoreFailed => Err(failure),
                Err(failure) => {
                    tracing::error!(%job, reason = %failure.reason, "damaged under its final name; fetched again");
                    let aside = store.set_aside(&folder, CORRUPT, &format!("{job}-damaged"));
                    aside.map(|_| None).map_err(|error| Failure::store("setting a damaged backup aside", &error))
                }
            }
        })
        .await
    }

    /// Keeps what differs for a person, one for each job; the next transfer begins anew.
    pub(crate) async fn aside(&self, incoming: Incoming, failure: Failure) -> Failure {
        if failure.class != Class::Corrupt {
            return failure;
        }
        let (store, job) = (Arc::clone(&self.store), incoming.job());
        let kept = blocking(move || {
            let failed = |error: io::Error| Failure::store("setting aside what differs", &error);
            if Size::below(&incoming.backup()).bytes == 0 {
                return Ok(None);
            }
            store.set_aside(&incoming.backup(), CORRUPT, &job.to_string()).map(Some).map_err(failed)
        });
        match kept.await {
            Ok(Some(to)) => {
                tracing::warn!(%job, to = %to.display(), reason = %failure.reason, "not what was announced; kept");
            }
            Ok(None) => {}
            Err(broken) => tracing::error!(%job, reason = %broken.reason, "what differs could not be set aside"),
        }
        failure
    }

    fn report(
        &self,
        job: &Job,
        turn: Turn<'_>,
        place: &RelativePath,
        digest: Xxh3,
        transfer: Option<Transfer>,
    ) -> Report {
        if let Some(first) = turn.copy_of {
            let mut report = first.clone();
            report.revision = turn.revision;
            let (node_id, path) = (self.node_id.clone(), place.clone());
            report.copies.push(report::Copy { node_id, path, stored_at: Millis::now() });
            return report;
        }
        let announced = job.content.as_ref().is_some_and(|content| content.xxh3_128.is_some());
        let mut extra = serde_json::Map::new();
        if !announced {
            extra.insert(RECEIVED_DIGEST.to_owned(), digest.to_string().into());
        }
        Report {
            v: REPORT_VERSION,
            job: job.clone(),
            revision: turn.revision,
            outcome: Outcome::Stored,
            reason: None,
            node_id: Some(self.node_id.clone()),
            path: Some(place.clone()),
            stored_at: Millis::now(),
            attempts: turn.attempts,
            transfer,
            verified: Some(turn.verify),
            copies: Vec::new(),
            extra,
        }
    }
}

/// What `job` says of its source and content.
pub(crate) fn announced(job: &Job) -> Result<(&Source, &Content), Failure> {
    let missing = || Failure::new(ReasonCode::Malformed, "the job has no source or no content");
    Ok((job.source.as_ref().ok_or_else(missing)?, job.content.as_ref().ok_or_else(missing)?))
}

/// Where `job` belongs.
pub(crate) fn place_of(job: &Job) -> Result<RelativePath, Failure> {
    let name = job.name().unwrap_or_default();
    if [MANIFEST, NEW_MANIFEST, FILES].contains(&name) {
        let text = format!("a backup can't be called {name}: that name is taken beside every backup");
        return Err(Failure::new(ReasonCode::UnsafePath, text));
    }
    Store::place(job).map_err(|error| Failure::new(ReasonCode::UnsafePath, format!("its place: {error}")))
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Failure::new(ReasonCode::StoreFailed, format!("a file task ended: {error}"))))
}
