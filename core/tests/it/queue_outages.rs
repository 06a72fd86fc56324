//! The queue while Redis is restarted, connections are cut, or the master is read-only.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use longshore_core::{
    Job, JobId,
    queue::{ClaimRequest, Claimed, Held, HostLimits, Queue, Settled},
    redis_link::LinkError,
};
use longshore_tests::{free_port, wait_until};

use crate::cluster::{Cluster, LEASE, job, levels, names, node_id, question, queue_at, stored};

/// Repeats a step while Redis is away, as every caller of the queue does.
async fn insist<T, F: Future<Output = Result<T, LinkError>>>(mut step: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match step().await {
            Ok(done) => return done,
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                assert!(tokio::time::Instant::now() < deadline, "still: {error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// A node that stores whatever it gets until it is told to stop; how often each job was settled by it.
async fn work(queue: Queue, name: String, stop: Arc<AtomicBool>) -> BTreeMap<JobId, u32> {
    let (node_id, levels) = (node_id(&name), levels(&["level1"]));
    let mut settled = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        insist(|| queue.admit(&levels, 20)).await;
        let request =
            ClaimRequest { host: HostLimits { transfers: 3, starts_per_second: 0.0 }, ..question(&node_id, &levels) };
        let Claimed::Jobs(leases) = insist(|| queue.claim(&request)).await else { continue };
        let lease = leases.into_iter().next().unwrap();
        if insist(|| queue.commit(&lease, LEASE)).await == Held::Lost {
            continue;
        }
        let report = stored(&lease);
        match insist(|| queue.settle(&lease, &report, longshore_core::queue::End::Final)).await {
            Settled::Done | Settled::AlreadyYours => *settled.entry(lease.job.id).or_default() += 1,
            Settled::Lost | Settled::Over => panic!("{} was settled by another", lease.job.id),
        }
    }
    settled
}

/// Offers `jobs` one by one while nodes work on them and `disturb` is called again and again; each must be settled once.
async fn survives(cluster: Cluster, jobs: Vec<Job>, mut disturb: impl FnMut(&Cluster)) {
    let stop = Arc::new(AtomicBool::new(false));
    let nodes: Vec<_> =
        (0..3).map(|n| tokio::spawn(work(queue_at(&cluster.redis), format!("node{n}"), Arc::clone(&stop)))).collect();
    let offering = jobs.clone();
    let queue = cluster.queue.clone();
    let offered = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&offered);
    let offers = tokio::spawn(async move {
        for job in &offering {
            insist(|| queue.offer(job)).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut disturbances = 0;
    while !offers.is_finished() || disturbances < 5 {
        let before = offered.load(Ordering::Relaxed);
        let goes_on = async || offers.is_finished() || offered.load(Ordering::Relaxed) > before;
        wait_until("one more is offered", Duration::from_secs(60), goes_on).await;
        tokio::task::block_in_place(|| disturb(&cluster));
        disturbances += 1;
    }
    offers.await.unwrap();
    let looker = queue_at(&cluster.redis);
    wait_until("nothing waits any more", Duration::from_secs(60), async || {
        let depth = looker.depths(&names(&["level1"])).await;
        depth.is_ok_and(|depth| depth[0].inbox + depth[0].ready + depth[0].leased == 0)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let mut settled = BTreeMap::<JobId, u32>::new();
    for node in nodes {
        for (job, times) in node.await.unwrap() {
            *settled.entry(job).or_default() += times;
        }
    }
    assert_eq!(settled.len(), jobs.len());
    assert!(settled.values().all(|&times| times == 1), "settled twice");
    let mut reported: Vec<_> = cluster.reports().await.into_iter().map(|report| report.job.id).collect();
    reported.sort_unstable();
    assert_eq!(reported, settled.into_keys().collect::<Vec<_>>());
    assert!(cluster.queue.leases().await.unwrap().is_empty());
    assert!(cluster.keys("active").is_empty() && cluster.keys("aside").is_empty());
}

fn many(count: u64) -> Vec<Job> {
    (0..count).map(|n| job("level1", &format!("host{}", n % 5), n)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_and_double_nothing() {
    survives(Cluster::start(), many(400), |cluster| {
        let mut command = redis::cmd("CLIENT");
        let () = command.arg(&["KILL", "TYPE", "normal"]).query(&mut cluster.redis.connection()).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_started_again_loses_and_doubles_nothing() {
    survives(Cluster::start_durable(), many(200), |cluster| {
        cluster.redis.kill();
        cluster.redis.start_again();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_read_only_for_a_while_loses_and_doubles_nothing() {
    let nowhere = free_port().to_string();
    survives(Cluster::start(), many(200), |cluster| {
        let become_replica_of = |master: &[&str]| {
            let () = redis::cmd("REPLICAOF").arg(master).query(&mut cluster.redis.connection()).unwrap();
        };
        become_replica_of(&["127.0.0.1", &nowhere]);
        std::thread::park_timeout(Duration::from_millis(20));
        become_replica_of(&["NO", "ONE"]);
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let cluster = Cluster::start_durable();
    cluster.admit(&[job("level1", "a", 1), job("level1", "a", 2), job("level1", "b", 3)]).await;
    let done = cluster.lease("1", &["level1"]).await;
    cluster.store(&done).await;
    let held = cluster.lease("1", &["level1"]).await;
    cluster.queue.offer(&job("level1", "c", 4)).await.unwrap();
    cluster.redis.kill();
    cluster.redis.start_again();
    assert_eq!(cluster.reports().await, [stored(&done)]);
    assert_eq!(cluster.queue.leases().await.unwrap()[0].job, held.job.id);
    let depth = &cluster.queue.depths(&names(&["level1"])).await.unwrap()[0];
    assert_eq!((depth.inbox, depth.ready, depth.leased, depth.bytes), (1, 1, 1, 3));
    assert_eq!(cluster.queue.renew(&held, LEASE).await.unwrap(), Held::Yours);
    assert_eq!(cluster.store(&held).await, Settled::Done);
}
