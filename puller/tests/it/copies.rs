//! A second copy on another node: made by itself, whole, once, and never at the cost of the first.

use std::{fs, path::Path};

use longshore_core::{Job, Outcome, Report, queue::JobState};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, Configured, Puller, SOON, bytes, files, incoming, place};

const TWO: &str = "[types.mysql]\ncopies = 2\n[rsync]\nhost_rest = \"200ms\"\nhost_rest_longest = \"400ms\"";
/// More than one read of the network.
const SIZE: usize = 3_000_000;

fn node(cluster: &Cluster, node: &str) -> Configured {
    cluster.configure(node, "", TWO)
}

/// Waits for the report that names a copy.
async fn copied(cluster: &Cluster, job: &Job) -> Report {
    let found = || cluster.reports().into_iter().find(|report| report.job.id == job.id && !report.copies.is_empty());
    wait_until(&format!("{} has its copy", job.id), SOON * 2, async || found().is_some()).await;
    found().unwrap()
}

/// Of what `path` is on the host, `store` has all, with the manifest that is `report`.
fn assert_whole(cluster: &Cluster, store: &Path, report: &Report, path: &str) {
    let place = place(store, report);
    let (source, kept) = (cluster.source.path().join(path), place.join(path));
    if source.is_file() {
        assert_eq!(fs::read(source).unwrap(), fs::read(kept).unwrap(), "{path}");
    } else {
        let of = |folder: &Path| -> Vec<_> {
            let mut all: Vec<_> = files(folder)
                .into_iter()
                .map(|file| (file.strip_prefix(folder).unwrap().to_owned(), fs::read(&file).unwrap()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(of(&source), of(&kept), "{path}");
    }
    let manifest: Report = serde_json::from_slice(&fs::read(place.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(&manifest, report, "{path}");
}

/// The first node, after it has stored `path`.
async fn stored_on_first(cluster: &Cluster, path: &str) -> (Puller, Job) {
    let first = node(cluster, "1").start(&[]);
    let job = cluster.job(path);
    cluster.offer(&job).await;
    assert_eq!(cluster.report_of(&job).await.outcome, Outcome::Stored);
    (first, job)
}

#[tokio::test]
async fn files_and_folders_are_copied_whole_by_the_other_node() {
    let cluster = Cluster::start();
    cluster.write("full 1.xb", SIZE, 1);
    cluster.write("tree/a", 10, 2);
    cluster.write("tree/in/库 b", 20, 3);
    cluster.write("tree/empty", 0, 4);
    let (one, two) = (node(&cluster, "1").start(&[]), node(&cluster, "2").start(&[]));
    for path in ["full 1.xb", "tree"] {
        let job = cluster.job(path);
        cluster.offer(&job).await;
        let report = copied(&cluster, &job).await;
        let (here, there) = (report.node_id.as_ref().unwrap().as_str(), report.copies[0].node_id.as_str());
        assert!(here != there && report.copies.len() == 1 && report.outcome == Outcome::Stored, "{report:?}");
        let of = |node: &str| if node == "1" { &one.store } else { &two.store };
        assert_whole(&cluster, of(there), &report, path);
        let before = cluster.reports().into_iter().find(|report| report.job.id == job.id).unwrap();
        assert!(before.copies.is_empty() && before.revision < report.revision);
        assert_whole(&cluster, of(here), &before, path);
    }
    assert_eq!(cluster.reports().len(), 4, "two for each job, and no more");
    assert!(cluster.queue.leases().await.unwrap().is_empty());
}

#[tokio::test]
async fn with_one_node_a_copy_waits_visibly_and_fresh_jobs_do_not_wait_for_it() {
    let cluster = Cluster::start();
    cluster.write("a", SIZE, 1);
    let (_one, job) = stored_on_first(&cluster, "a").await;
    let level = "longshore:copies@1".parse().unwrap();
    let waiting = cluster.queue.depths(&[level]).await.unwrap().remove(0);
    assert_eq!((waiting.ready, waiting.bytes), (1, SIZE as u64));
    let other = cluster.offer_file("b", 10, 2).await;
    assert_eq!(cluster.report_of(&other).await.outcome, Outcome::Stored);
    let two = node(&cluster, "2").start(&[]);
    assert_whole(&cluster, &two.store, &copied(&cluster, &job).await, "a");
    copied(&cluster, &other).await;
}

#[tokio::test]
async fn a_kill_at_any_step_of_a_copy_loses_nothing_and_doubles_nothing() {
    let steps = ["claimed", "copying", "fetched", "verified", "committed", "published", "settled"];
    for step in steps.map(|step| format!("puller.{step}")) {
        let cluster = Cluster::start();
        cluster.write("a", SIZE, 1);
        let (_one, job) = stored_on_first(&cluster, "a").await;
        let second = node(&cluster, "2");
        let killed = second.start(&[("LONGSHORE_STOP_AT", &step)]).ended().await;
        assert!(!killed.success(), "{step}: it was killed");
        let two = second.start(&[]);
        let report = copied(&cluster, &job).await;
        assert_whole(&cluster, &two.store, &report, "a");
        wait_until("no transfer is left", SOON, async || incoming(&two.store).is_empty()).await;
        assert_eq!(cluster.reports().len(), 2, "{step}");
        assert!(cluster.queue.leases().await.unwrap().is_empty(), "{step}");
        assert!(files(&two.store.join(".superseded")).is_empty(), "{step}");
    }
}

#[tokio::test]
async fn the_first_nodes_kill_before_it_knows_of_its_settling_does_not_cost_its_copy() {
    let cluster = Cluster::start();
    cluster.write("a", SIZE, 1);
    let job = cluster.job("a");
    cluster.offer(&job).await;
    let first = node(&cluster, "1");
    first.start(&[("LONGSHORE_STOP_AT", "puller.settled")]).ended().await;
    let two = node(&cluster, "2").start(&[]);
    wait_until("the other node asks for it", SOON, async || two.log().contains("unreachable")).await;
    let one = first.start(&[]);
    let report = copied(&cluster, &job).await;
    assert!(files(&one.store.join(".superseded")).is_empty());
    assert_whole(&cluster, &two.store, &report, "a");
    assert_eq!(fs::read(place(&one.store, &report).join("a")).unwrap(), bytes(SIZE, 1));
}

#[tokio::test]
async fn a_first_copy_that_has_rotted_is_not_copied_and_stays_what_it_was() {
    let cluster = Cluster::start();
    cluster.write("a", SIZE, 1);
    let (one, job) = stored_on_first(&cluster, "a").await;
    let report = cluster.report_of(&job).await;
    let rotten = bytes(SIZE, 9);
    fs::write(place(&one.store, &report).join("a"), &rotten).unwrap();
    let two = node(&cluster, "2").start(&[]);
    let letters = async || cluster.queue.dead_letters(0, 10).await.unwrap().letters;
    wait_until("it is given up", SOON, async || !letters().await.is_empty()).await;
    assert_eq!(letters().await[0].reason.code.as_str(), "digest_differs");
    assert_eq!(fs::read(two.store.join(".corrupt").join(job.id.to_string()).join("a")).unwrap(), rotten);
    assert!(!two.store.join("mysql").exists());
    assert_eq!(cluster.reports(), [report], "what is stored is not reported as failed");
    // Mended, it is copied when a person says so.
    fs::write(place(&one.store, &cluster.reports()[0]).join("a"), bytes(SIZE, 1)).unwrap();
    cluster.queue.requeue(&job.id, &[JobState::Dead], uuid::Uuid::now_v7()).await.unwrap();
    assert_whole(&cluster, &two.store, &copied(&cluster, &job).await, "a");
}

#[tokio::test]
async fn a_copy_that_was_cut_goes_on_where_it_was() {
    let cluster = Cluster::start();
    cluster.write("a", 8 * SIZE, 1);
    let (one, job) = stored_on_first(&cluster, "a").await;
    let slow = cluster.configure("2", "bandwidth = \"6MB/s\"", TWO);
    let two = slow.start(&[]);
    let partial = two.store.join(".incoming").join(job.id.to_string()).join("backup/a");
    let half = 4 * SIZE as u64;
    wait_until("half of it is here", SOON, async || fs::metadata(&partial).is_ok_and(|found| found.len() > half)).await;
    two.kill().await;
    let two = node(&cluster, "2").start(&[]);
    assert_whole(&cluster, &two.store, &copied(&cluster, &job).await, "a");
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", one.status)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("served_total{code=\"206\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_first_node_that_is_away_costs_its_copies_no_try() {
    let cluster = Cluster::start();
    cluster.write("a", SIZE, 1);
    let (one, job) = stored_on_first(&cluster, "a").await;
    assert!(one.stop().await.success());
    let two = cluster.configure("2", "retry = 1", TWO).start(&[]);
    wait_until("it was asked three times", SOON, async || two.log().matches("no attempt counted").count() > 2).await;
    let _one = node(&cluster, "1").start(&[]);
    assert_whole(&cluster, &two.store, &copied(&cluster, &job).await, "a");
    assert_eq!(cluster.queue.dead_letters(0, 10).await.unwrap().total, 0);
}
