//! A broken transfer goes on where it was.

use std::fs;

use longshore_core::{Outcome, ReasonCode, report::Reason};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, Configured, Puller, SOON, bytes, incoming, place};

const SIZE: usize = 36_000_000;

async fn until_half(cluster: &Cluster, config: &Configured) -> (Puller, longshore_core::Job) {
    let job = cluster.offer_file("big.xb", SIZE, 5).await;
    let puller = config.start(&[]);
    let partial = puller.store.join(".incoming").join(job.id.to_string()).join("backup/big.xb");
    let half = SIZE as u64 / 2;
    wait_until("half of it is here", SOON, async || fs::metadata(&partial).is_ok_and(|found| found.len() > half)).await;
    (puller, job)
}

async fn goes_on(cluster: &Cluster, slow: &Configured, job: &longshore_core::Job, attempts: u32) {
    let fast = fs::read_to_string(&slow.config).unwrap().replace("bwlimit = \"6MiB\"", "");
    fs::write(&slow.config, fast).unwrap();
    let puller = slow.start(&[]);
    let report = cluster.report_of(job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Stored, attempts), "{:?}", report.reason);
    let transfer = report.transfer.unwrap();
    assert!(transfer.bytes < SIZE as u64 * 6 / 10, "{transfer:?}");
    assert!(transfer.resumed_bytes > SIZE as u64 * 4 / 10, "{transfer:?}");
    assert_eq!(fs::read(place(&puller.store, &report).join("big.xb")).unwrap(), bytes(SIZE, 5));
}

#[tokio::test]
async fn after_a_drain_only_the_rest_is_moved_and_no_attempt_is_counted() {
    let cluster = Cluster::start();
    let config = cluster.configure("1", "drain = 0", "[rsync]\nbwlimit = \"6MiB\"");
    let (puller, job) = until_half(&cluster, &config).await;
    assert!(puller.stop().await.success());
    assert!(cluster.queue.leases().await.unwrap().is_empty(), "given back");
    goes_on(&cluster, &config, &job, 1).await;
}

#[tokio::test]
async fn after_a_kill_the_left_rsync_is_ended_and_only_the_rest_is_moved() {
    let cluster = Cluster::start();
    let config = cluster.configure("1", "", "[rsync]\nbwlimit = \"6MiB\"");
    let (puller, job) = until_half(&cluster, &config).await;
    puller.kill().await;
    goes_on(&cluster, &config, &job, 2).await;
    let log = fs::read_to_string(&config.log).unwrap();
    assert!(log.contains("ending a transfer that its puller left behind"), "{log}");
}

#[tokio::test]
async fn what_is_left_of_a_transfer_goes_when_another_node_has_stored_the_job() {
    let cluster = Cluster::start();
    let config = cluster.configure("1", "drain = 0", "[rsync]\nbwlimit = \"6MiB\"");
    let (puller, job) = until_half(&cluster, &config).await;
    let left = puller.store.clone();
    assert!(puller.stop().await.success());
    assert_eq!(incoming(&left), [job.id.to_string()]);
    let other = cluster.puller("2");
    assert_eq!(cluster.report_of(&job).await.node_id.unwrap().as_str(), "2");
    drop(other);
    let _again = config.start(&[]);
    wait_until("nothing is left", SOON, async || incoming(&left).is_empty()).await;
}

#[tokio::test]
async fn a_left_rsync_is_ended_though_another_node_has_stored_its_job() {
    let cluster = Cluster::start();
    let config = cluster.configure("1", "", "[rsync]\nbwlimit = \"64KiB\"");
    let job = cluster.offer_file("big.xb", SIZE, 5).await;
    let puller = config.start(&[]);
    let left = puller.store.clone();
    let partial = left.join(".incoming").join(job.id.to_string()).join("backup/big.xb");
    wait_until("it runs", SOON, async || fs::metadata(&partial).is_ok_and(|found| found.len() > 0)).await;
    puller.kill().await;
    let reason = Reason::new(ReasonCode::TransferFailed, "test");
    let held = cluster.queue.leases().await.unwrap().remove(0);
    cluster.queue.put_back(&held, &reason).await.unwrap();
    let other = cluster.puller("2");
    assert_eq!(cluster.report_of(&job).await.node_id.unwrap().as_str(), "2");
    drop(other);
    let again = config.start(&[]);
    wait_until("nothing is left", SOON, async || incoming(&left).is_empty()).await;
    assert!(again.log().contains("ending a transfer that its puller left behind"));
}
