//! What operators set, on its way into Redis.

use std::time::Duration;

use longshore_core::{Policy, policy::POLICY_VERSION};
use longshore_tests::wait_until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::Server;

async fn in_redis(server: &Server) -> Option<Policy> {
    server.queue.policy().await.unwrap().and_then(|body| Policy::read(&body).ok())
}

/// Waits until Redis has what `wanted` accepts.
async fn published(server: &Server, wanted: impl Fn(&Value) -> bool) -> Policy {
    let mut found = None;
    wait_until("the policy is published", Duration::from_secs(20), async || {
        found = in_redis(server).await.filter(|policy| wanted(&serde_json::to_value(&policy.rules).unwrap()));
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn every_kind_of_rule_reaches_redis_at_once_and_with_a_greater_version() {
    let server = Server::start().await;
    let mut version = published(&server, |rules| rules["nodes"].is_null()).await.version;
    for (path, body, pointer, value) in [
        ("nodes", json!({"node_id": "store1", "weight": 0, "bandwidth": "40MB/s"}), "/nodes/store1/weight", json!(0)),
        ("types", json!({"name": "mysql", "copies": 2, "verify": "reread"}), "/types/mysql/verify", json!("reread")),
        ("clusters", json!({"cluster_id": "default", "bandwidth": "1GB/s"}), "/cluster/bandwidth", json!("1GB/s")),
        (
            "policy/queues",
            json!({"queue": "level1", "max_wait": "2h", "order": "deadline", "window": "22:00-06:00", "urgent": true}),
            "/queues/level1/window",
            json!("22:00-06:00 UTC"),
        ),
        (
            "policy/hosts",
            json!({"server_id": 111111, "transfers": 1, "starts_per_second": 5, "modules": {"mysql": 1}}),
            "/hosts/111111/modules/mysql",
            json!(1),
        ),
    ] {
        server.post(&format!("/api/v1/{path}"), body).await;
        let policy = published(&server, |rules| rules.pointer(pointer) == Some(&value)).await;
        assert!(policy.version > version, "{path}: {} after {version}", policy.version);
        version = policy.version;
    }
    let shown = server.get("/api/v1/policy").await["items"][0].clone();
    assert_eq!((&shown["cluster"], &shown["version"]), (&json!("default"), &json!(version)));
    assert_eq!(shown["rules"]["nodes"]["store1"], json!({"weight": 0, "bandwidth": "40MB/s"}));
    server.request(Method::DELETE, "/api/v1/policy/queues/level1").send().await.unwrap();
    published(&server, |rules| rules["queues"].is_null()).await;
    let null = json!({"weight": null});
    server.json(server.request(Method::PATCH, "/api/v1/nodes/store1").json(&null), 200).await;
    published(&server, |rules| rules["nodes"]["store1"] == json!({"bandwidth": "40MB/s"})).await;
}

#[tokio::test]
async fn a_value_that_is_no_rule_is_refused_and_named() {
    let server = Server::start().await;
    for (path, body, wanted) in [
        ("nodes", json!({"node_id": "n", "bandwidth": "40MB"}), "ends with /s"),
        ("nodes", json!({"node_id": "n", "window": "22:00-06:00 Europe/Berlim"}), "Europe/Berlim"),
        ("policy/queues", json!({"queue": "q", "copies": 3}), "copies"),
        ("policy/queues", json!({"queue": "q", "order": "size"}), "order"),
        ("policy/queues", json!({"queue": "q", "max_wiat": "2h"}), "max_wiat"),
        ("policy/hosts", json!({"server_id": "h", "transfers": 0}), "transfers"),
        ("policy/hosts", json!({"server_id": "h", "modules": {"../x": 1}}), "modules"),
        ("policy/hosts", json!({"server_id": "h", "starts_per_second": -1}), "starts_per_second"),
    ] {
        let request = server.request(Method::POST, &format!("/api/v1/{path}")).json(&body);
        let problem = server.problem(request, 422).await;
        assert!(problem["detail"].as_str().unwrap().contains(wanted), "{body}: {problem}");
    }
}

#[tokio::test]
async fn a_redis_that_lost_it_gets_it_again_and_a_greater_version_there_is_outrun() {
    let server = Server::start().await;
    server.post("/api/v1/nodes", json!({"node_id": "store1", "weight": 3})).await;
    let first = published(&server, |rules| rules["nodes"]["store1"]["weight"] == 3).await;
    let () = redis::cmd("FLUSHALL").query(&mut server.redis.connection()).unwrap();
    let again = published(&server, |rules| rules["nodes"]["store1"]["weight"] == 3).await;
    assert_eq!(again, first);
    // As after a registry was restored from an old copy.
    let other = Policy { v: POLICY_VERSION, version: 1000, ..Policy::default() };
    server.queue.publish_policy(&other).await.unwrap();
    let over = published(&server, |rules| rules["nodes"]["store1"]["weight"] == 3).await;
    assert_eq!(over.version, 1001);
}
