//! Nodes, queues, instances and the summary.

use std::time::Duration;

use longshore_core::{Job, queue::Level};
use reqwest::Method;
use serde_json::json;

use crate::server::{Server, beat, fixture, stored};

fn job(queue: &str) -> Job {
    let mut job: Job = serde_json::from_str(&fixture("job-v1.json")).unwrap();
    job.id = longshore_core::JobId::fresh();
    job.queue = queue.parse().unwrap();
    job
}

#[tokio::test]
async fn nodes_are_those_heard_of_and_those_only_registered() {
    let server = Server::start().await;
    server.queue.beat(&beat("5")).await.unwrap();
    server.post("/api/v1/nodes", json!({"node_id": "5", "weight": 0})).await;
    server.post("/api/v1/nodes", json!({"node_id": "6"})).await;
    let nodes = server.get("/api/v1/nodes").await;
    let (five, six) = (&nodes["items"][0], &nodes["items"][1]);
    assert_eq!((&five["silent"], &five["registered"]["weight"]), (&json!(false), &json!(0)));
    assert_eq!((&five["cluster"], &five["beat"]["serve"]), (&json!("default"), &json!("http://10.0.1.5:7481")));
    assert_eq!((&six["silent"], &six["beat"]), (&json!(true), &json!(null)));
    assert_eq!(server.get("/api/v1/nodes/6").await["node_id"], "6");
    server.problem(server.request(Method::GET, "/api/v1/nodes/7"), 404).await;
}

#[tokio::test]
async fn shares_stand_beside_weights_and_a_level_tells_how_long_it_lasts() {
    let server = Server::start().await;
    for (node, weight, stored) in [("5", 100, 300_000), ("6", 300, 100_000)] {
        let mut beat = beat(node);
        (beat.weight, beat.stored_last_hour_bytes) = (weight, stored);
        beat.by_queue = [("level1".parse().unwrap(), 1000)].into();
        server.queue.beat(&beat).await.unwrap();
    }
    server.post("/api/v1/nodes", json!({"node_id": "6", "weight": 300})).await;
    let nodes = server.get("/api/v1/nodes").await;
    let (five, six) = (&nodes["items"][0], &nodes["items"][1]);
    assert_eq!((&five["share_percent"], &five["weight_percent"]), (&json!(75.0), &json!(25.0)), "{nodes}");
    assert_eq!((&six["share_percent"], &six["weight_percent"]), (&json!(25.0), &json!(75.0)));
    assert_eq!((&five["weight_from"], &six["weight_from"]), (&json!("file"), &json!("registry")));
    assert_eq!(five["bytes_per_second"], 52_428_800);
    let mut large = job("level1");
    large.content.as_mut().unwrap().size_bytes = 7_200_000;
    for job in [large, job("level2")] {
        server.queue.offer(&job).await.unwrap();
        server.queue.admit(&[Level::new(job.queue.clone())], 1).await.unwrap();
    }
    let queues = server.get("/api/v1/queues").await;
    let levels = &queues["clusters"][0]["levels"];
    assert_eq!((&levels[0]["bytes_per_second"], &levels[0]["eta_seconds"]), (&json!(2000), &json!(3600)), "{queues}");
    assert_eq!((&levels[1]["bytes_per_second"], &levels[1]["eta_seconds"]), (&json!(0), &json!(null)));
}

#[tokio::test]
async fn a_node_that_stops_beating_becomes_silent() {
    let server = Server::start_with(|settings| settings.silent_after = "0s".parse().unwrap()).await;
    server.queue.beat(&beat("5")).await.unwrap();
    longshore_tests::wait_until("the node is called silent", Duration::from_secs(10), async || {
        server.get("/api/v1/nodes").await["items"][0]["silent"] == true
    })
    .await;
    assert_eq!(server.get("/api/v1/summary").await["clusters"][0]["nodes_silent"], 1);
}

#[tokio::test]
async fn queues_show_inbox_and_index_and_dead_letters_why() {
    let server = Server::start().await;
    server.queue.offer(&job("level1")).await.unwrap();
    server.queue.offer(&job("level1")).await.unwrap();
    server.queue.offer(&job("level2")).await.unwrap();
    let level = |name: &str| Level::new(name.parse().unwrap());
    server.queue.admit(&[level("level1")], 1).await.unwrap();
    let queues = server.get("/api/v1/queues").await;
    let levels = queues["clusters"][0]["levels"].as_array().unwrap();
    assert_eq!((&levels[0]["queue"], &levels[0]["waiting"]), (&json!("level1"), &json!(2)), "{queues}");
    assert_eq!(levels[1]["waiting"], 1);
    assert_eq!(server.get("/api/v1/summary").await["clusters"][0]["waiting"], 3);
    let mut client = redis_client(&server).await;
    let () = redis::cmd("LPUSH").arg("level2").arg("{not json").query_async(&mut client).await.unwrap();
    server.queue.admit(&[level("level2")], 10).await.unwrap();
    let letters = server.get("/api/v1/dead-letters").await;
    assert_eq!((&letters["total"], &letters["items"][0]["beginning"]), (&json!(1), &json!("{not json")));
    assert_eq!(letters["items"][0]["reason_code"], "malformed");
    server.problem(server.request(Method::GET, "/api/v1/dead-letters?cluster=none"), 404).await;
}

async fn redis_client(server: &Server) -> redis::aio::MultiplexedConnection {
    redis::Client::open(server.redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test]
async fn instances_are_those_that_reported_and_those_only_expected() {
    let server = Server::start().await;
    server
        .index(&[
            stored("111111/mysql/3306", Duration::from_secs(60)),
            stored("111111/mysql/3307", Duration::from_secs(20_000)),
        ])
        .await;
    server.post("/api/v1/businesses", json!({"business_id": "31", "name": "西游"})).await;
    server.post("/api/v1/types", json!({"name": "mysql"})).await;
    for instance in ["3306", "3308"] {
        let body = json!({"server_id": "111111", "type": "mysql", "instance": instance, "business_id": "31"});
        server.post("/api/v1/instances", body).await;
    }
    let standing = |list: &serde_json::Value| -> Vec<(String, String, bool)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let items = list["items"].as_array().unwrap();
        items.iter().map(|i| (text(&i["instance"]), text(&i["standing"]), i["registered"].as_bool().unwrap())).collect()
    };
    let all = server.get("/api/v1/instances").await;
    let wanted = [("3306", "fresh", true), ("3307", "late", false), ("3308", "never", true)];
    let wanted = wanted.map(|(instance, standing, registered)| (instance.to_owned(), standing.to_owned(), registered));
    assert_eq!(standing(&all), wanted);
    assert_eq!(standing(&server.get("/api/v1/instances?standing=late").await), wanted[1..]);
    assert_eq!(standing(&server.get("/api/v1/instances?standing=never").await), wanted[2..]);
    assert_eq!(standing(&server.get("/api/v1/instances?standing=fresh&type=mysql").await), wanted[..1]);
    assert!(standing(&server.get("/api/v1/instances?type=redis").await).is_empty());
    let counts = &server.get("/api/v1/summary").await["instances"];
    assert_eq!((&counts["late"], &counts["registered"]), (&json!(2), &json!(2)));
    assert_eq!(server.get("/api/v1/instances/111111/mysql/3308").await["standing"], "never");
    // The registry's interval wins over the jobs' hour.
    let change =
        server.request(Method::PATCH, "/api/v1/instances/111111/mysql/3306").json(&json!({"interval_seconds": 1}));
    server.json(change, 200).await;
    let one = server.get("/api/v1/instances/111111/mysql/3306").await;
    assert_eq!(one["interval_seconds"], 1);
}

#[tokio::test]
async fn an_unknown_instance_is_answered_with_the_nearest_known_ones() {
    let server = Server::start().await;
    server.index(&[stored("111111/mysql/3306", Duration::from_secs(60))]).await;
    for path in ["", "/chain", "/restore-plan"] {
        let request = server.request(Method::GET, &format!("/api/v1/instances/111111/mysql/3360{path}"));
        let problem = server.problem(request, 404).await;
        assert_eq!(problem["nearest"], json!(["111111/mysql/3306"]), "{path}");
    }
    server.problem(server.request(Method::GET, "/api/v1/instances/a%20b/mysql/1"), 400).await;
}

#[tokio::test]
async fn the_page_shows_nodes_queues_backups_and_late_instances() {
    let server = Server::start().await;
    server.queue.beat(&beat("5")).await.unwrap();
    server.queue.offer(&job("level1")).await.unwrap();
    let mut bad = stored("222222/redis/6379", Duration::from_secs(60));
    bad.outcome = longshore_core::Outcome::Failed;
    bad.reason =
        Some(longshore_core::report::Reason::new(longshore_core::ReasonCode::ScriptWrong, "<script>alert(1)</script>"));
    server.index(&[stored("111111/mysql/3306", Duration::from_secs(60)), bad]).await;
    let page = server.request(Method::GET, "/").send().await.unwrap().text().await.unwrap();
    for wanted in ["111111/mysql/3306", "222222/redis/6379", "level1", "claiming", "never", "70.0 MiB"] {
        assert!(page.contains(wanted), "{wanted} in {page}");
    }
    assert!(!page.contains("<script>alert"), "reasons come from hosts, and are escaped");
    for part in ["summary", "nodes", "queues", "backups", "late"] {
        let response = server.request(Method::GET, &format!("/page/{part}")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{part}");
        assert!(!response.text().await.unwrap().contains("<html"), "{part} is a part");
    }
    assert_eq!(server.request(Method::GET, "/page/none").send().await.unwrap().status().as_u16(), 404);
}
