//! The policy on its way through Redis.

use std::collections::BTreeMap;

use longshore_core::{
    Policy, ServerId,
    calendar::Shut,
    policy::{HostRule, POLICY_VERSION},
    queue::{Idle, Level, Order, Published, Ruled},
};
use serde_json::json;

use crate::cluster::{Cluster, ROOM, idle, job};

fn policy(version: u64, node: &str) -> Policy {
    let mut policy = Policy { v: POLICY_VERSION, version, ..Policy::default() };
    policy.rules.nodes.insert(node.parse().unwrap(), Default::default());
    policy
}

#[tokio::test]
async fn a_policy_is_never_lowered() {
    let cluster = Cluster::start();
    let queue = &cluster.queue;
    assert_eq!((queue.policy_version().await.unwrap(), queue.policy().await.unwrap()), (None, None));
    for _ in 0..2 {
        assert_eq!(queue.publish_policy(&policy(10, "a")).await.unwrap(), Published::There, "also repeated");
    }
    assert_eq!(queue.publish_policy(&policy(10, "b")).await.unwrap(), Published::Outrun { version: 10 });
    assert_eq!(queue.publish_policy(&policy(9, "b")).await.unwrap(), Published::Outrun { version: 10 });
    assert_eq!(Policy::read(&queue.policy().await.unwrap().unwrap()).unwrap(), policy(10, "a"));
    assert_eq!(queue.publish_policy(&policy(11, "b")).await.unwrap(), Published::There);
    assert_eq!(queue.policy_version().await.unwrap(), Some(11));
}

fn rules(json: serde_json::Value) -> BTreeMap<ServerId, HostRule> {
    serde_json::from_value(json).unwrap()
}

#[tokio::test]
async fn hosts_rules_are_put_into_force_and_taken_back() {
    let cluster = Cluster::start();
    let (queue, mut done) = (&cluster.queue, Ruled::default());
    let none = BTreeMap::new();
    cluster.admit(&[job("a", "h", 1), job("a", "h", 1), job("a", "h", 1)]).await;
    queue.rule_hosts(&rules(json!({"h": {"transfers": 1}})), &none, &mut done).await.unwrap();
    cluster.lease("n", &["a"]).await;
    assert_eq!(idle(cluster.claim("n", &["a"], ROOM).await), Idle::HostsBusy);
    queue.rule_hosts(&rules(json!({"h": {"transfers": 2}})), &none, &mut done).await.unwrap();
    cluster.lease("n", &["a"]).await;

    let shut: BTreeMap<ServerId, Shut> =
        serde_json::from_value(json!({"h": {"window": "never", "until": null}})).unwrap();
    queue.rule_hosts(&rules(json!({"h": {"window": "never"}})), &shut, &mut done).await.unwrap();
    assert_eq!(idle(cluster.claim("n", &["a"], ROOM).await), Idle::HostsBusy);
    // What Redis lost is put into force again.
    let _: u64 = cluster.redis(&["DEL", "longshore:ruled_hosts", "longshore:host:h"]);
    queue.rule_hosts(&rules(json!({"h": {"window": "never"}})), &shut, &mut done).await.unwrap();
    assert_eq!(idle(cluster.claim("n", &["a"], ROOM).await), Idle::HostsBusy);
    // A process that starts takes back what nobody says any more.
    queue.rule_hosts(&rules(json!({})), &none, &mut Ruled::default()).await.unwrap();
    cluster.lease("n", &["a"]).await;
    assert_eq!(cluster.keys("ruled"), Vec::<String>::new());
}

#[tokio::test]
async fn a_rule_that_redis_lost_with_its_last_second_is_put_into_force_again() {
    let cluster = Cluster::start();
    let (queue, mut done, none) = (&cluster.queue, Ruled::default(), BTreeMap::new());
    let (before, now) = (rules(json!({"h": {"transfers": 2}})), rules(json!({"h": {"transfers": 1}})));
    queue.rule_hosts(&before, &none, &mut done).await.unwrap();
    let (record, limits) = ("longshore:ruled_hosts", "longshore:host:h");
    let word: String = cluster.redis(&["HGET", record, "h"]);
    queue.rule_hosts(&now, &none, &mut done).await.unwrap();
    let _: u64 = cluster.redis(&["HSET", record, "h", &word]);
    let _: u64 = cluster.redis(&["HSET", limits, "transfers", "2"]);
    queue.rule_hosts(&now, &none, &mut done).await.unwrap();
    assert_eq!(cluster.redis::<String>(&["HGET", limits, "transfers"]), "1");
}

#[tokio::test]
async fn nodes_that_are_told_different_things_do_not_undo_each_other_for_ever() {
    let cluster = Cluster::start();
    let record = || cluster.redis::<String>(&["HGET", "longshore:ruled_hosts", "h"]);
    let (mut one, mut other) = (Ruled::default(), Ruled::default());
    let (ones, others) = (rules(json!({"h": {"transfers": 1}})), rules(json!({"h": {"transfers": 5}})));
    let none = BTreeMap::new();
    for _ in 0..3 {
        cluster.queue.rule_hosts(&ones, &none, &mut one).await.unwrap();
        cluster.queue.rule_hosts(&others, &none, &mut other).await.unwrap();
    }
    assert!(record().contains('5'), "each said it once: {}", record());
    // A word that is taken back and said again is news.
    cluster.queue.rule_hosts(&others, &none, &mut one).await.unwrap();
    cluster.queue.rule_hosts(&ones, &none, &mut one).await.unwrap();
    assert!(record().contains('1'), "{}", record());
}

#[tokio::test]
async fn a_changed_order_places_waiting_jobs_anew() {
    let cluster = Cluster::start();
    let mut late = job("a", "h1", 1);
    late.interval_seconds = 86_400;
    let mut soon = job("a", "h2", 1);
    soon.interval_seconds = 60;
    cluster.admit(&[late.clone(), soon.clone()]).await;
    let mut done = Ruled::default();
    let level = Level { order: Order::Deadline, ..Level::new("a".parse().unwrap()) };
    for _ in 0..2 {
        cluster.queue.rule_levels(std::slice::from_ref(&level), &mut done).await.unwrap();
    }
    assert_eq!(cluster.lease("n", &["a"]).await.job.id, soon.id);
}
