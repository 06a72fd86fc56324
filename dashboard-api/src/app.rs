//! What every handler is given: settings, secrets, the registry, and the services that we look at.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use longshore_catalog::{Catalog, CatalogError};
use longshore_core::metrics::Metrics;
use tokio::sync::Mutex;

use crate::{
    api::{problem::Problem, summary::InstanceCounts},
    clusters::Cluster,
    keys::Keys,
    measures::Measures,
    registry::Registry,
    settings::Settings,
    watch::{Silence, Watch},
};

const COUNTS_HOLD: Duration = Duration::from_secs(5);

/// The parts that [`App`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The configuration.
    pub settings: Settings,
    /// The secrets.
    pub keys: Keys,
    /// The registry.
    pub registry: Registry,
    /// The catalog, opened to read.
    pub catalog: CatalogLink,
    /// The clusters, in the order of the configuration.
    pub clusters: Vec<Cluster>,
    /// For `/metrics`.
    pub metrics: Metrics,
    /// What is registered there.
    pub measures: Measures,
}

/// The state of the HTTP service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    parts: Arc<Parts>,
    counted: Arc<Mutex<Option<(Instant, InstanceCounts)>>>,
    started: Instant,
}

impl App {
    /// Of its parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), counted: Arc::default(), started: Instant::now() }
    }

    /// The configuration.
    pub fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// The secrets.
    pub fn keys(&self) -> &Keys {
        &self.parts.keys
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.parts.registry
    }

    /// The catalog.
    pub fn catalog(&self) -> &CatalogLink {
        &self.parts.catalog
    }

    /// The clusters.
    pub fn clusters(&self) -> &[Cluster] {
        &self.parts.clusters
    }

    /// The clusters, or the one of this name.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn clusters_named(&self, name: Option<&str>) -> Result<Vec<&Cluster>, Problem> {
        let Some(name) = name else { return Ok(self.clusters().iter().collect()) };
        let found = self.clusters().iter().find(|cluster| cluster.name().as_str() == name);
        let unknown = || Problem::not_found(format!("cluster {name} is not in this server's configuration"));
        found.map(|cluster| vec![cluster]).ok_or_else(unknown)
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// Counts of instances, made at most every 5 s however many look: to count them is to read them all.
    ///
    /// # Errors
    /// Of `count`.
    pub async fn counted(
        &self,
        count: impl Future<Output = Result<InstanceCounts, Problem>>,
    ) -> Result<InstanceCounts, Problem> {
        let mut counted = self.counted.lock().await;
        if let Some((at, counts)) = counted.as_ref()
            && at.elapsed() < COUNTS_HOLD
        {
            return Ok(counts.clone());
        }
        let counts = count.await?;
        *counted = Some((Instant::now(), counts.clone()));
        Ok(counts)
    }

    /// The values behind the metrics.
    pub fn measures(&self) -> &Measures {
        &self.parts.measures
    }

    /// Every service that is looked at.
    pub fn watches(&self) -> impl Iterator<Item = &Watch> {
        self.clusters().iter().map(Cluster::watch).chain([self.catalog().watch()])
    }

    /// How long it has been running, in seconds.
    pub fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

/// The catalog, and whether it answers.
#[derive(Debug)]
pub struct CatalogLink {
    catalog: Arc<dyn Catalog>,
    watch: Watch,
}

impl CatalogLink {
    /// Of an opened catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog, watch: Watch::of("The catalog") }
    }

    /// For questions, each to be passed to [`Self::ask`].
    pub fn reader(&self) -> &dyn Catalog {
        self.catalog.as_ref()
    }

    /// Whether it answers.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The answer to a question put to [`Self::reader`].
    ///
    /// # Errors
    /// A [`Problem`] fit to be sent; when the catalog is away, with since when.
    pub async fn ask<T>(&self, question: impl Future<Output = Result<T, CatalogError>>) -> Result<T, Problem> {
        let is_absence = |error: &CatalogError| !matches!(error, CatalogError::Cursor | CatalogError::Damaged { .. });
        let since = || self.watch.away().map(|away| away.since);
        self.watch.ask(question, is_absence).await.map_err(|silence| match silence {
            Silence::Error(error) => {
                let problem = Problem::from(error);
                if problem.status == 503 { Problem { since: since(), ..problem } } else { problem }
            }
            Silence::Slow(why) => Problem::away("The catalog", why, since()),
        })
    }
}
