//! Starting, being looked at, ending.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::Output,
    time::{Duration, SystemTime},
};

use longshore_core::Outcome;
use longshore_tests::wait_until;
use rustix::process::Signal;

use crate::cluster::{Cluster, SOON, incoming};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn jobs_are_admitted_while_every_slot_is_busy() {
    let cluster = Cluster::start();
    let first = cluster.offer_file("a", 30_000_000, 1).await;
    let puller = cluster.configure("1", "slots = 1", "[rsync]\nbwlimit = \"64KiB\"").start(&[]);
    wait_until("it runs", SOON, async || puller.store.exists() && !incoming(&puller.store).is_empty()).await;
    let second = cluster.offer_file("b", 1000, 2).await;
    let level = [second.queue.clone()];
    wait_until("the second is admitted", SOON, async || cluster.queue.depths(&level).await.unwrap()[0].ready == 1)
        .await;
    let [lease] = &cluster.queue.leases().await.unwrap()[..] else { panic!("one transfer") };
    assert_eq!(lease.job, first.id);
}

#[tokio::test]
async fn term_lets_a_transfer_finish_and_claims_no_more() {
    let cluster = Cluster::start();
    let first = cluster.offer_file("a", 6_000_000, 1).await;
    let config = cluster.configure("1", "slots = 1\ndrain = \"30s\"", "[rsync]\nbwlimit = \"3MiB\"");
    let puller = config.start(&[]);
    wait_until("it runs", SOON, async || puller.store.exists() && !incoming(&puller.store).is_empty()).await;
    let second = cluster.offer_file("b", 1000, 2).await;
    puller.process.signal(Signal::TERM);
    assert!(puller.ended().await.success());
    let reports = cluster.reports();
    assert_eq!(reports.iter().map(|report| report.job.id).collect::<Vec<_>>(), [first.id]);
    assert_eq!(reports[0].outcome, Outcome::Stored);
    assert!(config.once().success());
    assert_eq!(cluster.report_of(&second).await.outcome, Outcome::Stored);
}

#[tokio::test]
async fn a_node_that_idles_hears_of_a_new_job_at_once_and_listens_again_after_a_cut() {
    let cluster = Cluster::start();
    let puller = cluster.puller("1");
    let mut connection = cluster.redis.connection();
    let mut listeners = || -> i64 {
        let counted: (String, i64) =
            redis::cmd("PUBSUB").arg("NUMSUB").arg("longshore:wake").query(&mut connection).unwrap();
        counted.1
    };
    wait_until("it listens", SOON, async || listeners() == 1).await;
    let killed: i64 =
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query(&mut cluster.redis.connection()).unwrap();
    assert_eq!(killed, 1);
    wait_until("it listens again", SOON, async || listeners() == 1).await;
    let empty = "longshore_puller_claims_total{answer=\"empty\"}";
    let mut waits = Vec::new();
    for number in 0..5 {
        // By now it asks every other second.
        let before = puller.metric(empty).await;
        wait_until("it idles", SOON, async || puller.metric(empty).await >= before + 5.0).await;
        let offered = std::time::Instant::now();
        let job = cluster.offer_file(&format!("f{number}"), 100, number).await;
        wait_until("it is begun", SOON, async || {
            puller.log().contains(&job.id.to_string()) || !cluster.queue.leases().await.unwrap().is_empty()
        })
        .await;
        waits.push(offered.elapsed());
    }
    waits.sort();
    assert!(waits[2] < std::time::Duration::from_millis(500), "{waits:?}: as if nobody had told it");
}

#[tokio::test]
async fn the_heartbeat_shows_what_runs_and_status_reads_it() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 40_000_000, 1).await;
    let config = cluster.configure("1", "weight = 70", "[rsync]\nbwlimit = \"2MiB\"");
    let puller = config.start(&[]);
    wait_until("a beat shows the transfer with bytes", SOON, async || {
        let nodes = cluster.queue.nodes().await.unwrap();
        nodes.iter().any(|(beat, _)| beat.running.iter().any(|one| one.job == job.id && one.bytes > 0))
    })
    .await;
    let (beat, _) = cluster.queue.nodes().await.unwrap().remove(0);
    assert_eq!((beat.weight, beat.paused.as_deref(), beat.rsync_version.is_empty()), (70, None, false));
    assert!(beat.disk.free_bytes > 0 && beat.disk.promised_bytes > 0);
    assert_eq!(beat.serve.unwrap(), format!("http://127.0.0.1:{}", puller.serve));
    let shown = config.command(&["status"]).output().unwrap();
    assert!(shown.status.success() && text(&shown).contains("111111/mysql/3306"), "{}", text(&shown));
    let health = reqwest::get(format!("http://127.0.0.1:{}/healthz", puller.status)).await.unwrap();
    assert_eq!(health.json::<serde_json::Value>().await.unwrap()["status"], "ok");
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", puller.status)).await.unwrap();
    assert!(metrics.text().await.unwrap().contains("longshore_puller_running 1"));
}

#[tokio::test]
async fn check_tells_all_that_is_wrong_and_starts_nothing() {
    let cluster = Cluster::start();
    let good = cluster.configure("1", "", "");
    let output = good.command(&["check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!good.store.exists(), "a check makes nothing");
    let bad = cluster.configure("2", "", "[rsync]\nprogram = \"/nonexistent/rsync\"");
    fs::create_dir_all(&bad.store).unwrap();
    fs::write(bad.store.join("something"), "").unwrap();
    fs::write(&bad.config, fs::read_to_string(&bad.config).unwrap().replace(&cluster.redis.address(), "127.0.0.1:1"))
        .unwrap();
    let output = bad.command(&["check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    for word in ["/nonexistent/rsync", "redis 127.0.0.1:1"] {
        assert!(text(&output).contains(word), "{word}: {}", text(&output));
    }
    let run = bad.command(&[]).output().unwrap();
    assert_eq!(run.status.code(), Some(78));
}

#[tokio::test]
async fn a_folder_without_its_marker_is_never_written_to() {
    let cluster = Cluster::start();
    let config = cluster.configure("1", "", "");
    assert!(config.command(&["init"]).status().unwrap().success());
    assert!(config.once().success());
    // As after an unmount: the folder is there, and what was in it is not.
    fs::remove_dir_all(&config.store).unwrap();
    fs::create_dir_all(config.store.join("lost")).unwrap();
    cluster.offer_file("a", 100, 1).await;
    let output = config.command(&["once"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains("longshore-puller init"), "{}", text(&output));
    assert_eq!(fs::read_dir(&config.store).unwrap().count(), 1);
}

#[tokio::test]
async fn a_marker_that_goes_away_while_it_runs_pauses_the_node() {
    let cluster = Cluster::start();
    let puller = cluster.puller("1");
    let marker = puller.store.join(".longshore-store");
    wait_until("it runs", SOON, async || !cluster.queue.nodes().await.unwrap().is_empty()).await;
    let aside = cluster.folder.path().join("marker");
    fs::rename(&marker, &aside).unwrap();
    wait_until("it pauses", SOON, async || {
        let nodes = cluster.queue.nodes().await.unwrap();
        nodes[0].0.paused.as_deref().is_some_and(|why| why.contains(".longshore-store"))
    })
    .await;
    let job = cluster.offer_file("a", 100, 1).await;
    fs::rename(&aside, &marker).unwrap();
    assert_eq!(cluster.report_of(&job).await.outcome, Outcome::Stored);
}

#[tokio::test]
async fn the_seeds_own_file_runs_with_places_overridden_by_the_environment() {
    let cluster = Cluster::start();
    let job = cluster.offer_file("a", 100, 1).await;
    let config = cluster.folder.path().join("uuzuback.conf");
    fs::write(&config, include_str!("../../fixtures/seed-server.conf")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_longshore-puller"));
    let store = cluster.folder.path().join("seed-store");
    let output = command
        .args(["once", "-c"])
        .arg(&config)
        .env("LONGSHORE__STORE__PATH", &store)
        .env("LONGSHORE__STORE__RESERVE", "1%")
        .env("LONGSHORE__REDIS__ADDRESS", cluster.redis.address())
        .env("LONGSHORE__LOG__FILE", cluster.folder.path().join("log"))
        .env("LONGSHORE__LOG__ERROR_FILE", cluster.folder.path().join("errors"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report = cluster.report_of(&job).await;
    assert_eq!(report.node_id.unwrap().as_str(), "5");
}

#[tokio::test]
async fn partials_that_nobody_came_back_for_are_swept_at_the_start_and_others_stay() {
    let cluster = Cluster::start();
    let config = cluster.configure("1", "", "");
    assert!(config.command(&["init"]).status().unwrap().success());
    let left = |age: Duration| {
        let job = longshore_core::JobId::fresh().to_string();
        let folder = config.store.join(".incoming").join(&job);
        fs::create_dir_all(folder.join("backup")).unwrap();
        fs::write(folder.join("backup/x"), "partial").unwrap();
        fs::File::open(folder).unwrap().set_modified(SystemTime::now() - age).unwrap();
        job
    };
    let old = left(Duration::from_secs(80 * 3600));
    let young = left(Duration::from_secs(3600));
    let puller = config.start(&[]);
    wait_until("the old one is gone", SOON, async || !incoming(&puller.store).contains(&old)).await;
    assert_eq!(incoming(&puller.store), [young]);
}

#[tokio::test]
async fn the_service_manager_is_told_of_the_start_and_of_the_end() {
    let cluster = Cluster::start();
    let path = cluster.folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let heard = |wanted: &str| {
        let mut buffer = [0; 256];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            if String::from_utf8_lossy(&buffer[..length]).contains(wanted) {
                return;
            }
        }
    };
    let puller = cluster.configure("1", "", "").start(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    heard("READY=1");
    heard("WATCHDOG=1");
    puller.process.signal(Signal::TERM);
    heard("STOPPING=1");
    assert!(puller.ended().await.success());
}
