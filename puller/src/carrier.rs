//! A job's way on the disk: fetched into its folder and verified here, then landed ([`crate::landing`]): given its manifest,
//! published under its final name. Knows nothing of the queue; every step may be repeated after a kill at any point.

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc};

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
    failure::Failure,
    fetch::{Errand, Fetcher},
    incoming::Incoming,
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
    /// `None` when it has its final name already: the puller was killed between the rename and the settling.
    pub(crate) incoming: Option<Incoming>,
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
        if let Some(found) = self.published(job, &place, &name, turn.verify).await? {
            let report = self.report(job, turn, &place, found.xxh3_128, None);
            return Ok(Brought { report, place, files: found.files, incoming: None });
        }
        let incoming = Incoming::open(&self.store, job.id);
        let incoming = incoming.await.map_err(|error| Failure::store("the transfer's folder", &error))?;
        let fetched = match turn.copy_of {
            None => {
                let lane = self.bandwidth.lane(&job.server_id, turn.queue);
                self.fetcher.fetch(&incoming, Errand { source, content, lane: &lane, progress, stop }).await?
            }
            Some(first) => {
                let lane = self.bandwidth.copies();
                match self.copier.fetch(&incoming, first, &lane, progress, stop).await {
                    Ok(fetched) => fetched,
                    Err(failure) => return Err(self.aside(incoming, failure)),
                }
            }
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
            Err(failure) => return Err(self.aside(incoming, failure)),
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
        Ok(Brought { report, place, files: found.files, incoming: Some(incoming) })
    }

    /// Whether `job` has a place, and neither a backup there nor anything of an earlier transfer.
    pub(crate) fn is_new(&self, job: &Job) -> bool {
        let absent = |path: PathBuf| fs::exists(path).is_ok_and(|exists| !exists);
        place_of(job).is_ok_and(|place| absent(place.below(self.store.root()))) && absent(self.store.incoming(job.id))
    }

    /// Another node has the job: what is here is moved out of the way.
    pub async fn superseded(&self, brought: Brought) {
        let place = brought.place.below(self.store.root());
        self.set_aside_as_superseded(&place, &brought.report);
        self.finish(vec![brought]).await;
    }

    /// Moves the published backup at `place` to the superseded ones, when it is the one of `report`.
    pub fn set_aside_as_superseded(&self, place: &std::path::Path, report: &Report) {
        if !Store::manifest(place).is_ok_and(|manifest| manifest.revision == report.revision) {
            return;
        }
        let name = format!("{}-{}", report.job.id, report.revision);
        match self.store.set_aside(place, SUPERSEDED, &name) {
            Ok(to) => {
                tracing::warn!(job = %report.job.id, to = %to.display(), "another node settled this job; our copy was moved");
            }
            Err(error) => tracing::error!(job = %report.job.id, %error, "a superseded backup could not be moved"),
        }
    }

    /// Nothing of the transfer of `job` is of use any more; unless another one works in its folder, which it is left to.
    pub async fn discard(&self, job: &Job) {
        let incoming = match Incoming::try_open(&self.store, job.id).await {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(job = %job.id, %error, "a transfer's folder could not be opened");
                return;
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(|| incoming.remove()).await.unwrap_or(Ok(())) {
            tracing::warn!(job = %job.id, %error, "a transfer's folder could not be removed");
        }
    }

    /// Whether something that differed was set aside for `job` before.
    pub fn was_corrupt(&self, job: &Job) -> bool {
        fs::exists(self.store.root().join(CORRUPT).join(job.id.to_string())).unwrap_or(false)
    }

    /// The verified backup under the final name, when it is there and whole.
    async fn published(
        &self,
        job: &Job,
        place: &RelativePath,
        name: &str,
        how: Verified,
    ) -> Result<Option<verify::Found>, Failure> {
        let folder = place.below(self.store.root());
        if !fs::exists(&folder).map_err(|error| Failure::store("the backup's place", &error))? {
            return Ok(None);
        }
        let Some(content) = job.content.clone() else { return Ok(None) };
        let (name, look) = (name.to_owned(), folder.clone());
        match blocking(move || verify::verify(&look, &name, &content, &HashMap::new(), how)).await {
            Ok(found) => {
                tracing::info!(job = %job.id, "found under its final name; settled without a transfer");
                Ok(Some(found))
            }
            // A disk that can't be read, or too many open files, says nothing of the backup.
            Err(failure) if failure.reason.code == ReasonCode::StoreFailed => Err(failure),
            Err(failure) => {
                tracing::error!(job = %job.id, reason = %failure.reason, "damaged under its final name; fetched again");
                let aside = self.store.set_aside(&folder, CORRUPT, &job.id.to_string());
                aside.map(|_| None).map_err(|error| Failure::store("setting a damaged backup aside", &error))
            }
        }
    }

    /// Keeps what differs for a person, one for each job; the next transfer begins anew.
    pub(crate) fn aside(&self, incoming: Incoming, failure: Failure) -> Failure {
        let job = incoming.job();
        if failure.class == crate::failure::Class::Corrupt && incoming.bytes_here() > 0 {
            match self.store.set_aside(&incoming.backup(), CORRUPT, &job.to_string()) {
                Ok(to) => {
                    tracing::warn!(%job, to = %to.display(), reason = %failure.reason, "not what was announced; kept");
                }
                Err(error) => tracing::error!(%job, %error, "what differs could not be set aside"),
            }
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
fn place_of(job: &Job) -> Result<RelativePath, Failure> {
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
