//! Killed at every step: nothing lost, nothing twice, whole files only.

use std::fs;

use longshore_core::Outcome;
use longshore_tests::wait_until;

use crate::cluster::{Cluster, SOON, bytes, files, incoming, place};

const STEPS: [&str; 8] = [
    "puller.claimed",
    "puller.fetching",
    "puller.fetched",
    // Of a batch only: a file has been moved into its job's folder, others have not.
    "puller.moved",
    "puller.verified",
    "puller.committed",
    "puller.published",
    "puller.settled",
];

#[tokio::test]
async fn a_kill_at_any_step_loses_nothing_and_doubles_nothing() {
    for step in STEPS.into_iter().filter(|step| *step != "puller.moved") {
        killed_at(step, "batch_jobs = 1").await;
    }
}

#[tokio::test]
async fn a_kill_at_any_step_of_a_batch_loses_nothing_and_doubles_nothing() {
    for step in STEPS {
        killed_at(step, "").await;
    }
}

async fn killed_at(step: &str, rsync: &str) {
    let cluster = Cluster::start();
    let mut jobs = Vec::new();
    for number in 0..4u64 {
        jobs.push(cluster.offer_file(&format!("f{number}"), 40_000, number).await);
    }
    let config = cluster.configure("1", "slots = 2", &format!("[rsync]\n{rsync}"));
    let killed = config.start(&[("LONGSHORE_STOP_AT", step)]).ended().await;
    assert!(!killed.success(), "{step}: it was killed");
    let puller = config.start(&[]);
    for (number, job) in jobs.iter().enumerate() {
        let report = cluster.report_of(job).await;
        assert_eq!(report.outcome, Outcome::Stored, "{step}: {:?}", report.reason);
        let stored = fs::read(place(&puller.store, &report).join(format!("f{number}"))).unwrap();
        assert_eq!(stored, bytes(40_000, number as u64), "{step}");
    }
    wait_until("no transfer is left", SOON, async || incoming(&puller.store).is_empty()).await;
    assert_eq!(cluster.reports().len(), jobs.len(), "{step}: one report each");
    let manifests = files(&puller.store).iter().filter(|file| file.ends_with("manifest.json")).count();
    assert_eq!(manifests, jobs.len(), "{step}: one backup each");
    assert!(cluster.queue.leases().await.unwrap().is_empty(), "{step}");
}

#[tokio::test]
async fn redis_killed_and_back_in_the_middle_costs_nothing_but_time() {
    let cluster = Cluster::start();
    // Else what Redis was told in its last second may be forgotten.
    let mut connection = cluster.redis.connection();
    redis::cmd("CONFIG").arg("SET").arg("appendfsync").arg("always").exec(&mut connection).unwrap();
    let mut jobs = Vec::new();
    for number in 0..6u64 {
        jobs.push(cluster.offer_file(&format!("f{number}"), 1_500_000, number).await);
    }
    let config = cluster.configure("1", "slots = 2", "[rsync]\nbwlimit = \"1MiB\"");
    let puller = config.start(&[]);
    wait_until("a transfer runs", SOON, async || puller.store.exists() && !incoming(&puller.store).is_empty()).await;
    cluster.redis.kill();
    wait_until("the puller has noticed", SOON, async || puller.log().contains("redis")).await;
    cluster.redis.start_again();
    wait_until("all are reported", SOON, async || cluster.reports().len() >= jobs.len()).await;
    for (number, job) in jobs.iter().enumerate() {
        let report = cluster.report_of(job).await;
        assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
        let stored = fs::read(place(&puller.store, &report).join(format!("f{number}"))).unwrap();
        assert_eq!(stored, bytes(1_500_000, number as u64));
    }
    assert_eq!(cluster.reports().len(), jobs.len());
}
