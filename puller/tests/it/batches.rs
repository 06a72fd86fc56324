//! Several small files in one session: each still its own job, whatever becomes of the others.

use std::{collections::BTreeSet, fs};

use longshore_core::{Job, Outcome, ReasonCode, report::Reason};
use longshore_tests::{SmallDisk, wait_until};

use crate::cluster::{Cluster, Puller, SOON, bytes, incoming, place};

const SIZE: usize = 16 * 1024;

/// How often the host's daemon was asked for files.
fn sessions(cluster: &Cluster) -> usize {
    cluster.host.log().matches("rsync on backup").count()
}

async fn offer_files(cluster: &Cluster, names: impl IntoIterator<Item = String>) -> Vec<(String, Job)> {
    let mut jobs = Vec::new();
    for (number, name) in (0..).zip(names) {
        let job = cluster.offer_file(&name, SIZE, number).await;
        jobs.push((name, job));
    }
    jobs
}

/// How many files have come in the session that runs.
fn arrived(puller: &Puller) -> usize {
    let batch = incoming(&puller.store).into_iter().find(|name| name.starts_with("batch-"));
    let folder = batch.map(|batch| puller.store.join(".incoming").join(batch).join("backup"));
    folder.map_or(0, |folder| fs::read_dir(folder).map_or(0, Iterator::count))
}

/// Each once, with the bytes that [`offer_files`] gave it; returns how many at the first try.
async fn all_are_stored(cluster: &Cluster, puller: &Puller, jobs: &[(String, Job)]) -> usize {
    let mut first = 0;
    for (number, (name, job)) in (0..).zip(jobs) {
        let report = cluster.report_of(job).await;
        assert_eq!(report.outcome, Outcome::Stored, "{name}: {:?}", report.reason);
        first += usize::from(report.attempts == 1);
        assert_eq!(fs::read(place(&puller.store, &report).join(job.name().unwrap())).unwrap(), bytes(SIZE, number));
    }
    assert_eq!(cluster.reports().len(), jobs.len(), "one report each");
    wait_until("no transfer is left", SOON, async || incoming(&puller.store).is_empty()).await;
    first
}

#[tokio::test]
async fn one_session_brings_many_and_what_fails_fails_alone() {
    let cluster = Cluster::start();
    let jobs = offer_files(&cluster, (0..50).map(|number| format!("d{}/f{number}", number % 7))).await;
    let path = |index: usize| cluster.source.path().join(&jobs[index].0);
    fs::remove_file(path(3)).unwrap();
    fs::write(path(20), bytes(SIZE, 999)).unwrap();
    fs::write(path(31), bytes(SIZE + 1, 31)).unwrap();
    fs::remove_file(path(44)).unwrap();
    fs::create_dir(path(44)).unwrap();
    let puller = cluster.configure("1", "slots = 1\nretry = 1", "").start(&[]);
    let failed = [
        (3, ReasonCode::SourceMissing),
        (20, ReasonCode::DigestDiffers),
        (31, ReasonCode::SizeDiffers),
        (44, ReasonCode::FileKind),
    ];
    for (index, (name, job)) in jobs.iter().enumerate() {
        let report = cluster.report_of(job).await;
        if let Some((_, code)) = failed.iter().find(|(failed, _)| *failed == index) {
            assert_eq!((report.outcome, report.reason.unwrap().code), (Outcome::Failed, code.clone()), "{name}");
            continue;
        }
        assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 1), "{name}: {:?}", report.reason);
        let file = place(&puller.store, &report).join(job.name().unwrap());
        assert_eq!(fs::read(file).unwrap(), bytes(SIZE, index as u64), "{name}");
        assert_eq!(report.transfer.unwrap().bytes, SIZE as u64);
    }
    assert!(sessions(&cluster) <= 1 + failed.len(), "{}", cluster.host.log());
    wait_until("no transfer is left", SOON, async || incoming(&puller.store).is_empty()).await;
}

#[tokio::test]
async fn names_that_a_shell_or_a_list_would_read_otherwise_are_names() {
    let cluster = Cluster::start();
    let names = ["# no comment", "; d/x", "a b/*", "a b/[c]", "ö/\\#012", "~", "x/-v", "x/.y/z", "exclude.txt", "+ /x"];
    let jobs = offer_files(&cluster, names.map(str::to_owned)).await;
    let puller = cluster.configure("1", "slots = 1", "").start(&[]);
    for (number, (name, job)) in (0..).zip(&jobs) {
        let report = cluster.report_of(job).await;
        assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 1), "{name}: {:?}", report.reason);
        assert_eq!(fs::read(place(&puller.store, &report).join(job.name().unwrap())).unwrap(), bytes(SIZE, number));
    }
    assert_eq!(sessions(&cluster), 1, "{}", cluster.host.log());
}

#[tokio::test]
async fn jobs_of_one_path_or_of_one_within_the_other_do_not_meet_in_a_session() {
    let cluster = Cluster::start();
    cluster.write("d/e/a", SIZE, 1);
    cluster.write("b", SIZE, 2);
    let mut jobs = Vec::new();
    for path in ["b", "d/e", "d/e/a", "b", "d"] {
        let job = cluster.job(path);
        cluster.offer(&job).await;
        jobs.push(job);
    }
    let puller = cluster.configure("1", "slots = 1", "").start(&[]);
    for job in &jobs {
        let report = cluster.report_of(job).await;
        assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 1), "{:?}", report.reason);
    }
    let folders: BTreeSet<_> = cluster.reports().iter().map(|report| place(&puller.store, report)).collect();
    assert_eq!(folders.len(), jobs.len());
}

#[tokio::test]
async fn a_session_that_breaks_leaves_what_had_come_whole() {
    let cluster = Cluster::start();
    let jobs = offer_files(&cluster, (0..40).map(|number| format!("f{number:02}"))).await;
    // About ten seconds for all.
    let config = cluster.configure("1", "slots = 1", "[rsync]\nbwlimit = \"64KiB\"");
    let puller = config.start(&[]);
    wait_until("some have come", SOON, async || arrived(&puller) > 10).await;
    cluster.host.kill();
    wait_until("those are stored", SOON, async || cluster.reports().len() >= 10).await;
    assert!(cluster.reports().len() < jobs.len());
    cluster.host.start_again();
    let fast = fs::read_to_string(&config.config).unwrap().replace("bwlimit = \"64KiB\"", "");
    fs::write(&config.config, fast).unwrap();
    assert!(puller.stop().await.success());
    let puller = config.start(&[]);
    let first = all_are_stored(&cluster, &puller, &jobs).await;
    assert!(first >= 10, "{first} at the first try");
}

#[tokio::test]
async fn a_session_that_falls_silent_is_ended_and_what_had_come_is_stored() {
    let cluster = Cluster::start();
    let jobs = offer_files(&cluster, (0..40).map(|number| format!("f{number:02}"))).await;
    let config = cluster.configure("1", "slots = 1", "[rsync]\nbwlimit = \"64KiB\"\nstall = \"2s\"");
    let puller = config.start(&[]);
    wait_until("some have come", SOON, async || arrived(&puller) > 10).await;
    cluster.host.pause();
    wait_until("those are stored while the host is still silent", SOON, async || cluster.reports().len() >= 10).await;
    assert!(cluster.reports().len() < jobs.len());
    assert!(cluster.reports().iter().all(|report| (report.outcome, report.attempts) == (Outcome::Stored, 1)));
    wait_until("the others are put back", SOON, async || puller.log().contains("transfer_stalled")).await;
    cluster.host.resume();
    all_are_stored(&cluster, &puller, &jobs).await;
}

#[tokio::test]
async fn a_disk_that_fills_up_under_a_session_loses_no_job_of_it() {
    let cluster = Cluster::start();
    let disk = SmallDisk::mount(&cluster.folder.path().join("disk"), 16);
    let config = cluster.configure_at("1", disk.path(), "slots = 1\nretry = 1", "[rsync]\nbwlimit = \"64KiB\"");
    assert!(config.command(&["init"]).status().unwrap().success());
    let jobs = offer_files(&cluster, (0..40).map(|number| format!("f{number:02}"))).await;
    let puller = config.start(&[]);
    wait_until("some have come", SOON, async || arrived(&puller) > 10).await;
    disk.fill(0);
    wait_until("the node is paused", SOON, async || {
        cluster.queue.nodes().await.unwrap().iter().any(|(beat, _)| beat.paused.is_some())
    })
    .await;
    wait_until("no job is leased", SOON, async || cluster.queue.leases().await.unwrap().is_empty()).await;
    disk.empty();
    // The node rests for half a minute after its disk failed.
    wait_until("all are reported", SOON * 3, async || cluster.reports().len() >= jobs.len()).await;
    all_are_stored(&cluster, &puller, &jobs).await;
}

#[tokio::test]
async fn what_a_broken_session_began_is_no_damage() {
    let cluster = Cluster::start();
    let small = cluster.offer_file("a", SIZE, 1).await;
    let large = cluster.offer_file("b", 64 * SIZE, 2).await;
    let config = cluster.configure("1", "slots = 1\nretry = 2", "[rsync]\nbwlimit = \"64KiB\"");
    let puller = config.start(&[]);
    let begun = || {
        let batch = incoming(&puller.store).into_iter().find(|name| name.starts_with("batch-"))?;
        fs::metadata(puller.store.join(".incoming").join(batch).join("backup/b")).ok()
    };
    wait_until("the second file has begun", SOON, async || begun().is_some_and(|file| file.len() > SIZE as u64)).await;
    cluster.host.kill();
    assert_eq!(cluster.report_of(&small).await.attempts, 1);
    cluster.host.start_again();
    let report = cluster.report_of(&large).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 2), "{:?}", report.reason);
    let aside = puller.store.join(".corrupt");
    assert_eq!(fs::read_dir(aside).map_or(0, Iterator::count), 0, "nothing is set aside as damaged");
}

#[tokio::test]
async fn a_lease_that_is_lost_leaves_the_others_of_its_batch_alone() {
    let cluster = Cluster::start();
    let jobs = offer_files(&cluster, (0..20).map(|number| format!("f{number:02}"))).await;
    let config = cluster.configure("1", "slots = 1", "[rsync]\nbwlimit = \"64KiB\"");
    let puller = config.start(&[]);
    wait_until("the batch is leased", SOON, async || cluster.queue.leases().await.unwrap().len() == jobs.len()).await;
    let lost = cluster.queue.leases().await.unwrap().into_iter().find(|held| held.job == jobs[7].1.id).unwrap();
    cluster.queue.put_back(&lost, &Reason::new(ReasonCode::TransferFailed, "taken away by a test")).await.unwrap();
    for (name, job) in &jobs {
        let report = cluster.report_of(job).await;
        let attempts = if job.id == lost.job { 2 } else { 1 };
        assert_eq!((report.outcome, report.attempts), (Outcome::Stored, attempts), "{name}: {:?}", report.reason);
    }
    assert_eq!(cluster.reports().len(), jobs.len(), "one report each");
    wait_until("no transfer is left", SOON, async || incoming(&puller.store).is_empty()).await;
}
