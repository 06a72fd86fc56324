//! Two nodes and one job: the fence decides.

use std::{fs, time::Duration};

use longshore_core::Outcome;
use longshore_tests::wait_until;
use rustix::process::Signal;

use crate::cluster::{Cluster, SOON, bytes, files, incoming, place};

/// The reaper waits for a node's silence, and arms itself first.
const REAPED: Duration = Duration::from_secs(110);

#[tokio::test]
async fn a_node_that_slept_past_its_lease_neither_publishes_nor_settles() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 8_000_000, 1).await;
    let slow = cluster.configure("1", "", "[rsync]\nbwlimit = \"2MiB\"").start(&[]);
    wait_until("the first node fetches", SOON, async || slow.store.exists() && !incoming(&slow.store).is_empty()).await;
    slow.process.signal(Signal::STOP);
    let other = cluster.puller("2");
    wait_until("the other node has stored it", REAPED, async || !cluster.reports().is_empty()).await;
    slow.process.signal(Signal::CONT);
    wait_until("the first has cleaned up", REAPED, async || incoming(&slow.store).is_empty()).await;
    let reports = cluster.reports();
    assert_eq!(reports.len(), 1);
    let report = &reports[0];
    assert_eq!((report.outcome, report.job.id), (Outcome::Stored, job.id));
    assert_eq!(report.node_id.as_ref().unwrap().as_str(), "2");
    assert_eq!(fs::read(place(&other.store, report).join("a")).unwrap(), bytes(8_000_000, 1));
    assert!(!slow.store.join("mysql").exists(), "{:?}", files(&slow.store));
}

#[tokio::test]
async fn a_copy_published_by_a_killed_node_is_superseded_when_another_settled_the_job() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 5000, 1).await;
    let first = cluster.configure("1", "", "");
    first.start(&[("LONGSHORE_STOP_AT", "puller.published")]).ended().await;
    // Its lease is given to another by hand, as the reaper does a minute later.
    let reason = longshore_core::report::Reason::new(longshore_core::ReasonCode::TransferFailed, "test");
    let held = cluster.queue.leases().await.unwrap().remove(0);
    cluster.queue.put_back(&held, &reason).await.unwrap();
    let second = cluster.puller("2");
    let report = cluster.report_of(&job).await;
    assert_eq!(report.node_id.as_ref().unwrap().as_str(), "2");
    let again = first.start(&[]);
    let superseded = first.store.join(".superseded").join(format!("{}-{}", job.id, held.revision));
    wait_until("the first node's copy is moved", REAPED, async || superseded.join("a").exists()).await;
    assert!(place(&second.store, &report).join("a").exists());
    assert_eq!(cluster.reports().len(), 1);
    assert!(again.stop().await.success());
}

#[tokio::test]
async fn a_whole_backup_of_a_killed_node_stays_while_its_job_only_waits_and_is_all_there_is() {
    for step in ["puller.committed", "puller.published"] {
        let cluster = Cluster::start();
        let job = cluster.offer_file("a", 5000, 1).await;
        let node = cluster.configure("1", "", "");
        node.start(&[("LONGSHORE_STOP_AT", step)]).ended().await;
        let held = cluster.queue.leases().await.unwrap().remove(0);
        // As the reaper does a minute later; nobody else claims it, and the host has its file no more.
        let reason = longshore_core::report::Reason::new(longshore_core::ReasonCode::TransferFailed, "test");
        cluster.queue.put_back(&held, &reason).await.unwrap();
        fs::remove_file(cluster.source.path().join("a")).unwrap();
        let again = node.start(&[]);
        let report = cluster.report_of(&job).await;
        assert_eq!(report.outcome, Outcome::Stored, "{step}: {:?}", report.reason);
        assert_eq!(fs::read(place(&again.store, &report).join("a")).unwrap(), bytes(5000, 1), "{step}");
        wait_until("no transfer is left", SOON, async || incoming(&again.store).is_empty()).await;
        assert!(files(&again.store.join(".superseded")).is_empty(), "{step}");
        assert!(again.stop().await.success());
    }
}
