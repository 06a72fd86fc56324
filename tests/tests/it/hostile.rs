//! Whatever is pushed into an inbox: it is refused with a record, nothing leaves its place, and the next job is stored.

use std::{collections::BTreeSet, fs, time::Duration};

use longshore_core::{Outcome, ReasonCode};
use longshore_tests::{Cluster, ClusterOptions, wait_until_blocking};
use serde_json::{Value, json};

use crate::evidence::{Ledger, Maker, names_in, published};

const EXAMPLE: &str = include_str!("../../../core/fixtures/job-v1.json");

fn job(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut job: Value = serde_json::from_str(EXAMPLE).unwrap();
    job["id"] = longshore_core::JobId::fresh().to_string().into();
    change(&mut job);
    job.to_string().into_bytes()
}

#[test]
fn hostile_jobs_are_refused_with_a_record_and_the_next_one_is_stored() {
    let cluster = Cluster::start(ClusterOptions::default());
    let maker = Maker::install(&cluster, 1);
    let ledger = Ledger::sqlite(&cluster);
    let secret = cluster.host_dir().join("secret");
    fs::write(&secret, "not below the module").unwrap();
    let around = names_in(cluster.folder());

    let refused: Vec<Vec<u8>> = vec![
        job(|job| job["source"]["path"] = "../secret".into()),
        job(|job| job["source"]["path"] = "/etc/passwd".into()),
        job(|job| job["source"]["path"] = "--rsync-path=touch /tmp/x".into()),
        job(|job| job["source"]["path"] = "a\nb".into()),
        job(|job| job["source"]["path"] = "a\0b".into()),
        job(|job| job["source"]["address"] = "-oProxyCommand=touch x".into()),
        job(|job| job["source"]["address"] = "a b".into()),
        job(|job| job["source"]["module"] = "--config=/etc/passwd".into()),
        job(|job| job["source"]["transport"] = "telnet".into()),
        job(|job| job["content"]["size_bytes"] = json!(-1)),
        job(|job| job["content"]["size_bytes"] = json!("much")),
        job(|job| job["content"] = Value::Null),
        job(|job| job["chain"]["full"]["name"] = "../../x".into()),
        job(|job| job["v"] = json!(2)),
    ];
    let undecodable: Vec<Vec<u8>> = vec![
        b"\xff\xfe\x00".to_vec(),
        b"{".to_vec(),
        b"[1,2]".to_vec(),
        vec![b'x'; 10 << 20],
        format!("{{\"v\":1,\"x\":\"{}\"}}", "y".repeat(10 << 20)).into_bytes(),
        job(|job| job["server_id"] = "../..".into()),
        job(|job| job["instance"] = "a/b".into()),
    ];
    let mut redis = cluster.redis.connection();
    for bytes in refused.iter().chain(&undecodable) {
        redis::cmd("LPUSH").arg("level1").arg(&bytes[..]).exec(&mut redis).unwrap();
    }
    assert!(cluster.agent(&["run"]).status.success());

    maker_entry_is_stored(&ledger, &maker);
    let entries = ledger.entries().unwrap();
    let refusals: Vec<_> = entries.iter().filter(|entry| entry.report.outcome == Outcome::Refused).collect();
    assert_eq!(refusals.len(), refused.len(), "one record for each");
    assert!(refusals.iter().all(|entry| entry.report.reason.is_some() && entry.report.path.is_none()));
    let unsafe_paths =
        refusals.iter().filter(|entry| entry.report.reason.as_ref().unwrap().code == ReasonCode::UnsafePath);
    assert!(unsafe_paths.count() >= 8, "climbing paths and options are told from mere nonsense");
    let dead: u64 = redis::cmd("ZCARD").arg("longshore:dead").query(&mut redis).unwrap();
    assert_eq!(dead, (refused.len() + undecodable.len()) as u64, "all are kept for a person");

    assert_eq!(names_in(cluster.folder()), around, "nothing new beside the stores");
    assert_eq!(published(&cluster.store(0)).len(), 1);
    let unpublished: BTreeSet<_> = names_in(&cluster.store(0).join(".incoming"));
    assert_eq!(unpublished, BTreeSet::new());
}

fn maker_entry_is_stored(ledger: &Ledger, maker: &Maker) {
    let names = maker.names();
    assert_eq!(names.len(), 1);
    wait_until_blocking("the good job after them is stored", Duration::from_secs(60), || {
        ledger.entries().is_some_and(|entries| {
            entries
                .iter()
                .any(|entry| entry.is_good() && entry.report.job.name().is_some_and(|name| names.contains(name)))
        })
    });
}
