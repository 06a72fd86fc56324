//! P7: the restore lookup at 1,000,000 backups: what to apply, in order, to have an instance as of a moment. 2,000 instances
//! with 500 hourly backups each, a full a day; the instance and the moment of each lookup are random, so a chain has 1 to 24
//! members, 12 in the middle. One lookup at a time, through the catalog's own interface.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use longshore_catalog::{Access, Catalog, CatalogConfig, CatalogKind, ElasticsearchConfig, Filter, Put};
use longshore_core::chain::ChainState;
use longshore_tests::Elasticsearch;

use crate::{line, sample::Sample};

const BACKUPS: u64 = 1_000_000;
const INSTANCES: u64 = 2000;
const BATCH: u64 = 5000;
const LOADERS: u64 = 2;
const WARM_UP: u64 = 300;
const LOOKUPS: u64 = 3000;

/// Prints `P7.sqlite` and `P7.elasticsearch`.
pub(crate) fn measure() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let config = CatalogConfig { path: folder.path().join("catalog.db"), ..CatalogConfig::default() };
    runtime.block_on(lookups("P7.sqlite", &config, 5.0))?;
    drop(folder);

    let server = Elasticsearch::start();
    let elasticsearch = ElasticsearchConfig { urls: vec![server.url()], replicas: 0, ..ElasticsearchConfig::default() };
    let config = CatalogConfig { kind: CatalogKind::Elasticsearch, elasticsearch, ..CatalogConfig::default() };
    runtime.block_on(lookups("P7.elasticsearch", &config, 20.0))
}

async fn lookups(id: &str, config: &CatalogConfig, goal_milliseconds: f64) -> anyhow::Result<()> {
    let catalog = longshore_catalog::open(config, Access::Write)?;
    catalog.ensure_schema().await?;
    let sample = Arc::new(Sample::new(INSTANCES)?);
    let began = Instant::now();
    let mut loaders = tokio::task::JoinSet::new();
    for loader in 0..LOADERS {
        loaders.spawn(load(Arc::clone(&catalog), Arc::clone(&sample), loader));
    }
    while let Some(ended) = loaders.join_next().await {
        ended??;
    }
    catalog.refresh().await?;
    let loaded = catalog.totals(&Filter::default()).await?.count;
    ensure!(loaded == BACKUPS, "{loaded} backups are there");
    eprintln!("{id} loaded {BACKUPS} backups in {:.0} s", began.elapsed().as_secs_f64());

    let reader = longshore_catalog::open(config, Access::Read)?;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut times = Vec::new();
    for number in 0..WARM_UP + LOOKUPS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let wanted = sample.report(random % BACKUPS, false)?;
        let (key, at) = (wanted.job.key(), wanted.job.made_at.plus(Duration::from_secs(60)));
        let began = Instant::now();
        let chain = reader.chain(&key, at).await?.context("a chain")?;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        let members = wanted.job.chain.and_then(|link| link.sequence).context("its place")? as usize + 1;
        ensure!(chain.state == ChainState::Whole && chain.backups.len() == members, "{key} at {at}: {:?}", chain.state);
        if number >= WARM_UP {
            times.push(took);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // thousands
        let position = (times.len() as f64 * share) as usize;
        times[position.min(times.len() - 1)]
    };
    eprintln!("{id} {LOOKUPS} lookups: p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms", at(0.5), at(0.99), at(1.0));
    line(id, "restore-lookup-p99", at(0.99) / goal_milliseconds, at(0.99), goal_milliseconds, "ms", "<=1");
    Ok(())
}

/// Every `LOADERS`th batch.
async fn load(catalog: Arc<dyn Catalog>, sample: Arc<Sample>, loader: u64) -> anyhow::Result<()> {
    for batch in (loader..BACKUPS / BATCH).step_by(usize::try_from(LOADERS)?) {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let reports = numbers.map(|number| sample.report(number, false)).collect::<anyhow::Result<Vec<_>>>()?;
        let results = catalog.put(&reports).await?;
        let refused = results.iter().find(|put| **put != Put::Written);
        ensure!(refused.is_none(), "not written: {refused:?}");
    }
    Ok(())
}
