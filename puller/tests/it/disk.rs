//! A small disk of its own: the reserve, and a disk that fills up.

use std::fs;

use longshore_core::Outcome;
use longshore_tests::{SmallDisk, wait_until};

use crate::cluster::{Cluster, SOON, bytes, files, incoming, place};

const MIB: usize = 1 << 20;

fn mount(cluster: &Cluster, mib: u64) -> SmallDisk {
    SmallDisk::mount(&cluster.folder.path().join("disk"), mib)
}

fn with_reserve(config: &crate::cluster::Configured, reserve: &str) {
    let text =
        fs::read_to_string(&config.config).unwrap().replace("reserve = \"0%\"", &format!("reserve = \"{reserve}\""));
    fs::write(&config.config, text).unwrap();
}

#[tokio::test]
async fn below_the_reserve_it_pauses_says_so_and_goes_on_by_itself() {
    let cluster = Cluster::start();
    let disk = mount(&cluster, 32);
    let config = cluster.configure_at("1", disk.path(), "", "");
    with_reserve(&config, "16MiB");
    assert!(config.command(&["init"]).status().unwrap().success());
    let filler = disk.path().join(".filler");
    fs::write(&filler, vec![1; 20 * MIB]).unwrap();
    let job = cluster.offer_file("a", MIB, 1).await;
    let puller = config.start(&[]);
    wait_until("it says that it is paused, and why", SOON, async || {
        let nodes = cluster.queue.nodes().await.unwrap();
        nodes.iter().any(|(beat, _)| beat.paused.as_deref().is_some_and(|why| why.contains("kept free")))
    })
    .await;
    assert!(cluster.reports().is_empty());
    fs::remove_file(&filler).unwrap();
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert_eq!(fs::read(place(&puller.store, &report).join("a")).unwrap(), bytes(MIB, 1));
}

#[tokio::test]
async fn jobs_in_flight_never_take_the_disk_below_its_reserve() {
    let cluster = Cluster::start();
    let disk = mount(&cluster, 64);
    for number in 0..12u64 {
        cluster.offer_file(&format!("f{number}"), 6 * MIB, number).await;
    }
    let config = cluster.configure_at(
        "1",
        disk.path(),
        "slots = 8",
        "[rsync]\nhost_limit = 8\nbatch_jobs = 1\nbwlimit = \"6MiB\"",
    );
    with_reserve(&config, "20MiB");
    let puller = config.start(&[]);
    let mut lowest = u64::MAX;
    wait_until("all that fits is stored", SOON, async || {
        let found = rustix::fs::statvfs(disk.path()).unwrap();
        lowest = lowest.min(found.f_bavail * found.f_frsize);
        cluster.reports().len() == 7
    })
    .await;
    assert!(lowest >= 20 * MIB as u64, "{lowest} bytes were left");
    // The eighth would fit nowhere above the reserve: it has been asked for since, and was not given.
    wait_until("nothing runs", SOON, async || cluster.queue.leases().await.unwrap().is_empty()).await;
    let no_room = "longshore_puller_claims_total{answer=\"no_room\"}";
    let before = puller.metric(no_room).await;
    wait_until("there was no room, twice", SOON, async || puller.metric(no_room).await >= before + 2.0).await;
    assert_eq!(cluster.reports().len(), 7);
    assert!(puller.stop().await.success());
}

#[tokio::test]
async fn a_disk_that_fills_up_gives_the_job_back_without_a_partial_and_pauses() {
    let cluster = Cluster::start();
    let disk = mount(&cluster, 32);
    let config = cluster.configure_at("1", disk.path(), "retry = 9", "[rsync]\nbwlimit = \"8MiB\"");
    assert!(config.command(&["init"]).status().unwrap().success());
    let job = cluster.offer_file("a", 24 * MIB, 1).await;
    let puller = config.start(&[]);
    wait_until("it fetches", SOON, async || {
        disk.path().join(".incoming").exists() && !incoming(disk.path()).is_empty()
    })
    .await;
    // Something else takes the room that the job was promised.
    let filler = disk.path().join(".filler");
    let _ = fs::write(&filler, vec![1; 28 * MIB]);
    wait_until("the job is given back", SOON, async || puller.log().contains("store_failed")).await;
    wait_until("the node is paused", SOON, async || {
        cluster.queue.nodes().await.unwrap().iter().any(|(beat, _)| beat.paused.is_some())
    })
    .await;
    wait_until("no partial is left", SOON, async || incoming(disk.path()).is_empty()).await;
    assert!(cluster.reports().is_empty());
    fs::remove_file(&filler).unwrap();
    // The node rests for half a minute after its disk failed.
    wait_until("it is stored after all", SOON * 3, async || !cluster.reports().is_empty()).await;
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert!(files(disk.path()).iter().any(|file| file.ends_with("a")));
}
