//! Limits on real transfers: through the proxy, moved there while they run, over ssh, and what is counted either way.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use longshore_core::{Job, Outcome, Policy, config::ConfigArgs, report::Transfer, report::Verified};
use longshore_puller::{
    bandwidth::{Bandwidth, Caps, share},
    carrier::{Carrier, Turn},
    peers::Peers,
    progress::Progress,
    settings,
    store::Store,
};
use longshore_tests::wait_until;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, SOON, bytes};

const MB: usize = 1_000_000;

/// A node's own part in a transfer, with no queue before it.
struct Bringer {
    carrier: Carrier,
    bandwidth: Arc<Bandwidth>,
}

impl Bringer {
    async fn new(cluster: &Cluster, more: &str) -> Self {
        let config = cluster.configure("1", "", more);
        let file = ConfigArgs { file: Some(config.config.clone()), ..ConfigArgs::default() };
        let settings = settings::read(&file, &[]).unwrap().value;
        let store = Arc::new(Store::open(&config.store, &settings.node_id, true).unwrap());
        let bandwidth = Arc::<Bandwidth>::default();
        let peers = Arc::new(Peers::new(cluster.queue.clone(), settings.node_id.clone()));
        Self { carrier: Carrier::new(&settings, store, Arc::clone(&bandwidth), peers), bandwidth }
    }

    fn limit(&self, bytes_per_second: usize) {
        self.bandwidth.set_caps(Caps { node: Some(bytes_per_second as u64), ..Caps::default() });
    }

    /// Brings a verified backup, and tells how it came.
    async fn bring(&self, job: &Job, progress: &Progress) -> Transfer {
        let turn = Turn { revision: 1, attempts: 1, queue: &job.queue, verify: Verified::Received, copy_of: None };
        let brought = self.carrier.bring(job, turn, progress, &CancellationToken::new()).await.unwrap();
        brought.report.transfer.unwrap()
    }
}

fn wrote(cluster: &Cluster, name: &str, size: usize) -> Job {
    cluster.write(name, size, 1);
    cluster.job(name)
}

#[tokio::test]
async fn a_limit_holds_a_real_transfer_and_every_byte_is_counted() {
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "").await;
    let job = wrote(&cluster, "a", 4 * MB);
    bringer.limit(2 * MB);
    let transfer = bringer.bring(&job, &Progress::new(job.size_bytes())).await;
    assert!(transfer.seconds > 1.8, "{transfer:?}");
    assert_eq!(transfer.bytes, 4 * MB as u64);
    let passed = bringer.bandwidth.node().passed();
    assert!((4 * MB as u64..5 * MB as u64).contains(&passed), "{passed}");
}

#[tokio::test]
async fn a_running_transfer_is_moved_behind_a_limit_and_goes_on_where_it_was() {
    // The host's own limit, so that there is time to move it.
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "[rsync]\nbwlimit = \"6MiB\"").await;
    let job = wrote(&cluster, "a", 36 * MB);
    let progress = Arc::new(Progress::new(job.size_bytes()));
    let transfer = bringer.bring(&job, &progress);
    let limited = async {
        wait_until("some of it is here", SOON, async || progress.bytes() > 6 * MB as u64).await;
        assert_eq!(bringer.bandwidth.node().passed(), 0, "direct so far");
        bringer.limit(12 * MB);
        let asked = Instant::now();
        wait_until("bytes pass the limit", SOON, async || bringer.bandwidth.node().passed() > 0).await;
        asked.elapsed()
    };
    let (transfer, obeyed) = tokio::join!(transfer, limited);
    assert!(obeyed < Duration::from_secs(5), "{obeyed:?}");
    let passed = bringer.bandwidth.node().passed();
    assert!(passed < 32 * MB as u64, "only the rest came through the proxy: {passed}");
    assert!((34 * MB as u64..42 * MB as u64).contains(&transfer.bytes), "both parts are counted: {transfer:?}");
}

#[tokio::test]
async fn a_changed_limit_holds_for_a_running_transfer() {
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "").await;
    let job = wrote(&cluster, "a", 30 * MB);
    bringer.limit(MB);
    let progress = Progress::new(job.size_bytes());
    let passed = || bringer.bandwidth.node().passed();
    let changed = async {
        wait_until("it runs", SOON, async || passed() > MB as u64 / 2).await;
        bringer.limit(200 * MB);
    };
    let (transfer, ()) = tokio::join!(bringer.bring(&job, &progress), changed);
    assert!(transfer.seconds < 25.0, "a second of it at the old limit would have taken thirty: {transfer:?}");
}

#[tokio::test]
async fn transfers_of_one_class_get_equal_shares() {
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "").await;
    let jobs: Vec<Job> = ["a", "b", "c", "d"].iter().map(|name| wrote(&cluster, name, 24 * MB)).collect();
    bringer.limit(16 * MB);
    let progress: Vec<_> = jobs.iter().map(|job| Progress::new(job.size_bytes())).collect();
    let brought = jobs.iter().zip(&progress).map(|(job, progress)| bringer.bring(job, progress));
    let incoming = cluster.folder.path().join("store1/.incoming");
    let here = || -> Vec<u64> {
        let partial = |job: &Job| incoming.join(job.id.to_string()).join("backup").join(job.name().unwrap());
        jobs.iter().map(|job| fs::metadata(partial(job)).map_or(0, |found| found.len())).collect()
    };
    let watched = async {
        wait_until("all of them run", SOON, async || here().iter().all(|&bytes| bytes > MB as u64)).await;
        let before = here();
        wait_until("half is here", SOON, async || here().iter().sum::<u64>() > 64 * MB as u64).await;
        here().iter().zip(before).map(|(bytes, before)| bytes - before).collect::<Vec<u64>>()
    };
    let (_, grown) = tokio::join!(futures_util::future::join_all(brought), watched);
    // rsync writes by a quarter of a MiB, which is one at each end of what was watched.
    let mean = grown.iter().sum::<u64>() / 4;
    assert!(grown.iter().all(|grown| grown.abs_diff(mean) < mean / 20 + (512 << 10)), "{grown:?}");
}

#[tokio::test]
async fn a_resume_and_a_folder_go_through_the_proxy_too() {
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "").await;
    bringer.limit(500 * MB);
    for number in 0..40 {
        cluster.write(&format!("d/{number}"), 10_000 + number, 1);
    }
    let job = cluster.job("d");
    bringer.bring(&job, &Progress::new(job.size_bytes())).await;
    let job = wrote(&cluster, "a", 20 * MB);
    let partial = cluster.folder.path().join("store1/.incoming").join(job.id.to_string()).join("backup");
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("a"), &bytes(20 * MB, 1)[..14 * MB]).unwrap();
    let transfer = bringer.bring(&job, &Progress::new(job.size_bytes())).await;
    assert!(transfer.bytes < 7 * MB as u64, "{transfer:?}");
}

#[tokio::test]
async fn a_host_that_is_away_is_told_as_such_through_the_proxy_too() {
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "").await;
    let job = wrote(&cluster, "a", 10);
    bringer.limit(MB);
    cluster.host.kill();
    let turn = Turn { revision: 1, attempts: 1, queue: &job.queue, verify: Verified::Received, copy_of: None };
    let progress = Progress::new(job.size_bytes());
    let failure = bringer.carrier.bring(&job, turn, &progress, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(failure.reason.code, longshore_core::ReasonCode::Unreachable);
    assert!(failure.reason.text.contains("refused"), "{}", failure.reason);
}

/// A node's limits, its share kept, and somebody who takes all that it may.
struct Sharing {
    bandwidth: Arc<Bandwidth>,
    keeper: tokio::task::JoinHandle<()>,
    taker: tokio::task::JoinHandle<()>,
}

impl Sharing {
    fn start(cluster: &Cluster, node: &str, weight: u32, cap: u64) -> Self {
        let bandwidth = Arc::<Bandwidth>::default();
        bandwidth.set_caps(Caps { cluster: Some(cap), ..Caps::default() });
        let (queue, node_id, ours) = (cluster.queue.clone(), node.parse().unwrap(), Arc::clone(&bandwidth));
        let keeper = tokio::spawn(async move { share::keep(&ours, &queue, &node_id, || weight).await });
        let lane = bandwidth.lane(&"1".parse().unwrap(), &"level1".parse().unwrap());
        let taker = tokio::spawn(async move {
            loop {
                lane.pass(10_000).await;
            }
        });
        Self { bandwidth, keeper, taker }
    }

    fn rate(&self) -> u64 {
        self.bandwidth.fetch().rate().unwrap()
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.keeper.abort();
        self.taker.abort();
    }
}

#[tokio::test]
async fn nodes_share_the_clusters_limit_and_keep_to_it_without_redis() {
    const CAP: u64 = 40_000_000;
    let cluster = Cluster::start();
    let small = Sharing::start(&cluster, "1", 100, CAP);
    let large = Sharing::start(&cluster, "2", 300, CAP);
    let reaches = async |what: &str, node: &Sharing, rate: u64| {
        wait_until(what, SOON, async || {
            assert!(small.rate() + large.rate() <= CAP, "{} {}", small.rate(), large.rate());
            node.rate().abs_diff(rate) < 10
        })
        .await;
    };
    reaches("the small one has its part", &small, CAP / 4).await;
    reaches("the large one has its part", &large, CAP * 3 / 4).await;
    large.taker.abort();
    let asked = Instant::now();
    reaches("what the large one does not use is lent", &small, CAP).await;
    assert!(asked.elapsed() < Duration::from_secs(9), "before any lease ended: {:?}", asked.elapsed());
    cluster.redis.stop();
    let stopped = Instant::now();
    wait_until("each has its part by weight", SOON, async || {
        let is_kept = small.rate() == CAP;
        assert!(is_kept || stopped.elapsed() > Duration::from_secs(2), "what was leased is kept while the lease lasts");
        (small.rate(), large.rate()) == (CAP / 4, CAP * 3 / 4)
    })
    .await;
    cluster.redis.start_again();
    wait_until("it is shared again", SOON, async || small.rate().abs_diff(CAP) < 10).await;
}

/// A policy that gives node 1 this rate.
fn policy(version: u64, rate: &str) -> Policy {
    let rules = json!({"nodes": {"1": {"bandwidth": rate}}});
    serde_json::from_value(json!({"v": 1, "version": version, "rules": rules})).unwrap()
}

#[tokio::test]
async fn what_operators_set_reaches_transfers_that_run() {
    let cluster = Cluster::start();
    let config = cluster.configure("1", "bandwidth = \"40MB/s\"", "");
    // Before the first look at the policy there is none.
    let job = cluster.offer_file("a", 120 * MB, 1).await;
    let puller = config.start(&[]);
    let partial = puller.store.join(".incoming").join(job.id.to_string()).join("backup/a");
    let here = || fs::metadata(&partial).map_or(0, |found| found.len());
    wait_until("it runs", SOON, async || here() > 4 * MB as u64).await;
    cluster.queue.publish_policy(&policy(1, "1MB/s")).await.unwrap();
    // Within a second, by far, if the machine is not busy with something else; then it keeps to it for three.
    let (mut before, mut started) = (here(), Instant::now());
    wait_until("it keeps to the limit", Duration::from_secs(6), async || {
        let (grown, most) = (here() - before, 1e6 * started.elapsed().as_secs_f64() + 0.6e6);
        if grown as f64 > most {
            (before, started) = (here(), Instant::now());
        }
        grown > 0 && started.elapsed() >= Duration::from_secs(3)
    })
    .await;
    assert!(here() < 110 * MB as u64, "most of it is still to come, in more than a minute at this rate");
    cluster.queue.publish_policy(&policy(2, "unlimited")).await.unwrap();
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert_eq!(report.attempts, 1);
}

#[tokio::test]
async fn the_seeds_own_limit_still_holds_each_process() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 4 * MB, 1).await;
    let file = "[rsync]\nbwlimit = \"2000KiB\"";
    assert!(cluster.configure("1", "", file).once().success());
    let report = cluster.report_of(&job).await;
    assert!(report.transfer.unwrap().seconds > 1.5, "{:?}", report.transfer);
}
