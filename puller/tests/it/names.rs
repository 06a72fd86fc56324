//! Names and jobs that a host could do harm with.

use std::fs;

use longshore_core::{Outcome, RelativePath};
use longshore_tests::wait_until;

use crate::cluster::{Cluster, SOON, bytes, files, place};

#[tokio::test]
async fn names_that_mean_something_elsewhere_are_just_names() {
    let names = [
        "a[1].xb",
        "st*r.xb",
        "que?y",
        "b lank .xb",
        "备份/库 1.xb",
        "back\\slash",
        "#hash",
        ";semi",
        "q'u\"ote",
        "~tilde",
        "do$llar",
        "per%cent",
        "c:olon",
        "x::y/z",
        "|pipe",
        "{brace}",
        "a1.xb",
    ];
    let cluster = Cluster::start();
    let mut jobs = Vec::new();
    for (number, name) in names.iter().enumerate() {
        jobs.push(cluster.offer_file(name, 500 + number, number as u64).await);
    }
    let puller = cluster.configure("1", "slots = 8", "[rsync]\nhost_limit = 8").start(&[]);
    for (number, (name, job)) in names.iter().zip(&jobs).enumerate() {
        let report = cluster.report_of(job).await;
        assert_eq!(report.outcome, Outcome::Stored, "{name}: {:?}", report.reason);
        let path = RelativePath::new(name).unwrap();
        let stored = fs::read(place(&puller.store, &report).join(path.name())).unwrap();
        assert_eq!(stored, bytes(500 + number, number as u64), "{name}");
    }
}

#[tokio::test]
async fn hostile_jobs_are_recorded_and_the_worker_lives() {
    let cluster = Cluster::start();
    cluster.write("good", 100, 1);
    let good = cluster.job("good");
    let mut connection = cluster.redis.connection();
    let mut push = |text: Vec<u8>| {
        let _: i64 = redis::cmd("LPUSH").arg("level1").arg(text).query(&mut connection).unwrap();
    };
    let mut hostile = 0;
    for (pointer, value) in [
        ("/source/path", serde_json::json!("../../../etc/shadow")),
        ("/source/path", serde_json::json!("/etc/shadow")),
        ("/source/path", serde_json::json!("a\nb")),
        ("/source/path", serde_json::json!("a\u{0}b")),
        ("/source/path", serde_json::json!("--rsh=touch /tmp/owned")),
        ("/source/path", serde_json::json!(7)),
        ("/source/address", serde_json::json!("-oProxyCommand=touch /tmp/owned")),
        ("/source/module", serde_json::json!("--config=/x")),
        ("/content/size_bytes", serde_json::json!("many")),
        ("/v", serde_json::json!(99)),
    ] {
        let mut job = serde_json::to_value(cluster.job("good")).unwrap();
        *job.pointer_mut(pointer).unwrap() = value;
        push(job.to_string().into_bytes());
        hostile += 1;
    }
    push(vec![0xff, 0xfe]);
    push(vec![b'x'; 10 << 20]);
    push(b"{}".to_vec());
    push(serde_json::to_vec(&good).unwrap());
    let puller = cluster.puller("1");
    assert_eq!(cluster.report_of(&good).await.outcome, Outcome::Stored);
    wait_until("each has its record", SOON, async || {
        cluster.reports().iter().filter(|report| report.outcome == Outcome::Refused).count() == hostile
    })
    .await;
    let dead: i64 = redis::cmd("ZCARD").arg("longshore:dead").query(&mut cluster.redis.connection()).unwrap();
    assert_eq!(dead, hostile as i64 + 3, "refused and undecodable ones are kept for a person");
    let stored: Vec<_> = files(&puller.store).into_iter().filter(|path| path.ends_with("good")).collect();
    assert_eq!(stored.len(), 1);
    assert!(puller.stop().await.success());
}

#[tokio::test]
async fn a_backup_cannot_take_the_manifests_name() {
    let cluster = Cluster::start();
    let names = ["manifest.json", "manifest.new", ".files.json"];
    let mut jobs = Vec::new();
    for name in names {
        jobs.push(cluster.offer_file(name, 10, 1).await);
    }
    let _puller = cluster.puller("1");
    for (name, job) in names.iter().zip(&jobs) {
        let report = cluster.report_of(job).await;
        assert_eq!((report.outcome, report.reason.unwrap().code.as_str()), (Outcome::Refused, "unsafe_path"), "{name}");
    }
}
