//! What is offered is stored: whole, verified, with its manifest, and reported once.

use std::fs;

use longshore_core::{Outcome, Report, report::Verified};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, SOON, bytes, files, incoming, place};

#[tokio::test]
async fn a_file_is_stored_with_its_manifest_and_reported_once() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("db/full.xb", 300_000, 1).await;
    let puller = cluster.puller("1");
    let report = cluster.report_of(&job).await;
    assert_eq!((report.outcome, report.attempts, report.verified), (Outcome::Stored, 1, Some(Verified::Received)));
    let folder = place(&puller.store, &report);
    let month = job.id.time().timestamp().strftime("%Y-%m").to_string();
    assert!(folder.ends_with(format!("mysql/111111/3306/{month}/{}", job.id)), "{folder:?}");
    assert_eq!(fs::read(folder.join("full.xb")).unwrap(), bytes(300_000, 1));
    let manifest: Report = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest, report);
    assert_eq!(report.transfer.unwrap().bytes, 300_000);
    wait_until("the transfer's folder is gone", SOON, async || incoming(&puller.store).is_empty()).await;
    assert!(puller.stop().await.success());
    assert_eq!(cluster.reports().len(), 1);
}

#[tokio::test]
async fn a_folder_is_stored_with_every_file_of_it() {
    let cluster = Cluster::start();
    for (number, name) in ["tree/a", "tree/in/b c", "tree/in/deep/库.ibd", "tree/-x"].iter().enumerate() {
        cluster.write(name, 1000 * (number + 1), number as u64);
    }
    let job = cluster.job("tree");
    cluster.offer(&job).await;
    let puller = cluster.puller("1");
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    let folder = place(&puller.store, &report);
    for (number, name) in ["tree/a", "tree/in/b c", "tree/in/deep/库.ibd", "tree/-x"].iter().enumerate() {
        assert_eq!(fs::read(folder.join(name)).unwrap(), bytes(1000 * (number + 1), number as u64), "{name}");
    }
    assert_eq!(files(&folder).len(), 4 + 2, "the data, the manifest, the list of files");
}

#[tokio::test]
async fn a_seed_message_is_stored_and_its_received_digest_kept() {
    let cluster = Cluster::start_with("", "");
    cluster.write("db/x.xb", 5000, 3);
    let mut message: serde_json::Value =
        serde_json::from_str(include_str!("../../../core/fixtures/seed-success.json")).unwrap();
    message["game_server_ip"] = "127.0.0.1".into();
    message["rsync_model"] = "backup/db".into();
    message["filename"] = "x.xb".into();
    message["size"] = 5000.into();
    // A seed message names no port: the module is reached through one that is given to the daemon's own.
    let mut connection = cluster.redis.connection();
    let job = match longshore_core::legacy::read(message, &"level1".parse().unwrap()).unwrap() {
        longshore_core::legacy::Seed::Job(mut job) => {
            job.source.as_mut().unwrap().port = Some(cluster.host.port());
            job
        }
        other => panic!("{other:?}"),
    };
    let _: i64 =
        redis::cmd("LPUSH").arg("level1").arg(serde_json::to_string(&job).unwrap()).query(&mut connection).unwrap();
    let puller = cluster.puller("1");
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert_eq!(fs::read(place(&puller.store, &report).join("x.xb")).unwrap(), bytes(5000, 3));
    assert_eq!(report.extra["received_xxh3_128"].as_str().unwrap().len(), 32);
}

#[tokio::test]
async fn what_is_to_be_read_back_is_and_its_report_says_so() {
    let cluster = Cluster::start();
    cluster.write("tree/a", 5000, 2);
    let jobs = [cluster.offer_file("a", 100_000, 1).await, cluster.job("tree")];
    cluster.offer(&jobs[1]).await;
    let _puller = cluster.configure("1", "", "[types.mysql]\nverify = \"reread\"").start(&[]);
    for job in &jobs {
        let report = cluster.report_of(job).await;
        assert_eq!((report.outcome, report.verified), (Outcome::Stored, Some(Verified::Reread)), "{:?}", report.reason);
    }
}

#[tokio::test]
async fn many_jobs_through_few_slots_each_arrive_once() {
    let cluster = Cluster::start();
    let mut jobs = Vec::new();
    for number in 0..60u64 {
        jobs.push(cluster.offer_file(&format!("many/{number}"), 2000, number).await);
    }
    let one = cluster.configure("1", "slots = 4", "[rsync]\nhost_limit = 16");
    let two = cluster.configure("2", "slots = 4", "[rsync]\nhost_limit = 16");
    let (one, two) = (one.start(&[]), two.start(&[]));
    wait_until("all are reported", SOON, async || cluster.reports().len() >= jobs.len()).await;
    let reports = cluster.reports();
    assert_eq!(reports.len(), jobs.len());
    for (number, job) in jobs.iter().enumerate() {
        let report = reports.iter().find(|report| report.job.id == job.id).unwrap();
        let store = if report.node_id.as_ref().unwrap().as_str() == "1" { &one.store } else { &two.store };
        assert_eq!(fs::read(place(store, report).join(number.to_string())).unwrap(), bytes(2000, number as u64));
    }
}

#[tokio::test]
async fn once_fetches_what_waits_and_ends() {
    let cluster = Cluster::start();
    let jobs = [cluster.offer_file("a", 10, 1).await, cluster.offer_file("b", 10, 2).await];
    assert!(cluster.configure("1", "", "").once().success());
    assert_eq!(cluster.reports().len(), jobs.len());
}

#[tokio::test]
async fn many_tiny_files_are_no_more_than_announced_however_slowly_they_come() {
    let cluster = Cluster::start();
    // Each takes a block of the disk: eight megabytes in all, for two thousand bytes.
    for number in 0..2000 {
        cluster.write(&format!("d/f{number}"), 1, number);
    }
    let job = cluster.job("d");
    cluster.offer(&job).await;
    let _puller = cluster.configure("1", "retry = 1", "[rsync]\nbwlimit = \"32KiB\"").start(&[]);
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert!(report.transfer.unwrap().seconds > 2.0, "looked at several times: {:?}", report.transfer);
}

#[tokio::test]
async fn what_a_killed_puller_had_written_beside_the_data_does_not_count_as_data() {
    let cluster = Cluster::start();
    cluster.write("d/a", 200_000, 1);
    let job = cluster.job("d");
    let config = cluster.configure("1", "retry = 1", "[rsync]\nbwlimit = \"64KiB\"");
    assert!(config.command(&["init"]).status().unwrap().success());
    // As after a kill between the manifest and the rename, of a folder with a long list.
    let left = config.store.join(".incoming").join(job.id.to_string()).join("backup");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join(".files.json"), vec![b' '; 3 << 20]).unwrap();
    fs::write(left.join("manifest.json"), "{}").unwrap();
    cluster.offer(&job).await;
    let puller = config.start(&[]);
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert_eq!(fs::read(place(&puller.store, &report).join("d/a")).unwrap(), bytes(200_000, 1));
}

#[tokio::test]
async fn with_a_rest_after_each_job_every_job_has_its_own() {
    let cluster = Cluster::start();
    for number in 0..3 {
        cluster.offer_file(&format!("f{number}"), 1000, number).await;
    }
    let _puller = cluster.configure("1", "slots = 1\nrest = \"500ms\"", "").start(&[]);
    wait_until("all are stored", SOON, async || cluster.reports().len() == 3).await;
    let at: Vec<i64> = cluster.reports().iter().map(|report| report.stored_at.0).collect();
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 500), "{at:?}");
}
