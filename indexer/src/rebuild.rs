//! `rebuild`: brings the catalog up to what a node's disk says. A manifest is the report as it was settled, so what is missing
//! in the catalog, or older there, is put like a report off the stream: by job and revision, undoing nothing newer. It may
//! run beside the indexer, and again.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use longshore_catalog::{Catalog, CatalogError, Filter, Freshness, MAX_LIMIT, Put, SearchQuery, Standing};
use longshore_core::{JobId, NodeId, Outcome, Report, exit::Exit, shutdown::Shutdown};
use tokio::sync::mpsc;

use crate::{
    backoff::Backoff,
    manifests::{self, Manifest},
};

/// Manifests compared and written together.
const BATCH: usize = 1000;
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// Manifests that could be believed.
    pub manifests: u64,
    /// Missing in the catalog.
    pub missing: u64,
    /// Older in the catalog.
    pub older: u64,
    /// Newer in the catalog.
    pub newer: u64,
    /// Manifests that could not be believed, and folders that could not be read.
    pub damaged: u64,
    /// Backups whose data has another size, or is gone.
    pub data_wrong: u64,
    /// Stored on this node by the catalog, but not on its disk.
    pub not_on_disk: u64,
    /// Not taken by the catalog.
    pub refused: u64,
}

/// Compares, and unless `dry_run` writes; prints what differs.
///
/// # Errors
/// When the folder can't be listed, or the catalog is away for good.
pub async fn rebuild(catalog: &dyn Catalog, folder: &Path, dry_run: bool, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let mut empty = false;
    if dry_run {
        empty = matches!(catalog.health().await, Err(CatalogError::NotCreated { .. }));
    } else {
        catalog.ensure_schema().await.context(Exit::ServiceRefused)?;
    }
    let store = folder.canonicalize().with_context(|| folder.display().to_string()).context(Exit::Usage)?;
    let mut work = Rebuild {
        catalog,
        dry_run,
        empty,
        shutdown,
        found: Found::default(),
        nodes: BTreeSet::new(),
        seen: HashSet::new(),
    };
    work.read_store(store).await?;
    work.look_for_lost().await?;
    if !dry_run {
        catalog.refresh().await.context(Exit::ServiceRefused)?;
    }
    Ok(work.conclude())
}

struct Rebuild<'a> {
    catalog: &'a dyn Catalog,
    dry_run: bool,
    /// There is no catalog yet, and none is to be made.
    empty: bool,
    shutdown: &'a Shutdown,
    found: Found,
    nodes: BTreeSet<NodeId>,
    seen: HashSet<JobId>,
}

impl Rebuild<'_> {
    /// A thread walks the disk; batches of what it finds are compared and written here.
    async fn read_store(&mut self, store: PathBuf) -> anyhow::Result<()> {
        let (sender, mut receiver) = mpsc::channel::<Manifest>(2 * BATCH);
        let walked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&walked);
        let shown = store.display().to_string();
        let walker = tokio::task::spawn_blocking(move || {
            manifests::walk(&store, &mut |manifest| {
                count.fetch_add(1, Ordering::Relaxed);
                sender.blocking_send(manifest).map_err(|_| std::io::Error::other("stopped"))
            })
        });
        let mut batch = Vec::with_capacity(BATCH);
        let mut told = Instant::now();
        while let Some(manifest) = receiver.recv().await {
            if self.shutdown.is_requested() {
                anyhow::bail!(
                    anyhow::anyhow!("stopped; what was written stays, run it again for the rest").context(Exit::Kept)
                );
            }
            if let Some(report) = self.sort_out(manifest) {
                batch.push(report);
            }
            if batch.len() == BATCH {
                self.bring(std::mem::take(&mut batch)).await?;
            }
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                eprintln!("{} folders looked at", walked.load(Ordering::Relaxed));
            }
        }
        self.bring(batch).await?;
        walker.await.context("the walk ended early")?.with_context(|| shown).context(Exit::Usage)
    }

    /// Tells what is wrong with it; gives the report where it can be believed.
    fn sort_out(&mut self, manifest: Manifest) -> Option<Report> {
        let folder = manifest.folder.display();
        match manifest.report {
            Err(why) => {
                self.found.damaged += 1;
                println!("damaged      {folder}: {why}");
                None
            }
            Ok(report) => {
                self.found.manifests += 1;
                if let Err(why) = manifest.data {
                    self.found.data_wrong += 1;
                    println!("data wrong   {folder}: {why}");
                }
                // A manifest that names copies is a copy's: this store is not the node's that stored it first.
                if report.copies.is_empty() {
                    self.nodes.extend(report.node_id.clone());
                }
                self.seen.insert(report.job.id);
                Some(report)
            }
        }
    }

    async fn bring(&mut self, reports: Vec<Report>) -> anyhow::Result<()> {
        let ids: Vec<JobId> = reports.iter().map(|report| report.job.id).collect();
        let known = match self.empty {
            true => vec![None; ids.len()],
            false => self.patiently(async || self.catalog.standings(&ids).await).await?,
        };
        let mut lacking = Vec::new();
        for (report, known) in reports.into_iter().zip(known) {
            let here = Standing::of(&report);
            let (what, counted) = match known {
                None => ("missing", &mut self.found.missing),
                Some(known) if known < here => ("older", &mut self.found.older),
                Some(known) if known > here => ("newer", &mut self.found.newer),
                Some(_) => continue,
            };
            *counted += 1;
            println!("{what:<12} {} {}", report.job.key(), report.job.id);
            if what != "newer" {
                lacking.push(report);
            }
        }
        if self.dry_run { Ok(()) } else { self.put(lacking).await }
    }

    async fn put(&mut self, mut reports: Vec<Report>) -> anyhow::Result<()> {
        let mut backoff = Backoff::new();
        while !reports.is_empty() {
            let results = self.patiently(async || self.catalog.put(&reports).await).await?;
            let (mut again, mut taken) = (Vec::new(), Vec::new());
            for (report, put) in reports.into_iter().zip(results) {
                match put {
                    Put::Written | Put::Older => taken.push(report),
                    Put::Overloaded(_) => again.push(report),
                    Put::Refused(why) => {
                        self.found.refused += 1;
                        println!("refused      {} {}: {why}", report.job.key(), report.job.id);
                    }
                }
            }
            let records = Freshness::summary(&taken);
            self.patiently(async || self.catalog.put_freshness(&records).await).await?;
            reports = again;
            if !reports.is_empty() && !backoff.wait(self.shutdown).await {
                anyhow::bail!(anyhow::anyhow!("stopped while the catalog was overloaded").context(Exit::Kept));
            }
        }
        Ok(())
    }

    /// A catalog that is away is waited for, a while.
    async fn patiently<T>(&self, mut work: impl AsyncFnMut() -> Result<T, CatalogError>) -> anyhow::Result<T> {
        const TRIES: u32 = 8;
        let mut backoff = Backoff::new();
        for _ in 1..TRIES {
            match work().await {
                Err(error) if error.is_transient() => {
                    eprintln!("waiting: {error}");
                    if !backoff.wait(self.shutdown).await {
                        return Err(anyhow::Error::new(error).context(Exit::Kept));
                    }
                }
                result => return result.context(Exit::ServiceRefused),
            }
        }
        work().await.context(Exit::ServiceRefused)
    }

    /// Backups that the catalog has on the nodes whose manifests these are, but that are not here. They may lie on another
    /// disk of the node, so they are told and not touched.
    async fn look_for_lost(&mut self) -> anyhow::Result<()> {
        for node in if self.empty { BTreeSet::new() } else { self.nodes.clone() } {
            let filter = Filter { node_id: Some(node), outcomes: vec![Outcome::Stored], ..Filter::default() };
            let mut query = SearchQuery { filter, limit: MAX_LIMIT, ..SearchQuery::default() };
            loop {
                let page = self.patiently(async || self.catalog.search(&query).await).await?;
                for backup in page.items.iter().filter(|backup| !self.seen.contains(&backup.id())) {
                    self.found.not_on_disk += 1;
                    println!("not on disk  {} {}", backup.key(), backup.id());
                }
                match page.next {
                    Some(next) => query.cursor = Some(next),
                    None => break,
                }
            }
        }
        Ok(())
    }

    fn conclude(self) -> Exit {
        let Found { manifests, missing, older, newer, damaged, data_wrong, not_on_disk, refused } = self.found;
        let done = if self.dry_run { "would be written" } else { "written" };
        println!(
            "{manifests} manifests: {missing} missing and {older} older in the catalog ({done}), {newer} newer there; \
             {damaged} damaged, {data_wrong} with wrong data, {not_on_disk} not on disk, {refused} refused"
        );
        let wrong = damaged + data_wrong + not_on_disk + refused;
        if wrong == 0 { Exit::Done } else { Exit::FoundWrong }
    }
}
