//! What operators set, as a running puller obeys it: with Redis and the dashboard away too.

use longshore_core::{NodeBeat, Policy, policy::POLICY_VERSION};
use longshore_tests::wait_until;
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON};

impl Cluster {
    /// What the dashboard does.
    async fn publish(&self, version: u64, rules: Value) {
        let rules = serde_json::from_value(rules).unwrap();
        self.queue.publish_policy(&Policy { v: POLICY_VERSION, version, rules }).await.unwrap();
    }

    async fn node_beats(&self, what: &str, wanted: impl Fn(&NodeBeat) -> bool) {
        wait_until(what, SOON, async || {
            let nodes = self.queue.nodes().await.unwrap_or_default();
            nodes.iter().any(|(beat, _)| wanted(beat))
        })
        .await;
    }
}

#[tokio::test]
async fn the_last_good_policy_outlives_redis_and_the_process() {
    let cluster = Cluster::start();
    cluster.publish(7, json!({"nodes": {"n1": {"weight": 3, "bandwidth": "40MB/s"}}})).await;
    let puller = cluster.puller("n1");
    let obeys = |beat: &NodeBeat| (beat.weight, beat.bandwidth, beat.policy) == (3, Some(40_000_000), Some(7));
    cluster.node_beats("the policy is obeyed", obeys).await;
    let kept = std::fs::read_to_string(puller.store.join(".policy.json")).unwrap();
    assert_eq!(Policy::read(&kept).unwrap().version, 7);

    let () = redis::cmd("FLUSHALL").query(&mut cluster.redis.connection()).unwrap();
    cluster.node_beats("it is obeyed after Redis lost it", obeys).await;
    puller.stop().await;
    let () = redis::cmd("FLUSHALL").query(&mut cluster.redis.connection()).unwrap();
    let _puller = cluster.puller("n1");
    cluster.node_beats("it is obeyed by the next process", obeys).await;

    // Redis may have an older copy again; what it has counts, and the dashboard will mend it.
    cluster.publish(6, json!({})).await;
    cluster
        .node_beats("its file decides where nothing is said", |beat| beat.weight == 100 && beat.policy == Some(6))
        .await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_changes_nothing_and_is_told() {
    let cluster = Cluster::start();
    cluster.publish(1, json!({"nodes": {"n1": {"weight": 3}}})).await;
    let _puller = cluster.puller("n1");
    cluster.node_beats("the policy is obeyed", |beat| beat.weight == 3).await;
    for (version, body, wanted) in [
        (2, r#"{"v":1,"version":2,"rules":{"nodes":{"n1":{"weight":-1}}}}"#, "rules.nodes.n1.weight"),
        (3, r#"{"v":9,"version":3,"rules":{}}"#, "form 9"),
        (4, "{", "EOF"),
    ] {
        let mut set = redis::cmd("HSET");
        set.arg("longshore:policy").arg("version").arg(version).arg("body").arg(body);
        let () = set.query(&mut cluster.redis.connection()).unwrap();
        let told = |beat: &NodeBeat| beat.last_error.as_ref().is_some_and(|error| error.contains(wanted));
        cluster.node_beats("what is wrong is told", told).await;
        cluster.node_beats("the last good one stays", |beat| beat.weight == 3 && beat.policy == Some(1)).await;
    }
    cluster.publish(5, json!({"nodes": {"n1": {"weight": 4}}})).await;
    cluster.node_beats("the next good one is obeyed", |beat| beat.weight == 4).await;
}
