//! P5: one cap. Four transfers of one puller under 40 MB/s, by what arrives on its disk: how far any ten seconds are from the
//! cap, how soon a changed cap is obeyed, and how far one transfer's share is from the others'.

use std::{
    fs,
    path::Path,
    thread::park_timeout,
    time::{Duration, Instant},
};

use longshore_core::{Policy, config::RedisConfig, queue::Queue, redis_link::RedisLink};
use longshore_tests::wait_until_blocking;

use crate::{large::Large, line};

const FILES: u64 = 4;
const FILE_BYTES: u64 = 400 << 20;
const MB: f64 = 1e6;
const CAP: f64 = 40.0 * MB;
const LOWERED: f64 = 10.0 * MB;
/// A puller on a busy machine has begun by then.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(25);
const TICK: Duration = Duration::from_millis(20);
/// Over which a rate is looked at: rsync writes by a quarter of a MiB, so it can't be shorter.
const GLANCE: Duration = Duration::from_millis(400);

/// Bytes of each file, and when.
type Sample = (Instant, Vec<u64>);

/// Measures the figures.
pub(crate) fn measure() -> anyhow::Result<()> {
    let large = Large::start(FILES, FILE_BYTES)?;
    let site = large.site()?;
    let fetching = site.begin(usize::try_from(FILES)?, "bandwidth = \"40MB/s\"")?;
    let store = site.store();
    wait_until_blocking("all four transfers have 4 MiB", STARTED_WITHIN, || {
        sizes(&store).iter().filter(|&&bytes| bytes > 4 << 20).count() >= FILES as usize
    });
    let steady = watch(&store, WATCHED);
    let error = steady
        .iter()
        .filter_map(|sample| {
            let end = steady.iter().find(|later| later.0 >= sample.0 + Duration::from_secs(10))?;
            Some((rate(sample, end) / CAP - 1.0).abs())
        })
        .fold(0.0, f64::max);
    let (first, last) = (&steady[0], &steady[steady.len() - 1]);
    let shares: Vec<f64> = first.1.iter().zip(&last.1).map(|(before, after)| (after - before) as f64).collect();
    let mean = shares.iter().sum::<f64>() / FILES as f64;
    let unfair = shares.iter().map(|share| (share / mean - 1.0).abs()).fold(0.0, f64::max);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let queue = Queue::new(RedisLink::new(&RedisConfig { address: site.redis().address(), ..RedisConfig::default() }));
    let lowered = policy(1, "10MB/s")?;
    let changed = Instant::now();
    runtime.block_on(queue.publish_policy(&lowered))?;
    let after = watch(&store, Duration::from_secs(4));
    let obeyed = obeyed(&after, changed);
    runtime.block_on(queue.publish_policy(&policy(2, "unlimited")?))?;
    fetching.end()?;
    line("P5.error", "worst-10-s-of-25-s", error, error * 100.0, 2.0, "%", "<=0.02");
    line("P5.obey", "40-to-10-MB/s-while-running", obeyed, obeyed, 1.0, "s", "<=1");
    line("P5.fair", "worst-of-four-shares", unfair, unfair * 100.0, 5.0, "%", "<=0.05");
    Ok(())
}

fn policy(version: u64, rate: &str) -> anyhow::Result<Policy> {
    let rules = serde_json::json!({"nodes": {"1": {"bandwidth": rate}}});
    Ok(serde_json::from_value(serde_json::json!({"v": 1, "version": version, "rules": rules}))?)
}

/// Sizes of what is under way, in an order that stays.
fn sizes(store: &Path) -> Vec<u64> {
    let mut jobs: Vec<_> = fs::read_dir(store.join(".incoming")).into_iter().flatten().flatten().collect();
    jobs.sort_by_key(fs::DirEntry::file_name);
    let bytes = |job: fs::DirEntry| {
        let files = fs::read_dir(job.path().join("backup")).ok()?.flatten();
        Some(files.filter_map(|file| Some(file.metadata().ok()?.len())).sum())
    };
    jobs.into_iter().filter_map(bytes).collect()
}

fn watch(store: &Path, span: Duration) -> Vec<Sample> {
    let started = Instant::now();
    let mut samples = Vec::new();
    while started.elapsed() < span {
        samples.push((Instant::now(), sizes(store)));
        park_timeout(TICK);
    }
    samples
}

fn rate(from: &Sample, to: &Sample) -> f64 {
    let bytes = to.1.iter().sum::<u64>() - from.1.iter().sum::<u64>();
    bytes as f64 / (to.0 - from.0).as_secs_f64()
}

/// Seconds from the change, before it was published, until no glance shows more than the new rate, with one write more or less;
/// at least those until the first glance.
fn obeyed(samples: &[Sample], changed: Instant) -> f64 {
    let most = LOWERED + f64::from(1 << 18) * FILES as f64 / GLANCE.as_secs_f64();
    let above = samples.iter().filter(|sample| {
        let end = samples.iter().find(|later| later.0 >= sample.0 + GLANCE);
        end.is_some_and(|end| rate(sample, end) > most)
    });
    let seconds = |sample: &Sample| sample.0.saturating_duration_since(changed).as_secs_f64();
    above.map(seconds).fold(samples.first().map_or(0.0, seconds), f64::max)
}
