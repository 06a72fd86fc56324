//! The daemon: workers that carry batches from the stream into the catalog, and one look-out that measures how far behind
//! they are.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use longshore_catalog::{Catalog, CatalogConfig, CatalogKind};
use longshore_core::{
    Millis,
    exit::Exit,
    queue::{Queue, ReportReader, StreamEntry},
    redis_link::LinkError,
    shutdown::Shutdown,
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    backoff::Backoff,
    batch::Batch,
    condition::{Condition, Part},
    settings::StreamSettings,
    status,
};

/// The consumer group of all indexers.
pub const GROUP: &str = "indexers";
/// How long a read waits for something to come.
const READ_WAIT: Duration = Duration::from_secs(5);
/// How often the look-out looks; a tenth of the service manager's watchdog.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const ADOPT_EVERY: Duration = Duration::from_secs(60);

/// What the daemon works with.
#[derive(Debug, Clone)]
pub struct Dependencies {
    /// Where reports come from.
    pub queue: Queue,
    /// Where they go.
    pub catalog: Arc<dyn Catalog>,
    /// How it stands.
    pub condition: Arc<Condition>,
}

/// Runs until `shutdown`. A catalog or a queue that is away is waited for, also at the start.
///
/// # Errors
/// When the status port can't be served.
pub async fn run(
    settings: StreamSettings,
    dependencies: Dependencies,
    listener: TcpListener,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let condition = Arc::clone(&dependencies.condition);
    // Status goes last: how the end comes can be watched.
    let serving = Shutdown::new();
    let server = tokio::spawn(status::serve(listener, Arc::clone(&condition), serving.clone()));
    notify(&[sd_notify::NotifyState::Ready]);

    if prepare(&*dependencies.catalog, &condition, &shutdown).await {
        condition.ready();
        let mut tasks = JoinSet::new();
        tasks.spawn(look_out(dependencies.clone(), shutdown.clone()));
        for number in 0..settings.workers {
            let reader = dependencies.queue.reports(GROUP, &format!("{}-{number}", settings.consumer()));
            tasks.spawn(work(reader, dependencies.clone(), settings.clone(), shutdown.clone()));
        }
        tracing::info!(consumer = settings.consumer(), workers = settings.workers, "indexing");
        while let Some(ended) = tasks.join_next().await {
            ended.context("a part of the indexer ended early")?;
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    serving.request();
    server.await.context("the status server ended early")?.context("serving status")?;
    Ok(())
}

/// Makes tables or indexes, waiting for a catalog that is away; `false` when `shutdown` was requested first.
async fn prepare(catalog: &dyn Catalog, condition: &Condition, shutdown: &Shutdown) -> bool {
    let mut backoff = Backoff::new();
    while let Err(error) = catalog.ensure_schema().await {
        condition.trouble(Part::Catalog, &error);
        notify(&[sd_notify::NotifyState::Watchdog]);
        if !backoff.wait(shutdown).await {
            return false;
        }
    }
    condition.clear(Part::Catalog);
    true
}

/// Carries batches until `shutdown`; a batch in hand is finished, unless its catalog is away.
async fn work(mut reader: ReportReader, dependencies: Dependencies, settings: StreamSettings, shutdown: Shutdown) {
    let Dependencies { catalog, condition, .. } = dependencies;
    let mut backoff = Backoff::new();
    let mut adopted_at: Option<tokio::time::Instant> = None;
    while !shutdown.is_requested() {
        let adopt = adopted_at.is_none_or(|at| at.elapsed() >= ADOPT_EVERY);
        let read: Result<Vec<StreamEntry>, LinkError> = if adopt {
            adopted_at = Some(tokio::time::Instant::now());
            reader.adopt(settings.adopt_after.0, settings.batch).await
        } else {
            reader.read(settings.batch, READ_WAIT, &shutdown).await
        };
        let entries = match read {
            Ok(entries) => entries,
            Err(error) => {
                condition.trouble(Part::Redis, &error);
                backoff.wait(&shutdown).await;
                continue;
            }
        };
        condition.clear(Part::Redis);
        backoff = Backoff::new();
        if entries.is_empty() {
            continue;
        }
        longshore_core::step::reached("indexer.read");
        let mut batch = Batch::new(entries);
        if !batch.write(&*catalog, &condition, &shutdown).await
            || !finish(&mut reader, &batch, &condition, &shutdown).await
        {
            return;
        }
        longshore_core::step::reached("indexer.acknowledged");
        batch.count(&condition);
    }
}

/// Sets aside and acknowledges; `false` when `shutdown` was requested before Redis took it.
async fn finish(reader: &mut ReportReader, batch: &Batch, condition: &Condition, shutdown: &Shutdown) -> bool {
    let mut backoff = Backoff::new();
    loop {
        let done = async {
            reader.set_aside(batch.dead()).await?;
            longshore_core::step::reached("indexer.set_aside");
            reader.acknowledge(batch.ids()).await
        };
        match done.await {
            Ok(()) => {
                condition.clear(Part::Redis);
                return true;
            }
            Err(error) => {
                condition.trouble(Part::Redis, &error);
                if !backoff.wait(shutdown).await {
                    return false;
                }
            }
        }
    }
}

/// Measures how far behind the group is, and asks the catalog how it is while nothing is written.
async fn look_out(dependencies: Dependencies, shutdown: Shutdown) {
    let Dependencies { queue, catalog, condition } = dependencies;
    // Only looks: as a consumer it never reads anything.
    let mut reader = queue.reports(GROUP, "look-out");
    loop {
        match (reader.lag().await, queue.now_micros().await) {
            (Ok(backlog), Ok(micros)) => {
                condition.clear(Part::Redis);
                condition.backlog(backlog, Millis(i64::try_from(micros / 1000).unwrap_or(i64::MAX)));
            }
            (Err(error), _) | (_, Err(error)) => condition.trouble(Part::Redis, &error),
        }
        match catalog.health().await {
            Ok(_) => condition.clear(Part::Catalog),
            Err(error) => condition.trouble(Part::Catalog, &error),
        }
        notify(&[sd_notify::NotifyState::Watchdog]);
        if shutdown.unless_requested(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            return;
        }
    }
}

/// Without a service manager there is nobody to tell.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Held for as long as the indexer runs: with SQLite there is one.
#[derive(Debug)]
pub struct OnlyOne {
    _file: Option<File>,
}

impl OnlyOne {
    /// Takes the lock beside a SQLite catalog; Elasticsearch needs none.
    ///
    /// # Errors
    /// When another indexer has it, or the file can't be made.
    pub fn take(config: &CatalogConfig) -> anyhow::Result<Self> {
        if config.kind != CatalogKind::Sqlite {
            return Ok(Self { _file: None });
        }
        let mut path = config.path.clone().into_os_string();
        path.push(".indexer-lock");
        let path = PathBuf::from(path);
        let shown = path.display();
        let file = File::create(&path)
            .with_context(|| format!("{shown}: make its folder, and give it to this user"))
            .context(Exit::Configuration)?;
        file.try_lock()
            .with_context(|| format!("{shown} is held: another longshore-indexer writes this catalog"))
            .context(Exit::ServiceRefused)?;
        Ok(Self { _file: Some(file) })
    }
}
