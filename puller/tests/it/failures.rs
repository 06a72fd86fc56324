//! What goes wrong on the way: retried with a wait, then given up with its reason; never published.

use std::{fs, os::unix::fs::symlink};

use longshore_core::{Outcome, ReasonCode};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, SOON, bytes, files, incoming, place};

#[tokio::test]
async fn a_missing_source_is_given_up_after_all_attempts_and_kept_for_a_person() {
    let cluster = Cluster::start();
    let job = cluster.job("gone.xb");
    cluster.offer(&job).await;
    let puller = cluster.puller("1");
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Failed, 3));
    let reason = report.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::SourceMissing);
    assert!(reason.text.contains("gone.xb"), "{}", reason.text);
    let dead = cluster.queue.dead_letters(0, 10).await.unwrap();
    assert_eq!(dead.letters.len(), 1);
    wait_until("nothing of it is left", SOON, async || incoming(&puller.store).is_empty()).await;
}

#[tokio::test]
async fn a_host_that_is_down_is_unreachable_and_works_when_it_is_back() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 1000, 1).await;
    cluster.host.kill();
    let config = cluster.configure("1", "retry = 1", "[rsync]\nhost_rest = \"200ms\"");
    let puller = config.start(&[]);
    wait_until("it was tried twice", SOON, async || puller.log().matches("unreachable").count() > 1).await;
    cluster.host.start_again();
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 1), "{:?}", report.reason);
}

#[tokio::test]
async fn a_host_that_stays_away_is_given_up_with_a_report_in_the_end() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 1000, 1).await;
    cluster.host.kill();
    let more = "[rsync]\nhost_rest = \"100ms\"\ngive_up_host = \"1s\"";
    let _puller = cluster.configure("1", "", more).start(&[]);
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Failed, 1));
    let reason = report.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::Unreachable);
    assert!(reason.text.contains("could not be asked for 1s"), "{}", reason.text);
    assert_eq!(cluster.queue.dead_letters(0, 10).await.unwrap().letters.len(), 1);
}

#[tokio::test]
async fn a_dead_host_holds_one_slot_at_most_while_a_living_one_has_the_others() {
    let cluster = Cluster::start();
    // Takes connections and says nothing: the worst of dead hosts, each try takes until a limit ends it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut dead = Vec::new();
    for number in 0..8 {
        let mut job = cluster.job("gone");
        job.server_id = "dead".parse().unwrap();
        job.source.as_mut().unwrap().port = Some(silent.local_addr().unwrap().port());
        job.source.as_mut().unwrap().module = format!("m{number}").parse().unwrap();
        cluster.offer(&job).await;
        dead.push(job.id);
    }
    let more =
        "[rsync]\nhost_limit = 8\nhost_rest = \"100ms\"\nhost_rest_longest = \"200ms\"\nbatch_jobs = 1\nstall = \"1s\"";
    let puller = cluster.configure("1", "slots = 4\nretry = 99", more).start(&[]);
    // The first tries go out side by side: nothing is known of the host yet.
    wait_until("the host is known to be dead", SOON, async || puller.log().contains("no attempt counted")).await;
    wait_until("what was asked of it before is over", SOON, async || dead_running(&cluster, &dead).await <= 1).await;
    for number in 0..40 {
        cluster.offer_file(&format!("f{number}"), 1000, number).await;
    }
    let mut most = 0;
    wait_until("the living host's jobs are stored", SOON, async || {
        most = most.max(dead_running(&cluster, &dead).await);
        cluster.reports().len() == 40
    })
    .await;
    assert_eq!(most, 1, "seen all along, and never twice at once");
    assert!(cluster.reports().iter().all(|report| report.outcome == Outcome::Stored));
}

async fn dead_running(cluster: &Cluster, dead: &[longshore_core::JobId]) -> usize {
    cluster.queue.leases().await.unwrap().iter().filter(|held| dead.contains(&held.job)).count()
}

#[tokio::test]
async fn more_folders_than_were_announced_are_not_taken() {
    let cluster = Cluster::start();
    let folder = cluster.source.path().join("many");
    for number in 0..40 {
        fs::create_dir_all(folder.join(format!("empty{number}"))).unwrap();
    }
    fs::write(folder.join("file"), "1").unwrap();
    let mut told = cluster.job("many");
    told.content.as_mut().unwrap().folders = Some(20);
    cluster.offer(&told).await;
    let mut untold = cluster.job("many");
    untold.content.as_mut().unwrap().folders = None;
    cluster.offer(&untold).await;
    let puller = cluster.configure("1", "retry = 1", "").start(&[]);
    let report = cluster.report_of(&told).await;
    let reason = report.reason.unwrap();
    assert_eq!((report.outcome, &reason.code), (Outcome::Failed, &ReasonCode::SizeDiffers));
    assert!(reason.text.contains("more than 20 folders"), "{}", reason.text);
    let report = cluster.report_of(&untold).await;
    assert_eq!(report.outcome, Outcome::Stored, "a few empty ones are no harm: {:?}", report.reason);
    wait_until("nothing of it is left", SOON, async || incoming(&puller.store).is_empty()).await;
}

#[tokio::test]
async fn a_module_that_refuses_does_not_keep_its_hosts_other_modules_waiting() {
    let cluster = Cluster::start();
    let mut refused = cluster.job("gone");
    refused.source.as_mut().unwrap().module = "elsewhere".parse().unwrap();
    cluster.offer(&refused).await;
    let good = cluster.offer_file("a", 1000, 1).await;
    let _puller = cluster.configure("1", "slots = 1", "[rsync]\nhost_rest = \"200ms\"").start(&[]);
    let report = cluster.report_of(&good).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
}

#[tokio::test]
async fn a_node_whose_rsync_is_gone_gives_the_job_back_and_counts_no_attempt() {
    let cluster = Cluster::start();
    let path = std::env::var_os("PATH").unwrap();
    let real = std::env::split_paths(&path).map(|folder| folder.join("rsync")).find(|file| file.is_file()).unwrap();
    let program = cluster.folder.path().join("rsync");
    symlink(&real, &program).unwrap();
    let puller = cluster.configure("1", "retry = 1", &format!("[rsync]\nprogram = {program:?}")).start(&[]);
    wait_until("it runs", SOON, async || !cluster.queue.nodes().await.unwrap().is_empty()).await;
    fs::remove_file(&program).unwrap();
    let job = cluster.offer_file("a", 1000, 1).await;
    wait_until("the job is given back", SOON, async || puller.log().contains("no attempt counted")).await;
    symlink(&real, &program).unwrap();
    // The node rests for half a minute first.
    wait_until("it is stored after all", SOON * 3, async || !cluster.reports().is_empty()).await;
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 1), "{:?}", report.reason);
}

#[tokio::test]
async fn a_digest_that_differs_is_set_aside_retried_once_and_never_published() {
    let cluster = Cluster::start();
    cluster.write("a", 1000, 1);
    let job = cluster.job("a");
    // The same size, other bytes.
    cluster.write("a", 1000, 2);
    cluster.offer(&job).await;
    let config = cluster.configure("1", "retry = 5", "");
    let puller = config.start(&[]);
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Failed, 2));
    assert_eq!(report.reason.unwrap().code, ReasonCode::DigestDiffers);
    let kept = puller.store.join(".corrupt").join(job.id.to_string()).join("a");
    assert_eq!(fs::read(kept).unwrap(), bytes(1000, 2));
    assert!(!puller.store.join("mysql").exists());
}

#[tokio::test]
async fn a_digest_that_differs_once_is_healed_by_the_retry() {
    let cluster = Cluster::start();
    cluster.write("a", 1000, 1);
    let job = cluster.job("a");
    cluster.write("a", 1000, 2);
    cluster.offer(&job).await;
    let config = cluster.configure("1", "", "");
    fs::write(&config.config, fs::read_to_string(&config.config).unwrap().replace("200ms", "2s")).unwrap();
    let puller = config.start(&[]);
    let kept = puller.store.join(".corrupt").join(job.id.to_string());
    wait_until("the first was set aside", SOON, async || kept.exists()).await;
    cluster.write("a", 1000, 1);
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 2), "{:?}", report.reason);
    assert_eq!(fs::read(place(&puller.store, &report).join("a")).unwrap(), bytes(1000, 1));
}

#[tokio::test]
async fn a_size_that_differs_is_told_both_ways() {
    let cluster = Cluster::start();
    for (name, size) in [("grown", 2000), ("shrunken", 500)] {
        cluster.write(name, 1000, 1);
        let job = cluster.job(name);
        cluster.write(name, size, 1);
        cluster.offer(&job).await;
    }
    let _puller = cluster.puller("1");
    wait_until("both are reported", SOON, async || cluster.reports().len() == 2).await;
    for report in cluster.reports() {
        assert_eq!(report.outcome, Outcome::Failed);
        assert_eq!(report.reason.unwrap().code, ReasonCode::SizeDiffers, "{}", report.job.source.unwrap().path);
    }
}

#[tokio::test]
async fn links_are_not_followed_and_a_folder_with_them_is_not_whole() {
    let cluster = Cluster::start();
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("key"), "secret").unwrap();
    cluster.write("tree/a", 100, 1);
    cluster.write("tree/b", 6, 1);
    let job = cluster.job("tree");
    fs::remove_file(cluster.source.path().join("tree/b")).unwrap();
    symlink(secret.path().join("key"), cluster.source.path().join("tree/b")).unwrap();
    cluster.offer(&job).await;
    let puller = cluster.puller("1");
    let report = cluster.report_of(&job).await;
    assert_eq!(report.reason.unwrap().code, ReasonCode::SizeDiffers);
    assert!(files(&puller.store).iter().all(|file| !file.ends_with("tree/b")));
}

#[tokio::test]
async fn a_sender_that_freezes_is_noticed_by_its_silence() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 30_000_000, 1).await;
    let puller = cluster.configure("1", "retry = 9", "[rsync]\nbwlimit = \"4MiB\"\nstall = \"2s\"").start(&[]);
    let partial = puller.store.join(".incoming").join(job.id.to_string()).join("backup/a");
    wait_until("bytes arrive", SOON, async || fs::metadata(&partial).is_ok_and(|found| found.len() > 1 << 20)).await;
    cluster.host.pause();
    wait_until("the silence is noticed", SOON, async || puller.log().contains("transfer_stalled")).await;
    cluster.host.resume();
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert!(report.transfer.unwrap().resumed_bytes > 1 << 19, "{:?}", report.transfer);
}

#[tokio::test]
async fn what_differs_is_fetched_twice_in_all_however_many_nodes_there_are() {
    let cluster = Cluster::start();
    cluster.write("a", 1000, 1);
    let job = cluster.job("a");
    cluster.write("a", 1000, 2);
    cluster.offer(&job).await;
    let nodes = ["1", "2", "3"].map(|node| cluster.configure(node, "retry = 9", "").start(&[]));
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Failed, 2));
    assert_eq!(report.reason.unwrap().code, ReasonCode::DigestDiffers);
    assert!(nodes.iter().any(|node| node.store.join(format!(".corrupt/{}/a", job.id)).exists()));
}
