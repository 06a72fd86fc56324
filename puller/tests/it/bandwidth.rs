//! Limits on real transfers: through the proxy, moved there while they run, over ssh, and what is counted either way.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use longshore_core::{
    Job, Millis, NodeBeat, Outcome, Policy, ReasonCode,
    config::{ConfigArgs, RedisConfig},
    queue::Queue,
    redis_link::RedisLink,
    report::{Transfer, Verified},
    token,
};
use longshore_puller::{
    bandwidth::{Bandwidth, Caps, share},
    carrier::{Carrier, Turn},
    failure::Failure,
    peers::Peers,
    progress::Progress,
    settings,
    store::Store,
};
use longshore_tests::{Passage, Proxy, wait_until};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, SOON, bytes, signing_key};

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
        self.try_to_bring(job, progress).await.unwrap()
    }

    async fn try_to_bring(&self, job: &Job, progress: &Progress) -> Result<Transfer, Failure> {
        let turn = Turn { revision: 1, attempts: 1, queue: &job.queue, verify: Verified::Received, copy_of: None };
        let brought = self.carrier.bring(job, turn, progress, &CancellationToken::new()).await?;
        Ok(brought.report.transfer.unwrap())
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
async fn the_limit_of_a_host_and_that_of_a_queue_hold_what_is_theirs_together() {
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "").await;
    let (mut another_host, mut another_queue) = (wrote(&cluster, "h", 3 * MB), wrote(&cluster, "q", 3 * MB));
    another_host.server_id = "7".parse().unwrap();
    another_queue.queue = "level7".parse().unwrap();
    let ours = ["a", "b", "c", "d"].map(|name| wrote(&cluster, name, 3 * MB));
    let (host, queue, limit) = (ours[0].server_id.clone(), ours[0].queue.clone(), 3 * MB as u64);
    let of_host = Caps { hosts: BTreeMap::from([(host, limit)]), ..Caps::default() };
    let of_queue = Caps { queues: BTreeMap::from([(queue, limit)]), ..Caps::default() };
    let progress = Progress::new(0);
    for (caps, ours, other) in [(of_host, &ours[..2], another_host), (of_queue, &ours[2..], another_queue)] {
        bringer.bandwidth.set_caps(caps.clone());
        let bring = async |job| bringer.bring(job, &progress).await.seconds;
        let (one, two, other) = tokio::join!(bring(&ours[0]), bring(&ours[1]), bring(&other));
        assert!(one.max(two) > 1.8, "{one} {two}: {caps:?}");
        assert!(other < one.max(two) - 0.5, "it is not held: {other}, {one}, {two}: {caps:?}");
    }
}

#[tokio::test]
async fn a_running_transfer_is_moved_behind_a_limit_within_a_second_and_goes_on_where_it_was() {
    // The host's own limit, so that there is time to move it.
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "[rsync]\nbwlimit = \"6MiB\"").await;
    let job = wrote(&cluster, "a", 24 * MB);
    let progress = Progress::new(job.size_bytes());
    let transfer = bringer.bring(&job, &progress);
    let partial = cluster.folder.path().join("store1/.incoming").join(job.id.to_string()).join("backup/a");
    let here = || fs::metadata(&partial).map_or(0, |found| found.len());
    let limited = async {
        wait_until("some of it is here", SOON, async || here() > 6 * MB as u64).await;
        assert_eq!(bringer.bandwidth.node().passed(), 0, "direct so far");
        bringer.limit(MB);
        let asked = Instant::now();
        wait_until("a second is over", SOON, async || asked.elapsed() > Duration::from_secs(1)).await;
        let (before, since) = (here(), Instant::now());
        wait_until("it is watched", SOON, async || since.elapsed() > Duration::from_secs(2)).await;
        // rsync writes by a quarter of a MiB.
        let (grown, most) = (here() - before, 1.05e6 * since.elapsed().as_secs_f64() + f64::from(256 << 10));
        assert!((grown as f64) < most, "{grown} of {most}");
        wait_until("bytes pass the limit", SOON, async || bringer.bandwidth.node().passed() > 0).await;
        bringer.limit(100 * MB);
    };
    let (transfer, ()) = tokio::join!(transfer, limited);
    let passed = bringer.bandwidth.node().passed();
    assert!(passed < 20 * MB as u64, "only the rest came through the proxy: {passed}");
    assert!((23 * MB as u64..30 * MB as u64).contains(&transfer.bytes), "both parts are counted: {transfer:?}");
}

#[tokio::test]
async fn what_came_direct_is_counted_although_it_is_moved_at_once() {
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "[rsync]\nbwlimit = \"8MiB\"").await;
    let job = wrote(&cluster, "a", 8 * MB);
    let progress = Progress::new(job.size_bytes());
    let partial = cluster.folder.path().join("store1/.incoming").join(job.id.to_string()).join("backup/a");
    let limited = async {
        let is_here = || fs::metadata(&partial).is_ok_and(|found| found.len() > 2 * MB as u64);
        wait_until("some of it is here", SOON, async || is_here()).await;
        bringer.limit(100 * MB);
    };
    let (transfer, ()) = tokio::join!(bringer.bring(&job, &progress), limited);
    let passed = bringer.bandwidth.node().passed();
    assert!(passed < 7 * MB as u64, "it was moved: {passed}");
    assert!(transfer.bytes > 79 * MB as u64 / 10, "{transfer:?}");
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
    let failure = bringer.try_to_bring(&job, &Progress::new(job.size_bytes())).await.unwrap_err();
    assert_eq!(failure.reason.code, ReasonCode::Unreachable);
    assert!(failure.reason.text.contains("refused"), "{}", failure.reason);
}

#[tokio::test]
async fn a_sender_that_freezes_is_noticed_through_the_proxy_too() {
    let cluster = Cluster::start();
    let bringer = Bringer::new(&cluster, "[rsync]\nstall = \"1s\"").await;
    let job = wrote(&cluster, "a", 30 * MB);
    bringer.limit(4 * MB);
    let freeze = async {
        wait_until("bytes pass", SOON, async || bringer.bandwidth.node().passed() > MB as u64).await;
        cluster.host.pause();
        Instant::now()
    };
    let progress = Progress::new(job.size_bytes());
    let (brought, frozen) = tokio::join!(bringer.try_to_bring(&job, &progress), freeze);
    assert_eq!(brought.unwrap_err().reason.code, ReasonCode::TransferStalled);
    assert!(frozen.elapsed() < Duration::from_secs(10), "{:?}", frozen.elapsed());
    cluster.host.resume();
}

#[tokio::test]
async fn a_nodes_restore_bandwidth_holds_a_download_and_not_the_copy_for_another_node() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 20 * MB, 1).await;
    let two_copies = "[types.mysql]\ncopies = 2";
    let one = cluster.configure("1", "restore_bandwidth = \"150kB/s\"", two_copies).start(&[]);
    cluster.report_of(&job).await;
    let claims = token::RestoreClaims {
        backups: vec![job.id],
        expires_at: Millis::now().plus(token::TOKEN_LIFE),
        subject: "test".into(),
    };
    let file = format!("http://127.0.0.1:{}/v1/backups/{}/files/a", one.serve, job.id);
    let request = reqwest::Client::new().get(file).bearer_auth(token::sign(&signing_key(), &claims));
    let started = Instant::now();
    let mut download = request.send().await.unwrap();
    let mut received = 0;
    while received < 300_000 {
        received += download.chunk().await.unwrap().unwrap().len();
    }
    let seconds = started.elapsed().as_secs_f64();
    assert!(seconds > 1.8, "{received} bytes in {seconds} s");
    // At the download's rate it would take two minutes.
    let _two = cluster.configure("2", "", two_copies).start(&[]);
    let copied = || cluster.reports().iter().any(|report| report.job.id == job.id && !report.copies.is_empty());
    wait_until("the other node has its copy", SOON, async || copied()).await;
    assert!(download.chunk().await.unwrap().is_some(), "the download goes on");
}

/// A node's limits, its share kept, and somebody who takes all that it may.
struct Sharing {
    bandwidth: Arc<Bandwidth>,
    keeper: tokio::task::JoinHandle<()>,
    taker: tokio::task::JoinHandle<()>,
}

impl Sharing {
    fn start(queue: Queue, node: &str, weight: u32) -> Self {
        let bandwidth = Arc::<Bandwidth>::default();
        bandwidth.set_caps(Caps { cluster: Some(CLUSTER_CAP), ..Caps::default() });
        let (node_id, ours) = (node.parse().unwrap(), Arc::clone(&bandwidth));
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

const CLUSTER_CAP: u64 = 40_000_000;

#[test]
fn nodes_share_the_clusters_limit_and_keep_to_it_without_an_answer_of_redis() {
    const CAP: u64 = CLUSTER_CAP;
    let cluster = Cluster::start();
    // It has a runtime of its own, which must neither begin nor end within another.
    let line = Proxy::to(cluster.redis.port());
    let link = RedisLink::new(&RedisConfig { address: line.address(), ..RedisConfig::default() });
    let queue = Queue::new(link);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let small = Sharing::start(queue.clone(), "1", 100);
        let large = Sharing::start(queue.clone(), "2", 300);
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
        // A question that is never answered must not make a lease longer.
        line.set(Passage::Held);
        let held = Instant::now();
        let mut kept_until = held.elapsed();
        wait_until("each has its part by weight", SOON, async || {
            assert!(small.rate() + large.rate() <= CAP, "{} {}", small.rate(), large.rate());
            if small.rate() == CAP {
                kept_until = held.elapsed();
            }
            (small.rate(), large.rate()) == (CAP / 4, CAP * 3 / 4)
        })
        .await;
        assert!((8.0..10.5).contains(&kept_until.as_secs_f64()), "as long as the lease, no longer: {kept_until:?}");
        line.set(Passage::Open);
        wait_until("it is shared again", SOON, async || small.rate().abs_diff(CAP) < 10).await;
    });
}

#[tokio::test]
async fn a_limit_of_the_cluster_that_begins_while_redis_is_away_is_parted_by_the_weights_of_who_beat() {
    let cluster = Cluster::start();
    let mut beat: NodeBeat = serde_json::from_str(include_str!("../../../core/fixtures/node-beat-v1.json")).unwrap();
    (beat.node_id, beat.weight) = ("2".parse().unwrap(), 300);
    cluster.queue.beat(&beat).await.unwrap();
    let mut connection = cluster.redis.connection();
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut connection).unwrap();
    let (bandwidth, node_id) = (Bandwidth::default(), "1".parse().unwrap());
    let begins = async {
        wait_until("it has looked for others", SOON, async || {
            let told: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
            // For either budget.
            told.contains("cmdstat_hgetall:calls=2") && told.contains("cmdstat_time:calls=2")
        })
        .await;
        cluster.redis.stop();
        bandwidth.set_caps(Caps { cluster: Some(CLUSTER_CAP), ..Caps::default() });
        let rate = || bandwidth.fetch().rate().unwrap();
        wait_until("it has its part", SOON, async || {
            assert!(rate() <= CLUSTER_CAP / 4, "{}", rate());
            rate() > 0
        })
        .await;
        assert_eq!(rate(), CLUSTER_CAP / 4);
    };
    tokio::select! {
        () = share::keep(&bandwidth, &cluster.queue, &node_id, || 100) => {}
        () = begins => {}
    }
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
